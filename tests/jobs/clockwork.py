"""An event loop whose time passes only while nobody has anything to do, so that hours take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Patient(selectors.SelectSelector):
    """Never waits: it moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(0.0, timeout)
        return []


class Clockwork(asyncio.SelectorEventLoop):
    """A loop with a clock of its own. It does no I/O."""

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        return self._patient.now


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of clockwork; no task may be left over."""
    with asyncio.Runner(loop_factory=Clockwork) as runner:

        async def alone() -> T:
            result = await coroutine
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
            return result

        return runner.run(alone())
