"""Everything that one sandbox knows, behind one lock. The rules are in the parts; here is what joins them."""

from __future__ import annotations

import ipaddress
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from airflow_provider_osai.api.requests import ConversionRequest, JobRequest
from airflow_provider_osai.sandbox.accounts import Accounts
from airflow_provider_osai.sandbox.datasets import Datasets
from airflow_provider_osai.sandbox.jobs import Jobs, datasets_of
from airflow_provider_osai.sandbox.records import JobRecord, ModelRecord, Refused
from airflow_provider_osai.sandbox.scripts import Script
from airflow_provider_osai.sandbox.store import FolderStore, Store
from airflow_provider_osai.sandbox.work import Work

__all__ = ["SandboxState"]


class SandboxState:
    """A sandbox's memory and rules; images and converted models lie in a temporary folder until :meth:`close`.

    With a *folder*, datasets, models and jobs lie there too, written before a client has its answer: the next state of
    the same folder goes on with them, even after a SIGKILL. What was queued or worked on starts over as soon as an app
    starts; other jobs go on by their reads or by the clock. As with a real server, nobody is signed in any more (401),
    and a webhook that was about to be sent is lost. Nor does the folder have what control was told and has seen:
    scripts for jobs to come, armed faults, the record of requests.

    :param folder: is made if it is missing; for one sandbox at a time, and only a folder of your own: what is in it is
        trusted (see :mod:`~airflow_provider_osai.sandbox.store`). A temporary one without records if left out.
    :param access_token: the only token that signs in; made up if left out.
    :param token_lifetime: seconds that a JWT lives.
    :param single_session: whether signing in anew ends older JWTs.
    :param quoted_jwt: whether the sign-in answers the JWT in quotes.
    :param idle_unlock: seconds after which a forgotten upload unlocks its dataset.
    :param workers: how many jobs are worked on at once.
    :param clock: seconds since the epoch.
    :param new_id: makes ids; short hexadecimal ones if left out.
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
        self.quoted_jwt, self.clock, self.new_id = quoted_jwt, clock, new_id
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
        self.jobs = Jobs(Work(self), self.store, workers=workers, lock=self.lock, clock=clock, new_id=new_id)
        files = {path.name for model in self.models.values() for path in model.files.values()}
        self.store.sweep(files | {dataset.id for dataset in self.datasets.find(None)})

    def model(self, model_id: str) -> ModelRecord:
        """Return a model; 404 if there is none."""
        with self.lock:
            if model_id not in self.models:
                raise Refused(404, f"there is no model {model_id}")
            return self.models[model_id]

    def add_model(self, model: ModelRecord) -> None:
        """Remember a model, or what has changed of it."""
        with self.lock:
            model.created_at = model.created_at or self.clock()
            self.models[model.id] = model
            self.store.keep(model)

    def converted(self, model_id: str, target: str | None) -> Path:
        """Return the model's file for *target*, which may be left out if there is only one."""
        with self.lock:
            files = self.model(model_id).files
            if not target and len(files) == 1:
                return next(iter(files.values()))
            path = files.get((target or "").casefold())
        if path is None:
            known = ", ".join(sorted(files)) or "nothing"
            raise Refused(404, f"model {model_id} is not converted for {target or 'what you want'}; it is for: {known}")
        return path

    def conversions(self, model_id: str) -> list[JobRecord]:
        """Return the jobs that convert a model, or have; 404 if there is no such model."""
        with self.lock:
            self.model(model_id)
            jobs = self.jobs.everything()
            return [j for j in jobs if isinstance(j.request, ConversionRequest) and j.request.model_id == model_id]

    def submit(
        self,
        request: JobRequest,
        script: Script | None = None,
        *,
        reference: str | None = None,
        webhook_url: str | None = None,
    ) -> JobRecord:
        """Take a job if what it works on exists (404) and is not locked (409), and its webhook stays here (400)."""
        if webhook_url is not None and not is_loopback(webhook_url):
            raise Refused(400, "webhookUrl: the sandbox only calls addresses of this machine (loopback)")
        with self.lock:
            for dataset_id in datasets_of(request):
                self.datasets.unlocked(dataset_id)
            model_id = getattr(request, "model_id", None)
            if model_id:
                self.model(model_id)
            return self.jobs.submit(request, script or Script(), reference=reference, webhook_url=webhook_url)

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a dataset; 409 while it is locked or a job works on it."""
        with self.lock:
            self.datasets.unlocked(dataset_id)
            if self.jobs.uses(dataset_id):
                raise Refused(409, f"a job works on dataset {dataset_id}; cancel it first")
            self.datasets.delete(dataset_id)

    def reset(self) -> None:
        """Forget jobs, models and datasets. Who is signed in stays so."""
        with self.lock:
            self.store.clear()
            self.jobs.clear()
            self.datasets.clear()
            for model in self.models.values():
                for path in model.files.values():
                    path.unlink(missing_ok=True)
            self.models = {}

    def close(self) -> None:
        """Stop the workers, and remove the folder if it is temporary."""
        self.jobs.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_loopback(url: str) -> bool:
    """Whether *url* is an http(s) address of this machine."""
    try:
        parts = urlsplit(str(url))
        host = parts.hostname or ""
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return local and parts.scheme in ("http", "https")
