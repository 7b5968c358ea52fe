"""The checkpoint of a job: what a task remembers of it between its tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Entry", "Forgetful", "Generation", "Ledger"]

VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Generation:
    """What tells a try after a clear from a retry. All figures are Airflow's.

    :param max_tries: ``try_number + retries`` at the last clear, or ``retries`` at first. A retry does not change it,
        and a clear may leave it as it was if ``retries`` was lowered.
    :param retries: of the task, now.
    :param clears: how often tasks of the Dag run were cleared, this one or others.
    """

    max_tries: int = 0
    retries: int = 0
    clears: int = 0

    @property
    def number(self) -> int:
        """The tries before this generation, 0 at first."""
        return max(0, self.max_tries - self.retries)

    def is_after(self, earlier: Generation) -> bool:
        """Whether the task was cleared since *earlier*.

        A clear can leave ``max_tries`` unchanged if ``retries`` was lowered before. Then something of the run was
        cleared and ``retries`` differs; an edit of ``retries`` alone is no clear.
        """
        if self.max_tries != earlier.max_tries:
            return True
        return self.clears != earlier.clears and self.retries != earlier.retries


class Entry(BaseModel):
    """One job of one task instance: first the intent to submit it, then the job.

    Rows of newer versions are read as far as they are understood; a row that names a job is never taken for none.

    :param kind: the job's kind.
    :param reference: the idempotency key under which it is or will be submitted.
    :param failed: jobs of this generation and request that ended badly before it.
    :param at: when it was written, in seconds since the epoch.
    :param job_id: OSAI's id; ``None`` while there is only the intent.
    :param void: whether it is certain that OSAI did not take the job.
    :param cancelled: whether this task has asked OSAI to cancel it; a retry does not reconnect to it then.
    :param request: fingerprint of the request.
    :param run: what tells this run and generation from others of the same name.
    :param max_tries: of the :class:`Generation`.
    :param retries: the same.
    :param clears: the same.
    :param conn_id: the connection through which it was submitted.
    :param endpoint: digest of the API's address, to notice another region.
    :param try_number: the try that owns the job.
    :param worker: the host on which that try runs.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = VERSION
    kind: str
    reference: str
    failed: int = 0
    at: float = 0.0
    job_id: str | None = None
    void: bool = False
    cancelled: bool = False
    request: str | None = None
    run: str | None = None
    max_tries: int | None = None
    retries: int = 0
    clears: int = 0
    conn_id: str | None = None
    endpoint: str | None = None
    try_number: int | None = None
    worker: str | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _tolerate(cls, value: Any, handler: Any) -> Entry:
        """Drop the fields of a newer version's row that do not fit, rather than the row."""
        try:
            return handler(value)  # type: ignore[no-any-return]  # pydantic's handler has no type
        except ValueError as error:
            wrong = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}  # type: ignore[attr-defined]  # a ValidationError
            if not isinstance(value, dict) or not wrong or wrong & {"kind", "reference"}:
                raise
            return handler({name: field for name, field in value.items() if name not in wrong})  # type: ignore[no-any-return]

    @property
    def generation(self) -> Generation | None:
        """The task's generation when it was written; ``None`` in rows of version 1."""
        return None if self.max_tries is None else Generation(self.max_tries, self.retries, self.clears)


class Ledger(Protocol):
    """Where the entry is kept. It outlives the task's process, its retries and its clears."""

    @property
    def remembers(self) -> bool:
        """Whether an entry that was not read was never written; known after :meth:`read`."""

    def read(self) -> Entry | None:
        """Return the entry, if there is one."""

    def write(self, entry: Entry) -> None:
        """Keep *entry* instead of the one before; when this returns, it is kept."""


class Forgetful:
    """A ledger for an Airflow that has nowhere to keep one: OSAI's own list must tell then."""

    remembers = False

    def read(self) -> Entry | None:
        """Return nothing."""
        return None

    def write(self, entry: Entry) -> None:
        """Keep nothing."""
