"""Waits for many jobs at once: drives their flows on one event loop, and asks with one request for all that are due.

A third driver beside :func:`~airflow_provider_osai.jobs.flow.run` and ``arun``: the flows are the same, so what counts
as an end, an outage or a deadline is decided where it always is.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from airflow_provider_osai.api.calls import Call, Calls
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs.flow import Flow, Sleep
from airflow_provider_osai.jobs.outage import Outage

__all__ = ["Loader"]

T = TypeVar("T")

MOST: Final = 100
"""Jobs that one request asks for at the most."""
AT_ONCE: Final = 4
"""Requests for lists that are on their way at the same time."""
SINGLY_AT_ONCE: Final = 16
"""Requests for one job each that are on their way at the same time."""
GATHER: Final = 0.02
"""Seconds that a job's first look waits for others to come along."""
OK: Final = 200
SHARE: Final = 8
"""Looks are rounded up to a grid, nested like a ruler's, whose step is at most this part of the pause before them."""

KINDS: Final = {f"{kind}.get": kind for kind in JobKind}
Send = Callable[[Call[Any]], Awaitable[Any]]


class Loader:
    """Drives flows that wait for jobs. Belongs to the event loop on which it is made.

    :param calls: makes the calls of the flows' API.
    :param send: sends one call; it need not repeat anything, since a flow looks again anyway.
    """

    def __init__(self, calls: Calls, send: Send) -> None:
        self._calls, self._send = calls, send
        self._outage = Outage(clock=asyncio.get_running_loop().time)
        self._lines: dict[JobKind, _Line] = {}

    async def run(self, flow: Flow[T]) -> T:
        """Run *flow* to its end and return its value, as ``arun`` does; its calls may be answered together with others.

        All that the flow does, logging included, happens in the caller's context. If the caller is cancelled, the flow
        is closed where it is.
        """
        waiter = _Waiter(flow)
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

    def _line(self, kind: JobKind) -> _Line:
        if kind not in self._lines:
            self._lines[kind] = _Line(kind, self._calls, self._send, self._outage)
        return self._lines[kind]

    async def _alone(self, waiter: _Waiter, step: Call[Any] | Sleep | None) -> None:
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


class _Waiter:
    """One flow, what it wants next, and who is told of its end."""

    __slots__ = ("_context", "_flow", "end", "slack", "step")

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self._context = contextvars.copy_context()
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.step: Call[Any] | Sleep | None = None
        self.slack = 0.0

    def move(self, answer: Any) -> None:
        """Give the flow what it asked for, or throw it, and take its next wish."""
        self.step = None
        if self.end.done():
            return
        try:
            if isinstance(answer, Exception):
                # The same error may go to many flows; each would hang its own frames and errors on it.
                answer.__traceback__ = answer.__context__ = None
                self.step = self._context.run(self._flow.throw, answer)
            else:
                self.step = self._context.run(self._flow.send, answer)
        except StopIteration as end:
            self.end.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            self.end.set_exception(error)


