"""Lines about a download in the log: one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Progress"]

EVERY: Final = 5.0
"""Seconds between two lines."""
MB: Final = 1e6


class Progress:
    """Tells how much has come, how fast, and how long the rest takes.

    :param say: writes a line; takes a format and its values, as a logger does.
    :param clock: seconds that never go back.
    """

    def __init__(self, say: Callable[..., object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._since, self._from = clock(), 0
        self._said = self._since

    def begin(self, have: int) -> None:
        """Count from here."""
        self._since, self._from = self._clock(), have

    def __call__(self, have: int, total: int | None) -> None:
        """Write a line if the last one is old."""
        now = self._clock()
        if now - self._said < EVERY:
            return
        self._said = now
        rate = (have - self._from) / max(now - self._since, 1e-3)
        if total is None or rate <= 0:
            self._say("Downloaded %.1f MB, %.1f MB/s", have / MB, rate / MB)
        else:
            left = (total - have) / rate
            self._say("Downloaded %.1f of %.1f MB, %.1f MB/s, %.0f s left", have / MB, total / MB, rate / MB, left)
