"""A job's life as flows: submit it, wait for its end, cancel it.

Times are seconds since the epoch, so that they mean the same in every process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

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

__all__ = [
    "Watch",
    "cancel",
    "cancel_duplicates",
    "end_at_deadline",
    "find",
    "look",
    "outcome",
    "persist",
    "see",
    "submit",
    "visibility_timeout",
    "wait",
]

SUBMIT_TRIES = 4
"""Times that a submission is sent whose answer leaves open whether OSAI took it."""
SETTLING = 10.0
"""Seconds after a submission within which OSAI need not show the job yet, neither by its id nor in a list."""
SETTLING_LOOKS = 2.0
"""Seconds between two looks meanwhile."""
HELD_TIMEOUTS = 1.0
"""Timeouts of the connection for which a proxy may hold a submission back after its client gave up."""
MAY_BE_HELD = frozenset({None, 408, 502, 503, 504})
"""Answers to a submission (``None``: no answer at all) after which it may still be on its way to OSAI."""
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
ENDING_LOOKS = 10
"""Looks, a second apart, at a job that was cancelled at its deadline."""

T = TypeVar("T")


def visibility_timeout(timeout: float) -> float:
    """Return the seconds after a submission until which its job may still appear.

    :param timeout: of the connection, in seconds.
    """
    return SETTLING + HELD_TIMEOUTS * timeout


def persist(
    attempt: Callable[[], Flow[T]],
    *,
    patience: float,
    note: Callable[[str], object] = lambda _: None,
    chance: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.time,
) -> Flow[T]:
    """Run the flow that *attempt* makes, again and again while OSAI is unreachable or refuses the token.

    :param attempt: makes a flow that may be repeated.
    :param patience: seconds for which an outage is tolerated; a refused token for ten minutes at most.
    :param note: called once with a message for the task's log, when the first attempt has failed.
    :raises OsaiUnreachable: the last error, if the outage lasts longer. The same for OsaiAuthError.
    """
    began: float | None = None
    tries, slept = 0, 0.0
    while True:
        try:
            return (yield from attempt())
        except (OsaiUnreachable, OsaiAuthError) as error:
            began = clock() if began is None else began
            limit = min(AUTH_PATIENCE, patience) if isinstance(error, OsaiAuthError) else patience
            left = limit - max(slept, clock() - began)
            if left <= 0:
                raise
            if tries == 0:
                note(f"{error}. Retrying for up to {limit:.0f} s")
            pause = max(min(2.0**tries, LONGEST_PAUSE), getattr(error, "retry_after", None) or 0.0)
            tries += 1
        pause = min(pause * (0.5 + chance() / 2), left + 0.1)
        slept += pause
        yield Sleep(pause)


def submit(
    calls: Calls,
    request: JobRequest,
    reference: str,
    webhook_url: str | None = None,
    *,
    patience: float = 3600.0,
    visibility: float | None = None,
    repeated: Callable[[], object] = lambda: None,
    note: Callable[[str], object] = lambda _: None,
    chance: Callable[[], float] = random.random,
) -> Flow[Job]:
    """Submit *request*. After an answer that leaves open whether OSAI took it, look for the job before sending again.

    :param patience: seconds for which an OSAI that cannot be reached, or takes no more jobs, is asked again.
    :param visibility: seconds after a doubtful submission in which its job may still appear; default: 10.
    :param repeated: called before a submission is sent again that may have been taken: a duplicate may appear later.
    :param note: called with messages for the task's log.
    :param chance: a number from 0 to 1, anew at each call.
    :raises OsaiUnreachable: if it stays open, then the reference tells later; or if OSAI takes no job for so long.
    """
    doubts, refusals, waited = 0, 0, 0.0
    while True:
        try:
            job: Job = yield calls.submit_job(request, reference, webhook_url)
        except OsaiUnreachable as error:
            if error.sent:
                doubts += 1
                found = yield from _appears(calls, request.kind, reference, error, visibility, patience)
                if found is not None:
                    return (yield from cancel_duplicates(calls, found, note)) if len(found) > 1 else found[0]
                if doubts == SUBMIT_TRIES:
                    raise
                repeated()
                continue
            # Surely not taken. Hundreds may have been sent away together, and must not come back so.
            pause = max(min(2.0**refusals, LONGEST_PAUSE), error.retry_after or 0.0) * (1 + chance())
            refusals, waited = refusals + 1, waited + pause
            if waited > patience:
                raise
            if refusals == 1:
                note(f"{error}. Trying to submit for up to {patience:.0f} s")
            yield Sleep(pause)
        else:
            if doubts:
                jobs = yield from find(calls, request.kind, reference)
                if jobs and len(jobs) > 1:
                    return (yield from cancel_duplicates(calls, jobs, note))
            return job


def _appears(
    calls: Calls,
    kind: JobKind,
    reference: str,
    doubt: OsaiUnreachable,
    visibility: float | None,
    patience: float,
) -> Flow[list[Job] | None]:
    """Return the jobs that a doubtful submission turns out to have made, once OSAI has had the time to show them.

    :raises OsaiUnreachable: if this OSAI cannot tell.
    """
    # The API itself has answered some doubtful submissions, and nothing holds them back.
    left = SETTLING if visibility is None or doubt.status not in MAY_BE_HELD else visibility
    while True:
        pause = min(max(left, 0.0), SETTLING_LOOKS)
        yield Sleep(max(pause, doubt.retry_after or 0.0))
        left -= SETTLING_LOOKS
        jobs = yield from persist(lambda: find(calls, kind, reference), patience=patience)
        if jobs:
            return jobs
        if jobs is None:
            msg = (
                f"{doubt}. Whether OSAI took the {kind} job cannot be told: this OSAI cannot list jobs. It is not sent "
                "again; look into the portal"
            )
            raise OsaiUnreachable(msg, status=doubt.status) from doubt
        if left <= 0:
            return None


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


ORDER = (JobState.SUCCEEDED, JobState.RUNNING, JobState.UNKNOWN, JobState.QUEUED, JobState.FAILED, JobState.CANCELLED)
"""Which of several jobs under one key is kept: the one that is nearest to a result."""


def cancel_duplicates(
    calls: Calls, jobs: Sequence[Job], note: Callable[[str], object], keep: str | None = None
) -> Flow[Job]:
    """Keep one of several jobs under one idempotency key, cancel the others, and say so.

    :param keep: the id of the job to keep; default: the one that is nearest to a result.
    """
    ranked = sorted(jobs, key=lambda job: (job.id != keep, ORDER.index(job.state), job.created_at or "", job.id))
    kept = ranked[0]
    for job in ranked[1:]:
        if job.is_terminal:
            continue
        try:
            yield from cancel(calls, job.kind, job.id)
        except OsaiError as error:
            note(
                f"OSAI {job.kind} jobs {kept.id} and {job.id} have one idempotency key. Job {job.id} could not be "
                f"cancelled and may go on, cancel it in the portal: {error}"
            )
        else:
            note(
                f"OSAI {job.kind} jobs {kept.id} and {job.id} have one idempotency key, since a submission arrived "
                f"late: keeping {kept.id}, cancelled {job.id}"
            )
    return kept


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
    :param once: whether the first sight of the job is enough, whatever its state.
    """

    since: float
    deadline: float | None = None
    pace: Pace = field(default_factory=Pace)
    max_unreachable: float = 3600.0
    clock: Callable[[], float] = time.time
    observe: Callable[[Job, float], None] = lambda _job, _seconds: None
    until_ready: bool = False
    once: bool = False

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
    :raises OsaiJobLost: if it was out of sight for ``max_unreachable``, unknown to OSAI for longer than a minute, or
        the access token was refused for ten minutes. It was not cancelled.
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
                msg = f"not seen for {dark:.0f} s ({error}); it was not cancelled, and a retry of the task adopts it"
                raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error
            hint = getattr(error, "retry_after", None) or 0.0
        else:
            if watch.is_over(job) or watch.once:
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


