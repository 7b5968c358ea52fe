"""Poll schedule of a job."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MIN_INTERVAL", "PollSchedule"]

MIN_INTERVAL = 1.0
"""Default minimum seconds between two polls."""
NEARLY_DONE = 0.8
"""Progress from which the schedule uses the estimated remaining time."""


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
