"""Devices that are lent by the clock: who waits for one, who has one, and for how long they had it."""

from __future__ import annotations

from typing import Any, cast

from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.sandbox.records import JobRecord, Outcome, timestamp

__all__ = ["Leases", "billed", "lent"]


class Leases:
    """The leases that are not over, oldest first. To be used under the state's lock.

    ``devices`` is how many there are; ``None``: enough for everybody.
    """

    def __init__(self) -> None:
        self.devices: int | None = None
        self._open: list[JobRecord] = []

    def add(self, job: JobRecord) -> None:
        """Take a lease that is not over; it may run already."""
        self._open.append(job)

    def over(self, now: float) -> list[JobRecord]:
        """Return those whose time is up."""
        self._tidy_up()
        return [job for job in self._open if job.lease_ends is not None and job.lease_ends <= now]

    def due(self) -> list[JobRecord]:
        """Return those who get a device now: as many of the oldest as there are devices left."""
        self._tidy_up()
        lent = sum(job.state is JobState.RUNNING for job in self._open)
        waiting = [job for job in self._open if job.state is JobState.QUEUED and job.reads >= job.script.reads]
        return waiting if self.devices is None else waiting[: max(0, self.devices - lent)]

    def clear(self) -> None:
        """Forget all leases; there are as many devices as before."""
        self._open = []

    def _tidy_up(self) -> None:
        self._open = [job for job in self._open if not job.is_terminal]


def lent(job: JobRecord, outcome: Outcome, now: float) -> None:
    """Write into the job that its lease begins *now*: *outcome* has the device."""
    job.state, job.started_at, job.message = JobState.RUNNING, now, outcome.message
    job.result = {**(outcome.result or {}), "expiresAt": timestamp(job.lease_ends)}


def billed(job: JobRecord, now: float) -> dict[str, Any]:
    """Return what control says of a rental: what it is, and the seconds for which it had a device."""
    since, until = job.started_at, now if job.finished_at is None else job.finished_at
    return {
        "id": job.id,
        "reference": job.reference,
        "state": job.state.value,
        "device": cast("DeviceRentalRequest", job.request).device,
        "seconds": 0.0 if since is None else round(until - since, 3),
    }
