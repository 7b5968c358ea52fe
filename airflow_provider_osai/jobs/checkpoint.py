"""Job checkpoint: what a task stores about its job so that a retry can reconnect to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

__all__ = ["Generation", "JobCheckpoint", "JobCheckpointStore", "NullCheckpointStore"]

VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Generation:
    """Distinguishes a try after a clear from a retry. All numbers come from Airflow.

    :param max_tries: ``try_number + retries`` at the last clear, or ``retries`` before the first one. A retry does not
        change it, and neither does a clear if ``retries`` was lowered accordingly.
    :param retries: the task's current ``retries``.
    :param clears: number of times that tasks of the Dag run were cleared, this task or others.
    """

    max_tries: int = 0
    retries: int = 0
    clears: int = 0

    @property
    def number(self) -> int:
        """Number of tries before this generation; 0 for the first one."""
        return max(0, self.max_tries - self.retries)

    def is_after(self, earlier: Generation) -> bool:
        """Return whether the task was cleared since *earlier*.

        A clear can leave ``max_tries`` unchanged if ``retries`` was lowered before. It is then recognised by a clear in
        the Dag run together with a different ``retries``; a change of ``retries`` alone is not a clear.
        """
        if self.max_tries != earlier.max_tries:
            return True
        return self.clears != earlier.clears and self.retries != earlier.retries


class JobCheckpoint(BaseModel):
    """The job of a task instance: first the intent to submit it, then its id.

    Checkpoints of newer versions are read as far as possible: invalid and unknown fields are ignored, so that a
    submitted job is never overlooked.

    :param kind: the job's kind.
    :param reference: the idempotency key under which the job is or will be submitted.
    :param failed: number of earlier jobs of this generation and request that failed or were cancelled.
    :param at: when the checkpoint was written, in seconds since the epoch.
    :param job_id: OSAI's id of the job; ``None`` as long as only the intent is recorded.
    :param void: whether OSAI certainly did not accept the job.
    :param cancelled: whether this task asked OSAI to cancel the job; if so, a retry does not reconnect to it.
    :param request: fingerprint of the request.
    :param run: distinguishes this Dag run and generation from others with the same ids.
    :param max_tries: see :class:`Generation`.
    :param retries: see :class:`Generation`.
    :param clears: see :class:`Generation`.
    :param conn_id: the connection through which the job was submitted.
    :param endpoint: digest of the API's base URL, to detect a change of region.
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
    def _drop_invalid_fields(cls, value: Any, handler: ModelWrapValidatorHandler[JobCheckpoint]) -> JobCheckpoint:
        """Ignore the invalid fields of a newer version's checkpoint instead of rejecting all of it."""
        try:
            return handler(value)
        except ValidationError as error:
            invalid = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
            if not isinstance(value, dict) or not invalid or invalid & {"kind", "reference"}:
                raise
            return handler({name: field for name, field in value.items() if name not in invalid})

    @property
    def generation(self) -> Generation | None:
        """The task's generation when the checkpoint was written; ``None`` in version 1."""
        return None if self.max_tries is None else Generation(self.max_tries, self.retries, self.clears)


class JobCheckpointStore(Protocol):
    """Persists a task's job checkpoint across processes, retries and clears."""

    @property
    def remembers(self) -> bool:
        """Whether a missing checkpoint proves that none was written; valid after :meth:`read`."""

    def read(self) -> JobCheckpoint | None:
        """Return the checkpoint, or ``None`` if there is none."""

    def write(self, entry: JobCheckpoint) -> None:
        """Replace the checkpoint by *entry*; it is persisted when this returns."""


class NullCheckpointStore:
    """Stores nothing, for Airflow without a task state store; earlier jobs are then found by OSAI's list alone."""

    remembers = False

    def read(self) -> JobCheckpoint | None:
        """Return ``None``."""
        return None

    def write(self, entry: JobCheckpoint) -> None:
        """Store nothing."""
