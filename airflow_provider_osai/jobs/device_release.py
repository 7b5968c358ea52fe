"""Release a rented device: find every rental that the task may hold, cancel it, and verify that it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_osai.api.errors import OsaiContractError, OsaiJobLost, OsaiRequestError
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs import submission
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import get_job
from airflow_provider_osai.jobs.submission import find_jobs, poll_until_visible

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient

__all__ = ["release"]

KIND: Final = JobKind.DEVICE_RENTAL
ALREADY_ENDED: Final = frozenset({404, 409, 410})
"""Statuses by which OSAI may say that there is nothing left to cancel (assumed)."""
CANCEL_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds after which a rental that was cancelled, and has not ended, is cancelled again."""


def release(
    client: OsaiClient, job_id: str | None, key: str | None, log: Callable[[str], object] = lambda _: None
) -> list[str]:
    """Cancel the rental with this id and those with this idempotency key; return the ids of those that this ended.

    Nothing to cancel is not an error: never rented, unknown to OSAI, already ended.

    :param log: called with a message for the log about each rental.
    :raises OsaiContractError: if this OSAI cannot cancel a rental, or cannot tell whether there is one.
    :raises OsaiJobLost: if a rental has not ended a minute after it was cancelled.
    """
    rentals: dict[str, Job | None] = {job_id: None} if job_id else {}
    if key:
        rentals |= {job.id: job for job in _find_rentals(client, key, is_id_known=job_id is not None)}
    if not rentals:
        log("No device was rented, so there is nothing to release")
    ended = []
    for rental_id, listed in rentals.items():
        # A rental that OSAI lists exists, even if reading it by its id fails.
        job = _wait_until_visible(client, rental_id) or listed
        if job is None:
            log(f"{KIND} job {rental_id} is unknown to OSAI: there is nothing to release")
        elif job.is_terminal:
            log(f"{KIND} job {rental_id} has already ended: {job.state}")
        else:
            _cancel(client, job)
            log(f"Released the device of {KIND} job {rental_id}")
            ended.append(rental_id)
    return ended


def _find_rentals(client: OsaiClient, key: str, *, is_id_known: bool) -> list[Job]:
    """Return the rentals with the idempotency key. If no id is known, give OSAI the time to show one."""

    def find() -> list[Job] | None:
        jobs = find_jobs(client, KIND, key)
        if jobs is None and not is_id_known:
            msg = (
                f"It is unknown whether a device was rented with the key {key}, because this OSAI does not list "
                "rentals. A rental ends by itself when its duration is over; check the OSAI portal"
            )
            raise OsaiContractError(msg)
        return jobs or None

    return poll_until_visible(client, find, 0.0 if is_id_known else submission.VISIBILITY_TIMEOUT) or []


def _wait_until_visible(client: OsaiClient, job_id: str) -> Job | None:
    """Return the job; ``None`` if OSAI still does not know it after the visibility timeout."""

    def find() -> Job | None:
        try:
            return run(get_job(client.calls, KIND, job_id), client.send)
        except OsaiJobLost:
            return None

    return poll_until_visible(client, find, submission.VISIBILITY_TIMEOUT)


def _cancel(client: OsaiClient, job: Job) -> None:
    if f"{KIND}.cancel" not in client.calls.contract:
        expires_at = job.result.expires_at if job.result else None
        end = f"at {expires_at}" if expires_at else "when its duration is over"
        msg = (
            f"{KIND} job {job.id} cannot be cancelled: the connection's contract sets {KIND}.cancel to null. The "
            f"rental ends by itself {end}, and costs until then"
        )
        raise OsaiContractError(msg)
    for delay in CANCEL_DELAYS:
        try:
            client.cancel_job(KIND, job.id)
        except OsaiRequestError as error:
            if error.status not in ALREADY_ENDED:
                raise
        try:
            job = run(get_job(client.calls, KIND, job.id), client.send)
        except OsaiJobLost:
            return
        if job.is_terminal:
            return
        client.sleep(delay)
    raise OsaiJobLost(f"cancelled, but still {job.state} after {sum(CANCEL_DELAYS):.0f} s", kind=KIND, job_id=job.id)
