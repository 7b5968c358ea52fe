"""Submit a job for a task, or reconnect to the job that an earlier try submitted. Never submits twice.

Plain functions over a blocking client: only workers submit.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiError,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.requests import JobRequest
from airflow_provider_osai.jobs.capacity import CapacityReport, CapacityWait
from airflow_provider_osai.jobs.checkpoint import Generation, JobCheckpoint, JobCheckpointStore, NullCheckpointStore
from airflow_provider_osai.jobs.flow import Flow, run
from airflow_provider_osai.jobs.idempotency import NO_DEPLOYMENT, Bond, Deployment, JobKey, TaskKey, fingerprint
from airflow_provider_osai.jobs.lifecycle import backoff, cancel, get_job, retry_while_unreachable

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient

__all__ = [
    "Submission",
    "SubmissionPlan",
    "call_persistently",
    "cancel_duplicates",
    "cancel_superseded",
    "find_jobs",
    "find_jobs_persistently",
    "first_intent",
    "poll_until_visible",
    "reconnect",
    "submit",
    "submit_intent",
    "submit_or_reconnect",
    "visibility_timeout",
]

MAX_SUBMISSIONS: Final = 4
"""Maximum number of times a submission is sent whose response leaves open whether OSAI took it."""
VISIBILITY_TIMEOUT = 10.0
"""Seconds after a submission within which OSAI may not yet show the job, neither by its id nor in a list."""
VISIBILITY_POLL = 2.0
"""Seconds between two polls for it."""
HELD_TIMEOUTS = 1.0
"""Timeouts of the connection for which a proxy may hold a submission back after its client gave up."""
MAY_BE_HELD: Final = frozenset({None, 408, 502, 503, 504})
"""Statuses (``None``: no response) after which a submission may still be on its way to OSAI."""
ENDED_BADLY: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
"""States after which a retry submits a new job."""
MAX_FAILED_JOBS: Final = 1_000
"""Maximum number of failed jobs of one generation."""
MAX_GENERATIONS: Final = 20
"""Number of earlier generations whose jobs are looked up where no checkpoint is kept."""
RANKING: Final = (
    JobState.SUCCEEDED,
    JobState.RUNNING,
    JobState.UNKNOWN,
    JobState.QUEUED,
    JobState.FAILED,
    JobState.CANCELLED,
)
"""Which of several jobs with one idempotency key to keep: the one nearest to a result."""
UNKNOWN_ID: Final = "of unknown id"

T = TypeVar("T")


def _no_log(_message: str) -> None: ...


def _no_report(_report: CapacityReport) -> None: ...


class Submission(StrEnum):
    """How a task got its job, or tried to."""

    SUBMITTED = "submitted"
    RESUBMITTED = "resubmitted"
    """Submitted, since an earlier job of the task ended badly; reported besides ``SUBMITTED``."""
    RECONNECTED = "reconnected"
    REPEATED = "repeated"
    """The request was sent again, since its response left open whether OSAI took the job."""


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """Everything that decides whether a task submits a job or reconnects to one.

    :param request: the request for the job.
    :param owner: the key of the task.
    :param store: the checkpoint of earlier tries.
    :param generation: distinguishes a try after a clear from a retry.
    :param deployment: the Airflow deployment.
    :param bond: what happens to the job when its task is gone.
    :param run: distinguishes the Dag run from a deleted one with the same id.
    :param conn_id: the connection that the job is submitted through.
    :param endpoint: digest of that connection's base URL.
    :param try_number: of the task.
    :param webhook_url: the URL that OSAI calls when the job has ended.
    :param log: called with messages for the task log.
    :param on_key: called with each idempotency key before a job is submitted under it.
    :param on_doubt: called with an idempotency key under which a second job may still appear.
    :param on_capacity: called when the submission begins to wait for room at OSAI, and when it ends to.
    :param on_submission: called with how the task got its job, for metrics.
    :param resubmit_states: the states of an earlier job after which a new one is submitted.
    :param unreachable_timeout: maximum seconds to retry while OSAI is unreachable or busy.
    :param has_legacy_keys: whether version 0.1 of this package may have submitted the job of an earlier try.
    :param timeout: of the connection, in seconds; a submission may be held up for that long on its way.
    :param find_existing_result: called right before a job would be submitted; an ended job that it returns is taken
        instead.
    :param on_moved: called with a checkpoint whose job was submitted through another connection or to another base
        URL, and with ``is_mine``: whether it is of this generation and request.
    :param clock: returns the seconds since the epoch.
    """

    request: JobRequest
    owner: TaskKey
    store: JobCheckpointStore = field(default_factory=NullCheckpointStore)
    generation: Generation = field(default_factory=Generation)
    deployment: Deployment = NO_DEPLOYMENT
    bond: Bond = Bond.WAITS
    run: str = ""
    conn_id: str | None = None
    endpoint: str | None = None
    try_number: int | None = None
    webhook_url: str | None = None
    log: Callable[[str], object] = _no_log
    on_key: Callable[[str], object] = _no_log
    on_doubt: Callable[[str], object] = _no_log
    on_capacity: Callable[[CapacityReport], object] = _no_report
    on_submission: Callable[[Submission], object] = lambda _submission: None
    resubmit_states: frozenset[JobState] = ENDED_BADLY
    unreachable_timeout: float = 3600.0
    has_legacy_keys: bool = False
    timeout: float = 0.0
    find_existing_result: Callable[[OsaiClient], Job | None] = lambda _client: None
    on_moved: Callable[..., None] = lambda _checkpoint, **_: None
    clock: Callable[[], float] = time.time

    @property
    def visibility(self) -> float:
        """Seconds after a submission within which its job may still appear."""
        return visibility_timeout(self.timeout)

    def key(self, run: str, failed: int) -> str:
        """Return the idempotency key of the job after *failed* failed ones."""
        return self.owner.reference(self.request, failed, deployment=self.deployment, run=run, bond=self.bond)

    def run_of(self, generation: int) -> str:
        """Return what distinguishes a run and a generation of the task from others with the same ids."""
        return f"{self.run}#{generation}"

    def repeat(self, key: str) -> None:
        """Report that a submission is sent again, so that a second job may appear under *key*."""
        self.on_submission(Submission.REPEATED)
        self.on_doubt(key)

    def is_moved(self, checkpoint: JobCheckpoint) -> bool:
        """Return whether the checkpoint's job is at another connection or base URL than this plan's."""
        if checkpoint.void or checkpoint.conn_id is None:
            return False
        return (checkpoint.conn_id, checkpoint.endpoint) != (self.conn_id, self.endpoint)

    def may_have_job(self, checkpoint: JobCheckpoint | None) -> bool:
        """Return whether an earlier try may have submitted a job."""
        if checkpoint is None:
            return not self.store.remembers and (self.try_number or 1) > 1
        return not checkpoint.void

    def earlier_keys(self, failed: int, generation: int) -> list[str]:
        """Return the keys under which a try of a generation may have submitted its job: the present one first."""
        keys = [self.key(self.run_of(generation), failed)]
        if self.has_legacy_keys and (self.try_number or 1) > 1:
            is_present = generation == self.generation.number
            number = self.owner.generation if is_present else generation + self.generation.retries
            keys.append(replace(self.owner, generation=number).legacy_reference(self.request, failed))
        return keys

    def is_mine(self, checkpoint: JobCheckpoint) -> bool:
        """Return whether the checkpoint is of this task and generation, and of the same request."""
        if checkpoint.generation is None:  # version 1
            return checkpoint.reference == self.owner.legacy_reference(self.request, checkpoint.failed)
        key = JobKey.parse(checkpoint.reference)
        if (
            key is not None
            and key.owner is not None
            and replace(key.owner, generation=self.owner.generation) != self.owner
        ):
            return False
        return not self.generation.is_after(checkpoint.generation) and checkpoint.request == fingerprint(self.request)


def visibility_timeout(timeout: float) -> float:
    """Return the seconds after a submission within which its job may still appear.

    :param timeout: of the connection, in seconds.
    """
    return VISIBILITY_TIMEOUT + HELD_TIMEOUTS * timeout


def poll_until_visible(client: OsaiClient, find: Callable[[], T | None], seconds: float) -> T | None:
    """Call *find* until it returns something, for at most *seconds*; ``None`` if it never does."""
    while True:
        found = find()
        if found is not None or seconds <= 0:
            return found
        pause = min(seconds, VISIBILITY_POLL)
        seconds -= pause
        client.sleep(pause)


def submit_or_reconnect(client: OsaiClient, plan: SubmissionPlan) -> Job:
    """Return the task's job: reconnect if it is running or succeeded, submit it otherwise.

    :raises OsaiJobLost: as :func:`reconnect`, or if it is unknown whether OSAI took the job.
    """
    found = reconnect(client, plan)
    return found if isinstance(found, Job) else submit_intent(client, plan, found)


def reconnect(client: OsaiClient, plan: SubmissionPlan) -> Job | JobCheckpoint:
    """Return the job of an earlier try if it is running or succeeded; otherwise the intent of the job to submit.

    A job of an earlier generation, or for other arguments, is never used; it is cancelled first unless it has ended.

    :raises OsaiJobLost: if an earlier try may have submitted a job, and it cannot be read.
    """
    checkpoint = plan.store.read()
    if checkpoint is None:
        if not plan.store.remembers:
            with _lost_if_unreadable(plan, None):
                _cancel_earlier_generations(client, plan)
    elif plan.is_moved(checkpoint):
        plan.on_moved(checkpoint, is_mine=plan.is_mine(checkpoint))
        checkpoint = None
    elif not plan.is_mine(checkpoint):
        cancel_superseded(client, checkpoint, plan.log, plan.unreachable_timeout)
        checkpoint = None
    elif checkpoint.cancelled:
        # Cancelled at the deadline of an earlier try: it may run for a moment still, and must not be reconnected to.
        cancel_superseded(client, checkpoint, plan.log, plan.unreachable_timeout)
        return _find_or_intend(client, plan, None, checkpoint.failed + 1)
    return _find_or_intend(client, plan, checkpoint, checkpoint.failed if checkpoint else 0)


def first_intent(plan: SubmissionPlan) -> JobCheckpoint:
    """Return the intent that :func:`submit_or_reconnect` writes first for a task without a checkpoint."""
    run_id = plan.run_of(plan.generation.number)
    return _intent(plan, plan.key(run_id, 0), run_id, 0)


def submit(
    client: OsaiClient,
    request: JobRequest,
    key: str,
    webhook_url: str | None = None,
    *,
    unreachable_timeout: float = 3600.0,
    visibility: float | None = None,
    on_resubmit: Callable[[], object] = lambda: None,
    on_capacity: Callable[[CapacityReport], object] = _no_report,
    log: Callable[[str], object] = _no_log,
    random_factor: Callable[[], float] = random.random,
) -> Job:
    """Submit *request*. After a response that leaves open whether OSAI took it, look for the job before sending again.

    :param key: the idempotency key, ``reference`` on the wire.
    :param unreachable_timeout: maximum seconds to retry while OSAI is unreachable or busy.
    :param visibility: seconds after a doubtful submission within which its job may still appear; default: 10.
    :param on_resubmit: called before sending again what OSAI may have taken: a duplicate may appear later.
    :param on_capacity: called when the submission begins to wait for room at OSAI, and when it ends to.
    :param log: called with messages for the task log.
    :param random_factor: returns a number from 0 to 1.
    :raises OsaiUnreachable: if it stays unknown whether OSAI took the job, or OSAI stays unreachable for too long.
    :raises OsaiBusy: if OSAI has no room for too long: it is busy, a quota is reached, or there is no credit.
    :raises OsaiError: any other error, too; each has ``may_have_been_processed``.
    """
    doubts = 0
    refusals = 0
    waited = 0.0
    room = CapacityWait(unreachable_timeout, log, on_capacity)
    while True:
        try:
            # Without the retries of the client, which log nothing: this loop does the same, visibly.
            job = client.send(client.calls.submit_job(request, key, webhook_url), retry=False)
        except OsaiUnreachable as error:
            if error.may_have_been_processed:
                room.ended(waited)
                doubts += 1
                try:
                    found = _find_after_doubt(client, request.kind, key, error, visibility, unreachable_timeout)
                except OsaiError as failure:
                    failure.may_have_been_processed = True
                    raise
                if found:
                    return cancel_duplicates(client, found, log) if len(found) > 1 else found[0]
                if doubts == MAX_SUBMISSIONS:
                    raise
                on_resubmit()
                continue
            # Certainly not taken. Hundreds of tasks may have been rejected at once: spread their retries.
            pause = max(backoff(refusals), error.retry_after or 0.0) * (1 + random_factor())
            refusals += 1
            if waited + pause > unreachable_timeout:
                room.ended(waited)
                room.raise_if_full(error, waited)
                raise
            room.refused(error, waited)
            waited += pause
            client.sleep(pause)
        except OsaiError:
            room.ended(waited)
            raise
        else:
            room.ended(waited, is_submitted=True)
            if doubts:
                with suppress(OsaiError):  # there is a job; duplicates are looked for at its end too
                    jobs = find_jobs(client, request.kind, key)
                    if jobs and len(jobs) > 1:
                        return cancel_duplicates(client, jobs, log)
            return job


def find_jobs(client: OsaiClient, kind: JobKind, key: str) -> list[Job] | None:
    """Return the jobs with the idempotency key *key*; ``None`` if the API cannot tell."""
    if f"{kind}.list" not in client.calls.contract:
        return None
    try:
        jobs = client.find_jobs(kind, key)
    except OsaiRequestError as error:
        if error.is_unsupported_operation:
            return None
        raise
    matching = [job for job in jobs if job.reference == key]
    # A list with jobs that show no key: the API ignored the filter, and may not have listed ours.
    return None if not matching and any(job.reference is None for job in jobs) else matching


def find_jobs_persistently(client: OsaiClient, checkpoint: JobCheckpoint, *, timeout: float) -> list[Job]:
    """Return the jobs with the checkpoint's idempotency key, with retries while OSAI is unreachable.

    :param timeout: maximum seconds of an outage.
    """
    find = partial(find_jobs, client, JobKind.parse(checkpoint.kind), checkpoint.reference)
    return call_persistently(client, find, timeout=timeout) or []


def cancel_duplicates(
    client: OsaiClient, jobs: Sequence[Job], log: Callable[[str], object], keep: str | None = None
) -> Job:
    """Keep one of several jobs with one idempotency key, cancel the others, and log both.

    :param keep: the id of the job to keep; default: the one nearest to a result.
    """
    ranked = sorted(jobs, key=lambda job: (job.id != keep, RANKING.index(job.state), job.created_at or "", job.id))
    kept = ranked[0]
    for job in ranked[1:]:
        if job.is_terminal:
            continue
        duplicates = f"OSAI {job.kind} jobs {kept.id} and {job.id} have the same idempotency key"
        try:
            _run(client, cancel(client.calls, job.kind, job.id))
        except OsaiError as error:
            log(f"{duplicates}. Cancelling {job.id} failed, it may continue; cancel it in the OSAI portal: {error}")
        else:
            log(f"{duplicates}, since a submission arrived late: kept {kept.id}, cancelled {job.id}")
    return kept


def cancel_superseded(
    client: OsaiClient, checkpoint: JobCheckpoint, log: Callable[[str], object], timeout: float
) -> None:
    """Cancel a job that its task no longer needs. A failure that no retry can fix is logged, not raised.

    :param log: called with messages for the task log.
    :param timeout: maximum seconds to retry while OSAI is unreachable.
    """
    kind = JobKind.parse(checkpoint.kind)
    job_id = checkpoint.job_id
    if job_id is None:
        jobs = call_persistently(
            client, partial(find_jobs, client, kind, checkpoint.reference), timeout=timeout, log=log
        )
        if not jobs:
            return
        job_id = jobs[0].id
    flow = retry_while_unreachable(partial(cancel, client.calls, kind, job_id), timeout=timeout, log=log)
    try:
        job = _run(client, flow)
    except OsaiJobLost:
        return
    except OsaiError as error:
        if error.retryable:
            raise
        log(
            f"Cancelling {kind} job {job_id} of an earlier try, which is no longer needed, failed. It may continue; "
            f"check the OSAI portal: {error}"
        )
    else:
        if not job.is_terminal:
            log(f"Cancelled {kind} job {job_id} of an earlier try, which is no longer needed")


def _run(client: OsaiClient, flow: Flow[T]) -> T:
    return run(flow, client.send, client.sleep)


def call_persistently(
    client: OsaiClient,
    attempt: Callable[[], T],
    *,
    timeout: float,
    log: Callable[[str], object] = _no_log,
    clock: Callable[[], float] = time.time,
) -> T:
    """Call *attempt*, with the retries of :func:`~airflow_provider_osai.jobs.lifecycle.retry_while_unreachable`."""

    def flow() -> Flow[T]:
        yield from ()
        return attempt()

    return _run(client, retry_while_unreachable(flow, timeout=timeout, log=log, clock=clock))


def _find_after_doubt(
    client: OsaiClient,
    kind: JobKind,
    key: str,
    doubt: OsaiUnreachable,
    visibility: float | None,
    unreachable_timeout: float,
) -> list[Job]:
    """Return the jobs that a doubtful submission made, after giving OSAI the time to show them.

    :raises OsaiUnreachable: if this OSAI cannot list jobs.
    """
    # A response of the API itself means that no proxy holds the submission back.
    remaining = VISIBILITY_TIMEOUT if visibility is None or doubt.status not in MAY_BE_HELD else visibility
    while True:
        pause = min(max(remaining, 0.0), VISIBILITY_POLL)
        client.sleep(max(pause, doubt.retry_after or 0.0))
        remaining -= VISIBILITY_POLL
        jobs = call_persistently(client, partial(find_jobs, client, kind, key), timeout=unreachable_timeout)
        if jobs is None:
            msg = (
                f"{doubt}. It is unknown whether OSAI took the {kind} job, because this OSAI cannot list jobs. It is "
                "not submitted again; check the OSAI portal"
            )
            raise OsaiUnreachable(msg, status=doubt.status) from doubt
        if jobs or remaining <= 0:
            return jobs


def _find_or_intend(
    client: OsaiClient, plan: SubmissionPlan, checkpoint: JobCheckpoint | None, after: int
) -> Job | JobCheckpoint:
    """Return the job of the checkpoint or of this generation's keys, or the intent of the next one.

    :param after: number of jobs of this generation that are known to have ended badly.
    """
    run_id = checkpoint.run if checkpoint and checkpoint.run is not None else plan.run_of(plan.generation.number)
    for failed in range(after, MAX_FAILED_JOBS):
        earlier = checkpoint if checkpoint and checkpoint.failed == failed else None
        key = earlier.reference if earlier else plan.key(run_id, failed)
        plan.on_key(key)
        intent = _intent(plan, key, run_id, failed)
        job = None
        if earlier is not None or not plan.store.remembers:
            job = _wait_until_visible(client, plan, intent, earlier)
        if job is None:
            return intent
        if job.state in plan.resubmit_states:
            continue
        if earlier is None and job.reference in plan.earlier_keys(failed, plan.generation.number)[1:]:
            intent = intent.model_copy(update={"reference": job.reference})  # of version 0.1
            plan.on_key(intent.reference)
        plan.log(f"Reconnected to {job.kind} job {job.id}, which an earlier try submitted; it is {job.state}")
        plan.on_submission(Submission.RECONNECTED)
        plan.store.write(intent.model_copy(update={"job_id": job.id}))
        return job
    msg = f"{MAX_FAILED_JOBS} jobs of this task ended badly"
    raise OsaiContractError(msg)


def submit_intent(client: OsaiClient, plan: SubmissionPlan, intent: JobCheckpoint) -> Job:
    """Submit the job of an intent that :func:`reconnect` returned, or take an existing result in its place.

    :raises OsaiJobLost: if it is unknown whether OSAI took the job, and a retry must find out.
    """
    existing = plan.find_existing_result(client)
    if existing is not None:
        return existing
    intent = intent.model_copy(update={"at": plan.clock()})
    job = _submit_with_checkpoint(client, plan, intent)
    plan.on_submission(Submission.SUBMITTED)
    if intent.failed:
        plan.on_submission(Submission.RESUBMITTED)
    plan.store.write(intent.model_copy(update={"job_id": job.id}))
    return job


def _intent(plan: SubmissionPlan, key: str, run_id: str, failed: int) -> JobCheckpoint:
    """Return the checkpoint that is written before the submission, without the job's id."""
    return JobCheckpoint(
        kind=plan.request.kind,
        reference=key,
        failed=failed,
        at=plan.clock(),
        request=fingerprint(plan.request),
        run=run_id,
        max_tries=plan.generation.max_tries,
        retries=plan.generation.retries,
        clears=plan.generation.clears,
        conn_id=plan.conn_id,
        endpoint=plan.endpoint,
        try_number=plan.try_number,
        worker=socket.gethostname(),
    )


