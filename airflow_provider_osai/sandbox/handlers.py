"""Handlers of the contract's endpoints: request fields in, result out, both under our names. No HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile

from airflow_provider_osai.api.contract import JOB_REQUESTS, Contract
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import CategoryRequest, DatasetRequest
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.models import ApiError, DatasetRecord, JobRecord, ModelRecord, timestamp
from airflow_provider_osai.sandbox.portal_page import job_page
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Handlers"]

Fields = dict[str, Any]
UNSUPPORTED = "UNSUPPORTED"
"""OSAI's mark of conversions that are not possible."""
LONG_RESULTS = frozenset({"confusionMatrix", "samples"})
"""Fields of a job's result that lists do not have, since a list of many jobs would become too large."""
SUBMIT_EXTRAS = ("reference", "webhookUrl")
MODEL_NAME = "model"
"""The name of a model if the contract does not send it."""


class Handlers:
    """One handler for each endpoint of the contract, by its name.

    :param state: the sandbox's state.
    :param control: provides the scripts of new jobs.
    :param contract: provides the status words.
    """

    def __init__(self, state: SandboxState, control: Control, contract: Contract) -> None:
        self._state = state
        self._control = control
        self._contract = contract
        self._table: dict[str, Callable[[Fields], Any]] = {
            "auth.sign_in": self._sign_in,
            "user.me": lambda _: dict(state.accounts.user),
            "dataset.create": lambda fields: self._dataset(state.datasets.create(DatasetRequest(**fields).name)),
            "dataset.get": lambda fields: self._dataset(state.datasets.get(require_text(fields, "id"))),
            "dataset.find": lambda fields: [self._dataset(each) for each in state.datasets.find(fields.get("name"))],
            "dataset.delete": lambda fields: state.delete_dataset(require_text(fields, "id")),
            "category.create": self._create_category,
            "category.list": self._list_categories,
            "upload.start": lambda fields: {"id": state.datasets.start_upload(require_text(fields, "id"))},
            "upload.image": self._upload_image,
            "image.list": self._list_images,
            "upload.finish": self._finish_upload,
            "model.get": lambda fields: self._model(state.model(require_text(fields, "id"))),
            "model.list": self._list_models,
            "model.conversions": self._conversions,
            "model.download": self._download,
        }
        for kind in JobKind:
            self._table |= {
                f"{kind}.submit": partial(self._submit, kind),
                f"{kind}.get": partial(self._get, kind),
                f"{kind}.list": partial(self._list, kind),
                f"{kind}.cancel": partial(self._cancel, kind),
                f"{kind}.page": partial(self._page, kind),
            }
        for kind in (JobKind.TRAINING, JobKind.RETRAINING):
            self._table[f"{kind}.stop"] = partial(self._stop, kind)

    def names(self) -> frozenset[str]:
        """Return the names of all endpoints that have a handler."""
        return frozenset(self._table)

    def handle(self, name: str, fields: Fields) -> Any:
        """Handle a request to the endpoint *name*.

        :return: an object or a list of objects under our names, text, a file's path, or ``None`` for an empty response.
        :raises ApiError: if the request breaks a rule.
        :raises ValueError: if a field is invalid.
        """
        return self._table[name](fields)

    def job(self, job: JobRecord, operation: str = "get") -> Fields:
        """Return a job's fields, with the status word of its script or of the contract."""
        return job.wire(self.status(job, operation))

    def status(self, job: JobRecord, operation: str = "get") -> str:
        """Return the status word of a job in the response of an operation."""
        script = job.script
        if script.word is not None and (script.word_reads is None or job.reads <= script.word_reads):
            return script.word
        return self._contract.word(job.state, f"{job.kind}.{operation}")

    def _sign_in(self, fields: Fields) -> str:
        token = self._state.accounts.sign_in(require_text(fields, ""))
        return f'"{token}"' if self._state.quoted_jwt else token

    def _dataset(self, record: DatasetRecord) -> Fields:
        return {
            "id": record.id,
            "name": record.name,
            "locked": record.upload is not None,
            "imageCount": len(record.images),
            "updatedAt": timestamp(record.updated),
        }

    def _create_category(self, fields: Fields) -> Fields:
        request = CategoryRequest(**fields)
        category = self._state.datasets.create_category(request.dataset_id, request.name)
        return {"id": category.id, "name": category.name, "datasetId": category.dataset_id}

    def _list_categories(self, fields: Fields) -> list[Fields]:
        with self._state.lock:
            categories = self._state.datasets.get(require_text(fields, "datasetId")).categories.values()
            return [{"id": each.id, "name": each.name, "datasetId": each.dataset_id} for each in categories]

    def _upload_image(self, fields: Fields) -> Fields:
        upload = fields.get("file")
        if not isinstance(upload, UploadFile):
            raise ApiError(400, "file: a multipart/form-data part with an image is required")
        datasets = self._state.datasets
        if "datasetId" in self._contract["upload.image"].unsent_fields and fields.get("datasetUploadId") is None:
            fields.setdefault("datasetId", datasets.only().id)
        upload_id = require_text(fields, "datasetUploadId") if "upload.start" in self._contract else None
        dataset_id = self._dataset_of_upload(fields, "datasetId")
        category_id = fields.get("categoryId")
        if category_id and "category.create" not in self._contract:
            datasets.ensure_named_category(dataset_id, str(category_id))
        if fields.get("category"):
            category_id = datasets.category_named(dataset_id, fields["category"]).id
        image = datasets.add_image(
            dataset_id,
            upload_id,
            upload.file,
            file_name=upload.filename,
            category_id=category_id,
            annotations=fields.get("annotations"),
        )
        return {"id": image.id}

    def _list_images(self, fields: Fields) -> list[Fields]:
        with self._state.lock:
            record = self._state.datasets.get(require_text(fields, "datasetId"))
            names = {category.id: category.name for category in record.categories.values()}
            return [
                {
                    "id": image.id,
                    "fileName": image.file_name,
                    "digest": image.digest,
                    "categoryId": image.category_id,
                    "category": names.get(image.category_id or ""),
                    "annotations": image.annotations,
                }
                for image in record.images.values()
            ]

    def _finish_upload(self, fields: Fields) -> None:
        dataset_id = self._dataset_of_upload(fields, "id")
        self._state.datasets.finish_upload(dataset_id, require_text(fields, "datasetUploadId"))

    def _dataset_of_upload(self, fields: Fields, name: str) -> str:
        """Return the id of the dataset, which a contract may leave out where it sends the upload's id."""
        if fields.get(name) is None and fields.get("datasetUploadId") is not None:
            return self._state.datasets.of_upload(require_text(fields, "datasetUploadId")).id
        return require_text(fields, name)

    def _conversions(self, fields: Fields) -> list[Fields]:
        """Return all requested conversions of a model, from their jobs."""
        return [self._conversion(job) for job in self._state.conversions(require_text(fields, "id"))]

    def _download(self, fields: Fields) -> Path:
        if fields.get("conversionId") is not None:
            return self._state.file_of_conversion(require_text(fields, "conversionId"))
        return self._state.converted_file(require_text(fields, "id"), fields.get("target"))

    def _conversion(self, job: JobRecord) -> Fields:
        is_unsupported = (job.message or "").startswith(UNSUPPORTED)
        return {
            "id": (job.result or {}).get("conversionId") or job.id,
            "target": getattr(job.request, "target", None),
            "status": UNSUPPORTED if is_unsupported else self.status(job),
            "message": job.message,
            "jobId": job.id,
            "simulated": job.simulated,
        }

    def _model(self, model: ModelRecord) -> Fields:
        return {
            "id": model.id,
            "name": model.name,
            "modelType": model.model_type,
            "metrics": model.metrics,
            "createdAt": timestamp(model.created_at),
        }

    def _list_models(self, _: Fields) -> list[Fields]:
        with self._state.lock:
            return [self._model(model) for model in self._state.models.values()]

    def _submit(self, kind: JobKind, fields: Fields) -> Fields:
        reference, webhook_url = (str(fields[name]) if fields.get(name) else None for name in SUBMIT_EXTRAS)
        fields = {name: value for name, value in fields.items() if name not in SUBMIT_EXTRAS}
        if "modelName" in self._contract[f"{kind}.submit"].unsent_fields:
            fields.setdefault("modelName", MODEL_NAME)
        request = JOB_REQUESTS[kind](**fields)
        script = self._control.script_for(kind)
        with self._state.lock:
            job = self._state.submit(request, script, reference=reference, webhook_url=webhook_url)
            return self.job(job, "submit")

    def _get(self, kind: JobKind, fields: Fields) -> Fields:
        with self._state.lock:
            return self.job(self._state.jobs.read(kind, require_text(fields, "id")))

    def _list(self, kind: JobKind, fields: Fields) -> list[Fields]:
        ids = fields.get("ids")
        listed = ids if isinstance(ids, list) else str(ids).split(",")
        job_ids = None if ids is None else [str(job_id).strip() for job_id in listed if str(job_id).strip()]
        with self._state.lock:
            jobs = self._state.jobs.find(kind, job_ids, fields.get("reference"))
            return [self._listed(job) for job in jobs]

    def _listed(self, job: JobRecord) -> Fields:
        fields = self.job(job, "list")
        if fields["result"]:
            fields["result"] = {name: each for name, each in fields["result"].items() if name not in LONG_RESULTS}
        return fields

    def _cancel(self, kind: JobKind, fields: Fields) -> None:
        self._state.jobs.cancel(kind, require_text(fields, "id"))

    def _stop(self, kind: JobKind, fields: Fields) -> None:
        self._state.jobs.finish(kind, require_text(fields, "id"))

    def _page(self, kind: JobKind, fields: Fields) -> str:
        with self._state.lock:
            job = self._state.jobs.get(kind, require_text(fields, "id"))
            return job_page(kind, self.job(job), live=not job.is_terminal)


def require_text(fields: Fields, name: str) -> str:
    """Return a required field as text.

    :raises ApiError: 400, if it is missing, empty, or neither text nor a whole number.
    """
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise ApiError(400, f"{name or 'body'}: a text is required")
    return str(value)
