"""Builds the API calls: each a value with the request and the parser of its response. Nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from airflow_provider_osai.api.contract import LOCAL_FIELDS, NO_RULES, TRACEPARENT, Contract
from airflow_provider_osai.api.errors import OsaiContractError, sanitize_server_text
from airflow_provider_osai.api.limits import FULL_LIST_LIMIT, OBJECT_LIMIT, Limit
from airflow_provider_osai.api.misfits import (
    raise_for_other_id,
    raise_for_unknown_image,
    warn_about_epoch,
    warn_about_fraction,
    warn_about_metrics,
    warn_about_samples,
)
from airflow_provider_osai.api.models import (
    Category,
    Conversion,
    Dataset,
    Image,
    Job,
    JobKind,
    JobState,
    Model,
    Upload,
    User,
    WireModel,
)
from airflow_provider_osai.api.requests import CategoryRequest, DatasetRequest, JobRequest
from airflow_provider_osai.api.response_watch import ResponseWatch
from airflow_provider_osai.api.trimming import trim
from airflow_provider_osai.api.wire_format import file_address

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract_rules import OperationRules
    from airflow_provider_osai.api.streaming import Stream

__all__ = ["Call", "FilePart", "OsaiApi", "Received"]

MAX_STATUS_LENGTH = 100
"""Maximum characters of a status word that are kept."""
MAX_KNOWN_WORDS = 256
"""Maximum status words whose state is looked up once only."""

IMAGE_SIGNS = ("id", "digest", "fileName")
"""Fields by which the response to an image is recognized as that of an image that was taken."""

T = TypeVar("T")
W = TypeVar("W", bound=WireModel)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form.

    :param name: the file name that is sent.
    :param open: opens the file at its beginning, for each attempt; closed after the response.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the parser of its response; a client sends it and returns a ``T``.

    :param name: the endpoint's name in the contract.
    :param method: the HTTP verb.
    :param path: relative to the base URL.
    :param parse: parses the response's JSON, or a :class:`Received`; ``None``: the response has no result.
    :param query: the query parameters.
    :param body: the JSON body, or the fields of a form.
    :param files: the files of the form, read while they are sent.
    :param idempotent: whether the request can be sent again without a further effect.
    :param rules: what a contract document says of the operation.
    :param subject: ids of the objects, for batching; without them the call is sent by itself.
    :param headers: added to those of every request.
    :param is_list: whether *parse* returns a list, which may have several pages.
    :param consumer: receives the streamed response instead of *parse*. Only :class:`OsaiClient` supports it. If the
        file is at an address in the response, *parse* returns the address of a document.
    :param limit: maximum size of the response. On an event loop, at most that of a list.
    """

    name: str
    method: str
    path: str
    parse: Callable[[Any], T] | None
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    files: Mapping[str, FilePart] = field(default_factory=dict)
    idempotent: bool = False
    rules: OperationRules = NO_RULES
    subject: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    is_list: bool = False
    consumer: Callable[[Stream], T] | None = None
    limit: Limit = OBJECT_LIMIT


class Received(NamedTuple):
    """A response of an operation with rules, for which headers may count.

    :param document: the JSON document, or its text.
    :param headers: with lower-case names.
    :param is_all: whether *document* is the list of the items of all pages.
    """

    document: Any
    headers: Mapping[str, str]
    is_all: bool = False


