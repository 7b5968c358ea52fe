"""Handles a verified webhook: reads the job, or those of a batch, and resumes the deferred task if they have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.hooks.shared_client import acquire_shared_client, release_shared_client
from airflow_provider_osai.jobs.lifecycle import get_job
from airflow_provider_osai.observability import metrics
from airflow_provider_osai.webhooks.resume import DeferredTask, find_deferred_task, resume

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.hooks.shared_client import SharedClient
    from airflow_provider_osai.webhooks.token import WebhookToken

__all__ = ["WebhookHandler", "WebhookResult"]

T = TypeVar("T")

MAX_DB_THREADS: Final = 4
"""Maximum threads that query Airflow's database; the API server itself needs the other connections of its pool."""
LOOKUP_TIMEOUT: Final = 20.0
"""Maximum seconds to find the task, get its job, and resume it."""
RECHECK_DELAYS: Final = (2.0, 8.0, 30.0)
"""Seconds before each recheck of a job that had not ended: OSAI may send the webhook before its API shows the end."""
MAX_RECHECKS: Final = 1_000
"""Maximum tokens with rechecks in progress; for others the end is detected by polling."""
MIN_BATCH_PAUSE: Final = 2.0
"""Minimum seconds between two checks of a batch, each of whose jobs has a webhook."""
BATCH_PAUSE_PER_JOB: Final = 0.06
"""Seconds between two checks of a batch for each job that runs: a request of 100 jobs each 6 seconds."""
CLIENT_LINGER: Final = 60.0
"""Seconds for which the shared client is kept open after a request."""

log = logging.getLogger(__name__)


class WebhookResult(Enum):
    """The outcome of a webhook."""

    RESUMED = auto()
    NOT_DEFERRED = auto()
    RECHECK = auto()
    """The job has not ended, cannot be read, or its task cannot be resumed yet."""


@dataclass(slots=True)
class _BatchCheck:
    """What is known of a batch whose jobs are being checked.

    :param ended: the ids of the jobs that have ended.
    :param pause: minimum seconds until the next check.
    :param has_arrived: whether a webhook has arrived since the last check began.
    """

    ended: set[str] = field(default_factory=set)
    pause: float = MIN_BATCH_PAUSE
    has_arrived: bool = False


