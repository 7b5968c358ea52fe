"""Apply the connection's contract overrides to the default endpoint table, and validate them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from airflow_provider_osai.api.contract import ENDPOINTS, Contract, Endpoint, TokenHeader
from airflow_provider_osai.api.contract_document import read_document
from airflow_provider_osai.api.contract_rules import RESERVED_HEADERS, AuthRule, OperationRules, StatusCase
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.field_rules import EVERY, FieldRule
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.text import normalize_word

__all__ = ["ALL", "JOBS", "apply_overrides"]

ALL = "*"
"""The key of the rules of all operations but the sign-in."""
JOBS = "job"
"""Stands for every kind of job in a key: ``job.get``, ``job.*``."""
MERGED: Final = frozenset({"request", "response", "headers", "query", "body", "constants", "statuses", "states"})
"""Rules of a general and a special key that are merged, name by name; of all others the special one counts."""
BUSY: Final = StatusCase(means="busy")
SECRETIVE: Final = frozenset({"headers", "query", "body", "prefix"})
"""Rules whose values are not shown in errors."""
DOCUMENT_KEYS: Final = ("auth", "states")
"""Keys of a document that are not operations."""


def apply_overrides(contract: Contract, overrides: Mapping[str, Any] | str | None) -> Contract:
    """Return *contract* with a user's *overrides* applied.

    :param overrides: the connection's ``contract`` extra, see :func:`.read_document`. Per operation ``null``, or an
        object of :class:`.OperationRules`. A key may stand for several operations: ``*`` for all but the sign-in,
        ``training.*`` for those of an object, ``job.get`` and ``job.*`` for all kinds of jobs. ``states`` maps status
        words to states, and ``auth`` tells how requests are authenticated.
    :raises OsaiContractError: if an override is invalid; the message names the key and its line.
    """
    document = read_document(overrides)
    try:
        return _apply(contract, document.content)
    except _InvalidOverride as error:
        location = document.location(*error.keys)
        msg = f"Contract key {error.name!r}: {error.reason}. Fix it in {location}."
        raise OsaiContractError(msg) from None


class _InvalidOverride(Exception):
    def __init__(self, name: str, reason: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(name)
        self.name = name
        self.reason = reason
        self.keys = (name, *keys) if not name.startswith("states.") else ("states", name.removeprefix("states."))


def _apply(contract: Contract, document: Mapping[str, Any]) -> Contract:
    by_name = dict(document)
    words = by_name.pop("states", None) or {}
    header = _parse_auth(by_name.pop("auth")) if "auth" in by_name else contract.token_header
    endpoints = {name: endpoint or ENDPOINTS[name] for name, endpoint in contract.endpoints.items()}
    absent = {name for name, endpoint in contract.endpoints.items() if endpoint is None}
    keys = {name: _operations(name, endpoints) for name in by_name}
    # From the general to the special: the rules of fewer operations are applied later.
    ordered = sorted(by_name, key=lambda name: (name != ALL, -len(keys[name])))
    parsed = {name: _parse_rules(name, by_name[name]) for name in ordered}
    paths = {each: rules.path for name, rules in parsed.items() if rules and rules.path for each in keys[name]}
    for name, rules in parsed.items():
        is_pattern = name not in endpoints
        if is_pattern and rules is not None:
            _require_fields_somewhere(name, rules, [endpoints[each] for each in keys[name]])
        for operation in keys[name]:
            endpoint = endpoints[operation]
            if rules is None:
                if name == ALL:
                    raise _InvalidOverride(name, "an API without any operation is of no use; null those that it lacks")
                if not endpoint.optional and not is_pattern:
                    reason = "this operation is required and cannot be null; set its path instead"
                    raise _InvalidOverride(name, reason)
                absent.add(operation)
                continue
            kept = rules
            if is_pattern:
                final = replace(endpoint, path=paths.get(operation, endpoint.path))
                kept = _for_operation(endpoint, rules, final.path_fields)
            else:
                absent.discard(operation)  # only its own key brings an operation back
            endpoints[operation] = _override(endpoint, name, kept, is_pattern=is_pattern)
        for operation in keys[name]:
            _require_distinct_places(name, endpoints[operation], header)
    states, words_by_state = _parse_states(words)
    for name, endpoint in endpoints.items():
        _require_known_words(name, endpoint, {**contract.states, **states, **endpoint.states})
    present = {name: None if name in absent else endpoint for name, endpoint in endpoints.items()}
    return Contract(present, {**contract.states, **states}, {**contract.words_by_state, **words_by_state}, header)


def _operations(name: str, endpoints: Mapping[str, Any]) -> list[str]:
    """Return the operations that a key stands for."""
    if name in endpoints:
        return [name]
    if name == ALL:
        return [each for each in endpoints if each != "auth.sign_in"]
    thing, _, operation = name.partition(".")
    things = tuple(JobKind) if thing == JOBS else (thing,)
    found = [
        each for each in endpoints if each.partition(".")[0] in things and operation in (ALL, each.partition(".")[2])
    ]
    if not found:
        patterns = [f"{JOBS}.{each}" for each in ("submit", "get", "list", "cancel", "page", "stop", ALL)]
        known = (*endpoints, *patterns, *DOCUMENT_KEYS)
        raise _InvalidOverride(name, f"there is no such operation{_suggestion(name, known)}")
    return found


def _parse_auth(value: Any) -> TokenHeader:
    try:
        rule = AuthRule.model_validate(value)
    except ValidationError as error:
        loc = error.errors()[0]["loc"]
        reason = _reason("auth", error, AuthRule) if loc else "must be an object with header and prefix"
        raise _InvalidOverride("auth", reason, tuple(map(str, loc[:1]))) from None
    return TokenHeader(rule.header, rule.prefix)


def _parse_rules(name: str, value: Any) -> OperationRules | None:
    """Return the rules of one key; ``None`` if the API lacks the operation."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        parsed = {part: _parse_fields(name, part, value[part]) for part in ("request", "response") if part in value}
        value = {**value, **parsed}
    try:
        rules = OperationRules.model_validate(value)
    except ValidationError as error:
        raise _invalid_rules(name, value, error) from None
    for word, state in rules.states.items():
        _require_state(f"{name}.states.{word}", state)
    return rules


