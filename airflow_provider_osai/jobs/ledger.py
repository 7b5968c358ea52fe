"""What a task remembers of its job between its tries."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel, ConfigDict

__all__ = ["Entry", "Forgetful", "Ledger"]


class Entry(BaseModel):
    """One job of one task instance: first the intent to submit it, then the job.

    :param kind: the job's kind.
    :param reference: what it is or will be submitted under; it tells for which generation and request.
    :param failed: jobs of that generation and request that ended badly before it.
    :param at: when it was written, in seconds since the epoch.
    :param job_id: OSAI's id; ``None`` while there is only the intent.
    :param void: whether it is certain that OSAI did not take the job.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    kind: str
    reference: str
    failed: int = 0
    at: float = 0.0
    job_id: str | None = None
    void: bool = False


class Ledger(Protocol):
    """Where the entry is kept. It outlives the task's process, its retries and its clears."""

    def read(self) -> Entry | None:
        """Return the entry, if there is one."""

    def write(self, entry: Entry) -> None:
        """Keep *entry* instead of the one before; when this returns, it is kept."""


class Forgetful:
    """A ledger for an Airflow that has nowhere to keep one: OSAI's own list must tell then."""

    def read(self) -> Entry | None:
        """Return nothing."""
        return None

    def write(self, entry: Entry) -> None:
        """Keep nothing."""
