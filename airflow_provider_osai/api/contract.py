"""The table of OSAI's endpoints, each with its evidence.

``evidence`` is a page of the vendor's documentation, or :data:`ASSUMED`: a reasoned default, which users can override
in the connection (see :mod:`.overrides`) without changing code. Tests compare the client, the sandbox and the docs with
this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import quote

from pydantic_core.core_schema import CoreSchema, is_instance_schema

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.json_paths import JsonPath, get_value, json_path
from airflow_provider_osai.api.limits import LIST_LIMIT, OBJECT_LIMIT, Limit
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
    require_id,
)
from airflow_provider_osai.api.text import normalize_word
from airflow_provider_osai.api.wire_format import WireRequest, decode_response, encode_request, response_paths

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract_rules import OperationRules
    from airflow_provider_osai.api.field_rules import Place

__all__ = [
    "ACCESS_TOKEN",
    "ASSUMED",
    "ENDPOINTS",
    "JOB_REQUESTS",
    "RESOURCES",
    "STATE_WORDS",
    "TRACEPARENT",
    "UNBOUND",
    "Contract",
    "Endpoint",
    "TokenHeader",
    "WireRequest",
]

ASSUMED: Final = "assumed"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
NO_FIELDS: Final[Mapping[str, Any]] = MappingProxyType({})
ACCESS_TOKEN: Final = "accessToken"  # noqa: S105 - a name
"""Our name of the sign-in's only field, where a contract gives it a place of its own."""
TRACEPARENT: Final = "traceparent"
"""Our name of the trace context of a request for jobs (W3C Trace Context), where a contract gives it a place."""
ON_DEMAND: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "auth.sign_in": frozenset({ACCESS_TOKEN}),
        "model.download": frozenset({"conversionId"}),
        "upload.image": frozenset({"category", "fileName"}),
        **{
            f"{kind}.{operation}": frozenset({TRACEPARENT})
            for kind in JobKind
            for operation in ("submit", "get", "list", "cancel", "stop")
        },
    }
)
"""Fields that are sent only if a contract gives them a place, by operation."""
UNBOUND: Final = frozenset({"training.stop", "retraining.stop"})
"""Operations that no API has unless its contract document says so: they end a training and keep its model."""
LOCAL_FIELDS: Final = frozenset({"kind", "state"})
"""Fields of the models that are not in any response: the request determines the kind, and the status the state."""
_DOCS = "docs.onestepai.com/how_to_use_api"
_SIGN_IN, _UPLOAD = f"{_DOCS}/authorization", f"{_DOCS}/image_upload"


class _NoRules:
    """What ``OperationRules()`` has, for operations that no document changes: importing the rules takes time."""

    method = path = encoding = answer = envelope = success = error = busy = pages = pick = url = annotations = (
        evidence
    ) = None
    headers = query = body = request = response = constants = statuses = states = MappingProxyType[str, Any]({})


NO_RULES: Final = cast("OperationRules", _NoRules())
"""The rules of an operation that no document changes."""


