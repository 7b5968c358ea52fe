"""A sensor that waits for an OSAI job, identified by its kind and id."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiJobLost, OsaiJobTimeout, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import WaitOptions, get_job, get_job_persistently, raise_for_state
from airflow_provider_osai.jobs.polling import PollSchedule
from airflow_provider_osai.jobs.progress_log import PollLogger, is_due_at_age
from airflow_provider_osai.jobs.summary_log import log_job_message, log_summary
from airflow_provider_osai.links.portal import OsaiPortalLink, leave_links_as_pushed
from airflow_provider_osai.observability import metrics, tracing
from airflow_provider_osai.operators._outputs import push_outputs
from airflow_provider_osai.operators.base import fail_without_retry, started_at
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiJobSensor"]

GRACE = 30.0
"""Seconds after the sensor's deadline at which Airflow itself times out the deferral, in case no triggerer runs."""


class OsaiJobSensor(BaseSensorOperator):
    """Waits until a job has ended, and returns references to its output, as the job operators do.

    The sensor never cancels the job, because it did not submit it. It works with ``mode="poke"``,
    ``mode="reschedule"`` and ``deferrable=True``. ``poke_interval`` (default 60 seconds), ``timeout``,
    ``execution_timeout``, ``soft_fail`` and ``never_fail`` are those of every sensor and apply in each mode.

    :param kind: the job's kind: ``training``, ``retraining``, ``conversion``, ``manipulation``, ``prediction`` or
        ``device_rental``.
    :param job_id: OSAI's id of the job.
    :param osai_conn_id: the connection's id.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param unreachable_timeout: seconds for which OSAI may be unreachable before the sensor fails (default 3600). With
        ``mode="reschedule"``, which keeps no state between two pokes, ``timeout`` applies instead.
    :param multiple_outputs: which keys of the returned dict become XComs of their own. ``None`` (default): those that
        the Dag refers to; see the operators. ``True``: all. ``False``: none.
    :raises OsaiJobFailed: if the job failed.
    :raises OsaiJobCancelled: if the job was cancelled.
    :raises OsaiJobTimeout: if the job had not ended at a deferred sensor's ``execution_timeout``. It is not cancelled.
    :raises OsaiJobLost: if the job could not be read for too long, or OSAI does not know it.
    :raises AirflowFailException: on a non-retryable error, such as an invalid argument or a rejected token. Its
        ``__cause__`` is the OsaiError.
    """

    template_fields = ("kind", "job_id", "osai_conn_id")
    operator_extra_links = (OsaiPortalLink(),)
    ui_color = "#d9f2ec"

    def __init__(
        self,
        *,
        kind: str,
        job_id: str,
        osai_conn_id: str = OsaiHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        unreachable_timeout: float = 3600.0,
        multiple_outputs: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs is not False, **kwargs)
        self.requested_outputs: bool | None = multiple_outputs
        self.kind = kind
        self.job_id = job_id
        self.osai_conn_id = osai_conn_id
        self.deferrable = deferrable
        self.unreachable_timeout = unreachable_timeout
        self._last_read_at: float | None = None
        self._start_latency = 0.0
        self._poll_logger: PollLogger | None = None

    def execute(self, context: Context) -> Any:
        """Poll the job once if deferrable, and defer if it has not ended; otherwise poke until it has ended."""
        leave_links_as_pushed(self)
        self._start_latency = max(0.0, time.time() - started_at(context)) if self.deferrable else 0.0
        with self._skip_if_soft_fail():
            link = OsaiPortalLink.url(self.hook.settings(), JobKind.parse(self.kind), self.job_id)
            context["ti"].xcom_push(key=OsaiPortalLink().xcom_key, value=link)
            if self.deferrable:
                return self._return_or_defer(self._get_job_if_reachable(), context)
        return push_outputs(self, context, super().execute(context))

    def poke(self, context: Context) -> bool | PokeReturnValue:  # Airflow's signature
        """Poll the job; return ``False`` if it has not ended, or during a temporary outage."""
        outage_start = time.monotonic() if self._last_read_at is None else self._last_read_at
        with self._skip_if_soft_fail():
            try:
                job = self._get_job()
            except (OsaiUnreachable, OsaiAuthError) as error:
                if isinstance(error, OsaiAuthError) and self._last_read_at is None:
                    raise
                self._last_read_at = outage_start  # an outage at the first poke starts with that poke
                outage = time.monotonic() - outage_start
                if outage > self._wait_options().outage_timeout(error):
                    msg = f"The job could not be read for {outage:.0f} s ({error})"
                    raise OsaiJobLost(msg, kind=self.kind, job_id=self.job_id) from error
                self.log.warning(
                    "OSAI %s job %s could not be read for %.0f s: %s", self.kind, self.job_id, outage, error
                )
                return False
            self._last_read_at = time.monotonic()
            if job.is_terminal:
                return PokeReturnValue(is_done=True, xcom_value=self._build_result(job))
            self._log_poke(job)
            return False

    def _log_poke(self, job: Job) -> None:
        """Log the job's progress. With ``mode="reschedule"``, each poke is a separate process with a new logger."""
        now, interval = time.time(), float(self.poke_interval)
        if self.reschedule and not is_due_at_age(job, now, interval):
            return
        self._poll_logger = self._poll_logger or PollLogger(self.log, since=now)
        self._poll_logger(job, interval)

    @tracing.traced(tracing.RESUME)
    def execute_complete(self, context: Context, event: Any) -> Any:
        """Resume after the trigger fired. The job is read again: its current state counts, not that in the event."""
        leave_links_as_pushed(self)
        with self._skip_if_soft_fail():
            job_event = JobEvent.parse(event)
            if job_event.outcome is Outcome.LOST:
                raise OsaiJobLost(job_event.message, kind=self.kind, job_id=self.job_id)
            kind = JobKind.parse(self.kind)
            with self.hook.get_conn() as client:
                job = run(get_job_persistently(client.calls, kind, self.job_id, self._wait_options()), client.send)
            if job_event.outcome is Outcome.DEADLINE and not job.is_terminal:
                self._raise_timeout()
            return self._return_or_defer(job, context, job_event)

    @cached_property
    def hook(self) -> OsaiHook:
        """The hook of this task's connection."""
        return OsaiHook(self.osai_conn_id)

    @contextmanager
    def _skip_if_soft_fail(self) -> Iterator[None]:
        """Skip the task instead of failing it if ``soft_fail`` or ``never_fail`` is set, in every mode."""
        try:
            with fail_without_retry():
                yield
        except (OsaiError, AirflowFailException) as error:
            if not (self.soft_fail or getattr(self, "never_fail", False)):
                raise
            raise AirflowSkipException(f"Skipping because soft_fail or never_fail is set: {error}") from error

    def _get_job(self) -> Job:
        with self.hook.get_conn() as client:
            return run(get_job(client.calls, JobKind.parse(self.kind), self.job_id), metrics.count_polls(client.send))

    def _get_job_if_reachable(self) -> Job | None:
        """Return the job; ``None`` in an outage, during which the trigger retries."""
        try:
            return self._get_job()
        except OsaiUnreachable as error:
            self.log.warning("OSAI %s job %s could not be read, deferring: %s", self.kind, self.job_id, error)
            return None

    def _wait_options(self) -> WaitOptions:
        return WaitOptions(
            since=time.time(),
            schedule=PollSchedule(float(self.poke_interval)),
            unreachable_timeout=float(self.unreachable_timeout),
        )

    def _return_or_defer(self, job: Job | None, context: Context, event: JobEvent | None = None) -> dict[str, Any]:
        if job is None or not job.is_terminal:
            self._defer(context, event)
        return push_outputs(self, context, self._build_result(job))

    def _build_result(self, job: Job) -> dict[str, Any]:
        metrics.count_job_over(job)
        log_summary(self.log, job)
        log_job_message(self.log, job)
        return dict(raise_for_state(job).references())

    def _raise_timeout(self) -> NoReturn:
        """Raise the error of ``timeout`` or ``execution_timeout``, whichever is shorter."""
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else math.inf
        if float(self.timeout) <= limit:
            raise AirflowSensorTimeout(f"OSAI {self.kind} job {self.job_id} had not ended after {self.timeout} s")
        msg = (
            f"The job had not ended at the sensor's execution_timeout of {self.execution_timeout}. It was not cancelled"
        )
        raise OsaiJobTimeout(msg, kind=self.kind, job_id=self.job_id)

    def _defer(self, context: Context, event: JobEvent | None) -> NoReturn:
        now = time.time()
        limits = [float(self.timeout), *([self.execution_timeout.total_seconds()] if self.execution_timeout else [])]
        deadline = (event.deadline if event else None) or started_at(context) + min(limits)
        self.defer(
            trigger=OsaiJobTrigger(
                osai_conn_id=self.osai_conn_id,
                kind=self.kind,
                job_id=self.job_id,
                since=now,
                deadline=deadline,
                poll_interval=self.poke_interval,
                max_unreachable=self.unreachable_timeout,
                deferrals=event.next_deferral() if event else 0,
                cancel_on_kill=False,
                cancel_at_deadline=False,
                deferred_at=now,
                start_latency=self._start_latency,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(deadline - now, 0.0) + GRACE),
        )
