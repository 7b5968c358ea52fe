"""Cancel jobs, and find out what really became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiJobLost, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.cli.output import one_line
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import cancel, get_job

__all__ = ["CancelResult", "Cancellation", "Outcome"]

POLL_INTERVAL: Final = 1.0
"""Seconds between two polls for the end of the jobs."""


class Outcome:
    """What became of a job."""

    CANCELLED: Final = "cancelled"
    ENDED: Final = "ended"
    REQUESTED: Final = "requested"
    UNKNOWN: Final = "unknown"
    FAILED: Final = "failed"
    NOT_TRIED: Final = "not tried"


class CancelResult(NamedTuple):
    """What became of one job: its id, an outcome, and a sentence."""

    id: str
    outcome: str
    details: str


class Cancellation:
    """Cancels jobs of one kind.

    :param client: client of the account.
    :param kind: the kind of all jobs.
    :param ids: the ids of the jobs.
    """

    def __init__(self, client: OsaiClient, kind: JobKind, ids: Sequence[str]) -> None:
        self._client = client
        self._kind = kind
        self._results = {job_id: CancelResult(job_id, Outcome.NOT_TRIED, "It was not cancelled.") for job_id in ids}

    @property
    def is_done(self) -> bool:
        """Whether no job runs any more."""
        return all(each.outcome in (Outcome.CANCELLED, Outcome.ENDED) for each in self._results.values())

    def results(self) -> list[CancelResult]:
        """Return what became of the jobs so far."""
        return list(self._results.values())

    def request(self) -> None:
        """Request the cancellation of all jobs, until OSAI is unreachable or rejects the access token."""
        for job_id in self._results:
            try:
                before = run(cancel(self._client.calls, self._kind, job_id), self._client.send)
            except OsaiJobLost:
                self._set(job_id, Outcome.UNKNOWN, "OSAI has no such job. Check its kind and its id.")
            except (OsaiUnreachable, OsaiAuthError) as error:
                self._set(job_id, Outcome.FAILED, f"{error}. It may still run.")
                return
            except OsaiError as error:
                self._set(job_id, Outcome.FAILED, f"{error}. It may still run.")
            else:
                if before.is_terminal:
                    self._set(job_id, Outcome.ENDED, f"It had ended as {before.state}.")
                else:
                    self._set(job_id, Outcome.REQUESTED, "OSAI accepted the cancellation; the job has not ended yet.")

    def wait(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Poll the jobs whose cancellation was requested, until they have ended.

        :param seconds: maximum duration; each job is polled at least once.
        """
        end = clock() + seconds
        while True:
            for job_id in self._requested():
                self._poll(job_id)
            if not self._requested() or clock() >= end:
                return
            sleep(min(POLL_INTERVAL, max(end - clock(), 0.0)))

    def _requested(self) -> list[str]:
        return [each.id for each in self._results.values() if each.outcome == Outcome.REQUESTED]

    def _poll(self, job_id: str) -> None:
        try:
            job = run(get_job(self._client.calls, self._kind, job_id), self._client.send)
        except OsaiError as error:
            text = f"OSAI accepted the cancellation, but the job could not be read: {error}."
            self._set(job_id, Outcome.REQUESTED, text)
            return
        if job.state is JobState.CANCELLED:
            self._set(job_id, Outcome.CANCELLED, "It was cancelled.")
        elif job.is_terminal:
            self._set(job_id, Outcome.ENDED, f"It ended as {job.state} before it could be cancelled.")

    def _set(self, job_id: str, outcome: str, details: str) -> None:
        self._results[job_id] = CancelResult(job_id, outcome, one_line(details))
