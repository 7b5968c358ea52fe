"""The schema of a contract document: one object of rules for each operation, and what holds for all of them.

:mod:`.overrides` applies a document to the default table; docs/contract.md describes the format with examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from airflow_provider_osai.api.field_rules import FieldRule, Scalar
from airflow_provider_osai.api.json_paths import Steps, json_path

__all__ = [
    "RESERVED_HEADERS",
    "AnnotationsRule",
    "AuthRule",
    "ErrorRule",
    "Meaning",
    "OperationRules",
    "PagesRule",
    "Reading",
    "StatusCase",
]

FieldName = Annotated[str, StringConstraints(pattern=r"^[^\s.]+(\.[^\s.]+)*$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")]
Expression: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=1000)]

Meaning: TypeAlias = Literal[
    "absent", "ended", "locked", "busy", "quota_reached", "no_credit", "invalid", "unsupported", "rejected"
]
"""What an unsuccessful response means.

``absent``: there is no such thing. ``ended``: the job has ended already. ``locked``: the dataset is in use. ``busy``:
not processed, try again later. ``quota_reached``, ``no_credit``: the same, because the account has as many jobs as it
may have, or no credit. ``invalid``: this image or value. ``unsupported``: the API has no such operation.
``rejected``: anything else that a retry would not help.
"""


PATH_PATTERN: Final = r"^/([^/?#\s][^?#\s]*)?$"
"""A path below the base URL, without a query; two slashes would begin a host."""
RESERVED_HEADERS: Final = frozenset(
    {
        *("accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "host"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    }
)
"""Headers that the client sets itself."""


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


class StatusCase(_Rules):
    """What an HTTP status means.

    :param means: the meaning.
    :param when: a JMESPath test of the JSON response; default: always.
    :param message: where the server's reason is; default: the whole response.
    :param example: a JSON response for the sandbox to send.
    """

    means: Meaning
    when: Expression | None = None
    message: Expression | None = None
    example: Any = None

    @field_validator("when", "message")
    @classmethod
    def _check(cls, text: str | None) -> str | None:
        if text is not None:
            json_path(text)  # raises ValueError
        return text


class ErrorRule(StatusCase):
    """How to recognize an error in a response with a status of success.

    :param means: what the error means.
    :param when: a JMESPath test of the whole JSON response.
    :param message: where the server's reason is.
    :param example: a JSON response with this error, which the sandbox sends with its message at *message*.
    """

    means: Meaning = "rejected"
    when: Expression


class PagesRule(_Rules):
    """How a list continues. Exactly one of ``page``, ``offset``, ``cursor``, ``next``.

    :param page: query name of the page's number.
    :param first: the number of the first page.
    :param offset: query name of the number of items to skip.
    :param cursor: query name of the cursor, which is at the path *next_cursor* of the response.
    :param next_cursor: see *cursor*.
    :param next: path of the next page's URL in the response, or ``Link`` for the header of that name (RFC 8288).
    :param size: query name of the page's size.
    :param of: the size to ask for; default 100.
    :param total: path of the number of items in all pages.
    :param more: path or JMESPath expression that is true if there are more pages: ``hasMore``, ``!isLast``. Without
        *total* and *more*, a page with fewer than *of* items is the last, unless the response says that there are more:
        *of* must not exceed the server's maximum.
    """

    page: FieldName | None = None
    first: Annotated[int, Field(ge=0, le=1)] = 1
    offset: FieldName | None = None
    cursor: FieldName | None = None
    next_cursor: Expression | None = None
    next: Expression | None = None
    size: FieldName | None = None
    of: Annotated[int, Field(ge=1, le=100_000)] = 100
    total: Expression | None = None
    more: Expression | None = None

    @model_validator(mode="after")
    def _check_style(self) -> PagesRule:
        styles = [name for name in ("page", "offset", "cursor", "next") if getattr(self, name)]
        if len(styles) != 1:
            raise ValueError("exactly one of page, offset, cursor and next is needed")
        if bool(self.cursor) != bool(self.next_cursor):
            raise ValueError("cursor and next_cursor go together")
        if (self.page or self.offset) and not (self.size or self.total or self.more):
            raise ValueError(f"{styles[0]} needs size, total or more, to know the last page")
        if self.more is not None:
            json_path(self.more)  # raises ValueError
        for text in (self.next_cursor, self.next, self.total):
            if text is not None and json_path(text).steps is None:
                raise ValueError(f"{text!r} must be a plain path")
        return self


class AuthRule(_Rules):
    """How requests are authenticated.

    :param header: the header with the token.
    :param prefix: the text before the token in it.
    """

    header: HeaderName = "Authorization"
    prefix: HeaderValue = "Bearer "

    @field_validator("header")
    @classmethod
    def _check_header(cls, name: str) -> str:
        return name if name.lower() == "authorization" else _require_free_header(name)


class AnnotationsRule(_Rules):
    """The form of an image's boxes.

    :param format: ``json``: a JSON list. ``coco``, ``yolo`` or ``voc``: the text of such a file for the image.
    :param units: of the coordinates in JSON.
    :param category: whether a JSON item names its category, by ``id``, by ``name`` or both.
    """

    format: Literal["json", "coco", "yolo", "voc"] = "json"
    units: Literal["fraction", "pixel"] = "fraction"
    category: Literal["id", "name", "both"] = "both"


RequestRule: TypeAlias = FieldRule | tuple[FieldRule, ...] | None
ResponseRule: TypeAlias = FieldRule | None


class Reading(NamedTuple):
    """How one field of a response is read.

    :param name: our name.
    :param steps: our name's parts.
    :param rule: ``None``: it is not in the response.
    :param path: the steps of a plain path in the body; ``None`` for any other place.
    :param convert: converts the value at *path*.
    """

    name: str
    steps: tuple[str, ...]
    rule: FieldRule | None
    path: Steps | None = None
    convert: Callable[[Any], Any] | None = None


def _plain_reading(name: str, rule: FieldRule | None) -> tuple[Steps | None, Callable[[Any], Any] | None]:
    if rule is None or rule.parts is not None or rule.place == "header" or rule.match or rule.default is not None:
        return None, None
    return rule.path(name).steps, rule.reader


class OperationRules(_Rules):
    """The rules of one operation; what is omitted keeps its default.

    :param method: the HTTP method.
    :param path: the path below the base URL. ``{name}`` is a field; ``{id.1}`` the first part of a joined id.
    :param encoding: of the request: ``json``, ``form`` or ``multipart``.
    :param headers: constant headers to send.
    :param query: constant query parameters to send.
    :param body: constant fields of the body to send.
    :param request: our field -> its place and form; several places as a list of objects; ``null``: it is not sent.
    :param response: our field -> its place and form; ``null``: it is not in the response. ``items`` is the list.
    :param answer: what the response is: ``json``, ``text``, or ``none`` if only its status and headers count.
    :param envelope: path of the result in every JSON response.
    :param constants: constant fields of the response, which only the sandbox writes.
    :param success: the status of a response without an error, which only the sandbox sends; default 200.
    :param error: errors in responses with a status of success.
    :param statuses: HTTP status -> its meaning.
    :param busy: statuses that mean that OSAI is busy; the same as ``statuses`` with ``busy``.
    :param states: status word -> job state, for this operation.
    :param pages: how the list continues.
    :param pick: the response is a list, in which the object that was asked for is found by its id, and a download by
        its ``target``.
    :param url: of a download: path of the file's address in the JSON response, which is fetched without the sign-in.
    :param annotations: the form of an image's boxes, of ``upload.image``.
    :param evidence: where the rules come from, as ``osai-airflow contract learn`` writes it. It has no effect.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    path: Annotated[str, StringConstraints(pattern=PATH_PATTERN)] | None = None
    encoding: Literal["json", "form", "multipart"] | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    query: dict[str, Scalar] = {}
    body: dict[FieldName, Any] = {}
    request: dict[FieldName, RequestRule] = {}
    response: dict[FieldName, ResponseRule] = {}
    answer: Literal["json", "text", "none"] | None = None
    envelope: Expression | None = None
    constants: dict[FieldName, Any] = {}
    success: Annotated[int, Field(ge=200, le=299)] | None = None
    error: tuple[ErrorRule, ...] | None = None
    statuses: dict[Annotated[int, Field(ge=400, le=599)], tuple[StatusCase, ...]] = {}
    busy: tuple[Annotated[int, Field(ge=400, le=499)], ...] | None = None
    states: dict[str, str] = {}
    pages: PagesRule | None = None
    pick: bool | None = None
    url: Expression | None = None
    annotations: AnnotationsRule | None = None
    evidence: Annotated[str, StringConstraints(max_length=5000)] | None = None

    @cached_property
    def hidden_names(self) -> frozenset[str]:
        """The names in an object of the response that are not read under the same name."""
        rules = [rule for rule in self.response.values() if rule is not None and rule.parts is None]
        paths = {path.text for rule in rules for path in rule.paths}
        return frozenset({*self.response, *paths})

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """How each field of the response is read, compiled once."""
        return tuple(
            Reading(name, tuple(name.split(".")), rule, *_plain_reading(name, rule))
            for name, rule in self.response.items()
            if name != "items"
        )

    @field_validator("request", mode="before")
    @classmethod
    def _parse_request(cls, rules: Any) -> Any:
        return {name: _request_rule(rule) for name, rule in rules.items()} if isinstance(rules, dict) else rules

    @field_validator("response", mode="before")
    @classmethod
    def _parse_response(cls, rules: Any) -> Any:
        if not isinstance(rules, dict):
            return rules
        return {name: None if rule is None else FieldRule.parse(rule) for name, rule in rules.items()}

    @field_validator("error", mode="before")
    @classmethod
    def _parse_error(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @field_validator("statuses", mode="before")
    @classmethod
    def _parse_statuses(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        parsed = {}
        for status, cases in value.items():
            listed = cases if isinstance(cases, (list, tuple)) else (cases,)
            parsed[status] = tuple({"means": case} if isinstance(case, str) else case for case in listed)
        return parsed

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path is not None and {".", ".."} & set(path.split("/")):
            raise ValueError("must have no '.' and '..', which servers resolve")
        return path

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            _require_free_header(name)
        return headers

    @field_validator("envelope")
    @classmethod
    def _check_envelope(cls, text: str | None) -> str | None:
        if text is not None and json_path(text).steps is None:
            raise ValueError("must be a plain path")
        return text


def _require_free_header(name: str) -> str:
    """Return the name of a header that a contract may set; raise ValueError for one that the client sets."""
    if name.lower() in RESERVED_HEADERS:
        raise ValueError(f"the client itself sets the header {name}")
    return name


def _request_rule(value: Any) -> Any:
    """Return the rules of a field of a request: in a list, one for each of several places."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return tuple(FieldRule.parse(item) for item in value)
    return FieldRule.parse(value)
