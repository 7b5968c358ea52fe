"""One trigger for all kinds of job."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_osai.api.errors import OsaiError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.event import JobEvent
from airflow_provider_osai.jobs.flow import arun
from airflow_provider_osai.jobs.lifecycle import Watch, end_at_deadline, wait
from airflow_provider_osai.jobs.pace import SHORTEST, Pace
from airflow_provider_osai.jobs.report import Reporter
from airflow_provider_osai.triggers.kill import AIRFLOW_TELLS_KILLS, KilledTask, in_background, prepare
from airflow_provider_osai.triggers.sharing import join_persistently, leave

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiJobTrigger"]

SETTLING: Final = 10.0
"""Seconds after a deferral before which no event is fired."""
LONGEST_SETTLING: Final = 60.0
"""The same on an Airflow that is slow."""
SLOWNESS: Final = 4.0
"""How much longer than the start of a task or of its trigger the executor's report may take to be noticed."""
ENDING_TIMEOUT: Final = 60.0
"""Seconds for which the event waits for the cancellation at the deadline, which goes on in the background then."""


class OsaiJobTrigger(BaseTrigger):
    """Waits for the end of one OSAI job, or for a rented device, and fires one event, a :class:`JobEvent`.

    It only reads, unless its task is killed while it waits: then it cancels the job (see :meth:`on_kill`).

    Its arguments are plain JSON and hold no secret. They are a wire format: a deferred task may be resumed by a newer
    version of this package, so arguments are only ever added, and unknown ones are ignored.

    :param osai_conn_id: the connection's id.
    :param kind: the job's kind, for instance ``training``.
    :param job_id: OSAI's id of the job.
    :param since: when the waiting began, in seconds since the epoch.
    :param deadline: when the job must have ended, in seconds since the epoch; ``None`` = never.
    :param poll_interval: seconds between two looks at the most.
    :param max_unreachable: seconds without sight of the job that are borne.
    :param deferrals: how often the task was deferred on this job before.
    :param cancel_on_kill: cancel the job when the task is marked or cleared while it is deferred.
    :param shortest_interval: seconds between two looks at the least.
    :param until_ready: wait for a rented device to be ready, not for the end of its lease.
    :param version: of these arguments.
    :param cancel_at_deadline: cancel the job at the deadline, also if no worker runs then.
    :param deferred_at: when the task was deferred, in seconds since the epoch; 0 = unknown, or long ago.
    :param start_latency: seconds that Airflow took to start the task, as a measure of how slow it is.
    :param reference: the job's idempotency key, if a second job may have been submitted under it.
    """

    def __init__(
        self,
        osai_conn_id: str = OsaiHook.default_conn_name,
        kind: str = "",
        job_id: str = "",
        since: float = 0.0,
        deadline: float | None = None,
        poll_interval: float = 30.0,
        max_unreachable: float = 3600.0,
        deferrals: int = 0,
        cancel_on_kill: bool = True,
        shortest_interval: float = SHORTEST,
        version: int = 1,
        until_ready: bool = False,
        cancel_at_deadline: bool = True,
        deferred_at: float = 0.0,
        reference: str | None = None,
        start_latency: float = 0.0,
        **_newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types for it
        self.osai_conn_id = osai_conn_id
        self.kind = kind
        self.job_id = job_id
        self.since = since
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.max_unreachable = max_unreachable
        self.deferrals = deferrals
        self.cancel_on_kill = cancel_on_kill
        self.shortest_interval = shortest_interval
        self.version = version
        self.until_ready = until_ready
        self.cancel_at_deadline = cancel_at_deadline
        self.deferred_at = deferred_at
        self.reference = reference
        self.start_latency = start_latency

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes this trigger from."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "osai_conn_id": self.osai_conn_id,
                "kind": str(self.kind),
                "job_id": self.job_id,
                "since": self.since,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "max_unreachable": self.max_unreachable,
                "deferrals": self.deferrals,
                "cancel_on_kill": self.cancel_on_kill,
                "shortest_interval": self.shortest_interval,
                "version": self.version,
                "until_ready": self.until_ready,
                "cancel_at_deadline": self.cancel_at_deadline,
                "deferred_at": self.deferred_at,
                "reference": self.reference,
                "start_latency": self.start_latency,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the event that says why the waiting ended. Errors come out as events too."""
        began = time.time()
        try:
            if self.cancel_on_kill:
                prepare(self.task_instance)
            event = await self._event()
            if self.trigger_id is not None:  # not run inline, as ``dag.test()`` does
                await asyncio.sleep(self.held_back(time.time(), began))
        except asyncio.CancelledError:
            if not AIRFLOW_TELLS_KILLS:
                await self.on_kill()
            raise
        yield TriggerEvent(event.payload())

    async def on_kill(self) -> None:
        """Cancel the job if somebody killed the task; see :class:`KilledTask`. Never in ``cleanup``."""
        if self.cancel_on_kill:
            job = (self.kind, self.job_id, self.max_unreachable)
            hook, until_ready = OsaiHook(self.osai_conn_id), bool(self.until_ready)
            await KilledTask(self.task_instance, hook, *job, self.log, until_ready).cancel_job()

    def held_back(self, now: float, started: float | None = None) -> float:
        """Return the seconds until the event may be fired: a moment after the deferral, for jobs that end at once.

        The executor reports the end of the process that deferred the task. If the task is resumed and queued again
        before the scheduler has read that report, the scheduler takes it for the end of the resumed task, and fails it
        (apache/airflow#71580). The moment grows with the time that Airflow took to start the task and this trigger.

        :param now: in seconds since the epoch.
        :param started: when the trigger was started; ``None`` = unknown.
        """
        late = max(self.start_latency, 0.0 if started is None else started - self.deferred_at)
        moment = min(max(SETTLING, SLOWNESS * late), LONGEST_SETTLING)
        return max(0.0, self.deferred_at + moment - now)

    async def _event(self) -> JobEvent:
        carried = {"deadline": self.deadline, "reference": self.reference}
        try:
            job = await self._job()
        except OsaiError as error:
            self.log.warning("Stopped waiting: %s", error)
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals, **carried)
        except Exception as error:
            self.log.exception("Stopped waiting at an error that is none of OSAI's")
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals, **carried)
        return JobEvent.ended(job, self.deferrals, **carried)

    async def _job(self) -> Job:
        """Wait for the job; cancel it at the deadline, since the task may be resumed much later."""
        kind, hook = JobKind.parse(self.kind), OsaiHook(self.osai_conn_id)
        try:
            shared = await join_persistently(hook, self.max_unreachable, self.log, self.deadline)
        except Exception as error:
            name = str(error) if isinstance(error, OsaiError) else type(error).__name__
            msg = f"connection {self.osai_conn_id} could not be used ({name}); it was not cancelled"
            raise OsaiJobLost(msg, kind=kind, job_id=self.job_id) from error
        try:
            return await shared.loader.run(wait(shared.client.calls, kind, self.job_id, self._watch()))
        except OsaiJobTimeout:
            if not self.cancel_at_deadline:
                raise
            ending = in_background(self._end(kind))
            done, _ = await asyncio.wait({ending}, timeout=ENDING_TIMEOUT)
            if done and (job := ending.result()) is not None:
                return job
            raise
        finally:
            await leave(shared)

    async def _end(self, kind: JobKind) -> Job | None:
        """Cancel the job whose time is over; return it if it ended just before."""

        def note(text: str) -> None:
            said = "OSAI %s job %s may still run, it could not be cancelled at its deadline: %s"
            self.log.warning(said, kind, self.job_id, text)

        ready, patience = bool(self.until_ready), self.max_unreachable
        try:
            shared = await join_persistently(OsaiHook(self.osai_conn_id), patience, self.log)
            try:
                calls, send = shared.client.calls, partial(shared.client.send, once=True)
                how: dict[str, Any] = {"patience": patience, "note": note, "until_ready": ready, "looks": 0}
                flow = end_at_deadline(calls, kind, self.job_id, **how)
                job = await arun(flow, send)
            finally:
                await leave(shared)
        except Exception as error:  # noqa: BLE001 - the task is told of the deadline in any case
            note(str(error) if isinstance(error, OsaiError) else type(error).__name__)
            return None
        if job.is_terminal or (ready and job.is_ready):
            return job
        self.log.info("OSAI %s job %s was told to stop at its deadline", kind, self.job_id)
        return None

    def _watch(self) -> Watch:
        return Watch(
            since=self.since,
            deadline=self.deadline,
            pace=Pace(self.poll_interval, shortest=self.shortest_interval),
            max_unreachable=self.max_unreachable,
            observe=Reporter(self.log, since=self.since),
            until_ready=bool(self.until_ready),
        )
