"""Each API call once, as a value: what to send and how to read the answer. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import IO, Any, Generic, TypeVar

from pydantic import ValidationError

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError, quotable
from airflow_provider_osai.api.models import (
    Category,
    Conversion,
    Dataset,
    Image,
    Job,
    JobKind,
    Model,
    Upload,
    User,
    WireModel,
)
from airflow_provider_osai.api.pieces import Stream
from airflow_provider_osai.api.requests import CategoryRequest, DatasetRequest, JobRequest

__all__ = ["Call", "Calls", "FilePart"]

LONGEST_WORD = 100
"""Characters of a status word that are kept."""

T = TypeVar("T")
W = TypeVar("W", bound=WireModel)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form.

    :param name: that the API is told.
    :param open: gives the file at its beginning, each time it is asked; left when the request is answered.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how to read its answer; a sender turns it into a ``T``.

    :param name: the endpoint's name in the contract.
    :param method: the HTTP verb.
    :param path: below the API's base address.
    :param parse: reads the answer's JSON; ``None`` if nothing is read.
    :param query: fields of the query.
    :param body: the JSON body, or the form's fields if there are *files*.
    :param files: the form's files, read while they are sent.
    :param repeatable: whether asking twice does no more than asking once.
    :param busy: statuses besides 429 that say "not now".
    :param subject: the ids that the call is about, for batching and messages.
    :param headers: joins those that every request has.
    :param sink: takes the answer piece by piece, in place of *parse*. Only the blocking sender can do that.
    """

    name: str
    method: str
    path: str
    parse: Callable[[Any], T] | None
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    files: Mapping[str, FilePart] = field(default_factory=dict)
    repeatable: bool = False
    busy: tuple[int, ...] = ()
    subject: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    sink: Callable[[Stream], T] | None = None


