"""The flows of one event loop that wait for jobs of one kind: when each is due, and who is asked for with whom."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

from airflow_provider_osai.api.calls import Call, Calls
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs.flow import Sleep
from airflow_provider_osai.jobs.outage import Outage
from airflow_provider_osai.jobs.waiter import Waiter

__all__ = ["AT_ONCE", "MOST", "SINGLY_AT_ONCE", "Line", "Send"]

MOST: Final = 100
"""Jobs that one request asks for at the most."""
AT_ONCE: Final = 4
"""Requests for lists that are on their way at the same time, at the most."""
SINGLY_AT_ONCE: Final = 32
"""Requests for one job each that are on their way at the same time, at the most."""
LATE: Final = 0.25
"""Seconds overdue at which one more may be, and at four times that twice as many."""
CALM: Final = 30.0
"""Seconds in which nothing is a fifth as late until fewer may be. Each open connection makes every request dearer, so
no more are kept than it takes to keep up; but who gives them up too soon is late again when the next herd comes by."""
REVIEW: Final = 0.5
"""Seconds between two decisions about that."""
APART: Final = 0.005
"""Seconds between the starts of two such requests, so that their answers do not come in one heap."""
GATHER: Final = 0.02
"""Seconds that a job's first look waits for others to come along."""
FINEST: Final = 2.0**-6
"""Seconds between two ticks at which anything happens."""
PORTION: Final = 25
"""Flows that are answered in a row before others may use the event loop."""
OK: Final = 200

Send: TypeAlias = Callable[[Call[Any]], Awaitable[Any]]


