"""One client, one sign-in and one loader for all triggers of an event loop that wait through the same connection."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from airflow_provider_osai.jobs.loader import Loader

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import AsyncOsaiClient
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["Shared", "join", "leave"]

FRESH: Final = 30.0
"""Seconds for which a connection that was read is taken for what it is now."""
PATIENCE: Final = 10.0
"""Seconds that retries of one request may wait in all: a kill has 20, and a wait looks again anyway."""


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
                settings = await hook.async_settings()
                place.read_at = time.monotonic()
                if place.shared is None or place.shared.client.settings != settings:
                    place.shared = Shared(await hook.get_async_conn(settings, patience=PATIENCE))
            place.shared.users += 1
            return place.shared
    finally:
        place.coming -= 1
        _tidy_up()


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
