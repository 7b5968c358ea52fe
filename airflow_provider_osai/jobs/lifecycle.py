"""The life of a submitted job, as flows: read it, wait for its end, cancel it.

Workers and the triggerer run the same flows, see :mod:`airflow_provider_osai.jobs.flow`. Only workers submit, see
:mod:`airflow_provider_osai.jobs.submission`. Times are seconds since the epoch, so that they mean the same in every
process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from airflow_provider_osai.api.calls import Call, OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiError,
    OsaiInvalidData,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobStopped,
    OsaiJobTimeout,
    OsaiRequestError,
    OsaiUnreachable,
    OsaiUnsupported,
    sanitize_server_text,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.jobs.conversions import is_unsupported
from airflow_provider_osai.jobs.early_stopping import EarlyStopping, StopRules
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.polling import PollSchedule

__all__ = [
    "WaitOptions",
    "backoff",
    "cancel",
    "end_at_deadline",
    "get_job",
    "get_job_persistently",
    "raise_for_state",
    "retry_while_unreachable",
    "wait",
]

MAX_RETRY_DELAY: Final = 60.0
"""Maximum seconds between two retries while OSAI is unreachable."""
TOLERANCE: Final = 1 / 8
"""Share of a pause by which a poll may come earlier, so that it shares a batch with others."""
AUTH_TIMEOUT: Final = 600.0
"""Maximum seconds for which a rejected access token is retried, in case it is being replaced."""
NOT_FOUND_GRACE: Final = 60.0
"""Seconds for which a 404 means that the job is not visible yet."""
STOP_TIMEOUT: Final = 600.0
"""Maximum seconds between the request to stop a training, which keeps its model, and its end."""
END_POLLS: Final = 10
"""Polls, a second apart, for the end of a job that was cancelled at its deadline."""

T = TypeVar("T")


def backoff(tries: int) -> float:
    """Return the seconds to wait after so many failed tries: 1, 2, 4 and so on, at most :data:`MAX_RETRY_DELAY`."""
    return min(2.0 ** min(tries, 10), MAX_RETRY_DELAY)  # an outage of a day has more tries than a float has powers


def retry_while_unreachable(
    attempt: Callable[[], Flow[T]],
    *,
    timeout: float,
    log: Callable[[str], object] = lambda _: None,
    random_factor: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.time,
) -> Flow[T]:
    """Run *attempt*, and retry it with backoff and jitter while OSAI is unreachable or rejects the token.

    :param attempt: makes a flow that may be run more than once.
    :param timeout: maximum seconds of an outage; of a rejected token, at most ten minutes.
    :param log: called once with a message for the log, after the first failed attempt.
    :param random_factor: returns a number from 0 to 1.
    :param clock: returns the seconds since the epoch.
    :raises OsaiUnreachable: the last error, if the outage lasts longer.
    :raises OsaiAuthError: likewise, if the token is rejected for longer.
    """
    began: float | None = None
    tries = 0
    slept = 0.0
    while True:
        try:
            return (yield from attempt())
        except (OsaiUnreachable, OsaiAuthError) as error:
            began = clock() if began is None else began
            limit = min(AUTH_TIMEOUT, timeout) if isinstance(error, OsaiAuthError) else timeout
            left = limit - max(slept, clock() - began)
            if left <= 0:
                raise
            if tries == 0:
                log(f"{error}. Retrying for up to {limit:.0f} s")
            pause = max(backoff(tries), getattr(error, "retry_after", None) or 0.0)
            tries += 1
        pause = min(pause * (0.5 + random_factor() / 2), left + 0.1)
        slept += pause
        yield Sleep(pause)


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How to wait for a job.

    :param since: when the wait began, in seconds since the epoch.
    :param deadline: when the job must have ended, in seconds since the epoch; ``None`` = no deadline.
    :param schedule: the poll schedule.
    :param unreachable_timeout: maximum seconds without a successful poll.
    :param clock: returns the seconds since the epoch.
    :param on_poll: called after each poll with the job and the seconds until the next poll.
    :param wait_for_ready: wait until a rented device is ready, not for the end of its rental.
    :param once: return the job after the first successful poll, whatever its state.
    :param stop_rules: when to stop a training before its end; ``None``: never.
    :param warn: called with a message for the log, once for each of these rules that cannot work.
    """

    since: float
    deadline: float | None = None
    schedule: PollSchedule = field(default_factory=PollSchedule)
    unreachable_timeout: float = 3600.0
    clock: Callable[[], float] = time.time
    on_poll: Callable[[Job, float], None] = lambda _job, _seconds: None
    wait_for_ready: bool = False
    once: bool = False
    stop_rules: StopRules | None = None
    warn: Callable[[str], object] = lambda _: None

    def is_over(self, job: Job) -> bool:
        """Return whether the wait is over."""
        return job.is_terminal or (self.wait_for_ready and job.is_ready)

    def outage_timeout(self, error: OsaiError) -> float:
        """Return the maximum seconds since the last successful poll for which *error* is tolerated."""
        if isinstance(error, OsaiJobLost):
            return NOT_FOUND_GRACE
        return (
            min(AUTH_TIMEOUT, self.unreachable_timeout)
            if isinstance(error, OsaiAuthError)
            else self.unreachable_timeout
        )


