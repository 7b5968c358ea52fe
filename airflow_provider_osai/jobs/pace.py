"""How often a job is looked at."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pace"]

SHORTEST = 1.0
NEARLY_DONE = 0.8


@dataclass(frozen=True, slots=True)
class Pace:
    """Quick while a job is young or nearly done, then *longest*, never in step with others.

    A look comes after a fifth of the job's age, so that the end is noticed at most a fifth of the run time late, up to
    *longest*. Near the end (progress from 0.8) it comes after half of what remains at the present speed.

    :param longest: seconds between two looks at the most.
    :param chance: a number from 0 to 1, anew at each call.
    """

    longest: float = 30.0
    chance: Callable[[], float] = random.random

    def interval(self, age: float, progress: float | None = None, at_least: float = 0.0) -> float:
        """Return the seconds until the next look at a job that is *age* seconds old, spread by 20 %.

        :param at_least: what the API asked for; spread too, so that not everybody comes back at once.
        """
        wait = age / 5
        if progress is not None and NEARLY_DONE <= progress <= 1:
            wait = min(wait, age * (1 - progress) / progress / 2)
        wait = min(max(wait, SHORTEST), self.longest)
        chance = self.chance()
        return max(wait * (0.8 + 0.4 * chance), at_least * (1 + 0.2 * chance))
