"""Caches jobs for the run page, with rate and concurrency limits, so that many viewers cause few requests to OSAI."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_osai.api.errors import OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.hooks.background_tasks import run_in_background
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.hooks.shared_client import acquire_shared_client, release_shared_client
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.webhooks.rate_limit import RateLimiter

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job, JobKind
    from airflow_provider_osai.hooks.shared_client import SharedClient

__all__ = ["JobCache", "JobUnavailable", "JobView", "read_job"]

CACHE_TTL: Final = 3.0
"""Seconds for which a job that has not ended is cached."""
ENDED_TTL: Final = 30.0
"""Seconds for which a job that has ended is cached."""
ERROR_TTL: Final = 10.0
"""Seconds for which an error is cached."""
READ_TIMEOUT: Final = 5.0
"""Maximum seconds of one read."""
MAX_CONCURRENT_READS: Final = 10
MAX_CACHED: Final = 1_000
"""Maximum cached jobs."""
CLIENT_LINGER: Final = 60.0
"""Seconds for which the shared client is kept open for the next read."""

log = logging.getLogger(__name__)


class JobUnavailable(Exception):
    """A job cannot be shown. The message is for viewers of the page and contains nothing of the connection.

    :param is_final: whether another read soon would fail in the same way.
    :param is_pending: whether the read still goes on.
    """

    def __init__(self, message: str, *, is_final: bool, is_pending: bool = False) -> None:
        self.is_final = is_final
        self.is_pending = is_pending
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and the URL of its page in the portal.

    :param notes: how the responses that this process got about such jobs differ from the contract.
    """

    job: Job
    portal_url: str
    notes: tuple[str, ...] = ()


Read = Callable[[str, "JobKind", str], Awaitable[JobView]]


async def read_job(osai_conn_id: str, kind: JobKind, job_id: str) -> JobView:
    """Get a job through a connection, without retries.

    :raises OsaiError: if the job cannot be read.
    """
    shared = await acquire_shared_client(OsaiHook(osai_conn_id))
    run_in_background(_release_later(shared))
    job = await shared.client.send(shared.client.calls.get_job(kind, job_id), retry=False)
    notes = tuple(each.text for each in shared.client.calls.watch.differences(f"{job.kind}.get"))
    return JobView(job, OsaiPortalLink.url(shared.client.settings, job.kind, job.id), notes)


async def _release_later(shared: SharedClient) -> None:
    await asyncio.sleep(CLIENT_LINGER)
    await release_shared_client(shared)


class JobCache:
    """Reads each job at most once in a few seconds, and few jobs concurrently. Use an instance on one event loop only.

    :param read: reads a job.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, read: Read = read_job, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str, str], _Entry] = OrderedDict()
        self._limiter = RateLimiter(burst=50, per_second=20, clock=clock)
        self._running = 0

    async def get(self, osai_conn_id: str, kind: JobKind, job_id: str) -> JobView:
        """Return the job from the cache, or read it.

        :raises JobUnavailable: if the job cannot be read, or the limits are exceeded.
        """
        key = (osai_conn_id, kind.value, job_id)
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.expires_at:
            entry = self._start_read(key, kind)
        result = await asyncio.shield(entry.task)
        if isinstance(result, JobUnavailable):
            raise result
        return result

    def _start_read(self, key: tuple[str, str, str], kind: JobKind) -> _Entry:
        if self._running >= MAX_CONCURRENT_READS or not self._limiter.allows("reads"):
            raise JobUnavailable("Too many jobs are being read. This page retries automatically.", is_final=False)
        self._running += 1
        entry = _Entry(asyncio.get_running_loop().create_task(self._result(key, kind)))
        entry.task.add_done_callback(lambda task: self._finish_read(entry, task))
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_CACHED:
            self._entries.popitem(last=False)
        return entry

    def _finish_read(self, entry: _Entry, task: asyncio.Task[JobView | JobUnavailable]) -> None:
        self._running -= 1
        result = None if task.cancelled() else task.result()
        ttl = ERROR_TTL
        if isinstance(result, JobView):
            ttl = ENDED_TTL if result.job.is_terminal else CACHE_TTL
        entry.expires_at = self._clock() + ttl

    async def _result(self, key: tuple[str, str, str], kind: JobKind) -> JobView | JobUnavailable:
        osai_conn_id, _, job_id = key
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await self._read(osai_conn_id, kind, job_id)
        except TimeoutError:
            return JobUnavailable(f"OSAI did not respond within {READ_TIMEOUT:.0f} s.", is_final=False)
        except Exception as error:  # a secrets backend may raise anything
            reason = str(error) if isinstance(error, OsaiError) else type(error).__name__
            log.warning("The run page cannot read a job through connection %s: %s", osai_conn_id, reason)
            return _for_viewers(error)


@dataclass(slots=True)
class _Entry:
    task: asyncio.Task[JobView | JobUnavailable]
    expires_at: float = float("inf")


def _for_viewers(error: Exception) -> JobUnavailable:
    """Return an error without details of the connection, which viewers may not be allowed to read in Airflow."""
    match error:
        case OsaiUnreachable(status=None):
            return JobUnavailable("OSAI is unreachable at the moment.", is_final=False)
        case OsaiUnreachable(status=status):
            return JobUnavailable(f"OSAI is unavailable at the moment (status {status}).", is_final=False)
        case OsaiRequestError(status=404 | 410):
            return JobUnavailable("OSAI does not have this job (any longer).", is_final=True)
        case OsaiRequestError(status=status):
            return JobUnavailable(f"OSAI refused to return this job (status {status}).", is_final=True)
    text = "The task's connection to OSAI cannot be used. See the log of Airflow's API server for the reason."
    return JobUnavailable(text, is_final=True)
