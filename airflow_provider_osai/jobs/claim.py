"""How a task comes by its job: it takes up the one that it already has, else it submits one, never two."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiError, OsaiJobLost, OsaiUnreachable
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.requests import JobRequest
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.ledger import Entry, Forgetful, Generation, Ledger
from airflow_provider_osai.jobs.lifecycle import cancel, cancel_duplicates, find, look, persist, submit
from airflow_provider_osai.jobs.reference import NO_DEPLOYMENT, Bond, Deployment, JobKey, Owner, fingerprint

__all__ = ["Claim", "claim", "retire"]

ENDED_BADLY = frozenset({JobState.FAILED, JobState.CANCELLED})
MOST_FAILURES = 1_000
"""Jobs of one task and generation that may end badly before we stop counting."""
MOST_OLDER = 20
"""Earlier generations of a cleared task whose jobs are looked for, where Airflow remembers nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task's claim to one job.

    :param request: what it wants to be done.
    :param owner: who it is.
    :param ledger: what it remembers of earlier tries.
    :param generation: tells a try after a clear from a retry.
    :param deployment: the Airflow deployment.
    :param bond: what becomes of the job without its task.
    :param run: tells the Dag run from another one of the same id, which was deleted.
    :param conn_id: the connection that the job is submitted through.
    :param endpoint: digest of that connection's address.
    :param try_number: of the task.
    :param webhook_url: the address that OSAI calls when the job has ended.
    :param note: called with messages for the task log.
    :param announce: called with each idempotency key before a job is submitted under it.
    :param doubtful: called with the idempotency key under which a second job may still appear.
    :param spent: the states in which an earlier job is of no more use.
    :param patience: seconds for which an OSAI that has too much to do is asked again.
    :param timeout: of the connection, in seconds; for so long a submission may be held up on its way.
    :param instead: is run right before a job would be submitted; an ended job that it returns stands in for that.
    :param elsewhere: is given an entry whose job was submitted through another connection or to another address, and
        whether it is of this generation and request.
    :param clock: the time now.
    """

    request: JobRequest
    owner: Owner
    ledger: Ledger = field(default_factory=Forgetful)
    generation: Generation = field(default_factory=Generation)
    deployment: Deployment = NO_DEPLOYMENT
    bond: Bond = Bond.WAITS
    run: str = ""
    conn_id: str | None = None
    endpoint: str | None = None
    try_number: int | None = None
    webhook_url: str | None = None
    note: Callable[[str], object] = lambda _: None
    announce: Callable[[str], object] = lambda _: None
    doubtful: Callable[[str], object] = lambda _: None
    spent: frozenset[JobState] = ENDED_BADLY
    patience: float = 3600.0
    timeout: float = 0.0
    instead: Callable[[Calls], Flow[Job | None]] | None = None
    elsewhere: Callable[..., None] = lambda _entry, **_: None
    clock: Callable[[], float] = time.time

    @property
    def visibility(self) -> float:
        """Seconds after a submission until which its job may still appear."""
        return lifecycle.visibility_timeout(self.timeout)

    def reference(self, run: str, failed: int) -> str:
        """Return the idempotency key of the next job."""
        return self.owner.reference(self.request, failed, deployment=self.deployment, run=run, bond=self.bond)

    def run_of(self, generation: int) -> str:
        """Return what tells a run and a generation of the task from others of the same name."""
        return f"{self.run}#{generation}"

    def is_elsewhere(self, entry: Entry) -> bool:
        """Whether the job of *entry* is not where this connection leads."""
        if entry.void or entry.conn_id is None:
            return False
        return (entry.conn_id, entry.endpoint) != (self.conn_id, self.endpoint)

    def may_have_job(self, entry: Entry | None) -> bool:
        """Whether an earlier try may have submitted a job."""
        if entry is None:
            return not self.ledger.remembers and (self.try_number or 1) > 1
        return not entry.void

    def is_mine(self, entry: Entry) -> bool:
        """Whether *entry* is of this task and generation, and for the same request."""
        if entry.generation is None:  # version 1
            return entry.reference == self.owner.legacy_reference(self.request, entry.failed)
        key = JobKey.parse(entry.reference)
        if (
            key is not None
            and key.owner is not None
            and replace(key.owner, generation=self.owner.generation) != self.owner
        ):
            return False
        return not self.generation.is_after(entry.generation) and entry.request == fingerprint(self.request)


def claim(calls: Calls, wish: Claim) -> Flow[Job]:
    """Return the job of this task: adopted if it lives or succeeded, submitted otherwise.

    A job of an older generation, or for other arguments, is never adopted; if it lives, it is told to stop first.

    :raises OsaiJobLost: if an earlier try may have submitted a job and the API cannot tell; nothing is submitted then.
    """
    entry = wish.ledger.read()
    if entry is None:
        if not wish.ledger.remembers:
            yield from _retire_older(calls, wish)
    elif wish.is_elsewhere(entry):
        wish.elsewhere(entry, is_mine=wish.is_mine(entry))
        entry = None
    elif not wish.is_mine(entry):
        yield from retire(calls, entry, wish.note, wish.patience)
        entry = None
    elif entry.cancelled:
        # Asked to stop at the deadline of an earlier try: it may live for a moment, and is of no more use.
        yield from retire(calls, entry, wish.note, wish.patience)
        return (yield from _take_up(calls, wish, None, entry.failed + 1))
    try:
        return (yield from _take_up(calls, wish, entry, entry.failed if entry else 0))
    except OsaiAuthError as error:
        if not wish.may_have_job(entry):
            raise
        msg = f"an earlier try may have submitted it, and it cannot be read now: {error}"
        job_id = (entry and entry.job_id) or "of unknown id"
        raise OsaiJobLost(msg, kind=wish.request.kind, job_id=job_id) from error


def _take_up(calls: Calls, wish: Claim, entry: Entry | None, after: int) -> Flow[Job]:
    """Reconnect to the job of *entry* or of this generation's keys, or submit one.

    :param after: jobs of this generation that are known to have ended badly.
    """
    run = entry.run if entry is not None and entry.run is not None else wish.run_of(wish.generation.number)
    for failed in range(after, MOST_FAILURES):
        known = entry if entry and entry.failed == failed else None
        reference = known.reference if known else wish.reference(run, failed)
        wish.announce(reference)
        mine = _entry(wish, reference, run, failed)
        job = None
        if known is not None or not wish.ledger.remembers:
            job = yield from _settled(calls, wish, mine, known)
        if job is None:
            other = (yield from wish.instead(calls)) if wish.instead else None
            if other is not None:
                return other
            job = yield from _submit(calls, wish, mine)
        elif job.state in wish.spent:
            continue
        else:
            wish.note(f"adopted {job.kind} job {job.id}, which an earlier try submitted; it is {job.state}")
        wish.ledger.write(mine.model_copy(update={"job_id": job.id}))
        return job
    msg = f"{MOST_FAILURES} jobs of this task ended badly"
    raise OsaiContractError(msg)


def _entry(wish: Claim, reference: str, run: str, failed: int) -> Entry:
    return Entry(
        kind=wish.request.kind,
        reference=reference,
        failed=failed,
        at=wish.clock(),
        request=fingerprint(wish.request),
        run=run,
        max_tries=wish.generation.max_tries,
        retries=wish.generation.retries,
        clears=wish.generation.clears,
        conn_id=wish.conn_id,
        endpoint=wish.endpoint,
        try_number=wish.try_number,
        worker=socket.gethostname(),
    )


def _submit(calls: Calls, wish: Claim, mine: Entry) -> Flow[Job]:
    """Submit the job, with the intent kept before and, if OSAI surely did not take it, taken back after."""
    wish.ledger.write(mine)
    try:
        return (
            yield from submit(
                calls,
                wish.request,
                mine.reference,
                wish.webhook_url,
                patience=wish.patience,
                visibility=wish.visibility,
                repeated=partial(wish.doubtful, mine.reference),
                note=wish.note,
            )
        )
    except OsaiError as error:
        if not (isinstance(error, OsaiUnreachable) and error.sent):
            wish.ledger.write(mine.model_copy(update={"void": True}))
        raise


def _settled(calls: Calls, wish: Claim, mine: Entry, entry: Entry | None) -> Flow[Job | None]:
    """Return the job that was submitted under my reference before, once OSAI has had the time to show it."""
    left = 0.0 if entry is None or entry.void else min(wish.visibility, wish.visibility - (mine.at - entry.at))
    attempt = partial(_earlier, calls, wish, mine, entry)
    while True:
        if not wish.may_have_job(entry):
            job = yield from attempt()  # nothing is at stake yet, so a refused token is said at once
        else:
            job = yield from persist(attempt, patience=wish.patience, note=wish.note, clock=wish.clock)
        if job is not None or left <= 0:
            return job
        pause = min(left, lifecycle.SETTLING_LOOKS)
        left -= pause
        yield Sleep(pause)


def _earlier(calls: Calls, wish: Claim, mine: Entry, entry: Entry | None) -> Flow[Job | None]:
    """Return the job that was submitted under my reference before, if OSAI shows one."""
    kind = JobKind.parse(mine.kind)
    if entry is not None and entry.job_id is not None:
        try:
            return (yield from look(calls, kind, entry.job_id))
        except OsaiJobLost:
            pass  # gone from OSAI, or listed under its reference only
    jobs = yield from find(calls, kind, mine.reference)
    if jobs is None and entry is not None and entry.job_id is None and not entry.void:
        msg = (
            "an earlier try wanted to submit it and fell silent, and this OSAI cannot list jobs, so nobody can tell "
            "whether it did. Look into the portal; clear the task to submit it anew"
        )
        raise OsaiJobLost(msg, kind=kind, job_id="of unknown id")
    if not jobs:
        return None
    if len(jobs) == 1:
        return jobs[0]
    useful = [job for job in jobs if job.state not in wish.spent]
    return (yield from cancel_duplicates(calls, useful or jobs, wish.note))


def _retire_older(calls: Calls, wish: Claim) -> Flow[None]:
    """Stop what lives of this task's earlier generations, as far as OSAI's list tells."""
    for generation in range(wish.generation.number)[-MOST_OLDER:]:
        for failed in range(MOST_FAILURES):
            reference = wish.reference(wish.run_of(generation), failed)
            jobs = yield from persist(partial(find, calls, wish.request.kind, reference), patience=wish.patience)
            if not jobs:
                break
            for job in jobs:
                entry = Entry(kind=job.kind, reference=reference, job_id=job.id)
                yield from retire(calls, entry, wish.note, wish.patience)


def retire(calls: Calls, entry: Entry, note: Callable[[str], object], patience: float) -> Flow[None]:
    """Stop a job that its task no longer wants; what cannot be stopped is noted, and does not hold the task up.

    :param note: called with messages for the task's log.
    :param patience: seconds for which an unreachable OSAI is asked again.
    """
    kind, job_id = JobKind.parse(entry.kind), entry.job_id
    if job_id is None:
        jobs = yield from persist(partial(find, calls, kind, entry.reference), patience=patience, note=note)
        if not jobs:
            return
        job_id = jobs[0].id
    try:
        job = yield from persist(partial(cancel, calls, kind, job_id), patience=patience, note=note)
    except OsaiJobLost:
        return
    except OsaiError as error:
        if error.retryable:
            raise
        note(f"{kind} job {job_id} of an earlier try is no longer wanted and may go on, look into the portal: {error}")
    else:
        if not job.is_terminal:
            note(f"{kind} job {job_id} of an earlier try is no longer wanted and was told to stop")
