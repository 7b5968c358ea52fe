"""Waits for any OSAI job by its kind and id."""

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
from airflow_provider_osai.jobs.event import JobEvent, Outcome
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import Watch, look, outcome, see
from airflow_provider_osai.jobs.pace import Pace
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.operators.base import no_vain_retries, started_at
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiJobSensor"]

GRACE = 30.0
"""Seconds after its time limit at which Airflow itself ends a deferred sensor, in case no triggerer runs."""


class OsaiJobSensor(BaseSensorOperator):
    """Waits for the end of a job, and returns the references to what it made, as the job operators do.

    It never cancels the job: it did not submit it. Works in ``mode="poke"``, ``mode="reschedule"`` and deferrable.
    ``poke_interval`` (seconds, 60), ``timeout`` and ``execution_timeout`` are those of every sensor, and hold in each
    mode, as ``soft_fail`` and ``never_fail`` do. Each key of the returned dict is an XCom of its own.

    :param kind: the job's kind: ``training``, ``retraining``, ``conversion``, ``manipulation``, ``prediction`` or
        ``device_rental``.
    :param job_id: OSAI's id of the job.
    :param osai_conn_id: the connection's id.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param max_unreachable: seconds for which OSAI may be out of reach before the sensor fails. In
        ``mode="reschedule"``, where nothing is remembered between two looks, ``timeout`` bounds it.
    :param multiple_outputs: whether each key of the returned dict is an XCom of its own.
    :raises OsaiJobFailed: if the job failed.
    :raises OsaiJobCancelled: if it was cancelled.
    :raises OsaiJobTimeout: if it had not ended at the ``execution_timeout`` of a deferred sensor. It goes on.
    :raises OsaiJobLost: if it was out of sight for too long, or OSAI does not know it.
    :raises AirflowFailException: if no retry can help: a bad value, a refused token. Its cause is the OsaiError.
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
        max_unreachable: float = 3600.0,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.kind = kind
        self.job_id = job_id
        self.osai_conn_id = osai_conn_id
        self.deferrable = deferrable
        self.max_unreachable = max_unreachable
        self._seen: float | None = None
        self._start_latency = 0.0

    def execute(self, context: Context) -> Any:
        """Look once; then wait here or in the triggerer."""
        self._start_latency = max(0.0, time.time() - started_at(context)) if self.deferrable else 0.0
        with self._ended_as_asked():
            link = OsaiPortalLink.url(self.hook.settings(), JobKind.parse(self.kind), self.job_id)
            context["ti"].xcom_push(key=OsaiPortalLink().xcom_key, value=link)
            if self.deferrable:
                return self._conclude(self._first_look(), context)
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Look at the job; a passing outage is "not yet"."""
        began = time.monotonic() if self._seen is None else self._seen
        with self._ended_as_asked():
            try:
                job = self._look()
            except (OsaiUnreachable, OsaiAuthError) as error:
                if isinstance(error, OsaiAuthError) and self._seen is None:
                    raise
                self._seen = began
                dark = time.monotonic() - began
                if dark > self._watch().patience(error):
                    msg = f"not seen for {dark:.0f} s ({error})"
                    raise OsaiJobLost(msg, kind=self.kind, job_id=self.job_id) from error
                self.log.warning("Not seen for %.0f s: %s", dark, error)
                return False
            self._seen = time.monotonic()
            return PokeReturnValue(is_done=True, xcom_value=outcome(job).references()) if job.is_terminal else False

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on after the trigger fired: what counts is what OSAI says of the job now, not the event."""
        with self._ended_as_asked():
            told = JobEvent.read(event)
            if told.outcome is Outcome.LOST:
                raise OsaiJobLost(told.message, kind=self.kind, job_id=self.job_id)
            kind = JobKind.parse(self.kind)
            with self.hook.get_conn() as client:
                job = run(see(client.calls, kind, self.job_id, self._watch()), client.send)
            if told.outcome is Outcome.DEADLINE and not job.is_terminal:
                self._time_out()
            return self._conclude(job, context, told)

    @cached_property
    def hook(self) -> OsaiHook:
        """The hook of this task's connection."""
        return OsaiHook(self.osai_conn_id)

    @contextmanager
    def _ended_as_asked(self) -> Iterator[None]:
        """Skip the task instead of failing it if the user wants that, whatever the mode."""
        try:
            with no_vain_retries():
                yield
        except (OsaiError, AirflowFailException) as error:
            if not (self.soft_fail or getattr(self, "never_fail", False)):
                raise
            raise AirflowSkipException(f"Skipping, since soft_fail or never_fail is set: {error}") from error

    def _look(self) -> Job:
        with self.hook.get_conn() as client:
            return run(look(client.calls, JobKind.parse(self.kind), self.job_id), client.send)

    def _first_look(self) -> Job | None:
        """Return the job, or nothing in an outage, which the trigger outlasts."""
        try:
            return self._look()
        except OsaiUnreachable as error:
            self.log.warning("The job cannot be read now: %s", error)
            return None

    def _watch(self) -> Watch:
        return Watch(
            since=time.time(), pace=Pace(float(self.poke_interval)), max_unreachable=float(self.max_unreachable)
        )

    def _conclude(self, job: Job | None, context: Context, told: JobEvent | None = None) -> dict[str, Any]:
        if job is None or not job.is_terminal:
            self._defer(context, told)
        return outcome(job).references()

    def _time_out(self) -> NoReturn:
        """End the task at the earlier of its two time limits."""
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else math.inf
        if float(self.timeout) <= limit:
            raise AirflowSensorTimeout(f"OSAI {self.kind} job {self.job_id} had not ended after {self.timeout} s")
        msg = f"it had not ended at the sensor's execution_timeout of {self.execution_timeout}; it was not cancelled"
        raise OsaiJobTimeout(msg, kind=self.kind, job_id=self.job_id)

    def _defer(self, context: Context, told: JobEvent | None) -> NoReturn:
        now = time.time()
        limits = [float(self.timeout), *([self.execution_timeout.total_seconds()] if self.execution_timeout else [])]
        deadline = (told.deadline if told else None) or started_at(context) + min(limits)
        self.defer(
            trigger=OsaiJobTrigger(
                osai_conn_id=self.osai_conn_id,
                kind=self.kind,
                job_id=self.job_id,
                since=now,
                deadline=deadline,
                poll_interval=self.poke_interval,
                max_unreachable=self.max_unreachable,
                deferrals=told.once_more() if told else 0,
                cancel_on_kill=False,
                cancel_at_deadline=False,
                deferred_at=now,
                start_latency=self._start_latency,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(deadline - now, 0.0) + GRACE),
        )