def _parse_fields(key: str, part: str, fields: Any) -> Any:
    """Return the rules of the fields of a request or a response, so that an error names the field."""
    if not isinstance(fields, Mapping):
        return fields
    parsed: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            if value is None or isinstance(value, (FieldRule, tuple)):
                parsed[name] = value
            elif part == "request" and isinstance(value, list):
                parsed[name] = tuple(FieldRule.parse(each) for each in value)
            else:
                parsed[name] = FieldRule.parse(value)
        except ValidationError as error:
            reason = _reason(f"{part}.{name}", error, FieldRule)
            step = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
            raise _InvalidOverride(key, reason, (part, name, step)) from None
        except ValueError as error:
            raise _InvalidOverride(key, f"{part}.{name} {error}", (part, name)) from None
    return parsed


def _reason(subject: str, error: ValidationError, model: type[BaseModel]) -> str:
    """Return pydantic's findings as text; for an unknown key with the allowed ones and the nearest one."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        key = str(first["loc"][0])
        allowed = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown key {key!r} in {subject}; allowed: {', '.join(allowed)}{_suggestion(key, allowed)}"
    if first["loc"] and str(first["loc"][0]) in SECRETIVE:  # a document may hold a key of the API there
        return f"{subject}.{'.'.join(map(str, first['loc'][:2]))}: {first['msg'].removeprefix('Value error, ')}"
    return str(OsaiArgumentError.from_validation(subject, error))


def _invalid_rules(name: str, value: Any, error: ValidationError) -> _InvalidOverride:
    """Return the error for pydantic's findings; it has the allowed keys and the nearest one."""
    location = tuple(str(step) for step in error.errors()[0]["loc"])
    return _InvalidOverride(name, _reason(name, error, OperationRules), location if isinstance(value, Mapping) else ())


