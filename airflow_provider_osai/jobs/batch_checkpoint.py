"""Checkpoints of the jobs of a batch: those of up to 40 jobs in one value, so that a thousand jobs need few writes.

Each job has a :class:`JobCheckpoint` of its own, as if it were the only one of its task. The intents of the next jobs
are written before the first of them is submitted, and their ids after several submissions: a process that ends in
between leaves intents without an id, whose jobs the next try finds by their idempotency keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from airflow_provider_osai.jobs.checkpoint import JobCheckpoint

__all__ = ["JOBS_PER_VALUE", "BatchCheckpoints", "ValueStore"]

KEY: Final = "osai_batch"
"""Key of the number of values; the values are stored under ``osai_batch_0`` and so on."""
JOBS_PER_VALUE: Final = 40
"""Maximum jobs in one value. That is 12 kB, which every database accepts."""
WRITE_EVERY: Final = 10
"""Number of submitted jobs after which their ids are written."""
NAMES: Final[Mapping[str, str]] = {
    "reference": "key",
    "job_id": "id",
    "failed": "failed",
    "at": "at",
    "void": "void",
    "cancelled": "cancelled",
    "request": "request",
    "run": "run",
}
"""Fields of a checkpoint that differ between the jobs of a batch, with their names in a value."""

LONG_NAMES: Final = {short: name for name, short in NAMES.items()}


class ValueStore(Protocol):
    """Stores JSON values by key, such as Airflow's task state store."""

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` if there is none."""

    def set(self, key: str, value: Any) -> Any:
        """Store the value; it is persisted when this returns."""


class BatchCheckpoints:
    """The checkpoints of all jobs of a batch.

    :param store: stores the values; ``None``: an Airflow without a task state store, where nothing is stored and the
        jobs of earlier tries are found by OSAI's list alone.
    :param can_list: whether OSAI can list jobs by their idempotency key. Without that, each intent and each id is
        written at once, since a job whose id is not known could not be found.
    :param is_first_try: whether no other try may have submitted a job. An earlier one may have run before an upgrade
        to Airflow 3.3, and have stored nothing.
    """

    def __init__(self, store: ValueStore | None, *, can_list: bool = True, is_first_try: bool = True) -> None:
        self._store = store
        self._can_list = can_list
        self._is_first_try = is_first_try
        self._values = 0
        self._entries: dict[int, JobCheckpoint] = {}
        self._prepared: dict[int, str] = {}
        self._unwritten: set[int] = set()
        self._is_given_up = False
        self.remembers = store is not None
        if store is not None:
            self._read(store)

    def _read(self, store: ValueStore) -> None:
        count = store.get(KEY)
        if count is None:
            self.remembers = self._is_first_try
            return
        self._values = count if type(count) is int else 0
        self.remembers = type(count) is int
        for number in range(self._values):
            value = store.get(f"{KEY}_{number}")
            jobs = value.get("jobs") if isinstance(value, dict) else None
            if not isinstance(jobs, dict):
                self.remembers = False
                continue
            for index, fields in jobs.items():
                try:
                    own = {LONG_NAMES.get(name, name): each for name, each in fields.items()}
                    self._entries[int(index)] = JobCheckpoint.model_validate({**value, **own})
                except (AttributeError, TypeError, ValueError):  # pydantic's error is a ValueError
                    self.remembers = False  # of a much newer version: OSAI's list decides

    @property
    def known(self) -> dict[int, JobCheckpoint]:
        """The checkpoints by the index of their job. Those of another generation or request may be among them."""
        return dict(self._entries)

    def of(self, index: int) -> _BatchedCheckpoint:
        """Return the checkpoint store of one job of the batch."""
        return _BatchedCheckpoint(self, index)

    def prepare(self, intents: Mapping[int, JobCheckpoint]) -> None:
        """Write the intents of jobs that will be submitted next, unless they must be written one by one."""
        if self._store is None or not self._can_list:
            return
        new = {index: intent for index, intent in intents.items() if index not in self._entries}
        self._entries |= new
        self._prepared |= {index: intent.reference for index, intent in new.items()}
        self._write(new)

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._unwritten:
            self._write(self._unwritten)

    def give_up(self) -> None:
        """Mark all jobs as cancelled, also those that this process is submitting: no later try reconnects to them."""
        self._is_given_up = True  # first, since the submission goes on in another thread
        self._prepared = {}
        for index in self.known:
            self._entries[index] = _cancelled(self._entries[index])
        self._unwritten |= self._entries.keys()
        self.flush()

    def read(self, index: int) -> JobCheckpoint | None:
        """Return a job's checkpoint; ``None`` for one that this process has only prepared."""
        return None if index in self._prepared else self._entries.get(index)

    def write(self, index: int, entry: JobCheckpoint) -> None:
        """Replace a job's checkpoint. An intent is persisted when this returns, an id soon."""
        is_prepared = self._prepared.pop(index, None) == entry.reference and entry.job_id is None and not entry.void
        self._entries[index] = _cancelled(entry) if self._is_given_up else entry
        if is_prepared:
            return
        self._unwritten.add(index)
        is_intent = entry.job_id is None and not entry.void
        if is_intent or not self._can_list or len(self._unwritten) >= WRITE_EVERY:
            self.flush()

    def _write(self, indexes: Iterable[int]) -> None:
        if self._store is None:
            return
        numbers = {index // JOBS_PER_VALUE for index in tuple(indexes)}  # a kill writes in another thread
        count = max({self._values, *(number + 1 for number in numbers)})
        for number in sorted(numbers | set(range(self._values, count))):
            self._store.set(f"{KEY}_{number}", self._value(number))
        if count > self._values:  # last, so that each value that is counted exists
            self._store.set(KEY, count)
            self._values = count
        self._unwritten = {index for index in self._unwritten if index // JOBS_PER_VALUE not in numbers}

    def _value(self, number: int) -> dict[str, Any]:
        """Return a value: the fields that are equal for all its jobs once, the others for each job."""
        first = number * JOBS_PER_VALUE
        found = {
            index: self._entries[index] for index in range(first, first + JOBS_PER_VALUE) if index in self._entries
        }
        documents = {index: entry.model_dump(mode="json") for index, entry in found.items()}
        newest = max(documents.values(), key=lambda document: document["at"], default={})
        common = {name: value for name, value in newest.items() if name not in NAMES}
        jobs = {
            str(index): {
                **{short: document[name] for name, short in NAMES.items() if document[name] not in (None, False)},
                **{name: value for name, value in document.items() if name not in NAMES and value != common.get(name)},
            }
            for index, document in documents.items()
        }
        return {**common, "jobs": jobs}


def _cancelled(entry: JobCheckpoint) -> JobCheckpoint:
    return entry.model_copy(update={"cancelled": True})


class _BatchedCheckpoint:
    """A :class:`~airflow_provider_osai.jobs.checkpoint.JobCheckpointStore` for one job of a batch."""

    def __init__(self, checkpoints: BatchCheckpoints, index: int) -> None:
        self._checkpoints = checkpoints
        self._index = index

    @property
    def remembers(self) -> bool:
        """Whether a missing checkpoint proves that none was written."""
        return self._checkpoints.remembers

    def read(self) -> JobCheckpoint | None:
        """Return the checkpoint, or ``None`` if there is none."""
        return self._checkpoints.read(self._index)

    def write(self, entry: JobCheckpoint) -> None:
        """Replace the checkpoint by *entry*."""
        self._checkpoints.write(self._index, entry)
