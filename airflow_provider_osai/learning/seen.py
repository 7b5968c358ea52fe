"""What the steps of learning share: the calls, the operations and jobs found in them, and what is still open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.fields import Mapped
from airflow_provider_osai.learning.provenance import Call
from airflow_provider_osai.learning.roles import JobTrace, Roles
from airflow_provider_osai.learning.states import Question
from airflow_provider_osai.learning.values import Steps, at, words

__all__ = ["JOBS", "Row", "Seen", "find_envelope"]

JOBS: Final = frozenset(kind.value for kind in JobKind)
"""The prefixes of the operations of jobs."""
ENVELOPE_SHARE: Final = 0.6
"""Share of the operations that have the envelope; the others have responses without a result."""
MIN_ENVELOPES: Final = 3
"""Operations from which a key is an envelope."""


@dataclass
class Row:
    """What was learned of one operation.

    :param rules: as in a contract document; ``None``: the document sets the operation to ``null``.
    :param entries: the entries of the recordings that show it.
    :param doubts: what in it is uncertain, and why.
    :param proof: what the replay found; empty: it works.
    """

    operation: str
    rules: dict[str, Any] | None
    entries: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    proof: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """What was found in recordings so far.

    :param answers: of earlier questions, by their ids.
    :param envelope: the key of the result in every response.
    :param jobs: the fields of the responses about jobs, by kind.
    :param rows: the operations that are learned already.
    """

    calls: Sequence[Call]
    roles: Roles
    answers: Mapping[str, str]
    envelope: str | None = None
    jobs: dict[JobKind, Mapped] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _results: dict[JobTrace, set[str]] = field(default_factory=dict)

    def inside(self, document: Any) -> Any:
        """Return a response without its envelope."""
        if self.envelope and isinstance(document, Mapping):
            return document.get(self.envelope, document)
        return document

    def relative(self, steps: Steps) -> Steps:
        """Return steps in a whole response as steps below its envelope."""
        return steps[1:] if self.envelope and steps[:1] == (self.envelope,) else steps

    def results(self, job: JobTrace) -> set[str]:
        """Return the ids that a job made; its own if no response has another one."""
        mapped = self.jobs.get(job.kind)
        if mapped is None:
            return set()
        if job not in self._results:
            self._results[job] = self._find_results(job, mapped)
        return self._results[job]

    def _find_results(self, job: JobTrace, mapped: Mapped) -> set[str]:
        places = [steps for name, steps in mapped.steps.items() if name.startswith("result.") and name.endswith("Id")]
        found = {at(self.inside(document), steps) for steps in places[:1] for document in job.documents}
        return {str(value) for value in found if value not in (None, "", 0)} if places else {job.value}

    def all_calls(self) -> Iterator[Call]:
        """Yield the calls of all operations but the sign-in."""
        return (call for name, role in self.roles.operations.items() if name != "auth.sign_in" for call in role.calls)


def find_envelope(roles: Roles) -> str | None:
    """Return the key below which nearly every JSON response has its result; ``None`` if there is none."""
    counts: Counter[str] = Counter()
    total = 0
    for name, role in roles.operations.items():
        document = role.calls[-1].exchange.response
        if name == "auth.sign_in" or not isinstance(document, Mapping) or not document:
            continue
        total += 1
        if not any(words(key)[-1:] == ("id",) and isinstance(value, (str, int)) for key, value in document.items()):
            counts.update(key for key, value in document.items() if isinstance(value, (dict, list)))
    key, count = counts.most_common(1)[0] if counts else ("", 0)
    return key if count >= max(MIN_ENVELOPES, ENVELOPE_SHARE * total) else None
