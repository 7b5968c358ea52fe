"""What a webhook causes: the job is read, and if it has ended, the task that waits for it goes on at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.event import JobEvent
from airflow_provider_osai.jobs.lifecycle import look
from airflow_provider_osai.plugins.resume import Waiting, find_waiting, resume
from airflow_provider_osai.triggers.sharing import join, leave

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.jobs.ticket import Ticket
    from airflow_provider_osai.triggers.sharing import Shared

__all__ = ["Fate", "Receiver"]

T = TypeVar("T")

AT_ONCE: Final = 4
"""Threads that talk to Airflow's database; the API server's own need the rest of its connections."""
PATIENCE: Final = 20.0
"""Seconds that one look at a job may take."""
LATER: Final = (2.0, 8.0, 30.0)
"""Seconds before each further look at a job whose webhook came and that lives: OSAI may tell before it shows."""
MOST_LATER: Final = 1_000
"""Tickets that are looked at again at the same time; the poll serves the others."""
IDLE: Final = 60.0
"""Seconds for which a connection to OSAI is kept after a look."""

log = logging.getLogger(__name__)


class Fate(Enum):
    """What became of a webhook."""

    RESUMED = auto()
    NOBODY_WAITS = auto()
    NOT_YET = auto()


class Receiver:
    """Acts on webhooks whose ticket is good. Belongs to the event loop on which it is used.

    It keeps nothing that correctness needs: another replica of the API server may get the next webhook, and if this one
    ends, the poll goes on.

    :param later: seconds before each further look at a job that lives although its webhook came.
    """

    def __init__(self, later: tuple[float, ...] = LATER) -> None:
        self._later = later
        self._threads = CapacityLimiter(AT_ONCE)
        self._looked_at_again: set[Ticket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def hear(self, ticket: Ticket) -> Fate:
        """Look at the job of the task that the ticket names, and resume the task if the job has ended.

        The webhook's own words count for nothing. If the job lives, or cannot be read, it is looked at again soon.
        """
        fate, again = await self._look(ticket), self._looked_at_again
        if fate is Fate.NOT_YET and self._later and ticket not in again and len(again) < MOST_LATER:
            again.add(ticket)
            self._beside(self._look_again(ticket))
        return fate

    async def aclose(self) -> None:
        """Stop looking again, and close the connections to OSAI."""
        await asyncio.sleep(0)  # what has not begun could not tidy up
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_again(self, ticket: Ticket) -> None:
        try:
            for pause in self._later:
                await asyncio.sleep(pause)
                if await self._look(ticket) is not Fate.NOT_YET:
                    return
        finally:
            self._looked_at_again.discard(ticket)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, ticket: Ticket) -> Fate:
        owner = ticket.owner
        task = f"{owner.dag_id} {owner.run_id} {owner.task_id}[{owner.map_index}]"
        try:
            async with asyncio.timeout(PATIENCE):
                fate, news = await self._act(ticket)
        except OsaiError as error:
            fate, news = Fate.NOT_YET, str(error)
        except TimeoutError:
            fate, news = Fate.NOT_YET, f"no answer within {PATIENCE:.0f} s"
        except Exception:
            log.exception("Webhook for %s: an error that is none of OSAI's; the job is polled on", task)
            return Fate.NOT_YET
        log.info("Webhook for %s: %s", task, news)
        return fate

    async def _act(self, ticket: Ticket) -> tuple[Fate, str]:
        """Return what became of the webhook, and how to tell that in the log."""
        waiting = await self._in_thread(lambda: find_waiting(ticket.owner))
        if waiting is None or waiting.osai_conn_id != ticket.osai_conn_id:
            return Fate.NOBODY_WAITS, "nobody waits there for a job of this connection and generation"
        job = await self._read(waiting)
        state = f"OSAI {job.kind} job {job.id} is {job.state}"
        if not job.is_terminal:
            return Fate.NOT_YET, state
        if waiting.held_back > 0:
            return Fate.NOT_YET, f"{state}; the task was deferred a moment ago, and goes on soon"
        event = JobEvent.ended(job, waiting.deferrals, **waiting.carried)
        if not await self._in_thread(lambda: resume(waiting, event)):
            return Fate.NOBODY_WAITS, f"{state}; the task went on meanwhile"
        return Fate.RESUMED, f"{state}; the task goes on"

    async def _read(self, waiting: Waiting) -> Job:
        shared = await join(OsaiHook(waiting.osai_conn_id))
        try:
            flow = look(shared.client.calls, JobKind.parse(waiting.kind), waiting.job_id)
            return await shared.loader.run(flow)
        finally:
            self._beside(self._leave_later(shared))

    async def _leave_later(self, shared: Shared) -> None:
        """Keep the connection for a while: the next webhook need not sign in again."""
        try:
            await asyncio.sleep(IDLE)
        finally:
            await leave(shared)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)
