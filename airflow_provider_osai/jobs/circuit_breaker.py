"""Circuit breaker shared by all flows that poll OSAI through one connection."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiUnreachable

__all__ = ["CircuitBreaker"]

FIRST_PAUSE: Final = 1.0
"""Seconds the breaker stays open after the first failure; doubled with each further one."""
MAX_PAUSE: Final = 30.0
"""Maximum seconds the breaker stays open, unless OSAI sends a longer ``Retry-After``."""
OUTAGE_STATUSES: Final = frozenset({None, 200, 429, 502, 503, 504})
"""Statuses that concern OSAI as a whole (``None``: no response; 200: a web page instead of JSON); any other may concern
a single job."""


class CircuitBreaker:
    """Stops requests after a failure. While it is open, no request is sent; callers get the last error.

    It stays open for as long as ``Retry-After`` asks for, otherwise with exponential backoff: one second, then two,
    four, up to half a minute, with jitter so that several triggerers do not retry at the same time.

    :param clock: returns monotonic seconds.
    :param random_factor: returns a random number from 0 to 1.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, random_factor: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._random_factor = random_factor
        self._error: OsaiError | None = None
        self._open_until = 0.0
        self._failures = 0

    def record_failure(self, error: OsaiError) -> None:
        """Open the breaker after a failed request, unless *error* may concern that request only."""
        if not isinstance(error, OsaiAuthError) and not (
            isinstance(error, OsaiUnreachable) and error.status in OUTAGE_STATUSES
        ):
            return
        now = self._clock()
        if now >= self._open_until:  # requests that were in flight together count as one failure
            self._failures += 1
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))
            self._open_until = now + pause * (0.5 + self._random_factor() / 2)
        self._open_until = max(self._open_until, now + (getattr(error, "retry_after", None) or 0.0))
        self._error = error

    def record_success(self) -> None:
        """Close the breaker and reset its backoff."""
        self._error = None
        self._failures = 0
        self._open_until = 0.0

    def open_error(self) -> OsaiError | None:
        """Return the error to raise instead of sending a request; ``None`` if the breaker is closed."""
        remaining = self._open_until - self._clock()
        if self._error is None or remaining <= 0:
            return None
        if isinstance(self._error, OsaiUnreachable) and self._error.retry_after:
            return OsaiUnreachable(
                str(self._error),
                may_have_been_processed=self._error.may_have_been_processed,
                status=self._error.status,
                retry_after=remaining,
            )
        return self._error