def get_job(calls: OsaiApi, kind: JobKind, job_id: str) -> Flow[Job]:
    """Read the job once.

    :raises OsaiJobLost: if OSAI does not know the job (404 or 410).
    """
    return (yield from _read(calls.get_job(kind, job_id), kind, job_id))


def _read(call: Call[Job], kind: JobKind, job_id: str) -> Flow[Job]:
    try:
        job: Job = yield call
    except OsaiRequestError as error:
        if not error.is_not_found:
            raise
        msg = f"unknown to OSAI ({error.status}); check the OSAI portal"
        raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error
    return job


def wait(calls: OsaiApi, kind: JobKind, job_id: str, watch: WaitOptions) -> Flow[Job]:
    """Poll the job until it has ended, successfully or not, or until its device is ready; return it.

    :raises OsaiJobTimeout: at the deadline; the caller decides whether to cancel the job.
    :raises OsaiJobStopped: if one of the ``stop_rules`` holds; the caller cancels the job, if it has not ended. Where
        the contract has an operation that ends a training and keeps its model, and the model is of use, the wait
        requests that first, and returns the job if it succeeds.
    :raises OsaiJobLost: if no poll succeeded for ``unreachable_timeout``, OSAI did not know the job for longer than a
        minute, or rejected the access token for ten minutes. The job was not cancelled.
    """
    call = batched_call = calls.get_job(kind, job_id)
    stopping = EarlyStopping(watch.stop_rules, watch.warn) if watch.stop_rules else None
    last_seen = watch.clock()  # not the submission: a wait that begins late has not lost the job yet
    while True:
        job: Job | None = None
        hint = 0.0
        try:
            job = yield from _read(call, kind, job_id)
        except (OsaiUnreachable, OsaiJobLost, OsaiAuthError) as error:
            unseen = watch.clock() - last_seen
            if unseen > watch.outage_timeout(error):
                msg = f"no successful poll for {unseen:.0f} s ({error}). The job was not cancelled; a retry reconnects"
                raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error
            hint = getattr(error, "retry_after", None) or 0.0
            if stopping:
                stopping.missed()
        else:
            if watch.is_over(job) or watch.once:
                return job
            last_seen = watch.clock()
        now = watch.clock()
        if watch.deadline is not None and now >= watch.deadline:
            msg = f"not ended {now - watch.since:.0f} s after its submission, at the task's execution_timeout"
            raise OsaiJobTimeout(msg, kind=kind, job_id=job_id)
        pause = watch.schedule.next_interval(now - watch.since, job.progress if job else None, hint)
        tolerance = pause * TOLERANCE if hint == 0 else 0.0
        if watch.deadline is not None and now + pause > watch.deadline:
            pause, tolerance = watch.deadline - now, 0.0
        if job is not None:
            watch.on_poll(job, pause)
            if stopping and (reason := stopping.check(job, now, pause)):
                if stopping.keeps_model and f"{kind}.stop" in calls.contract:
                    return (yield from _stop(calls, job, watch, reason))
                raise OsaiJobStopped(reason, kind=kind, job_id=job_id, reason=reason)
            if stopping:
                call = replace(call, subject=()) if stopping.needs_single_poll(job) else batched_call
        job = None  # thousands of flows sleep at the same time: do not hold what the next poll replaces
        yield Sleep(pause, tolerance)


def _stop(calls: OsaiApi, job: Job, watch: WaitOptions, reason: str) -> Flow[Job]:
    """Request the end of a training that keeps its model; return the job as it ended.

    :raises OsaiJobStopped: if the request failed, the job was cancelled, or it has not ended in time.
    :raises OsaiJobLost: as :func:`wait`.
    """
    kind, job_id, name = job.kind, job.id, f"OSAI {job.kind} job {sanitize_server_text(job.id, 100)}"
    stopped = OsaiJobStopped(reason, kind=kind, job_id=job_id, reason=reason)
    limit = watch.clock() + STOP_TIMEOUT
    deadline = limit if watch.deadline is None else min(limit, watch.deadline)
    try:
        yield calls.stop_job(kind, job_id)
    except OsaiError as error:
        watch.warn(f"{name}: {kind}.stop failed ({error}); cancelling the job")
        raise stopped from error
    watch.warn(f"{name}: {reason}; requested its end, which keeps the model")
    try:
        ended = yield from wait(calls, kind, job_id, replace(watch, stop_rules=None, deadline=deadline))
    except OsaiJobTimeout:
        watch.warn(f"{name} has not ended {STOP_TIMEOUT:.0f} s after {kind}.stop; cancelling it")
        raise stopped from None
    if ended.state is JobState.CANCELLED:
        raise stopped
    return ended