def _submit_with_checkpoint(client: OsaiClient, plan: SubmissionPlan, intent: JobCheckpoint) -> Job:
    """Submit the job; write the intent before, and mark it void if OSAI certainly did not take the job."""
    plan.store.write(intent)
    try:
        return submit(
            client,
            plan.request,
            intent.reference,
            plan.webhook_url,
            unreachable_timeout=plan.unreachable_timeout,
            visibility=plan.visibility,
            on_resubmit=partial(plan.repeat, intent.reference),
            on_capacity=plan.on_capacity,
            log=plan.log,
        )
    except OsaiError as error:
        if not error.may_have_been_processed:
            plan.store.write(intent.model_copy(update={"void": True}))
        elif not error.retryable:  # the job may run: a retry must find it
            msg = f"whether OSAI took it is unknown, and it cannot be looked for now: {error}"
            raise OsaiJobLost(msg, kind=plan.request.kind, job_id=UNKNOWN_ID) from error
        raise


@contextmanager
def _lost_if_unreadable(plan: SubmissionPlan, checkpoint: JobCheckpoint | None) -> Iterator[None]:
    """Turn an error that would end the task into one that a retry follows, if an earlier try may have a job."""
    try:
        yield
    except OsaiError as error:
        if error.retryable or not plan.may_have_job(checkpoint):
            raise  # nothing can be lost yet: a rejected token, for example, fails at once
        msg = f"an earlier try may have submitted it, and it cannot be read now: {error}"
        job_id = (checkpoint and checkpoint.job_id) or UNKNOWN_ID
        raise OsaiJobLost(msg, kind=plan.request.kind, job_id=job_id) from error


