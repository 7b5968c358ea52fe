"""Trigger that waits for the jobs of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_osai.api.errors import OsaiError, OsaiJobTimeout
from airflow_provider_osai.jobs.batch_log import BatchProgressLog
from airflow_provider_osai.jobs.lifecycle import wait
from airflow_provider_osai.triggers.cancellation import BATCH, MAX_CONCURRENT_CANCELLATIONS
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job, JobKind
    from airflow_provider_osai.hooks.shared_client import SharedClient

__all__ = ["OsaiJobBatchTrigger"]


class OsaiJobBatchTrigger(OsaiJobTrigger):
    """Waits until at most ``resume_at`` jobs of a batch run, and fires one event, whose ``job_id`` is the batch's id.

    Each job is polled as :class:`OsaiJobTrigger` polls it, up to 100 with one request. At the deadline, or if the task
    is killed, all jobs are cancelled. The event does not say how the jobs ended: the resumed task reads them.

    :param job_ids: OSAI's ids of the jobs that have not ended.
    :param resume_at: fire when at most this many of them have not ended, so that the task can submit more. Default: 0.
    :param total: number of jobs of the batch, for the log.
    :param ended: number of jobs that had ended before, for the log.
    :param failed: number of these that did not succeed.
    :param job_id: the id of the batch.
    :param kwargs: as for :class:`OsaiJobTrigger`.
    """

    job_key: ClassVar[str] = BATCH

    def __init__(
        self,
        *,
        job_ids: Sequence[str] = (),
        resume_at: int = 0,
        total: int = 0,
        ended: int = 0,
        failed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_ids = job_ids
        self.resume_at = resume_at
        self.total = total
        self.ended = ended
        self.failed = failed

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which another process recreates this trigger."""
        _, arguments = super().serialize()
        own = {
            "job_ids": list(self.job_ids),
            "resume_at": self.resume_at,
            "total": self.total,
            "ended": self.ended,
            "failed": self.failed,
        }
        return f"{__name__}.{type(self).__name__}", arguments | own

    @property
    def awaited_job_ids(self) -> tuple[str, ...]:
        """OSAI's ids of the jobs that this trigger waits for."""
        return tuple(self.job_ids)

    @property
    def most_unended(self) -> int:
        """How many of them may still run when the task is resumed."""
        return self.resume_at

    async def _poll(self, shared: SharedClient, kind: JobKind) -> None:
        """Poll all jobs until few enough run.

        :raises OsaiError: that of the last job, if no job could be read to its end.
        """
        options = replace(self._wait_options(), on_poll=lambda _job, _pause: None)
        outcomes: asyncio.Queue[Job | Exception] = asyncio.Queue()

        async def poll_one(job_id: str) -> None:
            try:
                outcomes.put_nowait(await shared.batch_poller.run(wait(shared.client.calls, kind, job_id, options)))
            except Exception as error:
                outcomes.put_nowait(error)

        progress = BatchProgressLog(self.log, kind, self.total or len(self.job_ids), self.ended, self.failed)
        waits = [asyncio.ensure_future(poll_one(job_id)) for job_id in self.job_ids]
        running, read = len(waits), 0
        error: Exception | None = None
        try:
            while running > self.resume_at:
                outcome = await outcomes.get()
                if isinstance(outcome, Exception) and (
                    isinstance(outcome, OsaiJobTimeout) or not isinstance(outcome, OsaiError)
                ):
                    raise outcome
                running -= 1
                if isinstance(outcome, Exception):
                    error = outcome
                    progress.lost(outcome)
                else:
                    read += 1
                    progress.ended(outcome)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if error is not None and not read:
            raise error

    async def _cancel_all(self, kind: JobKind, why: str) -> None:
        """Cancel all jobs that have not ended, a few at a time."""
        slots = asyncio.Semaphore(MAX_CONCURRENT_CANCELLATIONS)

        async def cancel_one(job_id: str) -> None:
            async with slots:
                await self._cancel(kind, job_id, why)

        await asyncio.gather(*map(cancel_one, self.job_ids))