class Line:
    """All flows that wait for jobs of one kind, in the order in which they are due."""

    def __init__(self, kind: JobKind, calls: Calls, send: Send, outage: Outage) -> None:
        self._kind, self._calls, self._send, self._outage = kind, calls, send, outage
        self._loop = asyncio.get_running_loop()
        self._lists = f"{kind}.list" in calls.contract
        self._ticks: list[float] = []
        self._due: dict[float, list[Waiter]] = {}
        self._bell = asyncio.Event()
        self._slots, self._surplus = 1, 0
        self._latest, self._review, self._calm = 0.0, 0.0, self._loop.time()
        self._free = asyncio.Semaphore(self._slots)
        self._asking: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None

    def join(self, waiter: Waiter) -> None:
        """Ask for the waiter's job soon, and go on with it from then on."""
        self._put(self._loop.time() + GATHER, waiter)

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = [*self._asking, *([self._serving] if self._serving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _put(self, due: float, waiter: Waiter) -> None:
        tick = math.ceil(due / FINEST) * FINEST
        if tick not in self._due:
            if not self._ticks or tick < self._ticks[0]:
                self._bell.set()
            self._due[tick] = []
            heapq.heappush(self._ticks, tick)
        self._due[tick].append(waiter)
        if self._serving is None or self._serving.done():
            # In a context of its own: it works for all.
            self._serving = self._loop.create_task(self._serve(), context=contextvars.Context())

    def _quietest(self, due: float, early: float) -> float:
        """Return when to ask for one job by itself: of a few moments that would do, the one with the fewest others."""
        moments = [math.ceil((due - early * random.random()) / FINEST) * FINEST for _ in range(6)]  # noqa: S311 - no secret
        return min(moments, key=lambda tick: len(self._due.get(tick, ()))) if early else due

    def _go_on(self, waiter: Waiter, answer: Any) -> None:
        """Answer a flow, and put it where it wants to be next."""
        waiter.move(answer)
        self._place(waiter)

    def _place(self, waiter: Waiter) -> None:
        step, now = waiter.step, self._loop.time()
        if isinstance(step, Sleep):
            waiter.step = None
            waiter.slack = step.early
            due = now + step.seconds
            self._put(due if self._lists else self._quietest(due, step.early), waiter)
        elif step is not None:
            self._put(now, waiter)

    async def _serve(self) -> None:
        """Ask for what is due, as long as anybody waits."""
        while self._ticks:
            pause = self._ticks[0] - self._loop.time()
            if pause > 0:
                self._bell.clear()
                timer = self._loop.call_later(pause, self._bell.set)
                await self._bell.wait()
                timer.cancel()
                continue
            self._keep_up(-pause)
            await self._free.acquire()
            if taken := self._take():
                task = self._loop.create_task(self._ask(taken))
                self._asking.add(task)
                task.add_done_callback(self._asked)
            else:
                self._free.release()
            await asyncio.sleep(APART if self._lists else 0)

    def _keep_up(self, late: float) -> None:
        """Now and then, change how many requests may be on their way, by how late the latest of them was."""
        now, self._latest = self._loop.time(), max(self._latest, late)
        if now < self._review:
            return
        if self._latest > LATE:
            more = self._slots if self._latest > 4 * LATE else 1
            self._allow(min(self._slots + more, AT_ONCE if self._lists else SINGLY_AT_ONCE))
        if self._latest > LATE / 5:
            self._calm = now
        elif now - self._calm > CALM:
            self._allow(max(1, min(self._slots - 1, self._slots * 3 // 4)))
            self._calm = now
        self._latest, self._review = 0.0, now + REVIEW

    def _allow(self, slots: int) -> None:
        for _ in range(self._slots, slots):
            self._release()
        self._surplus += max(0, self._slots - slots)
        self._slots = slots

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._release()

    def _release(self) -> None:
        """Let one more request go, unless there are too many already."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._free.release()

    def _take(self) -> list[Waiter]:
        """Take out who is due; a list that has room left is filled up with the next who may come that early."""
        now = self._loop.time()
        most = MOST if self._lists else 1
        taken: list[Waiter] = []
        while self._ticks and len(taken) < most:
            tick = self._ticks[0]
            waiters = self._due[tick]
            if not waiters:
                del self._due[heapq.heappop(self._ticks)]
                continue
            waiter = waiters[-1]
            if tick > now and (not taken or tick > now + waiter.slack):
                break
            waiters.pop()
            if waiter.step is None:
                waiter.move(None)
            if isinstance(waiter.step, Call):
                taken.append(waiter)
            else:
                self._place(waiter)
        return taken

    async def _ask(self, waiters: list[Waiter]) -> None:
        """Get an answer for each of the flows, whatever it is."""
        try:
            for waiter in await self._ask_together(waiters) if self._lists else waiters:
                await self._ask_for(waiter)
        except Exception as error:  # noqa: BLE001 - nobody may be left without an answer
            for waiter in waiters:
                if isinstance(waiter.step, Call):
                    waiter.move(error)
                    self._place(waiter)

    async def _ask_together(self, waiters: list[Waiter]) -> list[Waiter]:
        """Ask for all jobs with one request; return the flows that it has not answered."""
        if error := self._outage.error():
            return self._tell(waiters, error)
        known: dict[str, list[Waiter]] = {}
        for waiter in waiters:
            known.setdefault(cast("Call[Any]", waiter.step).subject[0], []).append(waiter)
        try:
            jobs: list[Job] = await self._send(self._calls.list_jobs(self._kind, known))
        except (OsaiRequestError, OsaiContractError):
            self._lists = False
            return waiters
        except OsaiError as failure:
            if isinstance(failure, OsaiUnreachable) and failure.status == OK and await self._ask_for(waiters[0]):
                self._lists = False  # a page for people where a list was asked for, and an answer where a job was
                return waiters[1:]
            self._outage.noted(failure)
            return self._tell([waiter for waiter in waiters if isinstance(waiter.step, Call)], failure)
        self._outage.over()
        for number, job in enumerate(jobs, start=1):
            for waiter in known.pop(job.id, ()):
                self._go_on(waiter, job)
            if number % PORTION == 0:
                await asyncio.sleep(0)
        return [waiter for left in known.values() for waiter in left]

    async def _ask_for(self, waiter: Waiter) -> bool:
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

    def _tell(self, waiters: list[Waiter], error: OsaiError) -> list[Waiter]:
        for waiter in waiters:
            self._go_on(waiter, error)
        return []
