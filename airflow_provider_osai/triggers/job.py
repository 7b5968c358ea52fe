"""Trigger that waits for a job of any kind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiJobLost, OsaiJobStopped, OsaiJobTimeout
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.hooks.background_tasks import run_in_background
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.hooks.shared_client import acquire_with_retries, release_shared_client
from airflow_provider_osai.jobs.early_stopping import StopRules
from airflow_provider_osai.jobs.flow import arun
from airflow_provider_osai.jobs.lifecycle import WaitOptions, end_at_deadline, wait
from airflow_provider_osai.jobs.polling import MIN_INTERVAL, PollSchedule
from airflow_provider_osai.jobs.progress_log import PollLogger
from airflow_provider_osai.jobs.wanted import JOB
from airflow_provider_osai.observability import tracing
from airflow_provider_osai.triggers.cancellation import HAS_ON_KILL, KilledTask, job_text, warm_up
from airflow_provider_osai.triggers.event import JobEvent, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.hooks.shared_client import SharedClient

__all__ = ["OsaiJobTrigger"]

MIN_HOLD: Final = 10.0
"""Minimum seconds between a deferral and the trigger event."""
MAX_HOLD: Final = 60.0
"""Maximum of that time, for a slow Airflow."""
LATENCY_FACTOR: Final = 4.0
"""Factor by which the executor's report may be slower than the start of a task or of its trigger."""
CANCELLATION_TIMEOUT: Final = 60.0
"""Seconds that the event waits for the cancellation at the deadline; after that it continues in the background."""