class _Line:
    """All flows that wait for jobs of one kind, in the order in which they are due."""

    def __init__(self, kind: JobKind, calls: Calls, send: Send, outage: Outage) -> None:
        self._kind, self._calls, self._send, self._outage = kind, calls, send, outage
        self._loop = asyncio.get_running_loop()
        self._lists = f"{kind}.list" in calls.contract
        self._due: list[tuple[float, int, _Waiter]] = []
        self._order = itertools.count()
        self._bell = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE if self._lists else SINGLY_AT_ONCE)
        self._asking: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None

    def join(self, waiter: _Waiter) -> None:
        """Ask for the waiter's job soon, and go on with it from then on."""
        self._put(self._loop.time() + GATHER, waiter)

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = [*self._asking, *([self._serving] if self._serving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _put(self, due: float, waiter: _Waiter) -> None:
        if not self._due or due < self._due[0][0]:
            self._bell.set()
        heapq.heappush(self._due, (due, next(self._order), waiter))
        if self._serving is None or self._serving.done():
            # In a context of its own: it works for all.
            self._serving = self._loop.create_task(self._serve(), context=contextvars.Context())

    def _go_on(self, waiter: _Waiter, answer: Any) -> None:
        """Answer a flow, and put it where it wants to be next."""
        waiter.move(answer)
        self._place(waiter)

    def _place(self, waiter: _Waiter) -> None:
        now = self._loop.time()
        if isinstance(waiter.step, Sleep):
            due = now + waiter.step.seconds
            if self._lists:
                waiter.slack = _grid(waiter.step.seconds)
                due = math.ceil(due / waiter.slack) * waiter.slack
            self._put(due, waiter)
        elif waiter.step is not None:
            self._put(now, waiter)

    async def _serve(self) -> None:
        """Ask for what is due, as long as anybody waits."""
        while self._due:
            pause = self._due[0][0] - self._loop.time()
            if pause > 0:
                self._bell.clear()
                timer = self._loop.call_later(pause, self._bell.set)
                await self._bell.wait()
                timer.cancel()
                continue
            await self._free.acquire()
            task = self._loop.create_task(self._ask(self._take()))
            self._asking.add(task)
            task.add_done_callback(self._asked)
            await asyncio.sleep(0)  # one list at a time: others use this loop

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._free.release()

    def _take(self) -> list[_Waiter]:
        """Take out who is due; a list that has room left is filled up with those who are so nearly."""
        now = self._loop.time()
        taken: list[_Waiter] = []
        while self._due and len(taken) < (MOST if self._lists else 1):
            due, _, waiter = self._due[0]
            if due > now and (not taken or due > now + waiter.slack):
                break
            heapq.heappop(self._due)
            if isinstance(waiter.step, Sleep):
                waiter.move(None)
            if isinstance(waiter.step, Call):
                taken.append(waiter)
            else:
                self._place(waiter)
        return taken

    async def _ask(self, waiters: list[_Waiter]) -> None:
        """Get an answer for each of the flows, whatever it is."""
        try:
            for waiter in await self._ask_together(waiters) if self._lists else waiters:
                await self._ask_for(waiter)
        except Exception as error:  # noqa: BLE001 - nobody may be left without an answer
            for waiter in waiters:
                if isinstance(waiter.step, Call):
                    waiter.move(error)
                    self._place(waiter)

    async def _ask_together(self, waiters: list[_Waiter]) -> list[_Waiter]:
        """Ask for all jobs with one request; return the flows that it has not answered."""
        if error := self._outage.error():
            return self._tell(waiters, error)
        known: dict[str, list[_Waiter]] = {}
        for waiter in waiters:
            known.setdefault(cast("Call[Any]", waiter.step).subject[0], []).append(waiter)
        try:
            jobs: list[Job] = await self._send(self._calls.list_jobs(self._kind, known))
        except (OsaiRequestError, OsaiContractError):
            self._list_no_more()
            return waiters
        except OsaiError as failure:
            if isinstance(failure, OsaiUnreachable) and failure.status == OK and await self._ask_for(waiters[0]):
                self._list_no_more()  # a page for people where a list was asked for, and an answer where a job was
                return waiters[1:]
            self._outage.noted(failure)
            return self._tell([waiter for waiter in waiters if isinstance(waiter.step, Call)], failure)
        self._outage.over()
        for job in jobs:
            for waiter in known.pop(job.id, ()):
                self._go_on(waiter, job)
        return [waiter for left in known.values() for waiter in left]

    async def _ask_for(self, waiter: _Waiter) -> bool:
        """Ask for one job; return whether OSAI answered."""
        if error := self._outage.error():
            self._go_on(waiter, error)
            return False
        try:
            answer = await self._send(cast("Call[Any]", waiter.step))
        except OsaiError as failure:
            self._outage.noted(failure)
            self._go_on(waiter, failure)
            return isinstance(failure, OsaiRequestError)
        self._outage.over()
        self._go_on(waiter, answer)
        return True

    def _tell(self, waiters: list[_Waiter], error: OsaiError) -> list[_Waiter]:
        for waiter in waiters:
            self._go_on(waiter, error)
        return []

    def _list_no_more(self) -> None:
        """This API cannot list after all."""
        if self._lists:
            self._lists = False
            for _ in range(SINGLY_AT_ONCE - AT_ONCE):
                self._free.release()


def _grid(pause: float) -> float:
    """Return the step of the grid for a pause: a power of two, so that the coarse grids lie on the finer ones."""
    return 2.0 ** math.floor(math.log2(max(pause, 0.01) / SHARE))