def _require_distinct_places(key: str, endpoint: Endpoint, header: TokenHeader) -> None:
    """Check that no two fields are sent at one place, and that each has a place."""
    constants = endpoint.rules.body.items()  # objects are merged with fields
    places = {("body", name): "body" for name, value in constants if not isinstance(value, Mapping)}
    places |= {("query", name): "query" for name in endpoint.rules.query}
    places |= {("header", name.lower()): "headers" for name in endpoint.rules.headers}
    for name, rules in endpoint.rules.request.items():
        base = name.partition(".")[0]
        for rule in rules if isinstance(rules, tuple) else (rules,):
            if rule is None or rule.write is not None:
                continue
            place = rule.place or endpoint.place_of(base)
            if place == "path":
                if base not in endpoint.path_fields:
                    raise _InvalidOverride(
                        key, f"request.{name} is in the path, which has no {{{base}}}", ("request", name)
                    )
                continue
            for path in rule.paths or (json_path(name),):
                text = path.text.lower() if place == "header" else path.text
                if place == "header" and text in {*RESERVED_HEADERS, header.name.lower()}:
                    reason = f"request.{name} is in the header {path.text}, which the client itself sets"
                    raise _InvalidOverride(key, reason, ("request", name))
                other = places.setdefault((place, text), name)
                if other != name and text != "@":
                    reason = f"request.{name} and {other} are both sent as {text!r} in the {place}"
                    raise _InvalidOverride(key, reason, ("request", name))


def _override(endpoint: Endpoint, key: str, rules: OperationRules, *, is_pattern: bool) -> Endpoint:
    """Return the endpoint with *rules* over those that it has."""
    if not is_pattern:
        _require_known_fields(key, "request", rules.request, endpoint.placeable_fields, endpoint.request)
        _require_known_fields(key, "response", rules.response, _readable(endpoint, rules), endpoint.response_model)
    _require_known_values(key, rules.request, endpoint.request)
    _require_known_items(key, "request", rules.request, endpoint.request)
    _require_known_items(key, "response", rules.response, endpoint.response_model)
    merged = _merge(endpoint.rules, rules)
    overridden = replace(
        endpoint,
        method=merged.method or endpoint.method,
        path=merged.path or endpoint.path,
        rules=merged,
        states={normalize_word(word): JobState(state) for word, state in merged.states.items()},
    )
    _require_known_fields(key, "path", overridden.path_fields, endpoint.placeable_fields)
    for field in set(rules.request) & overridden.path_fields:
        if _renames(rules.request[field]) and (rules.path is not None or not is_pattern):
            raise _InvalidOverride(key, f"request renames {field!r}, which is in the path; remove it from one of them")
    if re.search(r"[{}]", re.sub(r"{\w+(\.[1-9])?}", "", overridden.path)):
        raise _InvalidOverride(key, f"path {overridden.path!r} has a brace that is not part of a {{name}}")
    # Fields in the default path that the new path lacks are sent as ordinary fields.
    moved = endpoint.path_fields - overridden.path_fields
    return replace(overridden, extra_fields=(*overridden.extra_fields, *sorted(moved)))


def _readable(endpoint: Endpoint, rules: OperationRules) -> frozenset[str]:
    """Return the fields that rules of a response may name."""
    picked = {"items"} if rules.pick or endpoint.rules.pick else set()
    if picked and endpoint.name == "model.download":
        picked.add("target")
    token = {"token"} if endpoint.name == "auth.sign_in" else set()
    return frozenset({*endpoint.response_fields, *picked, *token})


def _renames(rule: Any) -> bool:
    """Return whether a rule of a request only gives another name, which a field in the path does not have."""
    return isinstance(rule, FieldRule) and rule.place is None and rule.name is not None