class OsaiJobTrigger(BaseTrigger):
    """Waits for the end of one OSAI job, or for a rented device, and fires one event, a :class:`JobEvent`.

    It cancels the job at its deadline, by a rule of *stop_when*, or if its task is killed (see :meth:`on_kill`);
    otherwise it only reads.

    The arguments are plain JSON and contain no secret. They are a wire format: a deferred task may be resumed by a
    newer version of this package, so arguments are only ever added, and unknown ones are ignored.

    :param osai_conn_id: the connection's id.
    :param kind: the job's kind, for instance ``training``.
    :param job_id: OSAI's id of the job.
    :param since: when the wait began, in seconds since the epoch.
    :param deadline: when the job must have ended, in seconds since the epoch; ``None`` = no deadline.
    :param poll_interval: maximum seconds between two polls.
    :param max_unreachable: maximum seconds without a successful poll, ``unreachable_timeout`` of the operator.
        Airflow's database stores it under this name.
    :param deferrals: number of earlier deferrals on this job.
    :param cancel_on_kill: cancel the job if the task is marked or cleared while it is deferred.
    :param shortest_interval: minimum seconds between two polls.
    :param until_ready: wait for a rented device to be ready, not for the end of the rental.
    :param version: version of these arguments.
    :param cancel_at_deadline: cancel the job at the deadline, without waiting for a worker.
    :param deferred_at: when the task was deferred, in seconds since the epoch; 0 = unknown, or long ago.
    :param start_latency: seconds that Airflow took to start the task, a measure of its load.
    :param reference: the job's idempotency key, if a second job may have been submitted under it.
    :param task_try: the try of the task that was deferred, for the event.
    :param stop_when: when to stop a training before its end, see :class:`StopRules`; ``None`` = never.
    """

    job_key: ClassVar[str] = JOB
    """The XCom in which the task names what it waits for, so that the trigger of an earlier try can be recognised."""

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
        shortest_interval: float = MIN_INTERVAL,
        version: int = 1,
        until_ready: bool = False,
        cancel_at_deadline: bool = True,
        deferred_at: float = 0.0,
        reference: str | None = None,
        start_latency: float = 0.0,
        task_try: str = "",
        stop_when: dict[str, Any] | None = None,
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
        self.task_try = task_try
        self.stop_when = stop_when

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which another process recreates this trigger."""
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
                "task_try": self.task_try,
                "stop_when": self.stop_when,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire one event with the outcome. Errors become events too."""
        started = time.time()
        try:
            if self.cancel_on_kill:
                warm_up(self.task_instance)
            event = await self._wait_for_event()
            if self.trigger_id is not None:  # not run inline, as ``dag.test()`` does
                await asyncio.sleep(self.hold_seconds(time.time(), started))
        except asyncio.CancelledError:
            if not HAS_ON_KILL:
                await self.on_kill()
            raise
        yield TriggerEvent(event.payload())

    async def on_kill(self) -> None:
        """Cancel the job if its task was killed; see :class:`KilledTask`. Never done in ``cleanup``."""
        if self.cancel_on_kill:
            task = KilledTask(
                ti=self.task_instance,
                hook=OsaiHook(self.osai_conn_id),
                kind=self.kind,
                job_id=self.job_id,
                job_ids=self.awaited_job_ids,
                job_key=self.job_key,
                unreachable_timeout=self.max_unreachable,
                log=self.log,
                wait_for_ready=bool(self.until_ready),
            )
            await task.cancel_jobs()

    def hold_seconds(self, now: float, started: float | None = None) -> float:
        """Return the seconds until the event may be fired, which must not be too soon after the deferral.

        The executor reports the end of the process that deferred the task. If the task is resumed and queued again
        before the scheduler has read that report, the scheduler takes it for the end of the resumed task, and fails it
        (apache/airflow#71580). The wait grows with the time that Airflow took to start the task and this trigger.

        :param now: the current time in seconds since the epoch.
        :param started: when the trigger was started; ``None`` = unknown.
        """
        latency = max(self.start_latency, 0.0 if started is None else started - self.deferred_at)
        hold = min(max(MIN_HOLD, LATENCY_FACTOR * latency), MAX_HOLD)
        return max(0.0, self.deferred_at + hold - now)

    async def _wait_for_event(self) -> JobEvent:
        try:
            return self.ended_event(await self._wait_for_job())
        except OsaiError as error:
            self.log.warning("Stopped waiting for the job: %s", error)
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals, **self._carried)
        except Exception as error:
            self.log.exception("Unexpected error while waiting for %s", job_text(self.kind, self.awaited_job_ids))
            return JobEvent.stopped(self.kind, self.job_id, error, self.deferrals, **self._carried)

    def ended_event(self, job: Job | None) -> JobEvent:
        """Return the event that resumes the task after the end of its job; ``None`` for the jobs of a batch."""
        if job is not None:
            return JobEvent.ended(job, self.deferrals, **self._carried)
        outcome = Outcome.ENDED
        return JobEvent(kind=self.kind, job_id=self.job_id, outcome=outcome, deferrals=self.deferrals, **self._carried)

    @property
    def _carried(self) -> dict[str, Any]:
        return {"deadline": self.deadline, "reference": self.reference, "task_try": self.task_try}

    @property
    def awaited_job_ids(self) -> tuple[str, ...]:
        """OSAI's ids of the jobs that this trigger waits for."""
        return (self.job_id,)

    @property
    def most_unended(self) -> int:
        """How many of them may still run when the task is resumed."""
        return 0

    async def _wait_for_job(self) -> Job | None:
        """Wait for the job. Cancel it at the deadline or by a rule, since the task may be resumed much later."""
        kind, hook = JobKind.parse(self.kind), OsaiHook(self.osai_conn_id)
        try:
            shared = await acquire_with_retries(hook, self.max_unreachable, self.log, self.deadline)
        except Exception as error:
            name = str(error) if isinstance(error, OsaiError) else type(error).__name__
            msg = f"connection {self.osai_conn_id} could not be used ({name}); the job was not cancelled"
            raise OsaiJobLost(msg, kind=kind, job_id=self.job_id) from error
        try:
            with tracing.span(tracing.WAIT, kind, self.job_id):
                return await self._poll(shared, kind)
        except (OsaiJobTimeout, OsaiJobStopped) as error:
            is_stop = isinstance(error, OsaiJobStopped)
            if not (is_stop or self.cancel_at_deadline):
                raise
            why = "by a rule of stop_when" if is_stop else "at its deadline"
            cancellation = run_in_background(self._cancel_all(kind, why))
            done, _ = await asyncio.wait({cancellation}, timeout=CANCELLATION_TIMEOUT)
            if done and (job := cancellation.result()) is not None and job.state is not JobState.CANCELLED:
                return job
            raise
        finally:
            await release_shared_client(shared)

    def _poll(self, shared: SharedClient, kind: JobKind) -> Awaitable[Job | None]:
        """Poll until the job has ended, and return it. Not a coroutine: thousands of triggers would keep one more."""
        return shared.batch_poller.run(wait(shared.client.calls, kind, self.job_id, self._wait_options()))

    async def _cancel_all(self, kind: JobKind, why: str) -> Job | None:
        """Cancel the job; return it if it has ended, or its device is ready, just in time.

        :param why: for the log.
        """
        return await self._cancel(kind, self.job_id, why)

    async def _cancel(self, kind: JobKind, job_id: str, why: str) -> Job | None:
        def log(reason: str) -> None:
            message = "Cancelling OSAI %s job %s %s failed; it may still run: %s"
            self.log.warning(message, kind, job_id, why, reason)

        wait_for_ready = bool(self.until_ready)
        try:
            shared = await acquire_with_retries(OsaiHook(self.osai_conn_id), self.max_unreachable, self.log)
            try:
                flow = end_at_deadline(
                    shared.client.calls,
                    kind,
                    job_id,
                    unreachable_timeout=self.max_unreachable,
                    log=log,
                    wait_for_ready=wait_for_ready,
                    polls=0,
                )
                job = await arun(flow, partial(shared.client.send, retry=False))
            finally:
                await release_shared_client(shared)
        except Exception as error:  # the task must get its timeout event in any case
            log(str(error) if isinstance(error, OsaiError) else type(error).__name__)
            return None
        if job.is_terminal or (wait_for_ready and job.is_ready):
            return job
        self.log.info("Requested cancellation of OSAI %s job %s %s", kind, job_id, why)
        return None

    def _wait_options(self) -> WaitOptions:
        options = WaitOptions(
            since=self.since,
            deadline=self.deadline,
            schedule=PollSchedule(self.poll_interval, min_interval=self.shortest_interval),
            unreachable_timeout=self.max_unreachable,
            on_poll=PollLogger(self.log, since=self.since),
            wait_for_ready=bool(self.until_ready),
        )
        return replace(options, stop_rules=self._stop_rules(), warn=self.log.warning) if self.stop_when else options

    def _stop_rules(self) -> StopRules | None:
        try:
            return StopRules.parse_stored(self.stop_when)
        except OsaiArgumentError as error:  # of a newer version: the job is waited for in any case
            self.log.warning("The job is not stopped early: %s", error)
            return None