def see(calls: Calls, kind: JobKind, job_id: str, watch: Watch) -> Flow[Job]:
    """Read the job once, with the patience of *watch* for an OSAI that is out of reach or refuses the token.

    :raises OsaiJobLost: if it was out of sight for too long. It was not cancelled.
    """
    return (yield from wait(calls, kind, job_id, replace(watch, once=True, deadline=None)))


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


def end_at_deadline(
    calls: Calls,
    kind: JobKind,
    job_id: str,
    *,
    patience: float,
    note: Callable[[str], object],
    until_ready: bool,
    looks: int = ENDING_LOOKS,
) -> Flow[Job]:
    """Cancel a job whose time is over, and wait a little for its end, so that a retry does not meet it alive.

    Return the job as it was before, or as it has ended.

    :param patience: seconds for which an unreachable OSAI is asked again.
    :param until_ready: leave a device alone that has become ready.
    :param looks: how often, a second apart, its end is looked for.
    """

    def attempt() -> Flow[Job]:
        job = yield from look(calls, kind, job_id)
        return job if until_ready and job.is_ready else (yield from cancel(calls, kind, job_id))

    job = yield from persist(attempt, patience=patience, note=note)
    if job.is_terminal or (until_ready and job.is_ready):
        return job
    for _ in range(looks):
        yield Sleep(1.0)
        try:
            if (yield from look(calls, kind, job_id)).is_terminal:
                break
        except OsaiError:
            break
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