def _for_operation(endpoint: Endpoint, rules: OperationRules, path_fields: frozenset[str]) -> OperationRules:
    """Return the rules of a general key without the fields that the operation does not have.

    :param path_fields: the fields in the path that the whole document gives to the operation.
    """
    update: dict[str, Any] = {}
    for part, known in (("request", endpoint.placeable_fields), ("response", _readable(endpoint, rules))):
        fields = getattr(rules, part)
        kept = {name: rule for name, rule in fields.items() if name.partition(".")[0] in known}
        if part == "request" and rules.path is None:
            kept = {name: rule for name, rule in kept.items() if not (name in path_fields and _renames(rule))}
        if len(kept) < len(fields):
            update[part] = kept
    if rules.pages is not None and not (endpoint.is_list or rules.pick or endpoint.rules.pick):
        update["pages"] = None
    return _updated(rules, update) if update else rules


def _require_fields_somewhere(key: str, rules: OperationRules, endpoints: list[Endpoint]) -> None:
    """Check that each field of a general key is one of at least one operation."""
    for part in ("request", "response"):
        for name in getattr(rules, part):
            problems: list[_InvalidOverride] = []
            for endpoint in endpoints:
                known = endpoint.placeable_fields if part == "request" else _readable(endpoint, rules)
                try:
                    _require_known_fields(
                        key, part, [name], known, endpoint.request if part == "request" else endpoint.response_model
                    )
                except _InvalidOverride as error:
                    problems.append(error)
            if len(problems) == len(endpoints):
                raise problems[0]


def _updated(rules: OperationRules, update: Mapping[str, Any]) -> OperationRules:
    """Return rules with some of them replaced. Not ``model_copy``, which keeps what was computed from the old ones."""
    fields_set = {name for name in OperationRules.model_fields if getattr(rules, name) not in (None, {})}
    values = {name: getattr(rules, name) for name in fields_set}
    return OperationRules.model_construct(fields_set | set(update), **values | dict(update))


def _merge(general: OperationRules, special: OperationRules) -> OperationRules:
    update: dict[str, Any] = {}
    for name in special.model_fields_set:
        value = getattr(special, name)
        update[name] = {**getattr(general, name), **value} if name in MERGED else value
    if special.busy is not None:
        update["statuses"] = {
            **{status: cases for status, cases in general.statuses.items() if status not in (general.busy or ())},
            **update.get("statuses", {}),
            **dict.fromkeys(special.busy, (BUSY,)),
        }
    return _updated(general, update)


def _require_known_fields(
    name: str, part: str, fields: Iterable[str], known: frozenset[str], model: type[BaseModel] | None = None
) -> None:
    """Check each name, and every part of a dotted one.

    :param known: the names of the operation's fields.
    :param model: the model of the request or the response, for what is nested in a field.
    """
    for dotted in fields:
        first, *nested = dotted.split(".")
        if first not in known:
            available = ", ".join(sorted(known)) or "none"
            reason = f"{part} has an unknown field {dotted!r}; this operation has: {available}"
            raise _InvalidOverride(name, f"{reason}{_suggestion(first, known)}", (part, dotted))
        parent, annotation = first, _field_type(model, first)
        for step in nested:
            if (names := _nested_names(annotation)) is None:
                reason = f"{part} has an unknown field {dotted!r}; {parent!r} is not an object"
                raise _InvalidOverride(name, reason, (part, dotted))
            if names and step not in names:
                available = ", ".join(sorted(names))
                reason = f"{part} has an unknown field {dotted!r}; {parent!r} has: {available}"
                raise _InvalidOverride(name, f"{reason}{_suggestion(step, names)}", (part, dotted))
            parent, annotation = f"{parent}.{step}", _nested_type(annotation, step)


def _require_known_items(name: str, part: str, fields: Mapping[str, Any], model: type[BaseModel] | None) -> None:
    """Check the names in ``items`` of each field."""
    for dotted, rules in fields.items():
        first, *nested = dotted.split(".")
        annotation = _field_type(model, first)
        for step in nested:
            annotation = _nested_type(annotation, step)
        known = _nested_names(_element(annotation)) or set()
        for rule in rules if isinstance(rules, tuple) else (rules,):
            for item in rule.items or () if isinstance(rule, FieldRule) else ():
                if known and item not in {*known, EVERY}:
                    available = ", ".join(sorted(known))
                    reason = f"{part} has an unknown field {item!r} in the items of {dotted!r}, which have: {available}"
                    raise _InvalidOverride(name, f"{reason}{_suggestion(item, known)}", (part, dotted, "items", item))


