"""An event loop with fake time: the clock jumps to the next timer whenever no callback is ready."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _FakeTimeSelector(selectors.SelectSelector):
    """Advances the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "deadlock: all tasks wait, and no timer is set"
        self.now += max(0.0, timeout)
        return []


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with its own clock. It does no I/O."""

    def __init__(self) -> None:
        self._fake_selector = _FakeTimeSelector()
        super().__init__(self._fake_selector)

    def time(self) -> float:
        return self._fake_selector.now


def run_with_fake_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a :class:`FakeTimeLoop`, and check that it leaves no task behind."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:

        async def main() -> T:
            result = await coroutine
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
            return result

        return runner.run(main())