class Calls:
    """Makes calls in the words of one contract.

    Every method raises OsaiContractError if the contract says that the API has no such operation.
    """

    def __init__(self, contract: Contract | None = None) -> None:
        self.contract = contract or Contract()

    def me(self) -> Call[User]:
        """Ask who is signed in (documented)."""
        return self._call("user.me", {}, self._one("user.me", User))

    def create_dataset(self, name: str) -> Call[Dataset]:
        """Make a dataset (documented)."""
        return self._call("dataset.create", DatasetRequest(name=name).wire(), self._one("dataset.create", Dataset))

    def find_datasets(self, name: str | None = None) -> Call[list[Dataset]]:
        """Ask for the datasets called *name*, or for all (assumed)."""
        return self._call("dataset.find", {"name": name}, self._many("dataset.find", Dataset))

    def get_dataset(self, dataset_id: str) -> Call[Dataset]:
        """Read one dataset (assumed)."""
        return self._call("dataset.get", {"id": dataset_id}, self._one("dataset.get", Dataset))

    def delete_dataset(self, dataset_id: str) -> Call[None]:
        """Remove a dataset and its images (assumed, optional)."""
        return self._call("dataset.delete", {"id": dataset_id}, None)

    def create_category(self, dataset_id: str, name: str) -> Call[Category]:
        """Make a category; it must exist before images use it (documented)."""
        request = CategoryRequest(dataset_id=dataset_id, name=name)
        return self._call("category.create", request.wire(), self._one("category.create", Category))

    def list_categories(self, dataset_id: str) -> Call[list[Category]]:
        """Ask for a dataset's categories (assumed)."""
        return self._call("category.list", {"datasetId": dataset_id}, self._many("category.list", Category))

    def start_upload(self, dataset_id: str) -> Call[Upload]:
        """Open an upload; this locks the dataset (documented)."""
        return self._call("upload.start", {"id": dataset_id}, self._one("upload.start", Upload))

    def upload_image(
        self,
        dataset_id: str,
        upload_id: str,
        image: FilePart,
        *,
        category_id: str | None = None,
        annotations: str | None = None,
    ) -> Call[Image]:
        """Send one image as ``multipart/form-data`` (documented; path and field names assumed).

        :param annotations: JSON; see :class:`~airflow_provider_osai.data.annotations.Box` for its form (assumed).
        """
        ids = {"datasetId": dataset_id, "datasetUploadId": upload_id}
        fields = {**ids, "categoryId": category_id, "annotations": annotations}
        endpoint = self.contract["upload.image"]
        part = endpoint.request_names.get("file", "file")
        return self._call("upload.image", fields, self._one("upload.image", Image), files={part: image})

    def list_images(self, dataset_id: str) -> Call[list[Image]]:
        """Ask for all images of a dataset (assumed, optional)."""
        return self._call("image.list", {"datasetId": dataset_id}, self._many("image.list", Image))

    def finish_upload(self, dataset_id: str, upload_id: str) -> Call[None]:
        """Close an upload; this unlocks the dataset (documented)."""
        return self._call("upload.finish", {"id": dataset_id, "datasetUploadId": upload_id}, None)

    def get_model(self, model_id: str) -> Call[Model]:
        """Read one model (assumed)."""
        return self._call("model.get", {"id": model_id}, self._one("model.get", Model))

    def list_models(self) -> Call[list[Model]]:
        """Ask for all models (assumed, optional)."""
        return self._call("model.list", {}, self._many("model.list", Model))

    def list_conversions(self, model_id: str) -> Call[list[Conversion]]:
        """Ask what a model is, is being and cannot be converted for (assumed, optional)."""
        name = "model.conversions"

        def read(answer: Any) -> list[Conversion]:
            return [_valid(name, Conversion, self._with_state(item)) for item in self._read(name, answer)]

        return self._call(name, {"id": model_id}, read)

    def download_model(
        self, model_id: str, target: str | None, headers: Mapping[str, str], sink: Callable[[Stream], T]
    ) -> Call[T]:
        """Fetch a model's file for *target*, or the model itself, into *sink* (assumed, optional)."""
        call: Call[T] = self._call("model.download", {"id": model_id, "target": target}, None)
        return replace(call, headers=headers, sink=sink)

    def submit_job(self, request: JobRequest, reference: str, webhook_url: str | None = None) -> Call[Job]:
        """Put work into OSAI's queue (documented that it exists; everything else assumed). Never repeat it blindly."""
        fields = {**request.wire(), "reference": reference, "webhookUrl": webhook_url}
        return self._call(f"{request.kind}.submit", fields, self._job(f"{request.kind}.submit", request.kind))

    def get_job(self, kind: JobKind, job_id: str) -> Call[Job]:
        """Read one job (assumed)."""
        name = f"{kind}.get"
        return self._call(name, {"id": job_id}, self._job(name, kind), subject=(job_id,))

    def list_jobs(self, kind: JobKind, job_ids: Iterable[str]) -> Call[list[Job]]:
        """Read several jobs at once (assumed, optional)."""
        return self._list_jobs(kind, {"ids": ",".join(job_ids)})

    def list_all_jobs(self, kind: JobKind) -> Call[list[Job]]:
        """Read all jobs of the account, by whomever they were submitted (assumed, optional)."""
        return self._list_jobs(kind, {})

    def find_jobs(self, kind: JobKind, reference: str) -> Call[list[Job]]:
        """Ask for the jobs that were submitted with *reference* (assumed, optional)."""
        return self._list_jobs(kind, {"reference": reference})

    def cancel_job(self, kind: JobKind, job_id: str) -> Call[None]:
        """Ask OSAI to stop a job (assumed, optional)."""
        return self._call(f"{kind}.cancel", {"id": job_id}, None, subject=(job_id,))

    def _list_jobs(self, kind: JobKind, fields: Mapping[str, Any]) -> Call[list[Job]]:
        name = f"{kind}.list"
        return self._call(
            name, fields, lambda answer: [self._as_job(name, kind, item) for item in self._read(name, answer)]
        )

    def _call(
        self,
        name: str,
        fields: Mapping[str, Any],
        parse: Callable[[Any], T] | None,
        *,
        files: Mapping[str, FilePart] | None = None,
        subject: tuple[str, ...] = (),
    ) -> Call[T]:
        endpoint = self.contract[name]
        out = endpoint.outgoing(fields)
        return Call(
            name,
            out.method,
            out.path,
            parse,
            out.query,
            out.fields or None,
            files or {},
            endpoint.repeatable,
            endpoint.busy,
            subject,
        )

    def _read(self, name: str, answer: Any) -> Any:
        return self.contract[name].read(answer)

    def _one(self, name: str, model: type[W]) -> Callable[[Any], W]:
        return lambda answer: _valid(name, model, self._read(name, answer))

    def _many(self, name: str, model: type[W]) -> Callable[[Any], list[W]]:
        return lambda answer: [_valid(name, model, item) for item in self._read(name, answer)]

    def _job(self, name: str, kind: JobKind) -> Callable[[Any], Job]:
        return lambda answer: self._as_job(name, kind, self._read(name, answer))

    def _as_job(self, name: str, kind: JobKind, fields: Mapping[str, Any]) -> Job:
        return _valid(name, Job, {**self._with_state(fields), "kind": kind})

    def _with_state(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        word = str(fields.get("status") or "")
        return {**fields, "status": quotable(word, LONGEST_WORD), "state": self.contract.state(word)}


def _valid(name: str, model: type[W], fields: Mapping[str, Any]) -> W:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        seen = quotable(", ".join(sorted(fields))) or "nothing"
        msg = (
            f"{name}: the answer does not fit the contract ({wrong}); it holds: {seen}. Rebind 'response' of {name!r}."
        )
        raise OsaiContractError(msg) from None
