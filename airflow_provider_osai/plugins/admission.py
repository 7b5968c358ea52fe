"""Who is let in, and how often: the secrets of the connections, and how many looks one ticket may cause."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Rates", "Secrets"]

FRESH: Final = 30.0
"""Seconds for which a connection's secrets are taken for what they are now."""
MOST: Final = 10_000
"""Names that are remembered; strangers can make up as many as they like."""
CONNECTION_ID: Final = re.compile(r"[\w.:#@!$()-]{1,250}", re.ASCII)
"""Which names are looked up; they go to secrets backends, so they are nothing like a path."""


class Rates:
    """How often something may happen, by name.

    :param burst: times at once.
    :param per_second: times a second in the long run.
    :param clock: seconds that never go back.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def allows(self, name: object) -> bool:
        """Whether it may happen now; if so, it counts."""
        now = self._clock()
        left, at = self._left.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        is_allowed = left >= 1.0
        self._left[name] = (left - is_allowed, now)
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        return is_allowed


@dataclass(slots=True)
class _Known:
    secrets: tuple[str, ...] = ()
    until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Secrets:
    """The webhook secrets of the connections, read again after half a minute.

    A connection that is known to take webhooks is always read. Names that are not are strangers' until proven
    otherwise: few of them are looked up, so that a flood of made-up names reaches no database and no secrets backend.

    :param read: reads the secrets of a connection; none = it takes no webhooks, or there is no such connection.
    :param clock: seconds that never go back.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[tuple[str, ...]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock = read, clock
        self._strangers = Rates(burst=20, per_second=2, clock=clock)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def of(self, osai_conn_id: str) -> tuple[str, ...]:
        """Return the connection's secrets, the one that signs first; none if it takes no webhooks."""
        known = self._known.get(osai_conn_id)
        if known is not None and self._clock() < known.until:
            return known.secrets
        if known is None or not known.secrets:
            if not CONNECTION_ID.fullmatch(osai_conn_id) or not self._strangers.allows("strangers"):
                return ()
            known = self._known.setdefault(osai_conn_id, _Known())
        async with known.lock:
            if self._clock() >= known.until:
                known.secrets = await self._read(osai_conn_id)
                known.until = self._clock() + FRESH
        self._forget()
        return known.secrets

    def _forget(self) -> None:
        """Forget strangers first."""
        if len(self._known) > MOST:
            stranger = next((name for name, known in self._known.items() if not known.secrets), None)
            self._known.pop(stranger) if stranger else self._known.popitem(last=False)
