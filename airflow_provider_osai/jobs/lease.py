"""How a device is given back: every lease that a task may hold is found, ended, and seen to be over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiContractError, OsaiJobLost, OsaiRequestError
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.lifecycle import find, look

__all__ = ["release"]

KIND: Final = JobKind.DEVICE_RENTAL
OVER: Final = frozenset({404, 409, 410})
"""How OSAI may say that there is nothing left to end."""
PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds after which a lease that was told to end, and goes on, is told so again."""


def release(
    calls: Calls, job_id: str | None, reference: str | None, note: Callable[[str], None] = lambda _: None
) -> Flow[list[str]]:
    """End the lease with this id and those under this reference; return the ids of those that were ended just now.

    Nothing to end is no error: never rented, unknown to OSAI, over already.

    :param note: is told what became of each.
    :raises OsaiContractError: if this OSAI cannot end a lease, or cannot tell whether there is one.
    :raises OsaiJobLost: if a lease goes on a minute after it was told to end.
    """
    rented: dict[str, Job | None] = {job_id: None} if job_id else {}
    if reference:
        jobs = yield from _rented_under(calls, reference, known=job_id is not None)
        rented |= {job.id: job for job in jobs}
    if not rented:
        note("No device was rented, so there is nothing to release")
    ended = []
    for one, listed in rented.items():
        # An OSAI that lists it knows it, whatever it says of it by its id.
        job = (yield from _settled(calls, one)) or listed
        if job is None:
            note(f"OSAI does not know {KIND} job {one} (any more): there is nothing to release")
        elif job.is_terminal:
            note(f"The lease of {KIND} job {one} is over already: {job.state}")
        else:
            yield from _end(calls, job)
            note(f"The lease of {KIND} job {one} was ended")
            ended.append(one)
    return ended


def _rented_under(calls: Calls, reference: str, *, known: bool) -> Flow[list[Job]]:
    """Return the leases under the reference. Where no id is known, OSAI gets the time to show one."""
    left = 0.0 if known else lifecycle.SETTLING
    while True:
        jobs = yield from find(calls, KIND, reference)
        if jobs is None and not known:
            msg = (
                f"whether a device was rented under {reference} cannot be told, since this OSAI does not list rentals. "
                "If one was, it ends by itself when its duration is over; look into the portal"
            )
            raise OsaiContractError(msg)
        if jobs or left <= 0:
            return jobs or []
        pause = min(left, lifecycle.SETTLING_LOOKS)
        left -= pause
        yield Sleep(pause)


def _settled(calls: Calls, job_id: str) -> Flow[Job | None]:
    """Return the job, or ``None`` if OSAI goes on not knowing it."""
    left = lifecycle.SETTLING
    while True:
        try:
            return (yield from look(calls, KIND, job_id))
        except OsaiJobLost:
            if left <= 0:
                return None
        pause = min(left, lifecycle.SETTLING_LOOKS)
        left -= pause
        yield Sleep(pause)


def _end(calls: Calls, job: Job) -> Flow[None]:
    if f"{KIND}.cancel" not in calls.contract:
        until = job.result.expires_at if job.result else None
        msg = (
            f"{KIND} job {job.id} cannot be ended: the connection's contract says that this OSAI has no {KIND}.cancel. "
            f"The lease ends by itself {f'at {until}' if until else 'when its duration is over'}, and costs until then"
        )
        raise OsaiContractError(msg)
    for pause in PAUSES:
        try:
            yield calls.cancel_job(KIND, job.id)
        except OsaiRequestError as error:
            if error.status not in OVER:
                raise
        try:
            job = yield from look(calls, KIND, job.id)
        except OsaiJobLost:
            return
        if job.is_terminal:
            return
        yield Sleep(pause)
    raise OsaiJobLost(f"it was told to end and is still {job.state}", kind=KIND, job_id=job.id)