class TokenHeader(NamedTuple):
    """The header that carries the token, and the text before the token in it."""

    name: str = "Authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the contract.

    :param name: the name for overrides, ``<object>.<operation>``.
    :param method: the HTTP method.
    :param path: the path below the API's base URL; ``{name}`` is filled from the field of that name.
    :param evidence: the vendor's page, or ``"assumed"``.
    :param request: the model of the request, if any.
    :param extra_fields: additional request fields, under our names.
    :param query: fields sent in the query. With GET and DELETE, all are.
    :param response_model: the model of the response, if it is read.
    :param is_list: whether the response is a list of *response_model*.
    :param optional: whether the API may lack the operation (then users override it with ``null``).
    :param idempotent: whether the request may be repeated without further effect.
    :param rules: what a contract document says of the operation.
    :param states: status word -> job state, for this operation.
    """

    name: str
    method: str
    path: str
    evidence: str = ASSUMED
    request: type[Request] | None = None
    extra_fields: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    response_model: type[WireModel] | None = None
    is_list: bool = False
    optional: bool = False
    idempotent: bool = False
    rules: OperationRules = NO_RULES
    states: Mapping[str, JobState] = field(default_factory=dict)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders in the path: names of fields, or of parts of them (``id.1``)."""
        return _placeholders(self.path)

    @property
    def path_fields(self) -> frozenset[str]:
        """The fields in the path."""
        return frozenset(name.partition(".")[0] for name in self.placeholders)

    @property
    def request_names(self) -> dict[str, str]:
        """Our field name -> the API's, where they differ."""
        names = {}
        for name, rules in self.rules.request.items():
            first = rules[0] if isinstance(rules, tuple) else rules
            if first is not None and isinstance(first.name, str):
                names[name] = first.name
        return names

    @property
    def unsent_fields(self) -> frozenset[str]:
        """Our names of the fields that the contract does not send."""
        return frozenset(name for name, rule in self.rules.request.items() if rule is None)

    @property
    def response_names(self) -> dict[str, str]:
        """Our field name -> the API's, where they differ; ``items`` is the key of the list in a list response."""
        return response_paths(self)

    def place_of(self, name: str) -> Place:
        """Return where a field without a rule is in the request."""
        if name in self.path_fields:
            return "path"
        return "query" if self.method in ("GET", "DELETE") or name in self.query else "body"

    @property
    def placeable_fields(self) -> frozenset[str]:
        """The fields that a contract can give a place to."""
        return self.sent_fields | ON_DEMAND.get(self.name, frozenset())

    @property
    def users_choices(self) -> frozenset[str]:
        """The fields that are sent only because the user gave them, and must not be left out in silence."""
        fields = self.request.model_fields.items() if self.request is not None else ()
        optional = {field.alias or name for name, field in fields if not field.is_required() and field.default is None}
        return frozenset({*optional, *({"annotations"} & set(self.extra_fields))})

    def takes(self, name: str) -> bool:
        """Return whether the contract gives a field of :data:`ON_DEMAND` a place."""
        return name in self.path_fields or any(each.partition(".")[0] == name for each in self.rules.request)

    @property
    def limit(self) -> Limit:
        """The maximum size of a response."""
        return LIST_LIMIT if self.is_list else OBJECT_LIMIT

    @property
    def sent_fields(self) -> frozenset[str]:
        """All request fields, under our names."""
        return frozenset((*_aliases(self.request), *self.extra_fields, *self.query, *self.path_fields))

    @property
    def response_fields(self) -> frozenset[str]:
        """All fields read from the response, under our names."""
        read = set(_aliases(self.response_model)) - LOCAL_FIELDS
        return frozenset((*read, *(("items",) if self.is_list else ())))

    def to_wire(self, fields: Mapping[str, Any]) -> WireRequest:
        """Convert *fields* (our names) to path, query and body (the API's names).

        :raises OsaiArgumentError: if an id in the path is missing, or any id is too long or contains an invalid
            character.
        """
        for name, value in fields.items():
            if value is not None and (name == "id" or name.endswith("Id")):
                require_id(str(value))
        if self.rules is not NO_RULES:
            return encode_request(self, fields, _path_segment)
        in_path = {name: _path_segment(fields[name]) for name in self.placeholders}
        rest = {name: value for name, value in fields.items() if name not in in_path and value is not None}
        in_query = set(rest) if self.method in ("GET", "DELETE") else set(self.query)
        query = {name: _query_text(value) for name, value in rest.items() if name in in_query}
        body = {name: value for name, value in rest.items() if name not in in_query}
        return WireRequest(self.method, self.path.format(**in_path), query, body)

    def read(
        self,
        response: Any,
        headers: Mapping[str, str] = NO_HEADERS,
        sent: Mapping[str, Any] = NO_FIELDS,
        *,
        is_all: bool = False,
    ) -> Any:
        """Convert a response to our names; for a list endpoint, a list. A bare number or string is an ``id``.

        :param headers: of the response, with lower-case names.
        :param sent: the request's fields, by our names.
        :param is_all: whether *response* is the list of the items of all pages.
        """
        if self.rules is not NO_RULES:
            return decode_response(self, response, headers, sent, is_all=is_all)
        if self.is_list:
            items = response if isinstance(response, list) else get_value(response, ("items",))
            if not isinstance(items, list):
                msg = f"{self.name}: the response contains no list"
                raise OsaiContractError(msg)
            return [self._read_one(item) for item in items]
        return self._read_one(response)

    def _read_one(self, item: Any) -> dict[str, Any]:
        if isinstance(item, (str, int)) and not isinstance(item, bool):
            return {"id": item}
        if not isinstance(item, dict):
            msg = f"{self.name}: the response is not a JSON object"
            raise OsaiContractError(msg)
        return dict(item)


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


