"""What a trigger tells the task that it wakes: references only, never the truth, which the task reads itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiJobLost, OsaiJobTimeout
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
    """The one event of :class:`OsaiJobTrigger`, written by the trigger and validated on resume."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    kind: str
    job_id: str
    outcome: Outcome
    state: JobState = JobState.UNKNOWN
    message: str = ""
    deferrals: int = 0

    @classmethod
    def ended(cls, job: Job, deferrals: int = 0) -> JobEvent:
        """Tell that *job* has ended, or that its device is ready."""
        outcome = Outcome.ENDED if job.is_terminal else Outcome.READY
        return cls(kind=job.kind, job_id=job.id, outcome=outcome, state=job.state, deferrals=deferrals)

    @classmethod
    def stopped(cls, kind: str, job_id: str, error: Exception, deferrals: int = 0) -> JobEvent:
        """Tell that the waiting stopped at *error*. Only our own errors are quoted, since they hold no secret."""
        outcomes: dict[type[Exception], Outcome] = {OsaiJobTimeout: Outcome.DEADLINE, OsaiJobLost: Outcome.LOST}
        said = f"{type(error).__name__}: {error}" if isinstance(error, OsaiError) else type(error).__name__
        outcome = outcomes.get(type(error), Outcome.ERROR)
        return cls(kind=str(kind), job_id=str(job_id), outcome=outcome, message=said, deferrals=deferrals)

    @classmethod
    def read(cls, payload: Any) -> JobEvent:
        """Validate what came with the resume.

        :raises OsaiContractError: if it is no event of ours.
        """
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            msg = f"the trigger's event does not fit: {error.errors(include_input=False, include_url=False)}"
            raise OsaiContractError(msg) from None

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
