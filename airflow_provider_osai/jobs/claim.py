"""How a task comes by its job: it takes up the one that it already has, else it submits one, never two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiJobLost, OsaiUnreachable
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.requests import JobRequest
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.ledger import Entry, Forgetful, Ledger
from airflow_provider_osai.jobs.lifecycle import cancel, find, look, submit
from airflow_provider_osai.jobs.reference import Owner

__all__ = ["Claim", "claim"]

ENDED_BADLY = frozenset({JobState.FAILED, JobState.CANCELLED})
MOST_FAILURES = 1_000
"""Jobs of one task and generation that may end badly before we stop counting."""
SETTLING = 10.0
"""Seconds after a submission within which OSAI need not show the job yet, neither by its id nor in a list."""
SETTLING_LOOKS = 2.0
"""Seconds between two looks meanwhile."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task's claim to one job.

    :param request: what it wants to be done.
    :param owner: who it is.
    :param ledger: what it remembers of earlier tries.
    :param older: its earlier generations, for an Airflow that remembers nothing; the task was cleared since.
    :param webhook_url: where OSAI tells of the end.
    :param note: is told what somebody should know who reads the log.
    :param announce: is told each reference before anything is submitted under it.
    :param spent: the states in which an earlier job is of no more use.
    :param patience: seconds for which an OSAI that has too much to do is asked again.
    :param instead: is run right before a job would be submitted; an ended job that it returns stands in for that.
    :param clock: the time now.
    """

    request: JobRequest
    owner: Owner
    ledger: Ledger = field(default_factory=Forgetful)
    older: Iterable[int] = ()
    webhook_url: str | None = None
    note: Callable[[str], None] = lambda _: None
    announce: Callable[[str], None] = lambda _: None
    spent: frozenset[JobState] = ENDED_BADLY
    patience: float = 3600.0
    instead: Callable[[Calls], Flow[Job | None]] | None = None
    clock: Callable[[], float] = time.time


def claim(calls: Calls, wish: Claim) -> Flow[Job]:
    """Return the job of this task: adopted if it lives or succeeded, submitted otherwise.

    A job of an older generation, or for other arguments, is never adopted; if it lives, it is told to stop first.

    :raises OsaiJobLost: if an earlier try may have submitted a job and the API cannot tell; nothing is submitted then.
    """
    entry = wish.ledger.read()
    if entry is None:
        yield from _retire_older(calls, wish)
    elif entry.reference != wish.owner.reference(wish.request, entry.failed):
        yield from _retire(calls, wish, JobKind.parse(entry.kind), entry.job_id, entry.reference)
        entry = None
    for failed in range(entry.failed if entry else 0, MOST_FAILURES):
        reference = wish.owner.reference(wish.request, failed)
        wish.announce(reference)
        mine = Entry(kind=wish.request.kind, reference=reference, failed=failed, at=wish.clock())
        job = yield from _settled(calls, mine, entry if entry and entry.failed == failed else None)
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


def _submit(calls: Calls, wish: Claim, mine: Entry) -> Flow[Job]:
    """Submit the job, with the intent kept before and, if OSAI surely did not take it, taken back after."""
    wish.ledger.write(mine)
    try:
        return (yield from submit(calls, wish.request, mine.reference, wish.webhook_url, patience=wish.patience))
    except OsaiError as error:
        if not (isinstance(error, OsaiUnreachable) and error.sent):
            wish.ledger.write(mine.model_copy(update={"void": True}))
        raise


def _settled(calls: Calls, mine: Entry, entry: Entry | None) -> Flow[Job | None]:
    """Return the job that was submitted under my reference before, once OSAI has had the time to show it."""
    left = 0.0 if entry is None or entry.void else min(SETTLING, SETTLING - (mine.at - entry.at))
    while True:
        job = yield from _earlier(calls, mine, entry)
        if job is not None or left <= 0:
            return job
        pause = min(left, SETTLING_LOOKS)
        left -= pause
        yield Sleep(pause)


def _earlier(calls: Calls, mine: Entry, entry: Entry | None) -> Flow[Job | None]:
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
    return jobs[0] if jobs else None


def _retire_older(calls: Calls, wish: Claim) -> Flow[None]:
    """Stop what lives of this task's earlier generations, as far as OSAI's list tells."""
    for generation in wish.older:
        owner = replace(wish.owner, generation=generation)
        for failed in range(MOST_FAILURES):
            reference = owner.reference(wish.request, failed)
            jobs = yield from find(calls, wish.request.kind, reference)
            if not jobs:
                break
            yield from _retire(calls, wish, wish.request.kind, jobs[0].id, reference)


def _retire(calls: Calls, wish: Claim, kind: JobKind, job_id: str | None, reference: str) -> Flow[None]:
    """Stop a job that this task no longer wants; what cannot be stopped is noted, and does not hold the task up."""
    if job_id is None:
        jobs = yield from find(calls, kind, reference)
        if not jobs:
            return
        job_id = jobs[0].id
    try:
        job = yield from cancel(calls, kind, job_id)
    except OsaiJobLost:
        return
    except OsaiError as error:
        if error.retryable:
            raise
        wish.note(f"{kind} job {job_id} of before the task was cleared may go on, look into the portal: {error}")
    else:
        if not job.is_terminal:
            wish.note(f"{kind} job {job_id} of before the task was cleared was told to stop")