def _job_endpoints(kind: JobKind, resource: str) -> tuple[Endpoint, ...]:
    """Return the assumed rows of a job kind. ``page`` is the portal's, below the base URL without ``/api``."""
    path = f"/{resource}/{{id}}"
    return (
        Endpoint(f"{kind}.submit", "POST", f"/{resource}", request=JOB_REQUESTS[kind], response_model=Job,
                 extra_fields=("reference", "webhookUrl")),
        Endpoint(f"{kind}.get", "GET", path, response_model=Job, idempotent=True),
        Endpoint(f"{kind}.list", "GET", f"/{resource}", query=("ids", "reference"), response_model=Job, is_list=True,
                 optional=True, idempotent=True),
        Endpoint(f"{kind}.cancel", "POST", f"{path}/Cancel", optional=True, idempotent=True),
        Endpoint(f"{kind}.page", "GET", path.lower(), optional=True, idempotent=True),
        *((Endpoint(f"{kind}.stop", "POST", f"{path}/Stop", optional=True, idempotent=True),)
          if f"{kind}.stop" in UNBOUND else ()),
    )  # fmt: skip


ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType({
    row.name: row
    for row in (
        Endpoint("auth.sign_in", "POST", "/Users/SignIn", _SIGN_IN, optional=True, idempotent=True),
        Endpoint("user.me", "GET", "/Users", _SIGN_IN, response_model=User, idempotent=True),
        Endpoint("dataset.create", "POST", "/Datasets", _UPLOAD, request=DatasetRequest, response_model=Dataset),
        Endpoint("dataset.get", "GET", "/Datasets/{id}", response_model=Dataset, optional=True, idempotent=True),
        Endpoint("dataset.find", "GET", "/Datasets", query=("name",), response_model=Dataset, is_list=True,
                 optional=True, idempotent=True),
        Endpoint("dataset.delete", "DELETE", "/Datasets/{id}", optional=True, idempotent=True),
        Endpoint("category.create", "POST", "/Categories", _UPLOAD, request=CategoryRequest, response_model=Category,
                 optional=True),
        Endpoint("category.list", "GET", "/Categories", query=("datasetId",), response_model=Category, is_list=True,
                 optional=True, idempotent=True),
        Endpoint("upload.start", "POST", "/Datasets/{id}/StartUploading", _UPLOAD, response_model=Upload,
                 optional=True),
        Endpoint("upload.image", "POST", "/Datasets/{datasetId}/Images", response_model=Image,
                 extra_fields=("file", "datasetUploadId", "categoryId", "annotations")),
        Endpoint("image.list", "GET", "/Datasets/{datasetId}/Images", response_model=Image, is_list=True, optional=True,
                 idempotent=True),
        Endpoint("upload.finish", "POST", "/Datasets/{id}/FinishUploading", _UPLOAD, query=("datasetUploadId",),
                 optional=True, idempotent=True),
        Endpoint("model.get", "GET", "/Models/{id}", response_model=Model, optional=True, idempotent=True),
        Endpoint("model.list", "GET", "/Models", response_model=Model, is_list=True, optional=True, idempotent=True),
        Endpoint("model.download", "GET", "/Models/{id}/Download", query=("target",), optional=True, idempotent=True),
        Endpoint("model.conversions", "GET", "/Models/{id}/Conversions", response_model=Conversion, is_list=True,
                 optional=True, idempotent=True),
        *(row for kind, resource in RESOURCES.items() for row in _job_endpoints(kind, resource)),
    )
})  # fmt: skip

DEFAULT_ENDPOINTS: Final[Mapping[str, Endpoint | None]] = MappingProxyType(
    {name: None if name in UNBOUND else row for name, row in ENDPOINTS.items()}
)
"""The endpoints of an API without a document."""

