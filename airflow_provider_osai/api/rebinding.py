"""Lays a user's bindings over the contract, and says clearly what is wrong with them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.naming import folded

__all__ = ["Binding", "rebind"]

FieldName = Annotated[str, StringConstraints(pattern=r"^[^\s.]+(\.[^\s.]+)*$")]


class Binding(BaseModel):
    """One operation as a user binds it; what is left out stays as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    path: Annotated[str, StringConstraints(pattern=r"^/[^?#\s]*$")] | None = None
    request: dict[FieldName, FieldName] = {}
    response: dict[FieldName, FieldName] = {}
    busy: tuple[Annotated[int, Field(ge=400, le=499)], ...] | None = None


def rebind(contract: Contract, bindings: Mapping[str, Any] | str | None) -> Contract:
    """Return *contract* with a user's *bindings* over it.

    :param bindings: the connection's ``contract`` extra, as JSON text or as its object. Per operation ``null`` or an
        object with any of ``method``, ``path``, ``request``, ``response``, ``busy`` (statuses that mean "not now");
        ``states`` maps status words to states.
    :raises OsaiContractError: naming the key that is wrong.
    """
    given = dict(_parsed(bindings))
    words = given.pop("states", None) or {}
    endpoints = dict(contract.endpoints)
    for name, value in given.items():
        if name not in endpoints:
            raise _wrong(name, f"there is no such operation{_meant(name, (*endpoints, 'states'))}")
        endpoints[name] = _bound(contract, name, value)
    states, own = _states(words)
    return Contract(endpoints, {**contract.states, **states}, {**contract.own_words, **own})


def _parsed(bindings: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if isinstance(bindings, str):
        try:
            bindings = json.loads(bindings) if bindings.strip() else {}
        except ValueError as error:
            msg = f"contract: this is no JSON: {error}"
            raise OsaiContractError(msg) from None
    if not isinstance(bindings, Mapping | None):
        msg = f"contract: a JSON object is needed, not {type(bindings).__name__}"
        raise OsaiContractError(msg)
    return bindings or {}


def _bound(contract: Contract, name: str, value: Any) -> Endpoint | None:
    endpoint = contract.endpoints[name]
    if value is None:
        if endpoint is not None and not endpoint.optional:
            raise _wrong(name, "this operation cannot be null, since nothing works without it; give its path instead")
        return None
    if endpoint is None:
        endpoint = Contract().endpoints[name]
        assert endpoint is not None  # noqa: S101 - the default table has no null
    try:
        binding = Binding.model_validate(value)
    except ValidationError as error:
        raise _wrong(name, str(OsaiArgumentError.from_validation("binding", error))) from None
    _known(name, "request", binding.request, endpoint.sent_fields)
    _known(name, "response", binding.response, endpoint.answered_fields)
    bound = replace(
        endpoint,
        method=binding.method or endpoint.method,
        path=binding.path or endpoint.path,
        request_names={**endpoint.request_names, **binding.request},
        response_names={**endpoint.response_names, **binding.response},
        busy=endpoint.busy if binding.busy is None else binding.busy,
    )
    _known(name, "path", bound.placeholders, endpoint.sent_fields)
    for field in set(binding.request) & set(bound.placeholders):
        raise _wrong(name, f"request renames {field!r}, which the path holds; take it out of one of the two")
    if re.search(r"[{}]", re.sub(r"{\w+}", "", bound.path)):
        raise _wrong(name, f"path {bound.path!r} has a brace that is not part of a {{name}}")
    # What the default path carries travels as an ordinary field where the new path has no place for it.
    return replace(bound, also=(*bound.also, *(set(endpoint.placeholders) - set(bound.placeholders))))


def _known(name: str, part: str, fields: Iterable[str], known: frozenset[str]) -> None:
    for dotted in fields:
        if dotted.split(".")[0] not in known:
            what = f"{part} names the field {dotted!r}, which this operation does not have; it has: "
            raise _wrong(name, what + (", ".join(sorted(known)) or "none"))


def _states(words: Any) -> tuple[dict[str, JobState], dict[JobState, str]]:
    if not isinstance(words, Mapping):
        raise _wrong("states", "an object of status word -> state is needed")
    states: dict[str, JobState] = {}
    own: dict[JobState, str] = {}
    for word, state in words.items():
        if state not in frozenset(JobState) - {JobState.UNKNOWN}:
            known = ", ".join(s.value for s in JobState if s is not JobState.UNKNOWN)
            raise _wrong(f"states.{word}", f"{state!r} is no state; the states are: {known}")
        states[folded(word)] = JobState(state)
        own.setdefault(JobState(state), word)
    return states, own


def _wrong(key: str, why: str) -> OsaiContractError:
    return OsaiContractError(f"contract key {key!r}: {why}. Mend it in the connection's extra field 'contract'.")


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
