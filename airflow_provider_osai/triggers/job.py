"""One trigger for all kinds of job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.event import JobEvent
from airflow_provider_osai.jobs.lifecycle import Watch, wait
from airflow_provider_osai.jobs.pace import SHORTEST, Pace
from airflow_provider_osai.jobs.report import Reporter
from airflow_provider_osai.triggers.kill import AIRFLOW_TELLS_KILLS, cancel_if_killed
from airflow_provider_osai.triggers.sharing import join, leave

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiJobTrigger"]


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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the event that says why the waiting ended. Errors come out as events too."""
        try:
            event = await self._event()
        except asyncio.CancelledError:
            if not AIRFLOW_TELLS_KILLS:
                await self.on_kill()
            raise
        yield TriggerEvent(event.payload())

    async def on_kill(self) -> None:
        """Cancel the job if somebody killed the task; see :func:`cancel_if_killed`. Never in ``cleanup``."""
        if self.cancel_on_kill:
            hook = OsaiHook(self.osai_conn_id)
            await cancel_if_killed(self.task_instance, hook, self.kind, self.job_id, self.log)

    async def _event(self) -> JobEvent:
        try:
            kind = JobKind.parse(self.kind)
            shared = await join(OsaiHook(self.osai_conn_id))
            try:
                job: Job = await shared.loader.run(wait(shared.client.calls, kind, self.job_id, self._watch()))
            finally:
                await leave(shared)
        except OsaiError as error:
            self.log.warning("Stopped waiting: %s", error)
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals)
        except Exception as error:
            self.log.exception("Stopped waiting at an error that is none of OSAI's")
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals)
        return JobEvent.ended(job, self.deferrals)

    def _watch(self) -> Watch:
        return Watch(
            since=self.since,
            deadline=self.deadline,
            pace=Pace(self.poll_interval, shortest=self.shortest_interval),
            max_unreachable=self.max_unreachable,
            observe=Reporter(self.log, since=self.since),
            until_ready=bool(self.until_ready),
        )
