"""Wait in a test for something to come true, as long as a slow machine may need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 300.0
"""Seconds. Reached only by a test that fails, so it allows for a machine that runs three Airflows on two cores."""
TRUE: Final = object()


def until(
    look: Callable[[], Any], wanted: Any = TRUE, *, what: str | Callable[[], object] = "", pause: float = 0.2
) -> Any:
    """Call *look* until it returns *wanted*, by default anything true, and return that.

    :param what: what is waited for, or a function that returns more about why it did not come true.
    :param pause: seconds between two looks.
    """
    deadline = time.monotonic() + PATIENCE
    while not ((seen := look()) if wanted is TRUE else (seen := look()) == wanted):
        if time.monotonic() > deadline:
            expected = "anything true" if wanted is TRUE else repr(wanted)
            raise AssertionError(f"{what() if callable(what) else what}: {seen!r} instead of {expected}")
        time.sleep(pause)
    return seen


async def async_until(look: Callable[[], Any], wanted: Any = TRUE, *, pause: float = 0.02) -> Any:
    """Do the same while the event loop goes on; *look* is called in another thread."""
    return await asyncio.to_thread(until, look, wanted, pause=pause)
