"""A job's life as flows: submit it, wait for its end, cancel it.

Times are seconds since the epoch, so that they mean the same in every process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_osai.api.calls import Call, Calls
from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
    OsaiUnreachable,
    OsaiUnsupported,
    quotable,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.requests import JobRequest
from airflow_provider_osai.jobs.conversions import is_unsupported
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.pace import Pace

__all__ = ["Watch", "cancel", "find", "look", "outcome", "submit", "wait"]

SUBMIT_TRIES = 4
LONGEST_PAUSE = 60.0
"""Seconds between two tries to submit to an OSAI that has too much to do; up to twice that by chance."""
NO_SUCH_OPERATION = frozenset({400, 404, 405, 501})
"""How an API without an optional operation may answer to it."""
EARLY = 1 / 8
"""How much of a pause may be left out, so that many jobs can be looked at together."""
AUTH_PATIENCE = 600.0
"""Seconds for which a refused access token is borne, in case somebody is about to replace it."""
NOT_YET = 60.0
"""Seconds after submission for which a 404 means that the job is not visible yet."""


def submit(
    calls: Calls,
    request: JobRequest,
    reference: str,
    webhook_url: str | None = None,
    *,
    patience: float = 3600.0,
    chance: Callable[[], float] = random.random,
) -> Flow[Job]:
    """Submit *request*, and after an answer that leaves it open whether OSAI took it, look before asking again.

    :param patience: seconds for which an OSAI that has too much to do is asked again.
    :param chance: a number from 0 to 1, anew at each call.
    :raises OsaiUnreachable: if it stays open, then the reference tells later; or if OSAI takes no job for so long.
    """
    tries, refusals, waited = 0, 0, 0.0
    while True:
        try:
            job: Job = yield calls.submit_job(request, reference, webhook_url)
        except OsaiUnreachable as error:
            if error.is_busy:
                # Hundreds may have been sent away together, and must not come back so.
                pause = max(min(2.0**refusals, LONGEST_PAUSE), error.retry_after or 0.0) * (1 + chance())
                refusals, waited = refusals + 1, waited + pause
                if waited > patience:
                    raise
                yield Sleep(pause)
                continue
            yield Sleep(error.retry_after or 2.0**tries)
            tries += 1
            if error.sent:
                jobs = yield from find(calls, request.kind, reference)
                if jobs:
                    return jobs[0]
                if jobs is None:
                    doubt = f"Whether OSAI took the {request.kind} job cannot be told, so it is not sent again"
                    msg = f"{error}. {doubt}; look into the portal"
                    raise OsaiUnreachable(msg, status=error.status) from error
            if tries == SUBMIT_TRIES:
                raise
        else:
            return job


def find(calls: Calls, kind: JobKind, reference: str) -> Flow[list[Job] | None]:
    """Return the jobs with *reference*; ``None`` if the API cannot tell."""
    if f"{kind}.list" not in calls.contract:
        return None
    try:
        jobs: list[Job] = yield calls.find_jobs(kind, reference)
    except OsaiRequestError as error:
        if error.status in NO_SUCH_OPERATION:
            return None
        raise
    ours = [job for job in jobs if job.reference == reference]
    # A list of jobs that show no reference is an API that did not understand the question.
    return None if not ours and any(job.reference is None for job in jobs) else ours


@dataclass(frozen=True, slots=True)
class Watch:
    """How a job is waited for.

    :param since: when the waiting for this job began.
    :param deadline: when it must end; ``None`` = never.
    :param pace: how often to look.
    :param max_unreachable: seconds without sight of the job that are borne.
    :param clock: the time now.
    :param observe: is told the job after each look, and the seconds until the next.
    :param until_ready: whether a device is waited for, and not the end of its lease.
    """

    since: float
    deadline: float | None = None
    pace: Pace = field(default_factory=Pace)
    max_unreachable: float = 3600.0
    clock: Callable[[], float] = time.time
    observe: Callable[[Job, float], None] = lambda _job, _seconds: None
    until_ready: bool = False

    def is_over(self, job: Job) -> bool:
        """Whether there is nothing left to wait for."""
        return job.is_terminal or (self.until_ready and job.is_ready)

    def patience(self, error: OsaiError) -> float:
        """Return the seconds for which *error* is borne since the job was last seen."""
        if isinstance(error, OsaiJobLost):
            return NOT_YET
        return min(AUTH_PATIENCE, self.max_unreachable) if isinstance(error, OsaiAuthError) else self.max_unreachable


def look(calls: Calls, kind: JobKind, job_id: str) -> Flow[Job]:
    """Read the job once.

    :raises OsaiJobLost: if OSAI does not know it.
    """
    return (yield from _look(calls.get_job(kind, job_id), kind, job_id))


def _look(ask: Call[Job], kind: JobKind, job_id: str) -> Flow[Job]:
    try:
        job: Job = yield ask
    except OsaiRequestError as error:
        if error.status not in (404, 410):
            raise
        raise OsaiJobLost("OSAI does not know it (any more); look into the portal", kind=kind, job_id=job_id) from error
    return job


def wait(calls: Calls, kind: JobKind, job_id: str, watch: Watch) -> Flow[Job]:
    """Look at the job until it has ended, and return it as it ended, well or badly; or until its device is ready.

    :raises OsaiJobTimeout: at the deadline; the job is left to the caller to cancel.
    :raises OsaiJobLost: if it was out of sight for ``max_unreachable``, or unknown to OSAI for longer than a minute.
    :raises OsaiAuthError: if the access token was refused for ten minutes.
    """
    ask = calls.get_job(kind, job_id)
    seen = watch.clock()  # not since its submission: whoever begins to wait for an old job has not lost sight of it yet
    while True:
        job: Job | None = None
        hint = 0.0
        try:
            job = yield from _look(ask, kind, job_id)
        except (OsaiUnreachable, OsaiJobLost, OsaiAuthError) as error:
            dark = watch.clock() - seen
            if dark > watch.patience(error):
                if isinstance(error, OsaiAuthError):
                    raise
                msg = f"not seen for {dark:.0f} s ({error}); it was not cancelled, and a retry of the task adopts it"
                raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error
            hint = getattr(error, "retry_after", None) or 0.0
        else:
            if watch.is_over(job):
                return job
            seen = watch.clock()
        now = watch.clock()
        if watch.deadline is not None and now >= watch.deadline:
            msg = f"it has not ended {now - watch.since:.0f} s after its submission, at the task's execution_timeout"
            raise OsaiJobTimeout(msg, kind=kind, job_id=job_id)
        pause = watch.pace.interval(now - watch.since, job.progress if job else None, hint)
        early = pause * EARLY if hint == 0 else 0.0
        if watch.deadline is not None and now + pause > watch.deadline:
            pause, early = watch.deadline - now, 0.0
        if job is not None:
            watch.observe(job, pause)
        job = None  # thousands sleep at the same time, and none needs it meanwhile
        yield Sleep(pause, early)


def cancel(calls: Calls, kind: JobKind, job_id: str) -> Flow[Job]:
    """Ask OSAI to stop the job unless it has ended. Return the job as it was before.

    :raises OsaiContractError: if the API has no such operation and the job lives.
    """
    job = yield from look(calls, kind, job_id)
    if job.is_terminal:
        return job
    try:
        yield calls.cancel_job(kind, job_id)
    except OsaiRequestError as error:
        if error.status != 409:  # it has ended meanwhile
            raise
        return (yield from look(calls, kind, job_id))
    return job


def outcome(job: Job, *, until_ready: bool = False) -> Job:
    """Return *job* if it succeeded; raise what its end means otherwise.

    :param until_ready: whether success is a device that is ready; a lease that has ended well is over all the same.
    :raises OsaiUnsupported: if it failed because such a conversion is impossible.
    :raises OsaiJobFailed: if it failed otherwise, with OSAI's reason; if a lease is over.
    :raises OsaiJobCancelled: if it was cancelled.
    :raises OsaiJobLost: if it has not ended; success is never assumed.
    """
    said = f" OSAI says: {quotable(job.message)}" if job.message else ""
    if job.is_ready if until_ready else job.state is JobState.SUCCEEDED:
        return job
    if job.state is JobState.SUCCEEDED:
        msg = f"its lease was over before anybody used the device; a retry of the task rents anew.{said}"
        raise OsaiJobFailed(msg, kind=job.kind, job_id=job.id)
    if is_unsupported(job):
        raise OsaiUnsupported(f"the conversion is impossible (UNSUPPORTED).{said}", kind=job.kind, job_id=job.id)
    if job.state is JobState.FAILED:
        raise OsaiJobFailed(f"it failed.{said or ' OSAI gives no reason.'}", kind=job.kind, job_id=job.id)
    if job.state is JobState.CANCELLED:
        msg = f"it was cancelled, in the portal or by a kill of its task.{said}"
        raise OsaiJobCancelled(msg, kind=job.kind, job_id=job.id)
    raise OsaiJobLost(f"it has not ended, its state is {job.status!r}.{said}", kind=job.kind, job_id=job.id)
