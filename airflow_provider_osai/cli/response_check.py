"""Compare one response with the contract: which fields are missing or of another type, and what else differs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx

from airflow_provider_osai.api.calls import Call
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import LOCAL_FIELDS, NO_RULES
from airflow_provider_osai.api.error_mapping import json_or_none, response_text
from airflow_provider_osai.api.errors import OsaiError, OsaiRequestError, OsaiUnreachable, sanitize_server_text
from airflow_provider_osai.api.evidence import JsonType, Problem, field_types, json_type, safe_field, safe_word
from airflow_provider_osai.api.json_paths import ABSENT
from airflow_provider_osai.api.limits import TooManyValues, decode_json
from airflow_provider_osai.api.misfits import is_percent, sign_of_more
from airflow_provider_osai.api.models import Conversion, Job, JobState, WireModel
from airflow_provider_osai.api.pagination import next_page
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.api.wire_format import response_items, unreadable_fields, unwrapped
from airflow_provider_osai.learning.definition_diff import pair_names

__all__ = ["CheckedResponse", "check_response"]

ABSENT_STATUSES: Final = frozenset({404, 405, 410, 501})
"""HTTP statuses of an API without the operation."""
FRACTIONS: Final = frozenset({"accuracy", "confidence", "progress", "valAccuracy"})
"""Fields of the models that are fractions."""
MAX_ITEMS: Final = 100
"""Maximum items of a list that are compared."""
MAX_UNREAD: Final = 50
"""Maximum names of fields that are compared with those that are missing, and shown."""


@dataclass(frozen=True, slots=True)
class CheckedResponse:
    """What a response says of the contract.

    :param status: the HTTP status.
    :param result: the parsed response; ``None`` if it cannot be used.
    :param problems: how it differs from the contract.
    :param message: of the error that the provider would raise.
    :param is_absent: whether the API does not have the operation.
    :param fields: the API's path of each field, with its JSON types.
    :param words: the API's status words.
    :param unread: the API's names of fields that the contract does not read.
    """

    status: int
    result: Any = None
    problems: tuple[Problem, ...] = ()
    message: str = ""
    is_absent: bool = False
    fields: Mapping[str, set[Any]] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def check_response(
    client: OsaiClient, call: Call[Any], response: httpx.Response, sent: Mapping[str, Any]
) -> CheckedResponse:
    """Return how the response to a GET differs from the contract of the client.

    :param sent: the fields of the request, by our names.
    """
    status = response.status_code
    result: Any = None
    error: OsaiError | None = None
    try:
        result = client.read(call, response)
    except OsaiError as raised:
        error = raised
    if error is not None and _is_absent(error):
        return CheckedResponse(status, problems=(Problem(kind="absent", seen=str(status)),), is_absent=True)
    message = sanitize_server_text(str(error or ""), 500)
    if not response.is_success:
        return CheckedResponse(status, problems=(Problem(kind="status", seen=str(status)),), message=message)
    document = _document(call, response)
    if document is ABSENT:
        is_too_large = isinstance(error, OsaiUnreachable) and error.too_large
        kind = "too-large" if is_too_large else "not-json"
        return CheckedResponse(status, problems=(Problem.model_validate({"kind": kind}),), message=message)
    if isinstance(error, OsaiRequestError):
        return CheckedResponse(status, problems=(Problem(kind="error"),), message=message)
    compared = _Comparison(client.settings, call, document, response.headers, sent)
    problems = dict.fromkeys([*compared.problems(), *compared.result_problems(result)])
    if error is not None and not problems:
        problems = {Problem(kind="form"): None}
    return CheckedResponse(
        status,
        result=result,
        problems=tuple(problems),
        message=message,
        fields=compared.fields(),
        words=compared.words(),
        unread=tuple(sorted(compared.unread)[:MAX_UNREAD]),
    )


def _is_absent(error: OsaiError) -> bool:
    return isinstance(error, (OsaiRequestError, OsaiUnreachable)) and error.status in ABSENT_STATUSES


def _document(call: Call[Any], response: httpx.Response) -> Any:
    """Return the JSON or text of a response; :data:`ABSENT` if it is neither."""
    if call.rules.answer in ("text", "none"):
        return json_or_none(response) if call.rules.answer == "none" else response_text(response).strip()
    try:
        return decode_json(response.content, call.limit.values)
    except (ValueError, RecursionError, TooManyValues):
        return ABSENT


class _Comparison:
    """Compares a document with the contract's rules of an operation."""

    def __init__(
        self,
        settings: OsaiSettings,
        call: Call[Any],
        document: Any,
        headers: Mapping[str, str],
        sent: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._call = call
        self._endpoint = settings.contract[call.name]
        self._document = document
        self._headers = headers
        self._sent = sent
        self._items = self._raw_items()
        self._decoded = self._decoded_items()
        self.unread = self._unread_names()
        self._pairs: dict[frozenset[str], Mapping[str, str]] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield what differs, each as often as it occurs."""
        for item, decoded in zip(self._items, self._decoded, strict=True):
            if decoded is None:
                yield Problem(kind="form")
            else:
                yield from self._field_problems(item, decoded)
        yield from self._word_problems()
        if self._endpoint.is_list:
            yield from self._page_problems()

    def fields(self) -> dict[str, set[JsonType]]:
        """Return the API's path of each field, with its JSON types."""
        rules = self._endpoint.rules.response.items()
        keyed = {path.text for _, rule in rules if rule is not None and rule.keyed_by for path in rule.paths}
        free = {path.text for name, rule in rules if rule is not None and "metrics" in name for path in rule.paths}
        return field_types(
            self._document,
            known={*self._endpoint.response_fields, *re.findall(r"[A-Za-z_]\w*", str(dict(rules)))},
            keyed={path.rpartition(".")[2].removeprefix("@") for path in keyed},
            free={path.rpartition(".")[2] for path in free | {"metrics", "parameters"}},
            is_list=self._endpoint.is_list,
        )

    def words(self) -> dict[str, int]:
        """Return the status words that may be shown, with their numbers."""
        words = (safe_word(status) for status in self._statuses())
        return dict(Counter(word for word in words if word is not None))

    def result_problems(self, result: Any) -> Iterator[Problem]:
        """Yield what the parsed objects of the result do not have, since its value was ignored, and what is percent."""
        results = result if isinstance(result, list) else [result]
        for each in results[:MAX_ITEMS]:
            yield from _percent(each)
        if self._endpoint.rules.pick is None:
            for each, decoded in zip(results, self._decoded, strict=False):
                if isinstance(each, WireModel) and decoded is not None:
                    yield from _ignored(each, decoded)

    def _raw_items(self) -> list[Any]:
        """Return the objects of the response, as the API has them."""
        try:
            if self._endpoint.is_list or self._endpoint.rules.pick:
                return response_items(self._endpoint, self._document)[:MAX_ITEMS]
            return [unwrapped(self._endpoint, self._document)]
        except (OsaiError, ValueError, TypeError):
            return []

    def _decoded_items(self) -> list[dict[str, Any] | None]:
        """Return the fields of each item by our names; ``None`` for an item that cannot be read."""
        rules = self._endpoint.rules
        if rules is not NO_RULES:
            rules = rules.model_copy(update={"pick": None, "envelope": None})
        endpoint = replace(self._endpoint, is_list=True, rules=rules)
        decoded: list[dict[str, Any] | None] = []
        for item in self._items:
            try:
                decoded += endpoint.read([item], self._headers, self._sent, is_all=True)
            except (OsaiError, ValueError, TypeError):
                decoded.append(None)
        return decoded

    def _field_problems(self, item: Any, decoded: Mapping[str, Any]) -> Iterator[Problem]:
        model = self._endpoint.response_model
        if model is None:
            return
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        absent = {name for name in set(fields) - LOCAL_FIELDS if name not in decoded and self._is_expected(name)}
        pairs = self._similar(frozenset(absent))
        required = {name for name, info in fields.items() if info.is_required()} - LOCAL_FIELDS
        required |= {"status"} & set(fields)
        for name in sorted(absent & (required | set(pairs))):
            yield Problem(kind="missing", field=name, seen=_shown_name(pairs.get(name, "")))
        for name in sorted(required & set(decoded)):
            if decoded[name] is None or isinstance(decoded[name], (dict, list)):
                yield Problem(kind="type", field=name, seen=json_type(decoded[name]))
        if self._endpoint.name.endswith(".get") and self._endpoint.rules.pick is None and "id" in decoded:
            asked, answered = (str(fields["id"]).strip("{}").casefold() for fields in (self._sent, decoded))
            if asked != answered:
                yield Problem(kind="other-id", field="id")
        if self._endpoint.rules is not NO_RULES:
            for name, value in unreadable_fields(self._endpoint, item, self._headers, self._sent).items():
                yield Problem(kind="type", field=safe_field(name), seen=_type_seen(value))

    def _similar(self, absent: frozenset[str]) -> Mapping[str, str]:
        """Return the fields that are not there, with the API's names that may be theirs."""
        if absent not in self._pairs:
            thing = self._endpoint.name.partition(".")[0]
            self._pairs[absent] = pair_names(set(absent), sorted(self.unread)[:MAX_UNREAD], thing=thing)
        return self._pairs[absent]

    def _is_expected(self, name: str) -> bool:
        """Return whether the contract has a field in the response."""
        return self._endpoint.rules.response.get(name, ...) is not None

    def _word_problems(self) -> Iterator[Problem]:
        for status in self._statuses():
            if self._settings.contract.state(status, self._endpoint.name) is JobState.UNKNOWN:
                yield Problem(kind="word", field="status", seen=safe_word(status) or "")

    def _statuses(self) -> Iterator[str]:
        """Yield the status word of each job or conversion as a text."""
        if self._endpoint.response_model not in (Job, Conversion):
            return
        for decoded in self._decoded:
            status = decoded.get("status") if decoded is not None else None
            if isinstance(status, (str, int, float)):
                yield str(status).lower() if isinstance(status, bool) else str(status)

    def _page_problems(self) -> Iterator[Problem]:
        count = len(self._items)
        rule = self._call.rules.pages
        if not sign_of_more(self._document, self._headers, count):
            return
        if rule is None:
            yield Problem(kind="more-pages")
            return
        try:
            following = next_page(
                *(self._call, rule, self._document, self._headers),
                items=count,
                seen=count,
                base_url=self._settings.base_url,
            )
        except (OsaiError, ValueError, KeyError):
            following = None
        if following is None:
            yield Problem(kind="more-pages")

    def _unread_names(self) -> set[str]:
        """Return the API's names in the items that no rule reads."""
        rules = [rule for rule in self._endpoint.rules.response.values() if rule is not None]
        texts = " ".join(path.text for rule in rules for path in rule.paths)
        read = {*re.findall(r"[\w$@-]+", texts), *self._endpoint.response_fields}
        names = {str(name) for item in self._items if isinstance(item, Mapping) for name in item}
        return {name for name in names - read if safe_field(name) == name}


def _percent(result: Any) -> Iterator[Problem]:
    """Yield the metrics of an object that are percent."""
    metrics = getattr(result, "metrics", None) or getattr(getattr(result, "result", None), "metrics", None)
    prefix = "result.metrics" if isinstance(result, Job) else "metrics"
    for name, value in (metrics or {}).items():
        if is_percent(name, value):
            yield Problem(kind="scale", field=safe_field(f"{prefix}.{name}"))


def _ignored(model: WireModel, fields: Mapping[str, Any], prefix: str = "") -> Iterator[Problem]:
    """Yield the fields of an object whose values a model does not take."""
    for name, info in type(model).model_fields.items():
        alias = info.alias or name
        value, kept = fields.get(alias), getattr(model, name)
        if value is None:
            continue
        path = f"{prefix}{alias}"
        if kept is None:
            is_scale = alias in FRACTIONS and json_type(value) == "number"
            yield (
                Problem(kind="scale", field=path)
                if is_scale
                else Problem(kind="type", field=path, seen=json_type(value))
            )
        elif isinstance(kept, WireModel) and isinstance(value, Mapping):
            yield from _ignored(kept, value, f"{path}.")
        elif isinstance(kept, tuple) and kept and isinstance(value, list) and isinstance(value[0], Mapping):
            yield from _ignored(kept[0], value[0], f"{path}.")


def _shown_name(name: str) -> str:
    return name if re.fullmatch(r"[\w$@.-]{1,40}", name) else ""


def _type_seen(value: Any) -> str:
    return "" if value is ABSENT else json_type(value)
