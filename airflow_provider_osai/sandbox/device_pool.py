"""The pool of simulated devices: assigns queued rentals, ends expired ones, and measures how long each lasted."""

from __future__ import annotations

from typing import Any, cast

from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.sandbox.models import JobOutcome, JobRecord, timestamp

__all__ = ["DevicePool", "rental_summary", "start_lease"]


class DevicePool:
    """The unfinished rentals, oldest first. Requires the state's lock.

    ``count`` is the number of devices; ``None``: unlimited.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self._open: list[JobRecord] = []

    def add(self, job: JobRecord) -> None:
        """Add an unfinished rental, queued or running."""
        self._open.append(job)

    def expired(self, now: float) -> list[JobRecord]:
        """Return the running rentals whose time is up."""
        self._remove_finished()
        return [job for job in self._open if job.lease_ends is not None and job.lease_ends <= now]

    def startable(self) -> list[JobRecord]:
        """Return the queued rentals that get a device now: the oldest, as many as devices are free."""
        self._remove_finished()
        running = sum(job.state is JobState.RUNNING for job in self._open)
        queued = [job for job in self._open if job.state is JobState.QUEUED and job.reads >= job.script.reads]
        return queued if self.count is None else queued[: max(0, self.count - running)]

    def clear(self) -> None:
        """Remove all rentals; the number of devices stays."""
        self._open = []

    def _remove_finished(self) -> None:
        self._open = [job for job in self._open if not job.is_terminal]


def start_lease(job: JobRecord, outcome: JobOutcome, now: float) -> None:
    """Mark the job as running since *now*, with the device of *outcome* and the time at which the rental expires."""
    job.state = JobState.RUNNING
    job.started_at = now
    job.message = outcome.message
    job.result = {**(outcome.result or {}), "expiresAt": timestamp(job.lease_ends)}


def rental_summary(job: JobRecord, now: float) -> dict[str, Any]:
    """Return a rental's id, key, state and device, and the seconds that it has held the device."""
    start = job.started_at
    end = now if job.finished_at is None else job.finished_at
    return {
        "id": job.id,
        "reference": job.reference,
        "state": job.state.value,
        "device": cast("DeviceRentalRequest", job.request).device,
        "seconds": 0.0 if start is None else round(end - start, 3),
    }
