"""Compare the contract with an API definition, and suggest overrides for what differs or is missing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.learning.api_definition import ApiOperation

__all__ = ["Finding", "MatchStatus", "compare", "pair_names", "suggest_overrides"]

MIN_OPERATION_SIMILARITY: Final = 0.55
"""Similarity from which an operation is a candidate (1: identical)."""
MIN_NAME_SIMILARITY: Final = 0.72
"""Similarity from which two field names are paired (1: identical)."""
MAX_CANDIDATES: Final = 3
PAGE_SUFFIX: Final = ".page"
"""Ending of the names of rows that are pages of the portal, not operations of the API."""
LOCAL_FIELDS: Final = frozenset({"kind", "state", "items"})
"""Fields of the models that are not on the wire under any name."""


class MatchStatus(StrEnum):
    """How one endpoint of the contract compares with the API definition."""

    MATCHES = "matches"
    DIFFERS = "differs"
    MISSING = "missing"
    UNBOUND = "not bound"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of comparing one row of the contract.

    :param row: the endpoint; ``None`` if it is ``null`` in the contract, since the API has no such operation.
    :param problems: the differences as texts.
    :param candidates: operations that may correspond to it, most similar first.
    """

    name: str
    row: Endpoint | None
    status: MatchStatus
    problems: Sequence[str] = ()
    candidates: Sequence[ApiOperation] = ()


def compare(contract: Contract, operations: Sequence[ApiOperation], base: str = "/api") -> list[Finding]:
    """Compare each endpoint of the contract with the API definition.

    :param base: the path of the API's base address; paths of the contract are relative to it.
    """
    by_path = {(operation.method, _path_shape(operation.path)): operation for operation in operations}
    findings = []
    for name, row in contract.endpoints.items():
        if name.endswith(PAGE_SUFFIX):
            continue
        if row is None:
            findings.append(Finding(name, None, MatchStatus.UNBOUND))
            continue
        operation = by_path.get((row.method, _path_shape(base + row.path)))
        operation = operation or by_path.get((row.method, _path_shape(row.path)))
        if operation is None:
            problems: tuple[str, ...] = ("no such path and method",)
            findings.append(Finding(name, row, MatchStatus.MISSING, problems, _candidates(row, operations, base)))
        else:
            problems = tuple(_differences(row, operation))
            status = MatchStatus.DIFFERS if problems else MatchStatus.MATCHES
            findings.append(Finding(name, row, status, problems, (operation,)))
    return findings


def suggest_overrides(findings: Iterable[Finding], base: str = "/api") -> dict[str, Any]:
    """Return a ``contract`` extra that fits the API definition better. It is a guess: review it before use.

    Each operation is assigned to at most one row; an optional row without a candidate is set to ``null``.
    """
    findings = list(findings)
    assigned = {id(finding.candidates[0]) for finding in findings if finding.status is MatchStatus.MATCHES}
    overrides: dict[str, Any] = {}
    unmatched = [finding for finding in findings if finding.status in (MatchStatus.MISSING, MatchStatus.DIFFERS)]
    pairs = sorted(
        (
            # A row whose path and method exist comes first: it only differs.
            (
                (finding.status is MatchStatus.DIFFERS) + _operation_similarity(finding.row, candidate, base),
                index,
                finding,
                candidate,
            )
            for index, finding in enumerate(unmatched)
            for candidate in finding.candidates
        ),
        key=lambda pair: (-pair[0], pair[1]),
    )
    for _, _, finding, candidate in pairs:
        if finding.name not in overrides and id(candidate) not in assigned and finding.row is not None:
            assigned.add(id(candidate))
            if override := _override(finding.row, candidate, base):
                overrides[finding.name] = override
    for finding in unmatched:
        is_missing = finding.status is MatchStatus.MISSING and finding.name not in overrides
        if is_missing and finding.row is not None and finding.row.optional:
            overrides[finding.name] = None
    return overrides


def _path_shape(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path.rstrip("/")) or "/"


def _differences(row: Endpoint, operation: ApiOperation) -> Iterable[str]:
    sent = set(_sent_places(row))
    unknown = sorted(name for name in sent if name not in operation.sends and not _is_object(name, operation.sends))
    if unknown and (operation.sends or row.method != "GET"):
        yield f"does not accept {', '.join(unknown)}"
    constant = {name.partition(".")[0] for name in (*row.rules.query, *row.rules.body)}
    unsent = sorted(operation.needs - sent - constant - {name.partition(".")[0] for name in sent})
    if unsent:
        yield f"requires {', '.join(unsent)}"
    if row.response_model is not None and operation.returns is not None:
        fields = row.response_model.model_fields
        required = [field.alias or name for name, field in fields.items() if field.is_required()]
        names = row.response_names
        read = [names.get(name, name) for name in required if name not in LOCAL_FIELDS and not _is_elsewhere(row, name)]
        yield from _unreadable(row, operation, read)


def _sent_places(row: Endpoint) -> Iterable[str]:
    """Yield the places of what a row sends but for paths and headers, as definitions name them."""
    for name, theirs in _wire_names(row).items():
        rules = row.rules.request.get(name)
        for rule in rules if isinstance(rules, tuple) else (rules,):
            if rule is None:
                yield theirs
            elif rule.place not in ("header", "path"):
                yield from (path.text.replace("[*]", "") for path in rule.paths or (json_path(name),))


