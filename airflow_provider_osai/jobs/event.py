"""What a trigger tells the task that it wakes: references only, never the truth, which the task reads itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_osai.api.errors import OsaiError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.models import Job, JobState

__all__ = ["JobEvent", "Outcome"]


MAX_DEFERRALS = 5
"""How often a task is deferred again on a living job whose trigger stopped."""


class Outcome(StrEnum):
    """Why a trigger stopped waiting."""

    ENDED = "ended"
    READY = "ready"
    DEADLINE = "deadline"
    LOST = "lost"
    ERROR = "error"


class JobEvent(BaseModel):
    """The one event of :class:`OsaiJobTrigger`, written by the trigger and read on resume.

    :param version: of the event.
    :param kind: the job's kind; empty if the event does not say it.
    :param job_id: OSAI's id of the job; empty if the event does not say it.
    :param outcome: why the trigger stopped waiting.
    :param state: of the job, when the trigger saw it last.
    :param message: what went wrong, if something did.
    :param deferrals: how often the task was deferred on this job before.
    :param deadline: when the job must have ended, in seconds since the epoch; ``None`` = never.
    :param reference: the job's idempotency key, if a second job may have been submitted under it.
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

    @classmethod
    def ended(cls, job: Job, deferrals: int = 0, **carried: Any) -> JobEvent:
        """Tell that *job* has ended, or that its device is ready."""
        outcome = Outcome.ENDED if job.is_terminal else Outcome.READY
        return cls(kind=job.kind, job_id=job.id, outcome=outcome, state=job.state, deferrals=deferrals, **carried)

    @classmethod
    def stopped(cls, kind: str, job_id: str, error: Exception, deferrals: int = 0, **carried: Any) -> JobEvent:
        """Tell that the waiting stopped at *error*. Only our own errors are quoted, since they hold no secret."""
        outcomes: dict[type[Exception], Outcome] = {OsaiJobTimeout: Outcome.DEADLINE, OsaiJobLost: Outcome.LOST}
        said = f"{type(error).__name__}: {error}" if isinstance(error, OsaiError) else type(error).__name__
        outcome = outcomes.get(type(error), Outcome.ERROR)
        told = {"kind": str(kind), "job_id": str(job_id), "outcome": outcome, "message": said, "deferrals": deferrals}
        return cls(**told, **carried)

    @classmethod
    def read(cls, payload: Any) -> JobEvent:
        """Read what came with the resume.

        Whatever is not understood, as of a newer version, counts as not said: the task reads its job then.
        """
        told = payload if isinstance(payload, dict) else {}
        understood = {}
        for name in cls.model_fields.keys() & told.keys():
            try:
                understood[name] = getattr(cls(**{name: told[name]}), name)
            except ValueError:
                continue
        return cls(**understood)

    def once_more(self) -> int:
        """Return the count of deferrals for another one on the same job, which lives although the waiting stopped.

        :raises OsaiJobLost: if there were too many already.
        """
        if self.deferrals >= MAX_DEFERRALS:
            msg = f"its trigger stopped {self.deferrals + 1} times, at last with {self.message!r}; it was not cancelled"
            raise OsaiJobLost(msg, kind=self.kind, job_id=self.job_id)
        return self.deferrals + 1

    def payload(self) -> dict[str, Any]:
        """Return the event as plain JSON."""
        return self.model_dump(mode="json")
