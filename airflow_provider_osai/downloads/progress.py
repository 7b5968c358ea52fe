"""Download progress in the log, at most one line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from airflow_provider_osai.data.log_lines import size_text

__all__ = ["Progress"]

LOG_INTERVAL: Final = 5.0
"""Minimum seconds between two log lines."""


class Progress:
    """Logs the downloaded size, the rate and the remaining time.

    :param log: writes a log line; takes a format string and its values, like a logger's method.
    :param clock: monotonic time in seconds.
    """

    def __init__(self, log: Callable[..., object], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._started_at = clock()
        self._start_size = 0
        self._logged_at = self._started_at

    def restart(self, size: int) -> None:
        """Measure the rate from now on, starting at *size* bytes."""
        self._started_at = self._clock()
        self._start_size = size

    def update(self, size: int, total: int | None) -> None:
        """Log a line, unless the previous one is recent."""
        now = self._clock()
        if now - self._logged_at < LOG_INTERVAL:
            return
        self._logged_at = now
        rate = (size - self._start_size) / max(now - self._started_at, 1e-3)
        if total is None or rate <= 0:
            self._log("Downloaded %s, %s/s", size_text(size), size_text(max(rate, 0)))
        else:
            remaining = (total - size) / rate
            self._log(
                "Downloaded %s of %s, %s/s, %.0f s left", size_text(size), size_text(total), size_text(rate), remaining
            )