STATE_WORDS: Final[Mapping[str, JobState]] = MappingProxyType({
    # Assumed. Only unambiguous words: "completed", "finished" and "done" may also mean a failure (the vendor's webhook
    # page uses "completion" for both), so users whose API returns them add them in an override.
    "queued": JobState.QUEUED, "pending": JobState.QUEUED, "waiting": JobState.QUEUED, "created": JobState.QUEUED,
    "running": JobState.RUNNING, "in progress": JobState.RUNNING, "processing": JobState.RUNNING,
    "started": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED, "success": JobState.SUCCEEDED, "successful": JobState.SUCCEEDED,
    "failed": JobState.FAILED, "failure": JobState.FAILED, "error": JobState.FAILED,
    # Documented: such conversions are marked UNSUPPORTED (/model_creation_and_training/hardware_and_conversions).
    "unsupported": JobState.FAILED,
    "cancelled": JobState.CANCELLED, "canceled": JobState.CANCELLED, "aborted": JobState.CANCELLED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contract:
    """The endpoint table of one API: the defaults with a user's overrides."""

    endpoints: Mapping[str, Endpoint | None] = field(default_factory=lambda: DEFAULT_ENDPOINTS)
    states: Mapping[str, JobState] = field(
        default_factory=lambda: {normalize_word(w): s for w, s in STATE_WORDS.items()}
    )
    words_by_state: Mapping[JobState, str] = field(default_factory=dict)
    token_header: TokenHeader = field(default_factory=TokenHeader)

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        """Let pydantic accept an instance as it is, instead of validating and copying the whole table."""
        return is_instance_schema(cls)

    def __getitem__(self, name: str) -> Endpoint:
        """Return the endpoint *name*; raise OsaiContractError if the API does not have it."""
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            is_default = name in UNBOUND or name not in ENDPOINTS
            why = "does not have this operation" if is_default else "sets this operation to null"
            raise OsaiContractError(f"{name}: the connection's contract {why}, so the API does not have it")
        return endpoint

    def __contains__(self, name: str) -> bool:
        """Whether the API has the operation *name*."""
        return self.endpoints.get(name) is not None

    @property
    def has_number_ids(self) -> bool:
        """Whether some id is sent as a number."""
        rows = [row.rules.request for row in self.endpoints.values() if row is not None]
        placed = [(name, rules) for row in rows for name, rules in row.items() if rules is not None]
        each = [(name, rule) for name, rules in placed for rule in (rules if isinstance(rules, tuple) else (rules,))]
        return any(rule.type == "number" and name.lower().endswith(("id", "ids")) for name, rule in each)

    def lacks(self, operation: str, field: str) -> bool:
        """Return whether a document says that a field is not in the response of an operation."""
        endpoint = self.endpoints.get(operation)
        return endpoint is not None and endpoint.rules.response.get(field, ...) is None

    @property
    def token_path(self) -> JsonPath | None:
        """Where the JWT is in the response to the sign-in; ``None``: it is the whole response, as documented."""
        endpoint = self.endpoints["auth.sign_in"]
        rule = endpoint.rules.response.get("token") if endpoint is not None else None
        if rule is None:
            return None
        return rule.paths[0] if rule.paths else json_path("token")

    def sign_in_request(self, access_token: str) -> WireRequest:
        """Return the sign-in; the access token is the whole JSON body, as documented, unless a rule places it."""
        endpoint = self["auth.sign_in"]
        if ACCESS_TOKEN in endpoint.rules.request:
            return encode_request(endpoint, {ACCESS_TOKEN: access_token}, _path_segment)
        request = encode_request(endpoint, {}, _path_segment)
        return replace(request, fields=access_token)

    def state(self, word: str, operation: str | None = None) -> JobState:
        """Return the state of a status word, ignoring case, spaces, hyphens and underscores.

        :param operation: the operation whose response has the word, which may have words of its own.
        """
        normalized = normalize_word(word)
        endpoint = self.endpoints.get(operation) if operation is not None else None
        if endpoint is not None and endpoint.states and normalized in endpoint.states:
            return endpoint.states[normalized]
        return self.states.get(normalized, JobState.UNKNOWN)

    def word(self, state: JobState, operation: str | None = None) -> str:
        """Return the status word that a server with this contract uses for *state* in *operation*.

        Where the contract has words of its own, but none for a queued job, that of a running one is used.
        """
        endpoint = self.endpoints.get(operation) if operation is not None else None
        if endpoint is not None:
            for word, meaning in endpoint.rules.states.items():
                if meaning == state.value:
                    return word
        if state is JobState.QUEUED and state not in self.words_by_state:
            running = self.word(JobState.RUNNING, operation)
            return state.value if running == JobState.RUNNING.value else running
        return self.words_by_state.get(state, state.value)


@lru_cache(maxsize=256)
def _placeholders(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"{(\w+(?:\.[1-9])?)}", path))


def _path_segment(value: Any) -> str:
    text = require_id(str(value))
    if text in (".", ".."):  # servers resolve these as path steps
        raise OsaiArgumentError(f"id = {text!r}: not a valid id")
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


def _query_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _aliases(model: type[Request] | type[WireModel] | None) -> tuple[str, ...]:
    return tuple(f.alias or name for name, f in model.model_fields.items()) if model else ()
