"""Poll schedule of a job, and the log lines about its polls."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.models import Job, JobState

__all__ = ["MIN_INTERVAL", "PollLogger", "PollSchedule", "log_job_message"]

MIN_INTERVAL = 1.0
"""Default minimum seconds between two polls."""
NEARLY_DONE = 0.8
"""Progress from which the schedule uses the estimated remaining time."""
LOG_INTERVAL = 600.0
"""Seconds between two log lines about a job whose status does not change."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """Polls frequently while a job is new or nearly done, otherwise every *max_interval* seconds, with jitter.

    The interval is a fifth of the job's age, up to *max_interval*, so that the end is noticed late by at most a fifth
    of the run time. Near the end (progress from 0.8) it is at most half of the remaining time, estimated from the
    progress so far.

    :param max_interval: maximum seconds between two polls.
    :param random_factor: returns a random number from 0 to 1, for the jitter.
    :param min_interval: minimum seconds between two polls, before jitter; *max_interval* takes precedence.
    """

    max_interval: float = 30.0
    random_factor: Callable[[], float] = random.random
    min_interval: float = MIN_INTERVAL

    def next_interval(self, age: float, progress: float | None = None, retry_after: float = 0.0) -> float:
        """Return the seconds until the next poll of a job that is *age* seconds old, with jitter.

        The jitter is 20 % up or down, or up to 3 % down once *max_interval* is reached.

        :param progress: the job's progress from 0 to 1, if known.
        :param retry_after: minimum seconds that the API asked for; up to 20 % jitter is added.
        """
        interval = age / 5
        if progress is not None and NEARLY_DONE <= progress <= 1:
            interval = min(interval, age * (1 - progress) / progress / 2)
        random_factor = self.random_factor()
        interval = min(
            max(interval, self.min_interval) * (0.8 + 0.4 * random_factor),
            self.max_interval * (0.97 + 0.03 * random_factor),
        )
        return max(interval, retry_after * (1 + 0.2 * random_factor))


class PollLogger:
    """Logs the polls of a job: each change of its status, and otherwise one line every ten minutes.

    :param log: a logger, such as that of an Airflow operator or trigger.
    :param since: when the wait began, in seconds since the epoch.
    :param clock: returns the current time in seconds since the epoch.
    """

    def __init__(self, log: Any, *, since: float, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._since = since
        self._clock = clock
        self._last_status: str | None = None
        self._last_logged = 0.0

    def __call__(self, job: Job, pause: float) -> None:
        """Log *job* if its status changed or the last line is ten minutes old.

        :param pause: seconds until the next poll.
        """
        now = self._clock()
        changed = job.status != self._last_status
        if not changed and now - self._last_logged < LOG_INTERVAL:
            return
        self._last_status = job.status
        self._last_logged = now
        self._log.info(
            "OSAI %s job %s is %s%s: %.0f s since submission, progress %s, next poll in %.0f s",
            job.kind,
            job.id,
            job.state,
            " (simulated)" if job.simulated else "",
            now - self._since,
            "unknown" if job.progress is None else f"{job.progress:.0%}",
            pause,
        )
        if changed and job.state is JobState.UNKNOWN:
            self._log.warning(
                "OSAI %s job %s has status %r, which the contract maps to no state. The job counts as not ended; map "
                "the status under 'states' in the connection's contract.",
                job.kind,
                job.id,
                job.status,
            )


def log_job_message(log: Any, job: Job) -> None:
    """Log a job's message, and a warning if the job was simulated.

    :param log: a logger, such as that of an Airflow operator.
    :param job: the job that is returned or has ended.
    """
    message = sanitize_server_text(job.message or "")
    if job.simulated:
        log.warning(
            "OSAI %s job %s is simulated (by the sandbox, for instance): its result is made up.%s",
            job.kind,
            job.id,
            f" Message: {message}" if message else "",
        )
    elif message and job.state is JobState.SUCCEEDED:
        log.info("Message of OSAI %s job %s: %s", job.kind, job.id, message)
