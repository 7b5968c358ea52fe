"""The contract beside an API's definition: what matches, what differs, what is missing, and what may be meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.conformance.definition import Operation

__all__ = ["Finding", "Verdict", "compare", "suggestion"]

CLOSE: Final = 0.55
"""How much alike an operation must be to be offered (1: the same)."""
ALIKE: Final = 0.72
"""How much alike two names must be to be taken for one."""
OFFERED: Final = 3
"""Candidates that are named."""
PAGES: Final = ".page"
"""Rows that are pages of the portal and no operations of the API."""
UNSENT: Final = frozenset({"kind", "state", "items"})
"""Names of ours that never travel."""


class Verdict(StrEnum):
    """What became of one binding."""

    MATCHES = "matches"
    DIFFERS = "differs"
    MISSING = "missing"
    UNBOUND = "not bound"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the contract, compared.

    :param row: the binding; ``None`` if the contract says that the API has no such operation.
    :param problems: what does not fit, in words.
    :param candidates: operations that may be meant, the likeliest first.
    """

    name: str
    row: Endpoint | None
    verdict: Verdict
    problems: Sequence[str] = ()
    candidates: Sequence[Operation] = ()


def compare(contract: Contract, operations: Sequence[Operation], base: str = "/api") -> list[Finding]:
    """Compare each binding with the definition.

    :param base: the path of the API's base address; paths of the contract begin below it.
    """
    known = {(one.method, _shape(one.path)): one for one in operations}
    findings = []
    for name, row in contract.endpoints.items():
        if name.endswith(PAGES):
            continue
        if row is None:
            findings.append(Finding(name, None, Verdict.UNBOUND))
            continue
        found = known.get((row.method, _shape(base + row.path))) or known.get((row.method, _shape(row.path)))
        if found is None:
            findings.append(
                Finding(name, row, Verdict.MISSING, ("no such path and verb",), _near(row, operations, base))
            )
        else:
            problems = tuple(_problems(row, found))
            findings.append(Finding(name, row, Verdict.DIFFERS if problems else Verdict.MATCHES, problems, (found,)))
    return findings


def suggestion(findings: Iterable[Finding], base: str = "/api") -> dict[str, Any]:
    """Return bindings that fit the definition better: a ``contract`` for the connection. A guess to be read first.

    Each operation is given to one row at the most; a row that may be missing is bound to ``null`` if nothing is close.
    """
    findings = list(findings)
    taken = {id(one.candidates[0]) for one in findings if one.verdict is Verdict.MATCHES}
    bindings: dict[str, Any] = {}
    wanting = [one for one in findings if one.row is not None and one.verdict in (Verdict.MISSING, Verdict.DIFFERS)]
    pairs = sorted(
        ((_likeness(one.row, candidate, base), index, one, candidate)
         for index, one in enumerate(wanting) for candidate in one.candidates if one.row is not None),
        key=lambda pair: (-pair[0], pair[1]),
    )  # fmt: skip
    for _, _, finding, candidate in pairs:
        if finding.name not in bindings and id(candidate) not in taken and finding.row is not None:
            taken.add(id(candidate))
            if binding := _binding(finding.row, candidate, base):
                bindings[finding.name] = binding
    for finding in wanting:
        is_lacking = finding.verdict is Verdict.MISSING and finding.name not in bindings
        if is_lacking and finding.row is not None and finding.row.optional:
            bindings[finding.name] = None
    return bindings


def _shape(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path.rstrip("/")) or "/"


def _problems(row: Endpoint, found: Operation) -> Iterable[str]:
    ours = _sent(row)
    unknown = sorted(name for name in ours.values() if name not in found.sends and not _inside(name, found.sends))
    if unknown and (found.sends or row.method != "GET"):
        yield f"takes no {', '.join(unknown)}"
    unsent = sorted(found.needs - set(ours.values()) - {name.partition(".")[0] for name in ours.values()})
    if unsent:
        yield f"needs {', '.join(unsent)}"
    if row.answer is not None and found.answers is not None:
        required = [alias(name, f.alias) for name, f in row.answer.model_fields.items() if f.is_required()]
        read = [row.response_names.get(name, name) for name in required if name not in UNSENT]
        lacking = sorted(name for name in read if not any(_ends(one, name) for one in found.answers))
        if lacking:
            yield f"answers no {', '.join(lacking)}"


