"""Payload of the trigger event. It carries references only; the resumed task reads the job from the API again."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_osai.api.errors import OsaiError, OsaiJobLost, OsaiJobStopped, OsaiJobTimeout
from airflow_provider_osai.api.models import Job, JobState

__all__ = ["JobEvent", "Outcome", "task_try"]

MAX_DEFERRALS = 5
"""Maximum number of times that a task is deferred again on a live job whose trigger stopped."""


class Outcome(StrEnum):
    """Why a trigger stopped waiting."""

    ENDED = "ended"
    READY = "ready"
    DEADLINE = "deadline"
    LOST = "lost"
    EARLY_STOP = "early_stop"
    ERROR = "error"


class JobEvent(BaseModel):
    """The event of :class:`OsaiJobTrigger`, written by the trigger and read when the task resumes.

    :param version: version of the event format.
    :param kind: the job's kind; empty if missing in the event.
    :param job_id: OSAI's id of the job; empty if missing in the event.
    :param outcome: why the trigger stopped waiting.
    :param state: the job's state at the last poll.
    :param message: the error, if there was one.
    :param deferrals: number of earlier deferrals on this job.
    :param deadline: when the job must have ended, in seconds since the epoch; ``None`` = no deadline.
    :param reference: the job's idempotency key, if a second job may have been submitted under it.
    :param task_try: the try of the task that was deferred, see :func:`task_try`; empty if unknown.
    :param reason: for ``early_stop``: the rule of ``stop_when`` that held.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    kind: str = ""
    job_id: str = ""
    outcome: Outcome = Outcome.ERROR
    state: JobState = JobState.UNKNOWN
    message: str = ""
    deferrals: int = 0
    deadline: float | None = None
    reference: str | None = None
    task_try: str = ""
    reason: str = ""

    @classmethod
    def ended(cls, job: Job, deferrals: int = 0, **carried: Any) -> JobEvent:
        """Return the event for a *job* that has ended, or whose device is ready."""
        outcome = Outcome.ENDED if job.is_terminal else Outcome.READY
        return cls(kind=job.kind, job_id=job.id, outcome=outcome, state=job.state, deferrals=deferrals, **carried)

    @classmethod
    def stopped(cls, kind: str, job_id: str, error: Exception, deferrals: int = 0, **carried: Any) -> JobEvent:
        """Return the event for a wait that failed. Only OsaiErrors are quoted; other errors may contain secrets."""
        outcomes: dict[type[Exception], Outcome] = {
            OsaiJobTimeout: Outcome.DEADLINE,
            OsaiJobLost: Outcome.LOST,
            OsaiJobStopped: Outcome.EARLY_STOP,
        }
        return cls(
            kind=str(kind),
            job_id=str(job_id),
            outcome=outcomes.get(type(error), Outcome.ERROR),
            message=f"{type(error).__name__}: {error}" if isinstance(error, OsaiError) else type(error).__name__,
            deferrals=deferrals,
            reason=error.reason if isinstance(error, OsaiJobStopped) else "",
            **carried,
        )

    @classmethod
    def parse(cls, payload: Any) -> JobEvent:
        """Parse the payload of the event that resumed the task.

        Fields that are invalid or unknown, for instance of a newer version, get their defaults; the task reads the job.
        """
        fields = payload if isinstance(payload, dict) else {}
        valid = {}
        for name in cls.model_fields.keys() & fields.keys():
            try:
                valid[name] = getattr(cls(**{name: fields[name]}), name)
            except ValueError:
                continue
        return cls(**valid)

    def next_deferral(self) -> int:
        """Return the number of deferrals including the next one, for a live job whose trigger stopped.

        :raises OsaiJobLost: if the maximum number of deferrals is reached.
        """
        if self.deferrals >= MAX_DEFERRALS:
            times = self.deferrals + 1
            msg = f"its trigger stopped {times} times, last with {self.message!r}; the job was not cancelled"
            raise OsaiJobLost(msg, kind=self.kind, job_id=self.job_id)
        return self.deferrals + 1

    def payload(self) -> dict[str, Any]:
        """Return the event as plain JSON."""
        return self.model_dump(mode="json")


def task_try(ti: Any) -> str:
    """Return what distinguishes a try of a task from other tries, also after a clear; a deferral does not change it."""
    return f"{ti.try_number}/{ti.max_tries}"
