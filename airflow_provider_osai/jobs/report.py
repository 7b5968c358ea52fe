"""What is written into the log while a job is waited for: changes at once, else a line every ten minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow_provider_osai.api.models import Job, JobState

__all__ = ["Reporter"]

EVERY = 600.0
"""Seconds between two lines about a job that does not change."""


class Reporter:
    """Tells a log about each look at a job that is worth a line.

    :param log: a logger, as Airflow's operators and triggers have.
    :param since: when the waiting began, in seconds since the epoch.
    :param clock: the time now.
    """

    def __init__(self, log: Any, *, since: float, clock: Callable[[], float] = time.time) -> None:
        self._log, self._since, self._clock = log, since, clock
        self._word: str | None = None
        self._said = 0.0

    def __call__(self, job: Job, pause: float) -> None:
        """Write a line if the state's word changed or the last line is old."""
        now = self._clock()
        changed = job.status != self._word
        if not changed and now - self._said < EVERY:
            return
        self._word, self._said = job.status, now
        progress = "unknown" if job.progress is None else f"{job.progress:.0%}"
        line = "OSAI %s job %s is %s: %.0f s since submission, progress %s, next look in %.0f s"
        self._log.info(line, job.kind, job.id, job.state, now - self._since, progress, pause)
        if changed and job.state is JobState.UNKNOWN:
            self._log.warning(
                "OSAI says %r, which the contract binds to no state. It counts as not ended; bind it under 'states' of "
                "the connection's contract.",
                job.status,
            )
