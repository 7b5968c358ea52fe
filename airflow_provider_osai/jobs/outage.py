"""Remembers for all who wait through one connection that OSAI cannot be reached just now."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiUnreachable

__all__ = ["Outage"]

FIRST: Final = 1.0
"""Seconds of silence after a first failure; twice as long after each further one."""
LONGEST: Final = 30.0
"""Seconds of silence at the most, unless OSAI itself asks for more."""
EVERYBODY: Final = frozenset({None, 200, 429, 502, 503, 504})
"""Statuses that speak of the whole of OSAI (``None``: no answer; 200: a page for people); others may be about a job."""


class Outage:
    """While it lasts, nobody asks, and everybody gets the error of who asked last.

    It lasts for what ``Retry-After`` said, else for a second, then two, four, up to half a minute, spread so that
    several triggerers do not come back together.

    :param clock: seconds that never go back.
    :param chance: a number from 0 to 1, anew at each call.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._error: OsaiError | None = None
        self._until = 0.0
        self._times = 0

    def noted(self, error: OsaiError) -> None:
        """Know that a request failed; errors that are about the request itself are no outage."""
        if not isinstance(error, OsaiAuthError) and not (
            isinstance(error, OsaiUnreachable) and error.status in EVERYBODY
        ):
            return
        now = self._clock()
        if now >= self._until:  # those that were on their way together count once
            self._times += 1
            pause = min(LONGEST, FIRST * 2 ** (self._times - 1))
            self._until = now + pause * (0.5 + self._chance() / 2)
        self._until = max(self._until, now + (getattr(error, "retry_after", None) or 0.0))
        self._error = error

    def over(self) -> None:
        """Know that a request was answered."""
        self._error, self._times, self._until = None, 0, 0.0

    def error(self) -> OsaiError | None:
        """Return what to tell who wants to ask now; ``None`` if he may."""
        left = self._until - self._clock()
        if self._error is None or left <= 0:
            return None
        if isinstance(self._error, OsaiUnreachable) and self._error.retry_after:
            return OsaiUnreachable(str(self._error), sent=self._error.sent, status=self._error.status, retry_after=left)
        return self._error