def _is_elsewhere(row: Endpoint, name: str) -> bool:
    """Return whether a field is not read from the JSON of the response, or from several places."""
    if name not in row.rules.response:
        return row.rules.answer in ("text", "none")
    rule = row.rules.response[name]
    return rule is None or rule.place == "header" or rule.parts is not None


def _unreadable(row: Endpoint, operation: ApiOperation, names: Sequence[str]) -> Iterable[str]:
    """Yield which of the API's *names* are not where the contract reads them."""
    returns = operation.returns or frozenset()
    where = f"{row.rules.envelope}." if row.rules.envelope else ""
    if row.is_list or row.rules.pick:
        listed = row.response_names.get("items", "items")
        where = {"": where, f"{where}{listed}": f"{where}{listed}."}.get(operation.list_at or "", where)
    missing = sorted(name for name in names if f"{where}{name}" not in returns)
    if not missing:
        return
    objects = {field.removesuffix(f".{missing[0]}") for field in returns if field.endswith(f".{missing[0]}")}
    below = [prefix for prefix in sorted(objects) if all(f"{prefix}.{name}" in returns for name in missing)]
    if below:
        key = "response.items" if (row.is_list and operation.list_at) else "envelope"
        yield f"returns {', '.join(missing)} below {below[0]!r} ({key} of the contract)"
    else:
        yield f"does not return {', '.join(missing)}"


def _wire_names(row: Endpoint) -> dict[str, str]:
    """Map our names of the fields that a row sends, except those in its path, to the API's names."""
    fields = row.sent_fields - row.path_fields - row.unsent_fields
    return {name: row.request_names.get(name, name) for name in fields}


def _is_object(name: str, dotted_names: Iterable[str]) -> bool:
    return any(dotted.startswith(f"{name}.") for dotted in dotted_names)


def _candidates(row: Endpoint, operations: Sequence[ApiOperation], base: str) -> tuple[ApiOperation, ...]:
    scored = [(_operation_similarity(row, operation, base), operation) for operation in operations]
    scored.sort(key=lambda pair: -pair[0])
    return tuple(operation for score, operation in scored[:MAX_CANDIDATES] if score >= MIN_OPERATION_SIMILARITY)


def _operation_similarity(row: Endpoint | None, operation: ApiOperation, base: str) -> float:
    """Return how similar a row and an operation are, from 0 to 1, by method, path, placeholders and fields."""
    if row is None or row.method != operation.method:
        return 0.0
    ours = _path_shape(row.path)
    theirs = _path_shape(operation.path.removeprefix(base))
    if ours.count("{}") != theirs.count("{}"):
        return 0.0
    path = difflib.SequenceMatcher(None, ours.lower(), theirs.lower()).ratio()
    same_end = ours.rpartition("/")[2].lower() == theirs.rpartition("/")[2].lower()
    sent = set(_wire_names(row))
    if not sent:  # only the path tells
        return 0.9 * path + 0.1 * same_end
    pairs = pair_names(sent, operation.sends)
    fields = len(pairs) / len(sent)
    extra = len(operation.needs - set(pairs.values()))
    return 0.45 * path + 0.1 * same_end + 0.45 * fields - 0.05 * extra


def _override(row: Endpoint, operation: ApiOperation, base: str) -> dict[str, Any]:
    override: dict[str, Any] = {}
    path = operation.path.removeprefix(base)
    placeholders = re.findall(r"{([^}]*)}", path)
    for ours, theirs in zip(row.placeholders, placeholders, strict=True):
        path = path.replace(f"{{{theirs}}}", f"{{{ours}}}", 1)
    if path != row.path:
        override["path"] = path
    request = pair_names(set(_wire_names(row)), operation.sends)
    returns = operation.returns or frozenset()
    if row.is_list and operation.list_at:
        below = f"{operation.list_at}."
        returns = frozenset(name.removeprefix(below) for name in returns if name.startswith(below))
    response = dict(pair_names(set(row.response_fields - LOCAL_FIELDS), returns, thing=row.name.partition(".")[0]))
    if row.is_list and operation.list_at:
        response["items"] = operation.list_at
    for key, pairs in (("request", request), ("response", response)):
        if renamed := {ours: theirs for ours, theirs in sorted(pairs.items()) if ours != theirs}:
            override[key] = renamed
    return override


def pair_names(ours: set[str], theirs: Iterable[str], *, thing: str = "") -> Mapping[str, str]:
    """Pair our field names with the API's, best match first: identical, then differing in case, nesting or prefix."""
    unpaired = set(theirs)
    pairs: dict[str, str] = {}
    scored = sorted(
        (-_name_similarity(name, other), name, other)
        for name in ours
        for other in unpaired
        if name != "id" or _is_id_of(thing, other)
    )
    for score, name, other in scored:
        if -score >= MIN_NAME_SIMILARITY and name not in pairs and other in unpaired:
            pairs[name] = other
            unpaired.discard(other)
    return pairs


def _is_id_of(thing: str, name: str) -> bool:
    """Return whether a name may be that of the id of a thing itself, and not of another thing."""
    last = _normalize(name.rpartition(".")[2])
    return last in {"id", "uuid", "guid", f"{_normalize(thing)}id", "jobid", "taskid", "runid", "operationid"}


def _name_similarity(name: str, other: str) -> float:
    if name == other:
        return 1.0
    a = _normalize(name)
    b = _normalize(other.rpartition(".")[2])
    if a == b:
        return 0.98 - 0.01 * other.count(".")
    if b.endswith(a) and len(a) >= 2:
        return 0.9 - 0.01 * other.count(".")
    return difflib.SequenceMatcher(None, a, b).ratio() * 0.9


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