def get_job_persistently(calls: OsaiApi, kind: JobKind, job_id: str, watch: WaitOptions) -> Flow[Job]:
    """Read the job once, and retry as :func:`wait` does while OSAI is unreachable or rejects the token.

    :raises OsaiJobLost: if no poll succeeded in time. The job was not cancelled.
    """
    return (yield from wait(calls, kind, job_id, replace(watch, once=True, deadline=None)))


def cancel(calls: OsaiApi, kind: JobKind, job_id: str) -> Flow[Job]:
    """Cancel the job unless it has ended. Return the job as it was before.

    :raises OsaiContractError: if the contract has no cancel operation and the job has not ended.
    """
    job = yield from get_job(calls, kind, job_id)
    if job.is_terminal:
        return job
    try:
        yield calls.cancel_job(kind, job_id)
    except OsaiRequestError as error:
        if error.status != 409:  # 409: it has ended since
            raise
        return (yield from get_job(calls, kind, job_id))
    return job


def end_at_deadline(
    calls: OsaiApi,
    kind: JobKind,
    job_id: str,
    *,
    unreachable_timeout: float,
    log: Callable[[str], object],
    wait_for_ready: bool,
    polls: int = END_POLLS,
) -> Flow[Job]:
    """Cancel a job at its deadline, and wait a few seconds for its end, so that a retry does not find it running.

    Return the job as it was before, or as it ended.

    :param unreachable_timeout: maximum seconds to retry while OSAI is unreachable.
    :param log: called with a message for the log, after the first failed attempt.
    :param wait_for_ready: do not cancel the rental of a device that is ready.
    :param polls: maximum number of polls for its end, a second apart.
    """

    def attempt() -> Flow[Job]:
        job = yield from get_job(calls, kind, job_id)
        return job if wait_for_ready and job.is_ready else (yield from cancel(calls, kind, job_id))

    job = yield from retry_while_unreachable(attempt, timeout=unreachable_timeout, log=log)
    if job.is_terminal or (wait_for_ready and job.is_ready):
        return job
    for _ in range(polls):
        yield Sleep(1.0)
        try:
            if (yield from get_job(calls, kind, job_id)).is_terminal:
                break
        except OsaiError:
            break
    return job


def raise_for_state(job: Job, *, wait_for_ready: bool = False) -> Job:
    """Return *job* if it succeeded; raise the error of its state otherwise.

    :param wait_for_ready: whether success is a device that is ready; a rental that has ended is then a failure.
    :raises OsaiUnsupported: if the job failed because the conversion is impossible.
    :raises OsaiInvalidData: if the job failed because of its data or arguments.
    :raises OsaiJobFailed: if the job failed otherwise, with OSAI's reason; if the rental has ended.
    :raises OsaiJobCancelled: if the job was cancelled.
    :raises OsaiJobLost: if the job has not ended; success is never assumed.
    """
    reason = f" OSAI's message: {sanitize_server_text(job.message)}" if job.message else ""
    if job.is_ready if wait_for_ready else job.state is JobState.SUCCEEDED:
        return job
    if job.state is JobState.SUCCEEDED:
        msg = f"the rental ended before the device was used; a retry rents again.{reason}"
        raise OsaiJobFailed(msg, kind=job.kind, job_id=job.id)
    if is_unsupported(job):
        raise OsaiUnsupported(f"the conversion is impossible (UNSUPPORTED).{reason}", kind=job.kind, job_id=job.id)
    if job.state is JobState.FAILED and job.invalid_data:
        msg = f"failed because of its data or arguments; correct them and clear the task.{reason}"
        raise OsaiInvalidData(msg, kind=job.kind, job_id=job.id)
    if job.state is JobState.FAILED:
        raise OsaiJobFailed(f"failed.{reason or ' OSAI gives no reason.'}", kind=job.kind, job_id=job.id)
    if job.state is JobState.CANCELLED:
        msg = f"cancelled, in the portal or because its task was killed.{reason}"
        raise OsaiJobCancelled(msg, kind=job.kind, job_id=job.id)
    raise OsaiJobLost(f"not ended, its status is {job.status!r}.{reason}", kind=job.kind, job_id=job.id)