def _require_known_values(name: str, fields: Mapping[str, Any], model: type[BaseModel] | None) -> None:
    """Check our values in ``values`` of each field of a request that has only some."""
    for field, rules in fields.items():
        words = next((list(each) for each in _alternatives(_field_type(model, field)) if _is_enumeration(each)), [])
        for rule in rules if isinstance(rules, tuple) else (rules,):
            for value in (rule.values or ()) if isinstance(rule, FieldRule) and words else ():
                if value not in words:
                    known = ", ".join(map(str, words))
                    reason = f"request.{field} has an unknown value {value!r} of ours in 'values'; it has: {known}"
                    raise _InvalidOverride(name, f"{reason}{_suggestion(value, map(str, words))}", ("request", field))


def _require_known_words(name: str, endpoint: Endpoint, states: Mapping[str, JobState]) -> None:
    """Check that the words that ``values`` of a status lead to have a state."""
    rule = endpoint.rules.response.get("status")
    for word in (rule.values or ()) if rule is not None else ():
        if normalize_word(word) not in states:
            reason = f"response.status has a word {word!r} of ours in 'values' that has no state in 'states'"
            raise _InvalidOverride(name, f"{reason}{_suggestion(word, list(JobState))}", ("response", "status"))


def _is_enumeration(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, StrEnum)


def _element(annotation: Any) -> Any:
    """Return the annotation of the items of a list, or the annotation of anything else."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _element(arguments[0])
    if origin in (Union, UnionType):
        return _element(next((each for each in arguments if each is not type(None)), Any))
    return arguments[0] if origin in (list, tuple) else annotation


def _field_type(model: Any, name: str) -> Any:
    """Return the annotation of a model's field by its name on the wire; ``None`` if there is no such model or field."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        for field_name, field in model.model_fields.items():
            if name in (field.alias, field_name):
                return field.annotation
    return None


def _nested_type(annotation: Any, name: str) -> Any:
    """Return the annotation of what has this name in an object; :data:`Any` where all names are allowed."""
    for candidate in _alternatives(annotation):
        if (nested := _field_type(candidate, name)) is not None:
            return nested
    return Any


def _nested_names(annotation: Any) -> set[str] | None:
    """Return the names in an object; an empty set if all names are allowed; ``None`` if it is not an object."""
    names: set[str] = set()
    for candidate in _alternatives(annotation):
        if candidate is Any or candidate is dict:
            return set()
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            names.update(field.alias or name for name, field in candidate.model_fields.items())
    return names or None


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types of an annotation, without ``Annotated`` and unions; a parametrized dict is ``dict``."""
    origin = get_origin(annotation)
    if origin is None:
        return [annotation]
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for argument in get_args(annotation) for one in _alternatives(argument)]
    return [origin]


def _parse_states(words: Any) -> tuple[dict[str, JobState], dict[JobState, str]]:
    if not isinstance(words, Mapping):
        raise _InvalidOverride("states", "must be an object that maps status words to states")
    states: dict[str, JobState] = {}
    words_by_state: dict[JobState, str] = {}
    for word, state in words.items():
        _require_state(f"states.{word}", state)
        states[normalize_word(word)] = JobState(state)
        words_by_state.setdefault(JobState(state), word)
    return states, words_by_state


def _require_state(key: str, state: Any) -> None:
    if state not in frozenset(JobState) - {JobState.UNKNOWN}:
        known = ", ".join(s.value for s in JobState if s is not JobState.UNKNOWN)
        raise _InvalidOverride(key, f"{state!r} is not a state; must be one of: {known}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(matches)}" if matches else ""
