"""What a flow is, and the two drivers that run one: :func:`run` blocks a worker, :func:`arun` awaits in the triggerer.

A flow is a generator. It yields what it needs, a :class:`Call` or a :class:`Sleep`, and is sent the answer or thrown
the error. It does no I/O and reads no clock of its own, so one definition serves both drivers and is tested by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from airflow_provider_osai.api.calls import Call

__all__ = ["Flow", "Sleep", "arun", "run"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let *seconds* pass.

    :param seconds: how long.
    :param early: by how much it may be less, so that who waits for the like can go on together.
    """

    seconds: float
    early: float = 0.0


Flow: TypeAlias = Generator[Call[Any] | Sleep, Any, T]


def run(flow: Flow[T], send: Callable[[Call[Any]], Any], sleep: Callable[[float], object] = time.sleep) -> T:
    """Run *flow* to its end and return its value.

    Whatever *send* or *sleep* raises is thrown into the flow, interrupts included, so that it can still put things in
    order (finish an upload) before they go on.
    """
    move: Callable[[], Call[Any] | Sleep] = partial(next, flow)
    while True:
        try:
            step = move()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration does not know its generator's type
        try:
            answer = sleep(step.seconds) if isinstance(step, Sleep) else send(step)
        except BaseException as error:  # noqa: BLE001 - it is the flow's to handle or to pass on
            move = partial(flow.throw, error)
        else:
            move = partial(flow.send, answer)


async def arun(
    flow: Flow[T],
    send: Callable[[Call[Any]], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Do the same as :func:`run` on an event loop; a cancellation passes through the flow and goes on."""
    move: Callable[[], Call[Any] | Sleep] = partial(next, flow)
    while True:
        try:
            step = move()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration does not know its generator's type
        try:
            answer = await (sleep(step.seconds) if isinstance(step, Sleep) else send(step))
        except BaseException as error:  # noqa: BLE001 - it is the flow's to handle or to pass on
            move = partial(flow.throw, error)
        else:
            move = partial(flow.send, answer)
