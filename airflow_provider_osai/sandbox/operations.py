"""What each endpoint does: fields in, an answer out, both under our names. HTTP is the routes' business."""

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
from airflow_provider_osai.sandbox.page import job_page
from airflow_provider_osai.sandbox.records import DatasetRecord, JobRecord, ModelRecord, Refused, timestamp
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Operations"]

Fields = dict[str, Any]
UNSUPPORTED = "UNSUPPORTED"
"""How OSAI marks impossible conversions."""
SUBMIT_EXTRAS = ("reference", "webhookUrl")


class Operations:
    """Does what endpoints are for, by their names in the contract.

    :param state: the rules.
    :param control: says how new jobs go.
    :param contract: gives the status words.
    """

    def __init__(self, state: SandboxState, control: Control, contract: Contract) -> None:
        self._state, self._control, self._contract = state, control, contract
        self._table: dict[str, Callable[[Fields], Any]] = {
            "auth.sign_in": self._sign_in,
            "user.me": lambda _: dict(state.accounts.user),
            "dataset.create": lambda fields: self._dataset(state.datasets.create(DatasetRequest(**fields).name)),
            "dataset.get": lambda fields: self._dataset(state.datasets.get(needed(fields, "id"))),
            "dataset.find": lambda fields: [self._dataset(found) for found in state.datasets.find(fields.get("name"))],
            "dataset.delete": lambda fields: state.delete_dataset(needed(fields, "id")),
            "category.create": self._create_category,
            "category.list": self._list_categories,
            "upload.start": lambda fields: {"id": state.datasets.start_upload(needed(fields, "id"))},
            "upload.image": self._upload_image,
            "image.list": self._list_images,
            "upload.finish": self._finish_upload,
            "model.get": lambda fields: self._model(state.model(needed(fields, "id"))),
            "model.list": self._list_models,
            "model.conversions": self._conversions,
            "model.download": lambda fields: state.converted(needed(fields, "id"), fields.get("target")),
        }
        for kind in JobKind:
            self._table |= {
                f"{kind}.submit": partial(self._submit, kind),
                f"{kind}.get": partial(self._get, kind),
                f"{kind}.list": partial(self._list, kind),
                f"{kind}.cancel": partial(self._cancel, kind),
                f"{kind}.page": partial(self._page, kind),
            }

    def names(self) -> frozenset[str]:
        """Return the names of all endpoints that something is done for."""
        return frozenset(self._table)

    def run(self, name: str, fields: Fields) -> Any:
        """Do what the endpoint *name* is for.

        :return: an object or a list of them under our names, text, a file's path, or ``None`` for no answer.
        :raises Refused: if a rule forbids it.
        :raises ValueError: if a field has a bad value.
        """
        return self._table[name](fields)

    def shown(self, job: JobRecord) -> Fields:
        """Return a job with the status word that its script or the contract has for it."""
        return job.wire(self.word(job))

    def word(self, job: JobRecord) -> str:
        """Return the status word of a job."""
        script = job.script
        if script.word is not None and (script.word_reads is None or job.reads <= script.word_reads):
            return script.word
        return self._contract.word(job.state)

    def _sign_in(self, fields: Fields) -> str:
        token = self._state.accounts.sign_in(needed(fields, ""))
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
            categories = self._state.datasets.get(needed(fields, "datasetId")).categories.values()
            return [{"id": one.id, "name": one.name, "datasetId": one.dataset_id} for one in categories]

    def _upload_image(self, fields: Fields) -> Fields:
        upload = fields.get("file")
        if not isinstance(upload, UploadFile):
            raise Refused(400, "file: a part with an image is needed (multipart/form-data)")
        image = self._state.datasets.add_image(
            needed(fields, "datasetId"),
            needed(fields, "datasetUploadId"),
            upload.file,
            file_name=upload.filename,
            category_id=fields.get("categoryId"),
            annotations=fields.get("annotations"),
        )
        return {"id": image.id}

    def _list_images(self, fields: Fields) -> list[Fields]:
        with self._state.lock:
            images = self._state.datasets.get(needed(fields, "datasetId")).images.values()
            return [
                {
                    "id": one.id,
                    "fileName": one.file_name,
                    "digest": one.digest,
                    "categoryId": one.category_id,
                    "annotations": one.annotations,
                }
                for one in images
            ]

    def _finish_upload(self, fields: Fields) -> None:
        self._state.datasets.finish_upload(needed(fields, "id"), needed(fields, "datasetUploadId"))

    def _conversions(self, fields: Fields) -> list[Fields]:
        """Tell of all conversions of a model that were asked for, from their jobs."""
        return [self._conversion(job) for job in self._state.conversions(needed(fields, "id"))]

    def _conversion(self, job: JobRecord) -> Fields:
        impossible = (job.message or "").startswith(UNSUPPORTED)
        return {
            "id": (job.result or {}).get("conversionId") or job.id,
            "target": getattr(job.request, "target", None),
            "status": UNSUPPORTED if impossible else self.word(job),
            "message": job.message,
            "jobId": job.id,
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
        request = JOB_REQUESTS[kind](**fields)
        script = self._control.script_for(kind)
        with self._state.lock:
            job = self._state.submit(request, script, reference=reference, webhook_url=webhook_url)
            return self.shown(job)

    def _get(self, kind: JobKind, fields: Fields) -> Fields:
        with self._state.lock:
            return self.shown(self._state.jobs.read(kind, needed(fields, "id")))

    def _list(self, kind: JobKind, fields: Fields) -> list[Fields]:
        ids = fields.get("ids")
        wanted = None if ids is None else [one.strip() for one in str(ids).split(",") if one.strip()]
        with self._state.lock:
            return [self.shown(job) for job in self._state.jobs.find(kind, wanted, fields.get("reference"))]

    def _cancel(self, kind: JobKind, fields: Fields) -> None:
        self._state.jobs.cancel(kind, needed(fields, "id"))

    def _page(self, kind: JobKind, fields: Fields) -> str:
        with self._state.lock:
            job = self._state.jobs.get(kind, needed(fields, "id"))
            return job_page(kind, self.shown(job), live=not job.is_terminal)


def needed(fields: Fields, name: str) -> str:
    """Return a field that must be there as text; 400 if it is not."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise Refused(400, f"{name or 'body'}: a text is needed")
    return str(value)


def is_file(answer: Any) -> bool:
    """Whether an answer is a file to be sent."""
    return isinstance(answer, Path)
