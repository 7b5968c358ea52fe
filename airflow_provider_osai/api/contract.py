"""Every endpoint of OSAI in one table, each marked with where it is known from.

``evidence`` is a page of the vendor's documentation, or :data:`ASSUMED`: our reasoned default, which a user can rebind
in the connection (see :mod:`.rebinding`) without touching code. Client, sandbox and docs are compared with
this table by tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.manipulation import ManipulationRequest
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
from airflow_provider_osai.api.naming import folded, reach, rename
from airflow_provider_osai.api.requests import (
    CategoryRequest,
    ConversionRequest,
    DatasetRequest,
    DeviceRentalRequest,
    JobRequest,
    PredictionRequest,
    Request,
    RetrainingRequest,
    TrainingRequest,
    present,
)

__all__ = ["ASSUMED", "ENDPOINTS", "JOB_REQUESTS", "RESOURCES", "STATE_WORDS", "Contract", "Endpoint", "Outgoing"]

ASSUMED: Final = "assumed"
_DOCS = "docs.onestepai.com/how_to_use_api"
_SIGN_IN, _UPLOAD = f"{_DOCS}/authorization", f"{_DOCS}/image_upload"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request in the API's own words: what the sender puts on the wire."""

    method: str
    path: str
    query: dict[str, str]
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the contract.

    :param name: what users rebind it by, ``<thing>.<operation>``.
    :param method: the HTTP verb.
    :param path: below the API's base address; ``{name}`` is filled from the field of that name.
    :param evidence: the vendor's page, or ``"assumed"``.
    :param request: the model of what is sent, if it has one.
    :param also: further fields that are sent, under our names.
    :param query: fields that travel in the query. With GET and DELETE all do.
    :param answer: the model of the answer, if it is read.
    :param many: whether the answer is a list of it.
    :param optional: whether an API may lack it (a user binds it to ``null``).
    :param repeatable: whether asking twice does no more than asking once.
    :param busy: statuses besides 429 that say "not now, there is too much to do".
    :param request_names: our field -> the API's, where they differ.
    :param response_names: our field -> the API's, where they differ. ``items`` is where a list answer keeps its list.
    """

    name: str
    method: str
    path: str
    evidence: str = ASSUMED
    request: type[Request] | None = None
    also: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    answer: type[WireModel] | None = None
    many: bool = False
    optional: bool = False
    repeatable: bool = False
    busy: tuple[int, ...] = ()
    request_names: Mapping[str, str] = field(default_factory=dict)
    response_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The fields that the path is filled from."""
        return _placeholders(self.path)

    @property
    def sent_fields(self) -> frozenset[str]:
        """All fields that may be sent, under our names."""
        return frozenset((*_aliases(self.request), *self.also, *self.query, *self.placeholders))

    @property
    def answered_fields(self) -> frozenset[str]:
        """All fields that are read from the answer, under our names."""
        return frozenset((*_aliases(self.answer), *(("items",) if self.many else ())))

    def outgoing(self, fields: Mapping[str, Any]) -> Outgoing:
        """Put *fields* (our names) into path, query and body (the API's names).

        :raises OsaiArgumentError: if an id of the path is missing.
        """
        in_path = {name: _in_path(fields[name]) for name in self.placeholders}
        rest = {name: value for name, value in fields.items() if name not in in_path and value is not None}
        in_query = set(rest) if self.method in ("GET", "DELETE") else set(self.query)
        query = {name: str(value) for name, value in rest.items() if name in in_query}
        body = {name: value for name, value in rest.items() if name not in in_query}
        return Outgoing(
            self.method,
            self.path.format(**in_path),
            rename(query, self.request_names.items()),
            rename(body, self.request_names.items()),
        )

    def incoming(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Read the API's names back into ours: the server's side of :meth:`outgoing`."""
        return rename(fields, [(theirs, ours) for ours, theirs in self.request_names.items()])

    def read(self, answer: Any) -> Any:
        """Turn an answer into our names; for a list endpoint, a list of them. A bare number or text is an ``id``."""
        if self.many:
            items = answer if isinstance(answer, list) else reach(answer, self.response_names.get("items", "items"))
            if not isinstance(items, list):
                msg = f"{self.name}: the answer holds no list"
                raise OsaiContractError(msg)
            return [self._read_one(item) for item in items]
        return self._read_one(answer)

    def _read_one(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, (str, int)) and not isinstance(answer, bool):
            return {"id": answer}
        if not isinstance(answer, dict):
            msg = f"{self.name}: the answer is no JSON object"
            raise OsaiContractError(msg)
        pairs = [(theirs, ours) for ours, theirs in self.response_names.items() if ours != "items"]
        return rename(answer, pairs)

    def write(self, answer: Any) -> Any:
        """Put our names into the API's: the server's side of :meth:`read`."""
        if not self.many:
            return rename(answer, self.response_names.items())
        names = dict(self.response_names)
        where = names.pop("items", None)
        items = [rename(item, names.items()) for item in answer]
        return rename({"items": items}, [("items", where)]) if where else items


RESOURCES: Final[Mapping[JobKind, str]] = MappingProxyType(
    {
        JobKind.TRAINING: "Trainings",
        JobKind.RETRAINING: "Retrainings",
        JobKind.CONVERSION: "Conversions",
        JobKind.MANIPULATION: "Manipulations",
        JobKind.PREDICTION: "Predictions",
        JobKind.DEVICE_RENTAL: "DeviceRentals",
    }
)
JOB_REQUESTS: Final[Mapping[JobKind, type[JobRequest]]] = MappingProxyType(
    {
        request.kind: request
        for request in (
            TrainingRequest,
            RetrainingRequest,
            ConversionRequest,
            ManipulationRequest,
            PredictionRequest,
            DeviceRentalRequest,
        )
    }
)


def _of_kind(kind: JobKind, resource: str) -> tuple[Endpoint, ...]:
    """The five assumed rows that each kind of job has. ``page`` is the portal's, below the address without ``/api``."""
    one = f"/{resource}/{{id}}"
    sent = {"request": JOB_REQUESTS[kind], "also": ("reference", "webhookUrl")}
    return (
        Endpoint(f"{kind}.submit", "POST", f"/{resource}", answer=Job, **sent),  # type: ignore[arg-type]  # one ** for two fields
        Endpoint(f"{kind}.get", "GET", one, answer=Job, repeatable=True),
        Endpoint(f"{kind}.list", "GET", f"/{resource}", query=("ids", "reference"), answer=Job, many=True,
                 optional=True, repeatable=True),
        Endpoint(f"{kind}.cancel", "POST", f"{one}/Cancel", optional=True, repeatable=True),
        Endpoint(f"{kind}.page", "GET", one.lower(), optional=True, repeatable=True),
    )  # fmt: skip


ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType({
    row.name: row
    for row in (
        Endpoint("auth.sign_in", "POST", "/Users/SignIn", _SIGN_IN, repeatable=True),
        Endpoint("user.me", "GET", "/Users", _SIGN_IN, answer=User, repeatable=True),
        Endpoint("dataset.create", "POST", "/Datasets", _UPLOAD, request=DatasetRequest, answer=Dataset),
        Endpoint("dataset.get", "GET", "/Datasets/{id}", answer=Dataset, optional=True, repeatable=True),
        Endpoint("dataset.find", "GET", "/Datasets", query=("name",), answer=Dataset, many=True, optional=True,
                 repeatable=True),
        Endpoint("dataset.delete", "DELETE", "/Datasets/{id}", optional=True, repeatable=True),
        Endpoint("category.create", "POST", "/Categories", _UPLOAD, request=CategoryRequest, answer=Category),
        Endpoint("category.list", "GET", "/Categories", query=("datasetId",), answer=Category, many=True,
                 optional=True, repeatable=True),
        Endpoint("upload.start", "POST", "/Datasets/{id}/StartUploading", _UPLOAD, answer=Upload),
        Endpoint("upload.image", "POST", "/Datasets/{datasetId}/Images", answer=Image,
                 also=("file", "datasetUploadId", "categoryId", "annotations")),
        Endpoint("image.list", "GET", "/Datasets/{datasetId}/Images", answer=Image, many=True, optional=True,
                 repeatable=True),
        Endpoint("upload.finish", "POST", "/Datasets/{id}/FinishUploading", _UPLOAD, query=("datasetUploadId",),
                 repeatable=True),
        Endpoint("model.get", "GET", "/Models/{id}", answer=Model, optional=True, repeatable=True),
        Endpoint("model.list", "GET", "/Models", answer=Model, many=True, optional=True, repeatable=True),
        Endpoint("model.download", "GET", "/Models/{id}/Download", query=("target",), optional=True, repeatable=True),
        Endpoint("model.conversions", "GET", "/Models/{id}/Conversions", answer=Conversion, many=True, optional=True,
                 repeatable=True),
        *(row for kind, resource in RESOURCES.items() for row in _of_kind(kind, resource)),
    )
})  # fmt: skip

STATE_WORDS: Final[Mapping[str, JobState]] = MappingProxyType({
    # Assumed. Only words that can mean one thing: "completed", "finished" and "done" may also be said of a failure
    # (the vendor's webhook page says "completion" for both), so a user whose API says them binds them.
    "queued": JobState.QUEUED, "pending": JobState.QUEUED, "waiting": JobState.QUEUED, "created": JobState.QUEUED,
    "running": JobState.RUNNING, "in progress": JobState.RUNNING, "processing": JobState.RUNNING,
    "started": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED, "success": JobState.SUCCEEDED, "successful": JobState.SUCCEEDED,
    "failed": JobState.FAILED, "failure": JobState.FAILED, "error": JobState.FAILED,
    # Documented: impossible conversions are marked UNSUPPORTED (/model_creation_and_training/hardware_and_conversions).
    "unsupported": JobState.FAILED,
    "cancelled": JobState.CANCELLED, "canceled": JobState.CANCELLED, "aborted": JobState.CANCELLED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contract:
    """The table as one API speaks it: our defaults, with a user's bindings over them."""

    endpoints: Mapping[str, Endpoint | None] = field(default_factory=lambda: ENDPOINTS)
    states: Mapping[str, JobState] = field(default_factory=lambda: {folded(w): s for w, s in STATE_WORDS.items()})
    own_words: Mapping[JobState, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Endpoint:
        """Return the endpoint *name*; raise OsaiContractError if the API is bound to have none."""
        endpoint = self.endpoints[name]
        if endpoint is None:
            msg = f"{name}: the connection's contract says that the API has no such operation (it is bound to null)"
            raise OsaiContractError(msg)
        return endpoint

    def __contains__(self, name: str) -> bool:
        """Whether the API has the operation *name*."""
        return self.endpoints.get(name) is not None

    def state(self, word: str) -> JobState:
        """Return the state that a status word stands for, whatever its case, spaces, hyphens and underscores."""
        return self.states.get(folded(word), JobState.UNKNOWN)

    def word(self, state: JobState) -> str:
        """Return a status word for *state*, as a server of this contract says it."""
        return self.own_words.get(state, state.value)


@lru_cache(maxsize=256)
def _placeholders(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"{(\w+)}", path))


def _in_path(value: Any) -> str:
    text = present(str(value))
    if text in (".", ".."):  # a server would take them for a step in the path
        raise OsaiArgumentError(f"{text!r} is no id")
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


def _aliases(model: type[Request] | type[WireModel] | None) -> tuple[str, ...]:
    return tuple(f.alias or name for name, f in model.model_fields.items()) if model else ()
