"""One client, one sign-in and one loader for all triggers of an event loop that wait through the same connection."""

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
from airflow_provider_osai.jobs.loader import Loader

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import AsyncOsaiClient
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["Shared", "join", "join_persistently", "leave"]

FRESH: Final = 30.0
"""Seconds for which a connection that was read is taken for what it is now."""
PATIENCE: Final = 10.0
"""Seconds that retries of one request may wait in all: a kill has 20, and a wait looks again anyway."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to read a connection, at most."""

log = logging.getLogger(__name__)


class Shared:
    """What those have in common who wait on one event loop through one connection."""

    def __init__(self, client: AsyncOsaiClient) -> None:
        self.client = client
        self.loader = Loader(client.calls, partial(client.send, once=True))
        self.users = 0

    async def aclose(self) -> None:
        """Stop asking and close the connections."""
        await self.loader.aclose()
        await self.client.aclose()


@dataclass(slots=True)
class _Place:
    """What is shared through one connection id: by those who come now, and by nobody who came before it changed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shared: Shared | None = None
    read_at: float = 0.0
    coming: int = 0


_places: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Place]] = WeakKeyDictionary()
_several_loops = threading.Lock()
_closing: set[asyncio.Task[None]] = set()
"""Keeps a reference to each closing on its way; the event loop alone would not."""


async def join(hook: OsaiHook) -> Shared:
    """Return what is shared through the hook's connection, made if need be. Whoever joins must :func:`leave`.

    The connection is read again if that was more than half a minute ago. If it has changed since, who joins now shares
    with those who join after; the others go on as they are until they leave.

    :raises OsaiError: if the connection cannot be used.
    """
    with _several_loops:
        places = _places.setdefault(asyncio.get_running_loop(), {})
    place = places.setdefault(hook.osai_conn_id, _Place())
    place.coming += 1
    try:
        async with place.lock:
            if place.shared is None or time.monotonic() - place.read_at > FRESH:
                await _refresh(place, hook)
            shared = cast("Shared", place.shared)
            shared.users += 1
            return shared
    finally:
        place.coming -= 1
        _tidy_up()


async def _refresh(place: _Place, hook: OsaiHook) -> None:
    """Read the connection, and make a new client if it has changed."""
    try:
        settings = await hook.async_settings()
    except Exception as error:
        if place.shared is None:
            raise
        # What is shared works as long as OSAI takes its token; a failing secrets backend is not its end.
        log.warning("Cannot read connection %s again, going on with it as it was: %s", hook.osai_conn_id, _named(error))
        place.read_at = time.monotonic()
        return
    place.read_at = time.monotonic()
    if place.shared is None or place.shared.client.settings != settings:
        place.shared = Shared(await hook.get_async_conn(settings, patience=PATIENCE))


async def join_persistently(
    hook: OsaiHook, unreachable_timeout: float, task_log: Any, deadline: float | None = None
) -> Shared:
    """Do the same as :func:`join`; a connection that cannot be read or used now is read again and again.

    :param unreachable_timeout: seconds for which that is tolerated.
    :param task_log: gets a line when it begins.
    :param deadline: in seconds since the epoch, when to give up earlier.
    :raises Exception: the last one, whatever the secrets backend raises.
    """
    began, tries = time.time(), 0
    until = min(began + unreachable_timeout, math.inf if deadline is None else deadline)
    while True:
        try:
            return await join(hook)
        except Exception as error:
            if time.time() >= until:
                raise
            if tries == 0:
                said = "Cannot use connection %s, trying again for up to %.0f s: %s"
                task_log.warning(said, hook.osai_conn_id, until - began, _named(error))
        pause = min(2.0**tries, LONGEST_PAUSE) * (0.5 + random.random() / 2)  # noqa: S311 - no secret
        await asyncio.sleep(min(pause, max(0.0, until - time.time()) + 0.1))
        tries += 1


def _named(error: Exception) -> str:
    """Return the message of an error of ours; those of others may hold anything."""
    return str(error) if isinstance(error, OsaiError) else type(error).__name__


async def leave(shared: Shared) -> None:
    """Share no longer; who leaves last closes. A cancellation ends the waiting for that, not the closing."""
    shared.users -= 1
    if shared.users:
        return
    for place in _places.get(asyncio.get_running_loop(), {}).values():
        if place.shared is shared:
            place.shared = None
    _tidy_up()
    closing = asyncio.get_running_loop().create_task(shared.aclose())
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)
    with suppress(Exception):
        await asyncio.shield(closing)


def _tidy_up() -> None:
    """Forget places where nobody is: what lies there refers to its loop, and would keep that alive."""
    loop = asyncio.get_running_loop()
    with _several_loops:
        left = {name: place for name, place in _places.get(loop, {}).items() if place.shared or place.coming}
        if left:
            _places[loop] = left
        else:
            _places.pop(loop, None)
