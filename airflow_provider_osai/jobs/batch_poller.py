"""Batch poller: runs many wait flows on one event loop and polls all jobs that are due with one request.

A third driver beside :func:`~airflow_provider_osai.jobs.flow.run` and ``arun``. The flows are the same, so what counts
as an end, an outage or a deadline is decided in one place.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar, cast

from airflow_provider_osai.api.calls import Call, OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs.circuit_breaker import CircuitBreaker
from airflow_provider_osai.jobs.flow import Flow, Sleep

__all__ = [
    "MAX_BATCH_SIZE",
    "MAX_CONCURRENT_GETS",
    "MAX_CONCURRENT_LISTS",
    "BatchPoller",
    "KindPoller",
    "PendingFlow",
    "Send",
]

MAX_BATCH_SIZE: Final = 100
"""Maximum number of jobs in one list request."""
MAX_CONCURRENT_LISTS: Final = 4
"""Maximum number of list requests in flight."""
MAX_CONCURRENT_GETS: Final = 32
"""Maximum number of requests for single jobs in flight."""
LAG_THRESHOLD: Final = 0.25
"""Seconds a poll may be overdue before one more concurrent request is allowed; from four times that, the number of
concurrent requests is doubled."""
SHRINK_AFTER: Final = 30.0
"""Seconds for which the lag must stay below a fifth of the threshold before concurrency is reduced. Every open
connection costs CPU, so keep only as many as needed; shrink slowly, or the next burst of polls is late again."""
ADJUST_EVERY: Final = 0.5
"""Seconds between two adjustments of the concurrency."""
REQUEST_SPACING: Final = 0.005
"""Seconds between the starts of two list requests, so that their responses do not arrive all at once."""
BATCH_WINDOW: Final = 0.02
"""Seconds that the first poll of a job waits for other jobs to join its batch."""
TICK: Final = 2.0**-6
"""Seconds between two ticks; polls are scheduled on ticks only."""
YIELD_EVERY: Final = 25
"""Number of jobs of a list response that are processed before control returns to the event loop."""
Send: TypeAlias = Callable[[Call[Any]], Awaitable[Any]]
T = TypeVar("T")
BATCHABLE_CALLS: Final = {f"{kind}.get": kind for kind in JobKind}
"""Names of the calls that a list request can replace, with the kind of job."""


class PendingFlow:
    """A flow in progress: its next step, and a future for its result."""

    __slots__ = ("_context", "_flow", "result", "step", "tolerance")

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self._context = contextvars.copy_context()
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.step: Call[Any] | Sleep | None = None
        self.tolerance = 0.0

    def advance(self, response: Any) -> None:
        """Send *response* into the flow, or throw it if it is an exception, and store the next step."""
        self.step = None
        if self.result.done():
            return
        try:
            if isinstance(response, Exception):
                # The same error may go to many flows; each would add its own frames and context to it.
                response.__traceback__ = response.__context__ = None
                self.step = self._context.run(self._flow.throw, response)
            else:
                self.step = self._context.run(self._flow.send, response)
        except StopIteration as end:
            self.result.set_result(end.value)
        except Exception as error:  # the caller handles it
            self.result.set_exception(error)


class KindPoller:
    """Schedules the polls for all jobs of one kind on an event loop and batches the ones that are due."""

    def __init__(self, kind: JobKind, calls: OsaiApi, send: Send, circuit_breaker: CircuitBreaker) -> None:
        self._kind = kind
        self._calls = calls
        self._send = send
        self._circuit_breaker = circuit_breaker
        self._loop = asyncio.get_running_loop()
        self._can_list = f"{kind}.list" in calls.contract
        self._batch_size = MAX_BATCH_SIZE
        self._ticks: list[float] = []
        self._due: dict[float, list[PendingFlow]] = {}
        self._wakeup = asyncio.Event()
        self._concurrency = 1
        self._surplus_slots = 0
        self._max_lag = 0.0
        self._next_adjustment = 0.0
        self._punctual_since = self._loop.time()
        self._slots = asyncio.Semaphore(self._concurrency)
        self._requests: set[asyncio.Task[None]] = set()
        self._scheduler: asyncio.Task[None] | None = None

    def enqueue(self, pending: PendingFlow) -> None:
        """Poll the flow's job within the batch window, and drive the flow from then on."""
        self._schedule(self._loop.time() + BATCH_WINDOW, pending)

    async def aclose(self) -> None:
        """Stop polling."""
        tasks = [*self._requests, *([self._scheduler] if self._scheduler else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _schedule(self, due: float, pending: PendingFlow) -> None:
        tick = math.ceil(due / TICK) * TICK
        if tick not in self._due:
            if not self._ticks or tick < self._ticks[0]:
                self._wakeup.set()
            self._due[tick] = []
            heapq.heappush(self._ticks, tick)
        self._due[tick].append(pending)
        if self._scheduler is None or self._scheduler.done():
            # An empty context, since the scheduler serves all flows.
            self._scheduler = self._loop.create_task(self._run(), context=contextvars.Context())

    def _least_busy_tick(self, due: float, tolerance: float) -> float:
        """Return the time of the next poll of a single job: of six random ticks within *tolerance*, the emptiest."""
        ticks = [math.ceil((due - tolerance * random.random()) / TICK) * TICK for _ in range(6)]
        return min(ticks, key=lambda tick: len(self._due.get(tick, ()))) if tolerance else due

    def _advance(self, pending: PendingFlow, response: Any) -> None:
        """Send *response* into the flow and schedule its next step."""
        pending.advance(response)
        self._schedule_next_step(pending)

    def _schedule_next_step(self, pending: PendingFlow) -> None:
        step = pending.step
        now = self._loop.time()
        if isinstance(step, Sleep):
            pending.step = None
            pending.tolerance = step.tolerance
            due = now + step.seconds
            self._schedule(due if self._can_list else self._least_busy_tick(due, step.tolerance), pending)
        elif step is not None:
            self._schedule(now, pending)

    async def _run(self) -> None:
        """Start the requests that are due, until no flow is scheduled."""
        while self._ticks:
            pause = self._ticks[0] - self._loop.time()
            if pause > 0:
                self._wakeup.clear()
                timer = self._loop.call_later(pause, self._wakeup.set)
                await self._wakeup.wait()
                timer.cancel()
                continue
            self._adjust_concurrency(-pause)
            await self._slots.acquire()
            if batch := self._take_due():
                task = self._loop.create_task(self._poll(batch))
                self._requests.add(task)
                task.add_done_callback(self._on_request_done)
            else:
                self._slots.release()
            await asyncio.sleep(REQUEST_SPACING if self._can_list else 0)

    def _adjust_concurrency(self, lag: float) -> None:
        """Every half second, adapt the number of concurrent requests to the highest lag since the last adjustment."""
        now = self._loop.time()
        self._max_lag = max(self._max_lag, lag)
        if now < self._next_adjustment:
            return
        if self._max_lag > LAG_THRESHOLD:
            increase = self._concurrency if self._max_lag > 4 * LAG_THRESHOLD else 1
            limit = MAX_CONCURRENT_LISTS if self._can_list else MAX_CONCURRENT_GETS
            self._set_concurrency(min(self._concurrency + increase, limit))
        if self._max_lag > LAG_THRESHOLD / 5:
            self._punctual_since = now
        elif now - self._punctual_since > SHRINK_AFTER:
            self._set_concurrency(max(1, min(self._concurrency - 1, self._concurrency * 3 // 4)))
            self._punctual_since = now
        self._max_lag = 0.0
        self._next_adjustment = now + ADJUST_EVERY

    def _set_concurrency(self, concurrency: int) -> None:
        for _ in range(self._concurrency, concurrency):
            self._release_slot()
        self._surplus_slots += max(0, self._concurrency - concurrency)
        self._concurrency = concurrency

    def _on_request_done(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._release_slot()

    def _release_slot(self) -> None:
        """Release a slot for the next request, or drop it if concurrency was reduced."""
        if self._surplus_slots:
            self._surplus_slots -= 1
        else:
            self._slots.release()

    def _take_due(self) -> list[PendingFlow]:
        """Remove and return the flows that are due; fill up the batch with later ones that tolerate an earlier poll."""
        now = self._loop.time()
        limit = self._batch_size if self._can_list else 1
        batch: list[PendingFlow] = []
        while self._ticks and len(batch) < limit:
            tick = self._ticks[0]
            scheduled = self._due[tick]
            if not scheduled:
                del self._due[heapq.heappop(self._ticks)]
                continue
            pending = scheduled[-1]
            if tick > now and (not batch or tick > now + pending.tolerance):
                break
            scheduled.pop()
            if pending.step is None:
                pending.advance(None)
            if isinstance(pending.step, Call):
                batch.append(pending)
            else:
                self._schedule_next_step(pending)
        return batch

    async def _poll(self, batch: list[PendingFlow]) -> None:
        """Poll the jobs of *batch*; each flow gets a response or an error."""
        try:
            single = [pending for pending in batch if not self._can_list or not _is_batchable(pending)]
            if len(single) < len(batch):  # a list request without ids would return all jobs
                single += await self._poll_list([pending for pending in batch if _is_batchable(pending)])
            for pending in single:
                await self._poll_one(pending)
        except Exception as error:  # a flow without a response would wait forever
            for pending in batch:
                if isinstance(pending.step, Call):
                    self._advance(pending, error)

    async def _poll_list(self, batch: list[PendingFlow]) -> list[PendingFlow]:
        """Poll all jobs of *batch* with one list request; return the flows that have to be polled one by one."""
        if error := self._circuit_breaker.open_error():
            return self._fail_all(batch, error)
        by_id: dict[str, list[PendingFlow]] = {}
        for pending in batch:
            by_id.setdefault(cast("Call[Any]", pending.step).subject[0], []).append(pending)
        try:
            jobs: list[Job] = await self._send(self._calls.list_jobs(self._kind, by_id))
        except (OsaiArgumentError, OsaiContractError, OsaiRequestError):  # the first: the ids do not fit into a URL
            self._can_list = False
            return batch
        except OsaiError as failure:
            if _is_too_large(failure):
                self._shrink_batches(len(batch))
                return batch
            if (
                isinstance(failure, OsaiUnreachable)
                and failure.status == HTTPStatus.OK
                and await self._poll_one(batch[0])
            ):
                self._can_list = False  # the list endpoint returns a web page, while that of a single job works
                return batch[1:]
            self._circuit_breaker.record_failure(failure)
            return self._fail_all([pending for pending in batch if isinstance(pending.step, Call)], failure)
        self._circuit_breaker.record_success()
        self._batch_size = min(self._batch_size + 1, MAX_BATCH_SIZE)
        for number, job in enumerate(jobs, start=1):
            for pending in by_id.pop(job.id, ()):
                self._advance(pending, job)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return [pending for missing in by_id.values() for pending in missing]

    def _shrink_batches(self, size: int) -> None:
        """Halve the batch size after the response to a list request for *size* jobs was too large."""
        self._batch_size = min(self._batch_size, size) // 2
        self._can_list = self._batch_size > 1

    async def _poll_one(self, pending: PendingFlow) -> bool:
        """Poll a single job; return whether OSAI answered."""
        if error := self._circuit_breaker.open_error():
            self._advance(pending, error)
            return False
        try:
            response = await self._send(cast("Call[Any]", pending.step))
        except OsaiError as failure:
            if not _is_too_large(failure):  # too large is about this job only; OSAI is reachable
                self._circuit_breaker.record_failure(failure)
            self._advance(pending, failure)
            return isinstance(failure, OsaiRequestError)
        self._circuit_breaker.record_success()
        self._advance(pending, response)
        return True

    def _fail_all(self, batch: list[PendingFlow], error: OsaiError) -> list[PendingFlow]:
        for pending in batch:
            self._advance(pending, error)
        return []


def _is_batchable(pending: PendingFlow) -> bool:
    return bool(cast("Call[Any]", pending.step).subject)


def _is_too_large(failure: OsaiError) -> bool:
    return isinstance(failure, OsaiUnreachable) and failure.too_large


class BatchPoller:
    """Drives flows that wait for jobs, and polls the jobs in batches. Bound to the event loop it is created on.

    :param calls: builds the requests.
    :param send: sends one call. It need not retry, since a flow polls again anyway.
    """

    def __init__(self, calls: OsaiApi, send: Send) -> None:
        self._calls = calls
        self._send = send
        self._circuit_breaker = CircuitBreaker(clock=asyncio.get_running_loop().time)
        self._pollers: dict[JobKind, KindPoller] = {}

    async def run(self, flow: Flow[T]) -> T:
        """Run *flow* to its end and return its value, like ``arun``, but poll its job together with others.

        The flow runs in the caller's context, so its log lines reach the caller's task log. If the caller is cancelled,
        the flow is closed at its current step.
        """
        pending = PendingFlow(flow)
        pending.advance(None)
        while not pending.result.done():
            step = pending.step
            if isinstance(step, Call) and step.name in BATCHABLE_CALLS:
                self._poller(BATCHABLE_CALLS[step.name]).enqueue(pending)
                break
            await self._run_step(pending, step)
        try:
            return cast("T", await pending.result)
        finally:
            flow.close()

    async def aclose(self) -> None:
        """Stop polling. Flows that are still running get no further response."""
        for poller in self._pollers.values():
            await poller.aclose()

    def _poller(self, kind: JobKind) -> KindPoller:
        if kind not in self._pollers:
            self._pollers[kind] = KindPoller(kind, self._calls, self._send, self._circuit_breaker)
        return self._pollers[kind]

    async def _run_step(self, pending: PendingFlow, step: Call[Any] | Sleep | None) -> None:
        """Run a step of a flow that does not wait for a job yet."""
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            pending.advance(None)
            return
        try:
            response = await self._send(cast("Call[Any]", step))
        except Exception as error:  # the flow handles it or passes it on
            pending.advance(error)
        else:
            pending.advance(response)
