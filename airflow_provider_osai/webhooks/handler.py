"""Handles a verified webhook: gets the job and, if it has ended, resumes the deferred task."""

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
from airflow_provider_osai.hooks.shared_client import acquire_shared_client, release_shared_client
from airflow_provider_osai.jobs.lifecycle import get_job
from airflow_provider_osai.observability import metrics
from airflow_provider_osai.triggers.event import JobEvent
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
CLIENT_LINGER: Final = 60.0
"""Seconds for which the shared client is kept open after a request."""

log = logging.getLogger(__name__)


class WebhookResult(Enum):
    """The outcome of a webhook."""

    RESUMED = auto()
    NOT_DEFERRED = auto()
    RECHECK = auto()
    """The job has not ended, cannot be read, or its task cannot be resumed yet."""


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
        self._background_tasks: set[asyncio.Task[None]] = set()

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
            for delay in self._recheck_delays:
                await asyncio.sleep(delay)
                if await self._attempt(token) is not WebhookResult.RECHECK:
                    return
        finally:
            self._rechecking.discard(token)

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
        if task is None or task.osai_conn_id != token.osai_conn_id:
            return (
                WebhookResult.NOT_DEFERRED,
                "no task of this generation is deferred on a job of the token's connection",
            )
        job = await self._get_job(task)
        state = f"OSAI {job.kind} job {job.id} is {job.state}"
        if not job.is_terminal:
            return WebhookResult.RECHECK, state
        if task.resume_delay > 0:
            return WebhookResult.RECHECK, f"{state}; the task was deferred a moment ago and will be resumed soon"
        event = JobEvent.ended(job, task.deferrals, **task.carried)
        if not await self._in_thread(lambda: resume(task, event)):
            return WebhookResult.NOT_DEFERRED, f"{state}; the task was already resumed or ended"
        metrics.count_webhook_resume(task.kind)
        return WebhookResult.RESUMED, f"{state}; resumed the task"

    async def _get_job(self, task: DeferredTask) -> Job:
        shared = await acquire_shared_client(OsaiHook(task.osai_conn_id))
        try:
            flow = get_job(shared.client.calls, JobKind.parse(task.kind), task.job_id)
            return await shared.batch_poller.run(flow)
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