class OsaiApi:
    """Builds calls for the endpoints of one contract. Both clients have a method of the same name for each of them.

    Every method raises OsaiContractError if the contract sets its operation to null.

    :param watch: compares the responses about jobs with the contract and with earlier ones.
    :param traceparent: returns the current trace context, which is sent if the contract gives it a place.
    """

    def __init__(
        self,
        contract: Contract | None = None,
        watch: ResponseWatch | None = None,
        traceparent: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.contract = contract or Contract()
        self.watch = watch or ResponseWatch()
        self.traceparent = traceparent
        self._states: dict[tuple[str, str], tuple[str, JobState]] = {}
        self._job_parsers: dict[str, Callable[[Mapping[str, Any], Any], Job]] = {}

    def get_user(self) -> Call[User]:
        """Get the signed-in user (documented)."""
        return self._call("user.me", {}, self._one("user.me", User))

    def create_dataset(self, name: str) -> Call[Dataset]:
        """Create a dataset (documented)."""
        return self._call("dataset.create", DatasetRequest(name=name).wire(), self._one("dataset.create", Dataset))

    def list_datasets(self, name: str | None = None) -> Call[list[Dataset]]:
        """List the datasets called *name*, or all datasets (assumed)."""
        return self._call("dataset.find", {"name": name}, self._many("dataset.find", Dataset))

    def get_dataset(self, dataset_id: str) -> Call[Dataset]:
        """Get one dataset (assumed)."""
        return self._call("dataset.get", {"id": dataset_id}, self._one("dataset.get", Dataset))

    def delete_dataset(self, dataset_id: str) -> Call[None]:
        """Delete a dataset and its images (assumed, optional)."""
        return self._call("dataset.delete", {"id": dataset_id}, None)

    def create_category(self, dataset_id: str, name: str) -> Call[Category]:
        """Create a category; it must exist before images use it (documented)."""
        request = CategoryRequest(dataset_id=dataset_id, name=name)
        return self._call("category.create", request.wire(), self._one("category.create", Category))

    def list_categories(self, dataset_id: str) -> Call[list[Category]]:
        """List a dataset's categories (assumed)."""
        return self._call("category.list", {"datasetId": dataset_id}, self._many("category.list", Category))

    def start_upload(self, dataset_id: str) -> Call[Upload]:
        """Start an upload, which locks the dataset (documented)."""
        return self._call("upload.start", {"id": dataset_id}, self._one("upload.start", Upload))

    def upload_image(
        self,
        dataset_id: str,
        upload_id: str | None,
        image: FilePart,
        *,
        category_id: str | None = None,
        category: str | None = None,
        annotations: str | None = None,
    ) -> Call[Image]:
        """Upload one image as ``multipart/form-data`` (documented; path and field names assumed).

        :param upload_id: of the open upload; ``None`` if the API has none.
        :param category: the category's name, which is sent only if the contract gives it a place.
        :param annotations: JSON; see :class:`~airflow_provider_osai.data.annotations.Box` for its form (assumed).
        """
        ids = {"datasetId": dataset_id, "datasetUploadId": upload_id}
        fields = {**ids, "categoryId": category_id, "annotations": annotations}
        endpoint = self.contract["upload.image"]
        on_demand = {"category": category, "fileName": image.name}
        fields |= {name: value for name, value in on_demand.items() if endpoint.takes(name)}
        part = endpoint.request_names.get("file", "file")

        def read(sent: Mapping[str, Any], answer: Any) -> Image:
            seen = self._read("upload.image", answer, sent)
            if "id" not in endpoint.rules.response or endpoint.rules.response["id"] is not None:
                raise_for_unknown_image("upload.image", seen, IMAGE_SIGNS)
            return _valid("upload.image", Image, seen)

        return self._call("upload.image", fields, read, files={part: image})

    def list_images(self, dataset_id: str) -> Call[list[Image]]:
        """List all images of a dataset (assumed, optional)."""
        call = self._call("image.list", {"datasetId": dataset_id}, self._many("image.list", Image))
        return replace(call, limit=FULL_LIST_LIMIT)

    def finish_upload(self, dataset_id: str, upload_id: str) -> Call[None]:
        """Finish an upload, which unlocks the dataset (documented)."""
        return self._call("upload.finish", {"id": dataset_id, "datasetUploadId": upload_id}, None)

    def get_model(self, model_id: str) -> Call[Model]:
        """Get one model (assumed)."""
        return self._call("model.get", {"id": model_id}, self._one("model.get", Model))

    def list_models(self) -> Call[list[Model]]:
        """List all models (assumed, optional)."""
        return self._call("model.list", {}, self._many("model.list", Model))

    def list_conversions(self, model_id: str) -> Call[list[Conversion]]:
        """List a model's conversions: finished, running and impossible ones (assumed, optional)."""
        name = "model.conversions"

        def read(sent: Mapping[str, Any], answer: Any) -> list[Conversion]:
            items = self._read(name, answer, sent)
            states = [self._state(name, item.get("status")) for item in items]
            return [
                _valid(name, Conversion, {**item, "status": word, "state": state})
                for item, (word, state) in zip(items, states, strict=True)
            ]

        return self._call(name, {"id": model_id}, read)

    def download_model(
        self,
        model_id: str,
        target: str | None,
        headers: Mapping[str, str],
        consumer: Callable[[Stream], T],
        *,
        conversion_id: str | None = None,
    ) -> Call[T]:
        """Stream a model's file for *target*, or the model itself, to *consumer* (assumed, optional).

        :param conversion_id: of the conversion for *target*; sent only if the contract gives ``conversionId`` a place.
        """
        fields = {"id": model_id, "target": target}
        if self.contract["model.download"].takes("conversionId"):
            fields["conversionId"] = conversion_id
        endpoint = self.contract["model.download"]

        def read_address(sent: Mapping[str, Any], answer: Any) -> Any:
            return file_address(endpoint, answer, sent)

        read = None if endpoint.rules.url is None else read_address
        call: Call[T] = self._call("model.download", fields, read)
        return replace(call, headers={**call.headers, **headers}, consumer=consumer)

    def submit_job(self, request: JobRequest, reference: str, webhook_url: str | None = None) -> Call[Job]:
        """Submit a job to OSAI's queue (the queue is documented, everything else assumed). Never retry it blindly.

        :param reference: the idempotency key.
        """
        fields = {**request.wire(), "reference": reference, "webhookUrl": webhook_url}
        return self._call(f"{request.kind}.submit", fields, self._job(f"{request.kind}.submit", request.kind))

    def get_job(self, kind: JobKind | str, job_id: str) -> Call[Job]:
        """Get one job (assumed)."""
        kind = JobKind.parse(kind)
        name = f"{kind}.get"
        return self._call(name, {"id": job_id}, self._job(name, kind), subject=(job_id,))

    def list_jobs(self, kind: JobKind | str, job_ids: Iterable[str]) -> Call[list[Job]]:
        """Get several jobs with one request (assumed, optional)."""
        return self._list_jobs(kind, {"ids": list(job_ids)})

    def list_all_jobs(self, kind: JobKind | str) -> Call[list[Job]]:
        """List all jobs of the account, including those of other clients (assumed, optional)."""
        return replace(self._list_jobs(kind, {}), limit=FULL_LIST_LIMIT)

    def find_jobs(self, kind: JobKind | str, reference: str) -> Call[list[Job]]:
        """List the jobs with the idempotency key *reference* (assumed, optional)."""
        return self._list_jobs(kind, {"reference": reference})

    def cancel_job(self, kind: JobKind | str, job_id: str) -> Call[None]:
        """Cancel a job (assumed, optional)."""
        return self._call(f"{JobKind.parse(kind)}.cancel", {"id": job_id}, None, subject=(job_id,))

    def stop_job(self, kind: JobKind | str, job_id: str) -> Call[None]:
        """Ask OSAI to end a training early and keep its model (unbound: only where the contract has the operation).

        :raises OsaiContractError: if the contract does not have it.
        """
        # Without a subject: a poller would send a poll instead, for several jobs together.
        return self._call(f"{JobKind.parse(kind)}.stop", {"id": job_id}, None)

    def _list_jobs(self, kind: JobKind | str, fields: Mapping[str, Any]) -> Call[list[Job]]:
        kind = JobKind.parse(kind)
        name = f"{kind}.list"

        def read(sent: Mapping[str, Any], answer: Any) -> list[Job]:
            return [self._as_job(name, kind, item) for item in self._read(name, answer, sent)]

        return self._call(name, fields, read)

    def _call(
        self,
        name: str,
        fields: Mapping[str, Any],
        read: Callable[[Mapping[str, Any], Any], T] | None,
        *,
        files: Mapping[str, FilePart] | None = None,
        subject: tuple[str, ...] = (),
    ) -> Call[T]:
        endpoint = self.contract[name]
        if endpoint.rules is not NO_RULES and endpoint.takes(TRACEPARENT):
            fields = {**fields, TRACEPARENT: self.traceparent()}
        out = endpoint.to_wire(fields)
        return Call(
            endpoint.name,
            out.method,
            out.path,
            None if read is None else partial(read, fields),
            out.query,
            out.fields or None,
            files or {},
            endpoint.idempotent,
            endpoint.rules,
            subject,
            headers=out.headers,
            is_list=endpoint.is_list,
            limit=endpoint.limit,
        )

    def _read(self, name: str, answer: Any, sent: Mapping[str, Any]) -> Any:
        endpoint = self.contract[name]
        if isinstance(answer, Received):
            return endpoint.read(answer.document, answer.headers, sent, is_all=answer.is_all)
        return endpoint.read(answer, sent=sent)

    def _one(self, name: str, model: type[W]) -> Callable[[Mapping[str, Any], Any], W]:
        is_get = name.endswith(".get")

        def read(sent: Mapping[str, Any], answer: Any) -> W:
            found = _valid(name, model, self._read(name, answer, sent))
            if is_get:
                raise_for_other_id(name, str(sent["id"]), str(getattr(found, "id", "")))
            return found

        return read

    def _many(self, name: str, model: type[W]) -> Callable[[Mapping[str, Any], Any], list[W]]:
        return lambda sent, answer: [_valid(name, model, item) for item in self._read(name, answer, sent)]

    def _job(self, name: str, kind: JobKind) -> Callable[[Mapping[str, Any], Any], Job]:
        """Return the parser of an operation, the same one for all jobs: thousands of waits hold a call each."""
        if name in self._job_parsers:
            return self._job_parsers[name]
        is_get = name.endswith(".get")

        def read(sent: Mapping[str, Any], answer: Any) -> Job:
            job = self._as_job(name, kind, self._read(name, answer, sent))
            if is_get:
                raise_for_other_id(name, str(sent["id"]), job.id)
            return job

        return self._job_parsers.setdefault(name, read)

    def _as_job(self, name: str, kind: JobKind, fields: Mapping[str, Any]) -> Job:
        if fields.get("status") is None and not name.endswith(".submit"):
            seen = sanitize_server_text(", ".join(sorted(map(str, fields)))) or "nothing"
            raise OsaiContractError(
                f"{name}: the response has no status, so the job's state is unknown; its fields: {seen}. Add to the "
                f"contract where it is: {name}: {{response: {{status: ...}}}}"
            )
        word, state = self._state(name, fields.get("status"))
        self.watch.saw_job(name, fields, word, state)
        job = _valid(name, Job, {**fields, "status": word, "state": state, "kind": kind})
        if job.progress is None and fields.get("progress") is not None:
            warn_about_fraction(name, "progress", fields["progress"])
        if job.history:
            warn_about_epoch(name, fields["history"][-1])
        result = job.result
        if result is not None and result.metrics and job.is_terminal:
            warn_about_metrics(name, "result.metrics", result.metrics)
        if result is not None and result.samples:
            warn_about_samples(name, fields["result"]["samples"][: len(result.samples)])
        return job

    def _state(self, name: str, status: Any) -> tuple[str, JobState]:
        """Return a response's status as the word that may be shown, and its state."""
        text = status if type(status) is str else _status_text(status)
        known = self._states.get((name, text))
        if known is None:
            known = sanitize_server_text(text, MAX_STATUS_LENGTH), self.contract.state(text, name)
            if len(self._states) < MAX_KNOWN_WORDS:
                self._states[name, text] = known
        return known


def _status_text(status: Any) -> str:
    if status is None:
        return ""
    return json.dumps(status) if isinstance(status, bool) else str(status)


def _valid(name: str, model: type[W], fields: Mapping[str, Any]) -> W:
    if model is Job or model is Model:
        fields = trim(fields, name)
    try:
        return model.model_validate(fields)
    except OsaiContractError as error:
        raise OsaiContractError(f"{name}: invalid response: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        fields_seen = sanitize_server_text(", ".join(sorted(set(fields) - LOCAL_FIELDS))) or "nothing"
        msg = (
            f"{name}: the response does not fit the contract ({problems}); its fields: {fields_seen}. Override "
            f"'response' of {name!r} in the contract"
        )
        raise OsaiContractError(msg) from None
