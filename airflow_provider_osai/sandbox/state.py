"""The state of a sandbox behind one lock: accounts, datasets, models and jobs, and rules that involve several."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from airflow_provider_osai.api.addresses import is_loopback_url
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import ConversionRequest, JobRequest
from airflow_provider_osai.sandbox.auth import Accounts
from airflow_provider_osai.sandbox.datasets import Datasets
from airflow_provider_osai.sandbox.job_runner import JobRunner
from airflow_provider_osai.sandbox.jobs import Jobs, dataset_ids_of
from airflow_provider_osai.sandbox.models import ApiError, JobRecord, ModelRecord
from airflow_provider_osai.sandbox.persistence import FolderStore, Store
from airflow_provider_osai.sandbox.scenarios import Script

__all__ = ["SandboxState"]


class SandboxState:
    """The state of one sandbox. Images and converted models are stored in a temporary folder until :meth:`close`.

    With a *folder*, datasets, models and jobs are stored there too, before the client gets its response: the next state
    with the same folder continues with them, even after a SIGKILL. Queued and running jobs start over as soon as an
    app starts; other jobs continue by their reads or by time. As with a real server, all JWTs become invalid (401) and
    pending webhooks are lost. Scripts, armed faults and the record of requests are not stored.

    :param folder: created if it does not exist. For one sandbox at a time, and only a folder of your own, since its
        contents are trusted (see :mod:`~airflow_provider_osai.sandbox.persistence`). Default: a temporary folder
        without records.
    :param access_token: the only valid access token; default: generated.
    :param token_lifetime: lifetime of a JWT in seconds.
    :param single_session: whether a new sign-in revokes earlier JWTs.
    :param quoted_jwt: whether the sign-in returns the JWT in quotes.
    :param idle_unlock: seconds without an image after which an open upload no longer locks its dataset.
    :param workers: maximum number of concurrent jobs.
    :param clock: returns the seconds since the epoch.
    :param new_id: returns a new id; default: 12 hexadecimal digits.
    """

    def __init__(
        self,
        *,
        folder: str | Path | None = None,
        access_token: str | None = None,
        token_lifetime: float = 3600.0,
        single_session: bool = False,
        quoted_jwt: bool = True,
        idle_unlock: float = 900.0,
        workers: int = 2,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        self.access_token = access_token or f"sandbox-{secrets.token_urlsafe(24)}"
        self.quoted_jwt = quoted_jwt
        self.clock = clock
        self.new_id = new_id
        self.lock = threading.RLock()
        self.store = Store() if folder is None else FolderStore(Path(folder))
        self.folder = self.store.files
        self.accounts = Accounts(
            self.access_token, lifetime=token_lifetime, single_session=single_session, clock=clock, new_id=new_id
        )
        self.datasets = Datasets(self.store, lock=self.lock, idle_unlock=idle_unlock, clock=clock, new_id=new_id)
        self.models = {model.id: model for _, model in self.store.load(ModelRecord)}
        for model in self.models.values():
            model.files = {target: self.folder / path.name for target, path in model.files.items()}
        self.jobs = Jobs(JobRunner(self), self.store, workers=workers, lock=self.lock, clock=clock, new_id=new_id)
        files = {path.name for model in self.models.values() for path in model.files.values()}
        self.store.remove_unknown_files(files | {dataset.id for dataset in self.datasets.find(None)})

    def model(self, model_id: str) -> ModelRecord:
        """Return a model.

        :raises ApiError: 404, if it does not exist.
        """
        with self.lock:
            if model_id not in self.models:
                raise ApiError(404, f"Model {model_id} does not exist")
            return self.models[model_id]

    def save_model(self, model: ModelRecord) -> None:
        """Add a model, or save its changes."""
        with self.lock:
            model.created_at = model.created_at or self.clock()
            self.models[model.id] = model
            self.store.save(model)

    def converted_file(self, model_id: str, target: str | None) -> Path:
        """Return the model's file for *target*, which is optional if there is only one file.

        :raises ApiError: 404, if there is no such file.
        """
        with self.lock:
            files = self.model(model_id).files
            if not target and len(files) == 1:
                return next(iter(files.values()))
            path = files.get((target or "").casefold())
        if path is None:
            targets = ", ".join(sorted(files)) or "none"
            missing = f"has no conversion for target {target!r}" if target else "needs a target"
            raise ApiError(404, f"Model {model_id} {missing}; available targets: {targets}")
        return path

    def file_of_conversion(self, conversion_id: str) -> Path:
        """Return the file that a conversion made.

        :raises ApiError: 404, if there is no such file.
        """
        for job in self.jobs.all_jobs():
            ids = (job.id, (job.result or {}).get("conversionId"))
            if isinstance(job.request, ConversionRequest) and conversion_id in ids:
                return self.converted_file(job.request.model_id, job.request.target)
        raise ApiError(404, f"There is no conversion {conversion_id}")

    def written_file(self, job_id: str) -> Path | None:
        """Return the file that a conversion's job has written; ``None`` if there is none (yet)."""
        with self.lock:
            for job in self.jobs.all_jobs():
                if job.id == job_id and isinstance(job.request, ConversionRequest) and job.state is JobState.SUCCEEDED:
                    model = self.models.get(job.request.model_id)
                    return None if model is None else model.files.get(job.request.target.casefold())
        return None

    def conversions(self, model_id: str) -> list[JobRecord]:
        """Return all conversion jobs of a model, oldest first.

        :raises ApiError: 404, if the model does not exist.
        """
        with self.lock:
            self.model(model_id)
            return [
                job
                for job in self.jobs.all_jobs()
                if isinstance(job.request, ConversionRequest) and job.request.model_id == model_id
            ]

    def submit(
        self,
        request: JobRequest,
        script: Script | None = None,
        *,
        reference: str | None = None,
        webhook_url: str | None = None,
    ) -> JobRecord:
        """Submit a job.

        :raises ApiError: 404, if its datasets or model do not exist; 409, if a dataset is locked; 400, if its webhook
            is not on this machine.
        """
        if webhook_url is not None and not is_loopback_url(webhook_url):
            raise ApiError(400, "webhookUrl: the sandbox calls loopback addresses only")
        with self.lock:
            for dataset_id in dataset_ids_of(request):
                self.datasets.get_unlocked(dataset_id)
            model_id = getattr(request, "model_id", None)
            if model_id:
                self.model(model_id)
            return self.jobs.submit(request, script or Script(), reference=reference, webhook_url=webhook_url)

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset.

        :raises ApiError: 404, if it does not exist; 409, if it is locked or a job uses it.
        """
        with self.lock:
            self.datasets.get_unlocked(dataset_id)
            if self.jobs.uses_dataset(dataset_id):
                raise ApiError(409, f"Dataset {dataset_id} is used by a job; cancel the job first")
            self.datasets.delete(dataset_id)

    def reset(self) -> None:
        """Delete jobs, models and datasets. JWTs stay valid."""
        with self.lock:
            self.store.clear()
            self.jobs.clear()
            self.datasets.clear()
            for model in self.models.values():
                for path in model.files.values():
                    path.unlink(missing_ok=True)
            self.models = {}

    def close(self) -> None:
        """Stop the workers, and delete the folder if it is temporary."""
        self.jobs.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
