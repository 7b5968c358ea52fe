"""Waits for many jobs at once: drives their flows on one event loop, and asks with one request for all that are due.

A third driver beside :func:`~airflow_provider_osai.jobs.flow.run` and ``arun``: the flows are the same, so what counts
as an end, an outage or a deadline is decided where it always is.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar, cast

from airflow_provider_osai.api.calls import Call, Calls
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.line import Line, Send
from airflow_provider_osai.jobs.outage import Outage
from airflow_provider_osai.jobs.waiter import Waiter

__all__ = ["Loader"]

T = TypeVar("T")

KINDS: Final = {f"{kind}.get": kind for kind in JobKind}
"""The calls that may be answered together."""


class Loader:
    """Drives flows that wait for jobs. Belongs to the event loop on which it is made.

    :param calls: makes the calls of the flows' API.
    :param send: sends one call; it need not repeat anything, since a flow looks again anyway.
    """

    def __init__(self, calls: Calls, send: Send) -> None:
        self._calls, self._send = calls, send
        self._outage = Outage(clock=asyncio.get_running_loop().time)
        self._lines: dict[JobKind, Line] = {}

    async def run(self, flow: Flow[T]) -> T:
        """Run *flow* to its end and return its value, as ``arun`` does; its calls may be answered together with others.

        All that the flow does, logging included, happens in the caller's context. If the caller is cancelled, the flow
        is closed where it is.
        """
        waiter = Waiter(flow)
        waiter.move(None)
        while not waiter.end.done():
            step = waiter.step
            if isinstance(step, Call) and step.name in KINDS:
                self._line(KINDS[step.name]).join(waiter)
                break
            await self._alone(waiter, step)
        try:
            return cast("T", await waiter.end)
        finally:
            flow.close()

    async def aclose(self) -> None:
        """Stop. Flows that are still driven get no answer any more."""
        for line in self._lines.values():
            await line.aclose()

    def _line(self, kind: JobKind) -> Line:
        if kind not in self._lines:
            self._lines[kind] = Line(kind, self._calls, self._send, self._outage)
        return self._lines[kind]

    async def _alone(self, waiter: Waiter, step: Call[Any] | Sleep | None) -> None:
        """Do what a flow wants before it waits for a job."""
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            waiter.move(None)
            return
        try:
            answer = await self._send(cast("Call[Any]", step))
        except Exception as error:  # noqa: BLE001 - it is the flow's to handle or to pass on
            waiter.move(error)
        else:
            waiter.move(answer)
