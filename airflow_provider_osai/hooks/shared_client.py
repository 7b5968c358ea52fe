"""A client, a sign-in and a batch poller shared by all triggers of an event loop that use the same connection."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.hooks.background_tasks import run_in_background
from airflow_provider_osai.jobs.batch_poller import BatchPoller
from airflow_provider_osai.observability import metrics

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import AsyncOsaiClient
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["SharedClient", "acquire_shared_client", "acquire_with_retries", "release_shared_client"]

CACHE_TTL: Final = 30.0
"""Seconds for which the settings of a connection are cached."""
RETRY_BUDGET: Final = 10.0
"""Maximum seconds of backoff for one request: a kill has 20 seconds in all, and a waiting task polls again anyway."""
MAX_BACKOFF: Final = 30.0
"""Maximum seconds between two attempts to read a connection."""

log = logging.getLogger(__name__)


class SharedClient:
    """A client and its batch poller, with a reference count, for one event loop and one connection."""

    def __init__(self, client: AsyncOsaiClient) -> None:
        self.client = client
        self.batch_poller = BatchPoller(client.calls, metrics.count_async_polls(partial(client.send, retry=False)))
        self.users = 0

    async def aclose(self) -> None:
        """Stop polling and close the client."""
        await self.batch_poller.aclose()
        await self.client.aclose()


@dataclass(slots=True)
class _Slot:
    """The current shared client of a connection id. After a change of the connection, a new client takes its place."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shared: SharedClient | None = None
    read_at: float = 0.0
    acquiring: int = 0


_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Slot]] = WeakKeyDictionary()
_slots_lock = threading.Lock()
"""Guards ``_slots`` against event loops in other threads."""


async def acquire_shared_client(hook: OsaiHook) -> SharedClient:
    """Return the shared client of the hook's connection, and create it if there is none.

    The caller must call :func:`release_shared_client`.

    The connection is read again if the cached settings are older than half a minute. If it has changed, this and later
    callers share a new client; earlier callers keep the old one until they release it.

    :param hook: the hook of the connection.
    :raises OsaiError: if the connection cannot be used.
    """
    with _slots_lock:
        slots = _slots.setdefault(asyncio.get_running_loop(), {})
    slot = slots.setdefault(hook.osai_conn_id, _Slot())
    slot.acquiring += 1
    try:
        async with slot.lock:
            if slot.shared is None or time.monotonic() - slot.read_at > CACHE_TTL:
                await _refresh(slot, hook)
            shared = cast("SharedClient", slot.shared)
            shared.users += 1
            return shared
    finally:
        slot.acquiring -= 1
        _remove_unused_slots()


async def _refresh(slot: _Slot, hook: OsaiHook) -> None:
    """Read the connection, and create a new client if it has changed."""
    try:
        settings = await hook.async_settings()
    except Exception as error:
        if slot.shared is None:
            raise
        # The shared client works as long as OSAI accepts its token, so a failing secrets backend is tolerated.
        log.warning(
            "Cannot read connection %s again; continuing with the cached settings: %s",
            hook.osai_conn_id,
            _safe_message(error),
        )
        slot.read_at = time.monotonic()
        return
    slot.read_at = time.monotonic()
    if slot.shared is None or slot.shared.client.settings != settings:
        await metrics.prepare()
        slot.shared = SharedClient(await hook.get_async_conn(settings, retry_budget=RETRY_BUDGET))


async def acquire_with_retries(
    hook: OsaiHook, unreachable_timeout: float, task_log: Any, deadline: float | None = None
) -> SharedClient:
    """Call :func:`acquire_shared_client`, and retry with backoff while the connection cannot be read or used.

    :param hook: the hook of the connection.
    :param unreachable_timeout: seconds for which to retry.
    :param task_log: a logger, which gets a warning after the first failed attempt.
    :param deadline: when to stop retrying at the latest, in seconds since the epoch.
    :raises Exception: the last error, which may be any exception of a secrets backend.
    """
    started = time.time()
    until = min(started + unreachable_timeout, math.inf if deadline is None else deadline)
    attempts = 0
    while True:
        try:
            return await acquire_shared_client(hook)
        except Exception as error:
            if time.time() >= until:
                raise
            if attempts == 0:
                task_log.warning(
                    "Cannot use connection %s; retrying for up to %.0f s: %s",
                    hook.osai_conn_id,
                    until - started,
                    _safe_message(error),
                )
        backoff = min(2.0 ** min(attempts, 10), MAX_BACKOFF) * (0.5 + random.random() / 2)  # jitter
        await asyncio.sleep(min(backoff, max(0.0, until - time.time()) + 0.1))
        attempts += 1


def _safe_message(error: Exception) -> str:
    """Return the message of an OsaiError, or only the type of any other error, whose message may contain secrets."""
    return str(error) if isinstance(error, OsaiError) else type(error).__name__


async def release_shared_client(shared: SharedClient) -> None:
    """Release the client; the last user closes it. A cancellation stops waiting for the close, but not the close."""
    shared.users -= 1
    if shared.users:
        return
    for slot in _slots.get(asyncio.get_running_loop(), {}).values():
        if slot.shared is shared:
            slot.shared = None
    _remove_unused_slots()
    closing = run_in_background(shared.aclose())
    with suppress(Exception):
        await asyncio.shield(closing)


def _remove_unused_slots() -> None:
    """Remove slots without a client or a caller: they reference their event loop and would keep it alive."""
    loop = asyncio.get_running_loop()
    with _slots_lock:
        used = {conn_id: slot for conn_id, slot in _slots.get(loop, {}).items() if slot.shared or slot.acquiring}
        if used:
            _slots[loop] = used
        else:
            _slots.pop(loop, None)
