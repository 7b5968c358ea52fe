"""Webhook authentication and rate limits: cached secrets of the deployment and its connections, and a token bucket."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DeploymentSecretCache", "RateLimiter", "WebhookSecretCache"]

CACHE_TTL: Final = 30.0
"""Seconds for which a secret is cached."""
MAX_ENTRIES: Final = 10_000
"""Maximum entries of a cache or rate limiter; beyond it the oldest is dropped."""


class RateLimiter:
    """A token-bucket rate limiter with one bucket for each key.

    :param burst: events allowed at once.
    :param per_second: events allowed per second in the long run.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def allows(self, key: object) -> bool:
        """Return whether an event of *key* is allowed now, and count it if so."""
        now = self._clock()
        remaining, updated_at = self._buckets.pop(key, (self._burst, now))
        remaining = min(self._burst, remaining + (now - updated_at) * self._per_second)
        is_allowed = remaining >= 1.0
        self._buckets[key] = (remaining - is_allowed, now)
        if len(self._buckets) > MAX_ENTRIES:
            self._buckets.popitem(last=False)
        return is_allowed


@dataclass(slots=True)
class _CachedSecrets:
    secrets: tuple[str, ...] = ()
    expires_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class DeploymentSecretCache:
    """Caches the secret that seals this deployment's tokens. Reads it at most twice a minute, whatever the load.

    :param read: reads the secret; ``None`` if it does not exist (yet) or cannot be read now.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, read: Callable[[], Awaitable[str | None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._secret: str | None = None
        self._expires_at = float("-inf")
        self._lock = asyncio.Lock()
        self._placeholder = secrets.token_hex(16)

    async def get(self) -> str:
        """Return the secret. While there is none, return a random one with which no token was sealed."""
        if self._clock() >= self._expires_at:
            async with self._lock:
                if self._clock() >= self._expires_at:
                    self._secret = await self._read() or self._secret
                    self._expires_at = self._clock() + CACHE_TTL
        return self._secret or self._placeholder


class WebhookSecretCache:
    """Caches the webhook secrets of connections for half a minute.

    Looks up only connection ids from sealed tokens, which this deployment created for its own tasks.

    :param read: reads the secrets of a connection; empty if it is not set up for webhooks or does not exist.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, read: Callable[[str], Awaitable[tuple[str, ...]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._entries: OrderedDict[str, _CachedSecrets] = OrderedDict()

    async def get(self, osai_conn_id: str) -> tuple[str, ...]:
        """Return the connection's secrets, the signing one first; empty if it is not set up for webhooks."""
        entry = self._entries.setdefault(osai_conn_id, _CachedSecrets())
        if self._clock() >= entry.expires_at:
            async with entry.lock:
                if self._clock() >= entry.expires_at:
                    entry.secrets = await self._read(osai_conn_id)
                    entry.expires_at = self._clock() + CACHE_TTL
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        return entry.secrets
