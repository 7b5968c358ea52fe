"""Flows, and the two drivers that run them: :func:`run` blocks a worker, :func:`arun` awaits in the triggerer.

A flow is a generator. It yields a :class:`Call` or a :class:`Sleep`; the driver sends the response back into it, or
throws the error. It does no I/O, so one definition serves both drivers and tests can drive it without a server.
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
    """Pause the flow.

    :param seconds: the duration.
    :param tolerance: seconds by which the pause may be shorter, so that flows with similar requests share a batch.
    """

    seconds: float
    tolerance: float = 0.0


Flow: TypeAlias = Generator[Call[Any] | Sleep, Any, T]


def run(flow: Flow[T], send: Callable[[Call[Any]], Any], sleep: Callable[[float], object] = time.sleep) -> T:
    """Run *flow* to its end and return its result.

    Whatever *send* or *sleep* raises is thrown into the flow, interrupts included, so that it can clean up before it
    re-raises.

    :param send: sends a call and returns its result.
    :param sleep: pauses for a number of seconds.
    """
    move: Callable[[], Call[Any] | Sleep] = partial(next, flow)
    while True:
        try:
            step = move()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
        try:
            answer = sleep(step.seconds) if isinstance(step, Sleep) else send(step)
        except BaseException as error:  # the flow handles it or re-raises it
            move = partial(flow.throw, error)
        else:
            move = partial(flow.send, answer)


async def arun(
    flow: Flow[T],
    send: Callable[[Call[Any]], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Run *flow* as :func:`run` does, on an event loop. A cancellation is thrown into the flow, and re-raised."""
    move: Callable[[], Call[Any] | Sleep] = partial(next, flow)
    while True:
        try:
            step = move()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
        try:
            answer = await (sleep(step.seconds) if isinstance(step, Sleep) else send(step))
        except BaseException as error:  # the flow handles it or re-raises it
            move = partial(flow.throw, error)
        else:
            move = partial(flow.send, answer)