def _wait_until_visible(
    client: OsaiClient, plan: SubmissionPlan, intent: JobCheckpoint, checkpoint: JobCheckpoint | None
) -> Job | None:
    """Return the job that an earlier try submitted with this key, after giving OSAI the time to show it."""
    remaining = 0.0
    if checkpoint is not None and not checkpoint.void:
        remaining = min(plan.visibility, plan.visibility - (intent.at - checkpoint.at))
    find = partial(_find_submitted, client, plan, intent, checkpoint)
    if plan.may_have_job(checkpoint):
        find = partial(
            call_persistently, client, find, timeout=plan.unreachable_timeout, log=plan.log, clock=plan.clock
        )
    with _lost_if_unreadable(plan, checkpoint):
        return poll_until_visible(client, find, remaining)


def _find_submitted(
    client: OsaiClient, plan: SubmissionPlan, intent: JobCheckpoint, checkpoint: JobCheckpoint | None
) -> Job | None:
    """Return the job that an earlier try submitted with this key, if OSAI shows one."""
    kind = JobKind.parse(intent.kind)
    if checkpoint is not None and checkpoint.job_id is not None:
        try:
            return _run(client, get_job(client.calls, kind, checkpoint.job_id))
        except OsaiJobLost:
            pass  # deleted in OSAI, or listed under its key only
    keys = [intent.reference]
    if checkpoint is None:
        keys = plan.earlier_keys(intent.failed, plan.generation.number)
    jobs = _find_by_any(client, kind, keys)
    if jobs is None and checkpoint is not None and checkpoint.job_id is None and not checkpoint.void:
        msg = (
            "an earlier try started to submit this job but recorded no result, and this OSAI cannot list jobs: it is "
            "unknown whether the job exists. Check the OSAI portal; clear the task to submit a new job"
        )
        raise OsaiJobLost(msg, kind=kind, job_id=UNKNOWN_ID)
    if not jobs:
        return None
    if len(jobs) == 1:
        return jobs[0]
    useful = [job for job in jobs if job.state not in plan.resubmit_states]
    return cancel_duplicates(client, useful or jobs, plan.log)


def _find_by_any(client: OsaiClient, kind: JobKind, keys: Sequence[str]) -> list[Job] | None:
    """Return the jobs with the first of the keys that has any; ``None`` if the API cannot tell."""
    found: list[Job] | None = []
    for key in keys:
        found = find_jobs(client, kind, key)
        if found or found is None:
            break
    return found


def _cancel_earlier_generations(client: OsaiClient, plan: SubmissionPlan) -> None:
    """Cancel the running jobs of this task's earlier generations, as far as OSAI lists them."""
    for generation in range(plan.generation.number)[-MAX_GENERATIONS:]:
        for failed in range(MAX_FAILED_JOBS):
            keys = plan.earlier_keys(failed, generation)
            find = partial(_find_by_any, client, plan.request.kind, keys)
            jobs = call_persistently(client, find, timeout=plan.unreachable_timeout)
            if not jobs:
                break
            for job in jobs:
                checkpoint = JobCheckpoint(kind=job.kind, reference=job.reference or keys[0], job_id=job.id)
                cancel_superseded(client, checkpoint, plan.log, plan.unreachable_timeout)
