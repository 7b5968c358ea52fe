"""Compare each response about a job that is read anyway with the contract and with earlier responses.

What differs is counted, and logged once with the line to add to the contract. Only names of operations and fields, JSON
types, status words and HTTP statuses are kept, never a value.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_osai.api.misfits import difference_text, report_misfit
from airflow_provider_osai.api.models import JobKind, JobState

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract import Contract

__all__ = ["Difference", "ResponseWatch", "watch_of"]

log = logging.getLogger(__name__)

MAX_FORMS: Final = 512
"""Maximum forms of responses that are recognized; then all are forgotten, and their numbers kept."""
MAX_DIFFERENCES: Final = 100
"""Maximum differences that are kept and logged."""
MIN_RESPONSES: Final = 20
"""Responses about jobs in one state that had a field before its absence means something."""
MAX_WAIT: Final = 0.05
"""Maximum seconds to wait for a lock; then a response is not counted. A signal handler that cancels a job may have
interrupted its holder, which cannot release it."""
MAX_WATCHES: Final = 32
"""Maximum watches that are kept, of the base URLs and contracts that were used last."""
TYPES: Final[Mapping[str, frozenset[str]]] = {
    "id": frozenset({"string", "number"}),
    "status": frozenset({"string", "number", "boolean"}),
    "progress": frozenset({"number"}),
    "createdAt": frozenset({"string", "number"}),
    "startedAt": frozenset({"string", "number"}),
    "finishedAt": frozenset({"string", "number"}),
    "message": frozenset({"string", "number"}),
    "reference": frozenset({"string", "number"}),
    "result": frozenset({"object"}),
    "history": frozenset({"array"}),
}
"""Our names of the fields of a job, with the JSON types that the provider can read."""
LASTING: Final = frozenset({"createdAt", "progress", "reference", "result", "startedAt"})
"""Fields that each job has in a state, or none. A message, a history and times of the end come and go."""
RESULTS: Final = frozenset({"conversionId", "datasetId", "deviceId", "expiresAt", "modelId"})
"""Fields of a result that each job of a kind has when it has ended well, or none."""
USUAL_STATUSES: Final = frozenset({401, 404, 408, 410, 425, 429, *range(500, 600)})
"""HTTP statuses without success that a request for jobs may have at any time."""
UNSUPPORTED: Final = frozenset({400, 405, 414})
"""Those of a list that the API does not have, or that is too long; then each job is polled by itself."""
READS: Final[Mapping[str, frozenset[int]]] = {
    **{f"{kind}.get": USUAL_STATUSES for kind in JobKind},
    **{f"{kind}.list": USUAL_STATUSES | UNSUPPORTED for kind in JobKind},
}
"""The operations that read jobs, with their usual HTTP statuses."""


class Difference(NamedTuple):
    """How responses of an operation differ; see :class:`~airflow_provider_osai.api.evidence.Problem`."""

    operation: str
    kind: str
    field: str = ""
    seen: str = ""

    @property
    def text(self) -> str:
        """The difference, and the line to add to the contract."""
        return f"{self.operation}: {difference_text(*self)}"


@dataclass(slots=True)
class _Group:
    """Responses of one operation about jobs in one state: their number, and the fields that all of them had."""

    responses: int = 0
    lasting: frozenset[str] | None = None


@dataclass(slots=True)
class _Form:
    """Responses with the same fields, types and status word."""

    group: _Group
    differences: tuple[Difference, ...]
    responses: int = 1


@dataclass(slots=True)
class _Counts:
    """What was counted by forms that are forgotten."""

    responses: int = 0
    differences: dict[Difference, int] = field(default_factory=dict)


class ResponseWatch:
    """Watches the responses of one OSAI in this process. Thread-safe, and bounded in memory and in log lines.

    A response with a form that was seen before costs one look-up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: dict[int, _Form] = {}
        self._groups: dict[tuple[str, JobState], _Group] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._forgotten = _Counts()

    def saw_job(self, operation: str, fields: Mapping[str, Any], word: str, state: JobState) -> None:
        """Compare the fields of a job, by our names, with the contract and with earlier responses.

        :param word: its status word.
        """
        result = fields.get("result")
        inner = result if type(result) is dict else ()
        form_id = hash((operation, word, *fields, *map(type, fields.values()), *inner))
        form = self._forms.get(form_id)
        if form is not None:
            form.responses += 1  # without the lock, which every poll would pay for: two threads may lose a count
            return
        if not self._lock.acquire(timeout=MAX_WAIT):
            return
        try:
            found = self._compare(operation, fields, word, state)
            new = self._keep(form_id, self._groups[operation, state], found)
        finally:
            self._lock.release()
        self._warn(new)

    def saw_status(self, operation: str, status: int, rules: Mapping[int, Any]) -> None:
        """Note an HTTP status without success of a request for jobs, unless it is usual or in the contract."""
        usual = READS.get(operation)
        if usual is None or status in usual or status in rules:
            return
        if not self._lock.acquire(timeout=MAX_WAIT):
            return
        try:
            new = self._count(Difference(operation, "status", "", str(status)), 1)
        finally:
            self._lock.release()
        self._warn(new)

    @property
    def responses(self) -> int:
        """The number of jobs in all responses."""
        with self._lock:
            return self._forgotten.responses + sum(form.responses for form in self._forms.values())

    def differences(self, operation: str | None = None) -> dict[Difference, int]:
        """Return what differs, with the number of responses; of one operation, or of all."""
        with self._lock:
            counts = dict(self._forgotten.differences)
            for form in self._forms.values():
                for each in form.differences:
                    counts[each] = counts.get(each, 0) + form.responses
        return {each: count for each, count in counts.items() if operation in (None, each.operation)}

    def _compare(self, operation: str, fields: Mapping[str, Any], word: str, state: JobState) -> tuple[Difference, ...]:
        group = self._groups.setdefault((operation, state), _Group())
        found = [*self._type_differences(operation, fields), *self._lost(operation, fields, state, group)]
        if state is JobState.UNKNOWN and word:
            from airflow_provider_osai.api.evidence import safe_word  # only what differs needs it

            found.append(Difference(operation, "word", "status", safe_word(word) or ""))
        return tuple(found)

    def _type_differences(self, operation: str, fields: Mapping[str, Any]) -> Iterator[Difference]:
        from airflow_provider_osai.api.evidence import json_type  # only new forms need it

        for name, expected in TYPES.items():
            if fields.get(name) is not None:
                seen = json_type(fields[name])
                if seen not in expected or self._types.setdefault((operation, name), seen) != seen:
                    yield Difference(operation, "type", name, seen)

    def _lost(self, operation: str, fields: Mapping[str, Any], state: JobState, group: _Group) -> Iterator[Difference]:
        """Yield the lasting fields that all earlier responses about jobs in this state had."""
        if state is JobState.UNKNOWN:
            return
        present = LASTING & fields.keys()
        result = fields.get("result")
        if state is JobState.SUCCEEDED and isinstance(result, dict):
            present |= {f"result.{name}" for name in RESULTS & result.keys()}
        if operation.endswith(".list"):
            present -= {"reference"}  # jobs of the portal have none
        before = group.lasting
        group.lasting = present if before is None else before & present
        earlier = group.responses + sum(form.responses for form in self._forms.values() if form.group is group)
        if before is not None and earlier >= MIN_RESPONSES:
            for name in sorted(before - present):
                yield Difference(operation, "lost", name)

    def _keep(self, form_id: int, group: _Group, found: tuple[Difference, ...]) -> list[Difference]:
        """Keep a new form; return its differences that are new."""
        known = {each for form in self._forms.values() for each in form.differences} | {*self._forgotten.differences}
        new = [each for each in dict.fromkeys(found) if each not in known][: max(0, MAX_DIFFERENCES - len(known))]
        if len(self._forms) >= MAX_FORMS:
            self._forget()
        self._forms[form_id] = _Form(group, tuple(each for each in found if each in known or each in new))
        return new

    def _forget(self) -> None:
        for form in self._forms.values():
            form.group.responses += form.responses
            self._forgotten.responses += form.responses
            for each in form.differences:
                self._count(each, form.responses)
        self._forms.clear()

    def _count(self, difference: Difference, responses: int) -> list[Difference]:
        """Count a difference; return it if it is new and there is room for it."""
        counts = self._forgotten.differences
        if difference not in counts and len(counts) >= MAX_DIFFERENCES:
            return []
        is_new = difference not in counts
        counts[difference] = counts.get(difference, 0) + responses
        return [difference] if is_new else []

    @staticmethod
    def _warn(differences: list[Difference]) -> None:
        for each in differences:
            log.warning("Response differs from the contract: %s", each.text)
            report_misfit(each.operation, each.kind)


_watches: list[tuple[str, Contract, ResponseWatch]] = []
_watches_lock = threading.Lock()


def watch_of(base_url: str, contract: Contract) -> ResponseWatch:
    """Return the watch of the OSAI at *base_url*, which all clients of this process with the same contract share."""
    if not _watches_lock.acquire(timeout=MAX_WAIT):
        return ResponseWatch()
    try:
        for known_url, known_contract, watch in _watches:
            if known_url == base_url and known_contract == contract:
                return watch
        watch = ResponseWatch()
        _watches.append((base_url, contract, watch))
        del _watches[:-MAX_WATCHES]
        return watch
    finally:
        _watches_lock.release()