def alias(name: str, other: str | None) -> str:
    """Return a field's name on the wire."""
    return other or name


def _sent(row: Endpoint) -> dict[str, str]:
    """Return what a row sends beside its path: our names, and those of the API."""
    return {name: row.request_names.get(name, name) for name in row.sent_fields - set(row.placeholders)}


def _inside(name: str, names: Iterable[str]) -> bool:
    return any(one.startswith(f"{name}.") for one in names)


def _ends(one: str, name: str) -> bool:
    return one == name or one.endswith(f".{name}")


def _near(row: Endpoint, operations: Sequence[Operation], base: str) -> tuple[Operation, ...]:
    ranked = sorted(operations, key=lambda one: -_likeness(row, one, base))
    return tuple(one for one in ranked[:OFFERED] if _likeness(row, one, base) >= CLOSE)


def _likeness(row: Endpoint | None, other: Operation, base: str) -> float:
    """Say how much alike two operations are, 0 to 1: by their paths, verbs, ids and fields."""
    if row is None or row.method != other.method:
        return 0.0
    ours, theirs = _shape(row.path), _shape(other.path.removeprefix(base))
    if ours.count("{}") != theirs.count("{}"):
        return 0.0
    path = difflib.SequenceMatcher(None, ours.lower(), theirs.lower()).ratio()
    ends = ours.rpartition("/")[2].lower() == theirs.rpartition("/")[2].lower()
    sent = set(_sent(row))
    fields = len(_renamed(sent, other.sends)) / len(sent) if sent else float(not other.needs)
    extra = len(other.needs - set(_renamed(sent, other.sends).values())) if sent else 0
    return 0.45 * path + 0.1 * ends + 0.45 * fields - 0.05 * extra


def _binding(row: Endpoint, other: Operation, base: str) -> dict[str, Any]:
    binding: dict[str, Any] = {}
    path = other.path.removeprefix(base)
    theirs = re.findall(r"{([^}]*)}", path)
    for mine, name in zip(row.placeholders, theirs, strict=True):
        path = path.replace(f"{{{name}}}", f"{{{mine}}}", 1)
    if path != row.path:
        binding["path"] = path
    request = {mine: name for mine, name in _renamed(set(_sent(row)), other.sends).items() if mine != name}
    if request:
        binding["request"] = dict(sorted(request.items()))
    read = row.answered_fields - UNSENT
    response = {mine: name for mine, name in _renamed(set(read), other.answers or ()).items() if mine != name}
    if response:
        binding["response"] = dict(sorted(response.items()))
    return binding


def _renamed(ours: set[str], theirs: Iterable[str]) -> Mapping[str, str]:
    """Pair our names with theirs: the same first, then those that mean the same with another case or more around it."""
    left, pairs = set(theirs), {}
    scored = sorted(
        ((_alike(mine, name), mine, name) for mine in ours for name in left), key=lambda one: (-one[0], one[1], one[2])
    )
    for score, mine, name in scored:
        if score >= ALIKE and mine not in pairs and name in left:
            pairs[mine] = name
            left.discard(name)
    return pairs


def _alike(mine: str, name: str) -> float:
    last = name.rpartition(".")[2]
    if mine == name:
        return 1.0
    a, b = _plain(mine), _plain(last)
    if a == b:
        return 0.98 - 0.01 * name.count(".")
    if b.endswith(a) and len(a) >= 2:
        return 0.9 - 0.01 * name.count(".")
    return difflib.SequenceMatcher(None, a, b).ratio() * 0.9


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
