"""The log lines about a batch of jobs: how many have ended, and the first ones that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.models import Job, JobState
from airflow_provider_osai.jobs.log_group import group_lines, table_lines
from airflow_provider_osai.jobs.remaining_time import format_duration

__all__ = ["MAX_FAILURES", "MAX_ROWS", "PROGRESS_STEPS", "BatchProgressLog", "summary_lines"]

PROGRESS_STEPS: Final = 20
"""Maximum lines about the progress of a batch."""
MIN_PAUSE: Final = 1.0
"""Minimum seconds between two of them, but for the last."""
MAX_FAILURES: Final = 10
"""Maximum lines about single jobs that failed."""
MAX_ROWS: Final = 50
"""Maximum rows of the table of jobs that did not succeed."""


class BatchProgressLog:
    """Logs the progress of a batch: at most a line for each 5 % of its jobs, and one for each of the first failures.

    :param log: a logger.
    :param kind: the kind of the jobs.
    :param total: number of jobs of the batch.
    :param ended: number of jobs that have ended.
    :param failed: number of these that did not succeed.
    :param clock: returns monotonic time in seconds.
    """

    def __init__(
        self,
        log: Any,
        kind: str,
        total: int,
        ended: int = 0,
        failed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._kind = kind
        self._total = max(total, 1)
        self._ended = ended
        self._before = ended
        self._failed = failed
        self._failures_left = MAX_FAILURES
        self._clock = clock
        self._began = clock()
        self._logged_step = ended * PROGRESS_STEPS // self._total
        self._logged_at = -MIN_PAUSE

    def ended(self, job: Job) -> None:
        """Count a job that has ended."""
        if job.state is not JobState.SUCCEEDED:
            self._failed += 1
            self._log_failure(f"{job.id} {job.state}", job.message)
        self._count()

    def lost(self, error: Exception) -> None:
        """Count a job that could not be read."""
        self._failed += 1
        self._log_failure("lost", str(error))
        self._count()

    def _log_failure(self, what: str, message: str | None) -> None:
        if self._failures_left:
            self._failures_left -= 1
            text = f": {sanitize_server_text(message, 500)}" if message else ""
            self._log.warning("OSAI %s job %s%s", self._kind, sanitize_server_text(what, 150), text)

    def _count(self) -> None:
        self._ended += 1
        now, step = self._clock(), self._ended * PROGRESS_STEPS // self._total
        is_due = step > self._logged_step and now - self._logged_at >= MIN_PAUSE
        if not is_due and self._ended != self._total:
            return
        self._logged_step, self._logged_at = step, now
        elapsed, done = now - self._began, self._ended - self._before
        remaining = self._total - self._ended
        eta = f", ETA {format_duration(elapsed / done * remaining)}" if remaining and elapsed >= 1 else ""
        failed = f", {self._failed} of them not successfully" if self._failed else ""
        message = "%d of %d OSAI %s jobs have ended%s%s"
        self._log.info(message, self._ended, self._total, self._kind, failed, eta)


def summary_lines(kind: str, results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines about the results of a batch: numbers by state, and a table of those that did not succeed."""
    counts: dict[str, int] = {}
    bad: list[tuple[str, str, str, str]] = []
    for index, result in enumerate(results):
        state = str(result["state"])
        counts[state] = counts.get(state, 0) + 1
        if state != JobState.SUCCEEDED:
            bad.append((str(index), str(result["job_id"] or "-"), state, str(result.get("message") or "")))
    yield f"{sum(counts.values())} OSAI {kind} jobs: {', '.join(f'{count} {state}' for state, count in counts.items())}"
    if bad:
        rows = [("index", "job", "state", "message"), *bad[:MAX_ROWS]]
        more = [f"and {len(bad) - MAX_ROWS} more"] if len(bad) > MAX_ROWS else []
        yield from group_lines(f"{len(bad)} jobs did not succeed", [*table_lines(rows), *more])
