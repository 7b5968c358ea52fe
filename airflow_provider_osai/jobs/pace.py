"""How often a job is looked at."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SHORTEST", "Pace"]

SHORTEST = 1.0
"""Seconds between two looks at the least, if nothing else is said."""
NEARLY_DONE = 0.8


@dataclass(frozen=True, slots=True)
class Pace:
    """Quick while a job is young or nearly done, then *longest*, never in step with others.

    A look comes after a fifth of the job's age, so that the end is noticed at most a fifth of the run time late, up to
    *longest*. Near the end (progress from 0.8) it comes after half of what remains at the present speed.

    :param longest: seconds between two looks at the most.
    :param chance: a number from 0 to 1, anew at each call.
    :param shortest: seconds between two looks at the least.
    """

    longest: float = 30.0
    chance: Callable[[], float] = random.random
    shortest: float = SHORTEST

    def interval(self, age: float, progress: float | None = None, at_least: float = 0.0) -> float:
        """Return the seconds until the next look at a job that is *age* seconds old, spread so that no herd forms.

        By 20 % while they grow; by 3 %, downwards, once they are *longest*.

        :param at_least: what the API asked for; spread too, so that not everybody comes back at once.
        """
        wait = age / 5
        if progress is not None and NEARLY_DONE <= progress <= 1:
            wait = min(wait, age * (1 - progress) / progress / 2)
        chance = self.chance()
        wait = min(max(wait, self.shortest) * (0.8 + 0.4 * chance), self.longest * (0.97 + 0.03 * chance))
        return max(wait, at_least * (1 + 0.2 * chance))
