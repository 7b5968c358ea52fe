"""Estimate how long a job will still run, from its progress."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from airflow_provider_osai.api.models import Job, JobState
from airflow_provider_osai.api.text import parse_time

__all__ = ["MAX_REMAINING", "ProgressSample", "format_duration", "remaining_seconds"]

MAX_REMAINING: Final = 30 * 86400.0
"""Estimates of more seconds than this are not returned: so little progress says nothing."""
MAX_ELAPSED: Final = 366 * 86400.0
"""Maximum seconds since ``started_at``; a longer time is a server's placeholder, such as the year 1970."""


class ProgressSample(NamedTuple):
    """The progress of a job, 0 to 1, at a time in seconds since the epoch."""

    time: float
    progress: float


def remaining_seconds(job: Job, now: float, earlier: ProgressSample | None = None) -> float | None:
    """Estimate the seconds until a running job ends, as if it continues at its average speed so far.

    The average is that since ``started_at``. If this is missing, invalid or in the future, it is that since an earlier
    poll.

    :param job: the job. Its ``started_at`` is the server's unparsed text.
    :param now: the time of the poll in seconds since the epoch.
    :param earlier: the progress in an earlier poll of the job; ``None`` (default): there is none.
    :returns: ``None`` if it cannot be estimated: the job is queued or has ended, its progress is unknown, 0, 1, or not
        more than before, or the estimate is above :data:`MAX_REMAINING`.
    """
    progress = job.progress
    if job.state not in (JobState.RUNNING, JobState.UNKNOWN) or progress is None or not 0 < progress < 1:
        return None
    started = parse_time(job.started_at)
    if started is not None and 0 < now - started <= MAX_ELAPSED:
        elapsed, done = now - started, progress
    elif earlier is not None:
        elapsed, done = now - earlier.time, progress - earlier.progress
    else:
        return None
    if not (elapsed > 0 and done > 0):
        return None
    seconds = elapsed * (1 - progress) / done
    return seconds if math.isfinite(seconds) and seconds <= MAX_REMAINING else None


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units at most: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 59.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
