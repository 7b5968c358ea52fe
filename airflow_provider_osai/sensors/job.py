"""Waits for any OSAI job by its kind and id."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_osai.api.errors import OsaiJobLost, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.event import JobEvent, Outcome
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import look, outcome
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.operators.base import no_vain_retries, started_at
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiJobSensor"]


class OsaiJobSensor(BaseSensorOperator):
    """Waits for the end of a job, and returns the references to what it made, as the job operators do.

    It never cancels the job: it did not submit it. Works in ``mode="poke"``, ``mode="reschedule"`` and deferrable.
    ``poke_interval`` (seconds, 60) and ``timeout`` are those of every sensor; ``soft_fail`` and the like work as usual.

    :param kind: the job's kind: ``training``, ``retraining``, ``conversion``, ``manipulation``, ``prediction`` or
        ``device_rental``.
    :param job_id: OSAI's id of the job.
    :param osai_conn_id: the connection's id.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param max_unreachable: seconds for which OSAI may be out of reach before the sensor fails. In
        ``mode="reschedule"``, where nothing is remembered between two looks, ``timeout`` bounds it.
    :raises OsaiJobFailed: if the job failed.
    :raises OsaiJobCancelled: if it was cancelled.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.job_id = job_id
        self.osai_conn_id = osai_conn_id
        self.deferrable = deferrable
        self.max_unreachable = max_unreachable
        self._seen: float | None = None

    def execute(self, context: Context) -> Any:
        """Look once; then wait here or in the triggerer."""
        with no_vain_retries():
            link = OsaiPortalLink.url(self.hook.settings(), JobKind.parse(self.kind), self.job_id)
            context["ti"].xcom_push(key=OsaiPortalLink().xcom_key, value=link)
            if self.deferrable:
                return self._conclude(self._look(), context)
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Look at the job; a passing outage is "not yet"."""
        self._seen = self._seen or time.monotonic()
        with no_vain_retries():
            try:
                job = self._look()
            except OsaiUnreachable as error:
                dark = time.monotonic() - self._seen
                if dark > self.max_unreachable:
                    msg = f"not seen for {dark:.0f} s ({error})"
                    raise OsaiJobLost(msg, kind=self.kind, job_id=self.job_id) from error
                self.log.warning("Not seen for %.0f s: %s", dark, error)
                return False
            self._seen = time.monotonic()
            return PokeReturnValue(is_done=True, xcom_value=outcome(job).references()) if job.is_terminal else False

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on after the trigger fired: what counts is what OSAI says of the job now, not the event."""
        with no_vain_retries():
            told = JobEvent.read(event)
            if told.outcome is Outcome.LOST:
                raise OsaiJobLost(told.message, kind=told.kind, job_id=told.job_id)
            return self._conclude(self._look(), context, told)

    @cached_property
    def hook(self) -> OsaiHook:
        """The hook of this task's connection."""
        return OsaiHook(self.osai_conn_id)

    def _look(self) -> Job:
        with self.hook.get_conn() as client:
            return run(look(client.calls, JobKind.parse(self.kind), self.job_id), client.send)

    def _conclude(self, job: Job, context: Context, told: JobEvent | None = None) -> dict[str, Any]:
        if not job.is_terminal:
            self._defer(context, told.once_more() if told else 0)
        return outcome(job).references()

    def _defer(self, context: Context, deferrals: int) -> NoReturn:
        now = time.time()
        left = float(self.timeout) - (now - started_at(context))
        self.defer(
            trigger=OsaiJobTrigger(
                osai_conn_id=self.osai_conn_id,
                kind=self.kind,
                job_id=self.job_id,
                since=now,
                poll_interval=self.poke_interval,
                max_unreachable=self.max_unreachable,
                deferrals=deferrals,
                cancel_on_kill=False,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(left, 1.0)),
        )