class WebhookHandler:
    """Handles webhooks whose token is valid. Use an instance on one event loop only.

    No in-memory state is needed for correctness: another replica of the API server may receive the next webhook, and if
    this replica stops, polling continues.

    :param recheck_delays: seconds before each recheck of a job that had not ended when its webhook arrived.
    """

    def __init__(self, recheck_delays: tuple[float, ...] = RECHECK_DELAYS) -> None:
        self._recheck_delays = recheck_delays
        self._threads = CapacityLimiter(MAX_DB_THREADS)
        self._rechecking: set[WebhookToken] = set()
        self._batches: dict[WebhookToken, _BatchCheck] = {}
        self._background_tasks: set[asyncio.Task[None]] = set()

    def note(self, token: WebhookToken) -> bool:
        """Return whether the token is that of a batch whose jobs are being rechecked; then they are once more.

        All jobs of a batch have the same token, and up to thousands of webhooks may arrive within seconds.
        """
        if token not in self._rechecking or token not in self._batches:
            return False
        self._batches[token].has_arrived = True
        return True

    async def handle(self, token: WebhookToken) -> WebhookResult:
        """Get the job of the token's task, and resume the task if the job has ended.

        The webhook's payload is ignored. If the job has not ended or cannot be read, it is rechecked in the background.
        """
        result = await self._attempt(token)
        if (
            result is WebhookResult.RECHECK
            and self._recheck_delays
            and token not in self._rechecking
            and len(self._rechecking) < MAX_RECHECKS
        ):
            self._rechecking.add(token)
            self._in_background(self._recheck(token))
        elif token not in self._rechecking:
            self._batches.pop(token, None)
        return result

    async def aclose(self) -> None:
        """Cancel the rechecks and release the shared clients."""
        await asyncio.sleep(0)  # a task that is cancelled before it starts would not run its finally block
        tasks = list(self._background_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _recheck(self, token: WebhookToken) -> None:
        try:
            delays = iter(self._recheck_delays)
            while (delay := next(delays, None)) is not None:
                batch = self._batches.get(token)
                await asyncio.sleep(max(delay, batch.pause) if batch else delay)
                if await self._attempt(token) is not WebhookResult.RECHECK:
                    return
                if batch and batch.has_arrived:
                    delays = iter(self._recheck_delays)
        finally:
            self._rechecking.discard(token)
            self._batches.pop(token, None)

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)

    async def _attempt(self, token: WebhookToken) -> WebhookResult:
        owner = token.owner
        task = f"{owner.dag_id} {owner.run_id} {owner.task_id}[{owner.map_index}]"
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                result, message = await self._resume_if_ended(token)
        except OsaiError as error:
            result, message = WebhookResult.RECHECK, str(error)
        except TimeoutError:
            result, message = WebhookResult.RECHECK, f"timed out after {LOOKUP_TIMEOUT:.0f} s"
        except Exception:
            log.exception("Webhook for %s: unexpected error; the job is still polled", task)
            return WebhookResult.RECHECK
        log.info("Webhook for %s: %s", task, message)
        return result

    async def _resume_if_ended(self, token: WebhookToken) -> tuple[WebhookResult, str]:
        """Return the outcome, and the message to log."""
        task = await self._in_thread(lambda: find_deferred_task(token.owner))
        if task is None or task.trigger.osai_conn_id != token.osai_conn_id:
            return (
                WebhookResult.NOT_DEFERRED,
                "no task of this generation is deferred on a job of the token's connection",
            )
        if task.is_batch:
            job = None
            unended = await self._count_unended(token, task)
            state = f"{unended} of {len(task.trigger.awaited_job_ids)} OSAI {task.trigger.kind} jobs have not ended"
            is_over = unended <= task.trigger.most_unended
        else:
            async with self._shared_client(task) as shared:
                job = await self._get_job(shared, task, task.trigger.job_id)
            state = f"OSAI {job.kind} job {job.id} is {job.state}"
            is_over = job.is_terminal
        if not is_over:
            return WebhookResult.RECHECK, state
        if task.resume_delay > 0:
            return WebhookResult.RECHECK, f"{state}; the task was deferred a moment ago and will be resumed soon"
        event = task.trigger.ended_event(job)
        if not await self._in_thread(lambda: resume(task, event)):
            return WebhookResult.NOT_DEFERRED, f"{state}; the task was already resumed or ended"
        metrics.count_webhook_resume(str(task.trigger.kind))
        return WebhookResult.RESUMED, f"{state}; resumed the task"

    async def _count_unended(self, token: WebhookToken, task: DeferredTask) -> int:
        """Read the jobs of a batch that may run, up to 100 with one request, and return how many have not ended."""
        batch = self._batches.setdefault(token, _BatchCheck())
        batch.has_arrived = False
        awaited = task.trigger.awaited_job_ids

        async def read(shared: SharedClient, job_id: str) -> None:
            with suppress(OsaiError):  # the trigger decides what an error means for the batch
                if (await self._get_job(shared, task, job_id)).is_terminal:
                    batch.ended.add(job_id)

        async with self._shared_client(task) as shared:
            await asyncio.gather(*(read(shared, job_id) for job_id in awaited if job_id not in batch.ended))
        unended = sum(job_id not in batch.ended for job_id in awaited)
        batch.pause = max(MIN_BATCH_PAUSE, BATCH_PAUSE_PER_JOB * unended)
        return unended

    async def _get_job(self, shared: SharedClient, task: DeferredTask, job_id: str) -> Job:
        return await shared.batch_poller.run(get_job(shared.client.calls, JobKind.parse(task.trigger.kind), job_id))

    @asynccontextmanager
    async def _shared_client(self, task: DeferredTask) -> AsyncIterator[SharedClient]:
        shared = await acquire_shared_client(OsaiHook(task.trigger.osai_conn_id))
        try:
            yield shared
        finally:
            self._in_background(self._release_later(shared))

    async def _release_later(self, shared: SharedClient) -> None:
        """Keep the client open for a while, so that the next webhook needs no new sign-in."""
        try:
            await asyncio.sleep(CLIENT_LINGER)
        finally:
            await release_shared_client(shared)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await to_thread.run_sync(function, limiter=self._threads)
