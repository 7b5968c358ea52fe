"""The base class of all operators that submit a job: submit, wait, and cancel the job with its task."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from abc import abstractmethod
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, conf

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiError,
    OsaiJobCancelled,
    OsaiJobLost,
    OsaiJobStopped,
    OsaiJobTimeout,
)
from airflow_provider_osai.api.models import TERMINAL_STATES, JobKind, JobState
from airflow_provider_osai.assets.events import create_asset_events, suppress_asset_events
from airflow_provider_osai.compat import TaskDeferralError, TaskDeferralTimeout
from airflow_provider_osai.hooks.deployment import load_deployment
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.checkpoint import Generation
from airflow_provider_osai.jobs.flow import Flow, run
from airflow_provider_osai.jobs.idempotency import Bond, TaskKey
from airflow_provider_osai.jobs.lifecycle import (
    WaitOptions,
    cancel,
    end_at_deadline,
    get_job,
    get_job_persistently,
    raise_for_state,
    retry_while_unreachable,
    wait,
)
from airflow_provider_osai.jobs.polling import PollSchedule
from airflow_provider_osai.jobs.progress_log import PollLogger
from airflow_provider_osai.jobs.submission import (
    ENDED_BADLY,
    UNKNOWN_ID,
    Submission,
    SubmissionPlan,
    cancel_duplicates,
    cancel_superseded,
    find_jobs,
    find_jobs_persistently,
    submit,
    submit_or_reconnect,
)
from airflow_provider_osai.jobs.summary_log import format_metrics, log_job_message, log_summary
from airflow_provider_osai.jobs.wanted import ENDED, GONE, JOB, JOB_ID, job_id_in, state_in
from airflow_provider_osai.links.portal import OsaiPortalLink, leave_links_as_pushed
from airflow_provider_osai.observability import metrics, tracing
from airflow_provider_osai.operators._capacity import report_capacity
from airflow_provider_osai.operators._outputs import push_outputs, referenced_outputs
from airflow_provider_osai.operators._state_store import job_checkpoint_store
from airflow_provider_osai.operators.base import OsaiOperator, fail_without_retry, started_at
from airflow_provider_osai.triggers.event import JobEvent, Outcome, task_try
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import BaseOperatorLink
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job, JobKind
    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.api.settings import OsaiSettings
    from airflow_provider_osai.jobs.checkpoint import JobCheckpoint, JobCheckpointStore
    from airflow_provider_osai.jobs.early_stopping import StopRules
    from airflow_provider_osai.jobs.flow import Flow
    from airflow_provider_osai.jobs.idempotency import Deployment, TaskKey

__all__ = [
    "JOB",
    "OsaiJobOperator",
    "wait_options",
    "webhook_enabled",
    "webhook_schedule",
    "webhook_url",
]

T = TypeVar("T")
WEBHOOK_POLL_INTERVAL: Final = 600.0
"""Seconds between two polls while a webhook is expected; ``[osai] webhook_poll_interval`` overrides it."""
KILL_TIMEOUT: Final = 5.0
"""Connect and read timeout of the requests of a kill, in seconds; each of the two may take four times as long."""
STATE_TIMEOUT: Final = 3.0
"""Maximum seconds to read the task's state from Airflow. The supervisor ends this process after 5."""
DECISION_TIMEOUT: Final = 4.5
"""Maximum seconds for which the task waits for the decision and the cancellation before it ends."""
KILL_CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks of a sleeping task whether it was killed."""
KILLED_STATES: Final = ENDED | {GONE, "restarting"}
"""States of a task in which no later try reconnects to its job: marked, cleared, deleted.

In all other states the task continues, here or elsewhere: a supervisor that lost its connection to the API server, was
evicted, or was superseded by the next try also ends its task's process.
"""
UNREADABLE: Final = "unreadable"
GRACE = 300.0
"""Seconds after the deadline at which Airflow ends the deferral itself, in case no triggerer runs."""
MOVED_TIMEOUT = 60.0
"""Maximum seconds to look for a job that was submitted through another connection, to cancel it."""
DEFERRALS = "osai_deferrals"
"""The XCom with the number of triggers of this task that failed."""


def wait_options(task: OsaiJobOperator, context: Context) -> WaitOptions:
    """Return the options of a wait from now to the ``execution_timeout``, which counts from the task's start.

    :raises OsaiArgumentError: if an interval is not a number of seconds above 0, or ``stop_when`` is invalid.
    """
    for name in ("poll_interval", "unreachable_timeout"):
        value = getattr(task, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise OsaiArgumentError(f"{name} = {value!r}: a number of seconds above 0 is needed")
    now = time.time()
    limit = task.execution_timeout.total_seconds() if task.execution_timeout else None
    return WaitOptions(
        since=now,
        deadline=task.carried_deadline or (None if limit is None else started_at(context) + limit),
        schedule=PollSchedule(float(task.poll_interval)),
        unreachable_timeout=float(task.unreachable_timeout),
        on_poll=PollLogger(task.log, since=now),
        wait_for_ready=task.wait_for_ready,
        stop_rules=task.stop_rules,
        warn=task.log.warning,
    )


def webhook_enabled(use_webhook: bool | None, settings: OsaiSettings, log: Any) -> bool:
    """Return whether to request a webhook for the job's end.

    :param use_webhook: the operator's argument; ``None``: if the connection is configured for webhooks.
    :raises OsaiArgumentError: if it is ``True`` and the connection is not configured for webhooks.
    """
    if use_webhook is False or settings.takes_webhooks:
        return use_webhook is not False
    missing = settings.missing_webhook_extra
    if use_webhook:
        msg = f"use_webhook = True: the connection has no {missing}; see docs/webhooks.md"
        raise OsaiArgumentError(msg)
    if settings.webhook_base_url:
        log.warning("The connection has a webhook_base_url but no %s: the job is only polled", missing)
    return False


def webhook_url(settings: OsaiSettings, osai_conn_id: str, owner: TaskKey, deployment: Deployment) -> str:
    """Return the webhook URL, signed for this task instance; it is valid for thirty days."""
    # Imported here because most tasks use no webhook.
    from airflow_provider_osai.webhooks.address import address
    from airflow_provider_osai.webhooks.token import WebhookToken, seal

    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    token = WebhookToken(osai_conn_id, owner).sign(secrets)
    return address(str(settings.webhook_base_url), seal(token, deployment.secret))


def webhook_schedule(schedule: PollSchedule) -> PollSchedule:
    """Return the poll schedule while a webhook is expected: a slow poll, in case the webhook is lost."""
    interval = conf.getfloat("osai", "webhook_poll_interval", fallback=WEBHOOK_POLL_INTERVAL)
    return PollSchedule(max_interval=max(schedule.max_interval, interval), min_interval=interval)


class OsaiJobOperator(OsaiOperator):
    """Submits a job to OSAI, waits for its end, and returns the ids of its results.

    Returns ``kind``, ``job_id``, ``state``, the ids of the results (``model_id``, ``dataset_id``, ``conversion_id``,
    ``device_id``) and ``metrics``. Those that the Dag refers to, as in ``train.output["model_id"]``, are also XComs of
    their own; see ``multiple_outputs``. Right after submission it pushes the XCom ``osai_job``, with ``kind``,
    ``job_id`` and ``conn_id``, the XCom ``job_id`` if the Dag refers to it, and the portal link. The time limit is the
    task's ``execution_timeout``, counted from the task's start; then the job is cancelled. For a job that the sandbox
    only simulated, the result has ``simulated``: ``True``, and the task log a warning; results of a real OSAI have no
    such key.

    :param osai_conn_id: the connection's id.
    :param deferrable: wait in the triggerer instead of occupying a worker slot. Default: Airflow's
        ``[operators] default_deferrable``.
    :param wait_for_completion: ``False``: return right after submission; an ``OsaiJobSensor`` can wait later. Default:
        ``True``.
    :param poll_interval: maximum seconds between two polls, default 30; polls are more frequent while the job is new or
        almost finished.
    :param durable: ``True`` (default): a retry reconnects to the job that an earlier try left running, and a cleared
        task cancels it first; see docs/reliability.md. ``False``: every try submits a new job.
    :param cancel_on_kill: cancel the job when the task is killed, marked or cleared, on a worker or while deferred.
        Default: ``True``.
    :param unreachable_timeout: maximum seconds without a successful poll before the task gives up waiting, default
        3600; the job is not cancelled then. Also the maximum seconds for which a submission waits for room while OSAI
        is busy, a quota is reached or there is no credit (429, or what the contract gives these meanings); see
        docs/capacity.md.
    :param use_webhook: while deferred, have OSAI call a webhook at the job's end, and poll slowly; see
        docs/webhooks.md. ``None`` (default): if the connection is configured for webhooks. ``True``: fail if it is not.
    :raises OsaiJobFailed: if the job failed.
    :raises OsaiJobCancelled: if the job was cancelled.
    :raises OsaiJobTimeout: if the job had not ended at the task's ``execution_timeout``.
    :raises OsaiJobLost: if no poll succeeded for ``unreachable_timeout``.
    :raises OsaiBusy: if OSAI had no room for the job for ``unreachable_timeout``.
    :raises AirflowFailException: if no retry can help: an invalid value, a rejected token or request, a response that
        does not fit the contract. Its cause is the OsaiError.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (OsaiPortalLink(),)
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    wait_for_ready: ClassVar[bool] = False
    """Whether the task waits for a device to be ready, not for the end of the job."""
    carried_deadline: float | None = None
    """The deadline in the trigger's event, in seconds since the epoch."""
    _result: dict[str, Any] | None = None
    """The task's result, once the job has succeeded."""
    _start_latency = 0.0
    """Seconds that Airflow took to start this try."""
    _doubtful_key: str | None = None
    """The idempotency key under which a second job may have been submitted."""

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_for_completion: bool = True,
        poll_interval: float = 30.0,
        durable: bool = True,
        cancel_on_kill: bool = True,
        unreachable_timeout: float = 3600.0,
        use_webhook: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.durable = durable
        self.unreachable_timeout = unreachable_timeout
        self.use_webhook = use_webhook
        self.cancel_on_kill = cancel_on_kill
        self._context: Context | None = None
        self._job: tuple[JobKind, str] | None = None
        self._client: OsaiClient | None = None
        self._killed = False
        self._decision: threading.Thread | None = None
        self._is_cancelled = False

    @abstractmethod
    def build_request(self) -> JobRequest:
        """Return the request for the job.

        :raises OsaiArgumentError: on an invalid value.
        """

    @property
    def stop_rules(self) -> StopRules | None:  # for subclasses
        """When to stop the job before its end; ``None``: never. For subclasses."""
        return None

    def find_existing_result(self, client: OsaiClient) -> Job | None:  # for subclasses
        """Return an ended job to use instead of submitting one; called right before a submission. For subclasses."""
        return None

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:  # for subclasses
        """Return the task's result for a job that has ended; raise the error of its state if it did not succeed."""
        return dict(raise_for_state(job, wait_for_ready=self.wait_for_ready).references())

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job or reconnect to it, then wait for it here or in the triggerer."""
        if self._context is None:  # not for the next job of a resumed task
            self._start_latency = max(0.0, time.time() - started_at(context))
        self._context = context
        leave_links_as_pushed(self)
        with fail_without_retry():
            request = self.build_request()
            watch = wait_options(self, context)
            # A trigger that cannot be serialized must fail before a job is submitted that no task could wait for.
            json.dumps(self._trigger(request.kind, "", watch).serialize())
            with self._connected() as client:
                job = self._submit(client, request, context, watch)
                if self.wait_for_completion:
                    return self._wait_or_defer(context, client, job, watch)
                log_job_message(self.log, job)
                suppress_asset_events(self)  # the job may still fail
                self._job = None  # no longer this task's to cancel, even if Airflow kills this process now
                return push_outputs(self, context, dict(job.references()), but=(JOB_ID,))

    @tracing.traced(tracing.RESUME)
    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Continue after the trigger fired. The job is read again: the event only says which one."""
        self._context = context
        leave_links_as_pushed(self)
        with fail_without_retry():
            job_event = self._event_for_current_job(JobEvent.parse(event), context)
            kind = JobKind.parse(job_event.kind)
            self._job = (kind, job_event.job_id)
            self.carried_deadline = job_event.deadline
            self._doubtful_key = job_event.reference
            with self._connected() as client:
                watch = wait_options(self, context)
                # A trigger that lost the job has already waited for the unreachable_timeout.
                flow = get_job(client.calls, kind, job_event.job_id)
                if job_event.outcome is not Outcome.LOST:
                    flow = get_job_persistently(client.calls, kind, job_event.job_id, watch)
                job = self._read_job(client, flow, kind, job_event.job_id)
                if job_event.outcome is Outcome.DEADLINE:
                    job = self._at_deadline(client, job, watch)
                elif job_event.outcome is Outcome.EARLY_STOP:
                    job = self._at_deadline(client, job, watch, job_event.reason or "a rule of stop_when")
                return self._wait_or_defer(context, client, job, watch, job_event)

    def _read_job(self, client: OsaiClient, flow: Flow[Job], kind: JobKind, job_id: str) -> Job:
        """Run a flow that reads the job.

        :raises OsaiJobLost: which is retryable, whatever the error: the job exists, and a retry reconnects to it.
        """
        try:
            return self._run(client, flow)
        except OsaiJobLost:
            raise
        except OsaiError as error:
            msg = f"reading the job failed ({error}). It was not cancelled; a retry reconnects"
            raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error

    def _at_deadline(self, client: OsaiClient, job: Job, watch: WaitOptions, reason: str | None = None) -> Job:
        """Return a job that ended by itself; otherwise cancel it, unless the trigger has, and raise OsaiJobTimeout.

        :param reason: why the job was stopped before its deadline, if it was; OsaiJobStopped is raised then.
        """
        if job.state is JobState.CANCELLED:
            log_summary(self.log, job)
            self._raise_timeout(job.kind, job.id, "it was cancelled", reason)
        return job if watch.is_over(job) else self._cancel_at_deadline(client, job.kind, job.id, reason)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task, also if Airflow reports that its deferral failed.

        If the trigger failed, defer again on the same job, a few times. If Airflow ended the deferral at its time
        limit, because no triggerer did, cancel the job.
        """
        leave_links_as_pushed(self)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            job_id = self._own_job_id(context)
            deferrals = int(self._pull_own_xcom(context, DEFERRALS) or 0)
            if not job_id:
                raise
            is_over = isinstance(error, TaskDeferralTimeout)
            context["ti"].xcom_push(key=DEFERRALS, value=deferrals + 1)
            job_event = JobEvent(
                kind=self.build_request().kind,
                job_id=str(job_id),
                outcome=Outcome.DEADLINE if is_over else Outcome.ERROR,
                message=f"{type(error).__name__}: {error}",
                deferrals=deferrals,
                deadline=(self._pull_own_xcom(context, JOB) or {}).get("deadline"),
                task_try=task_try(context["ti"]),
            )
            return self.execute_complete(context, job_event.payload())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # its signature
        """Return the job's inputs and outputs for OpenLineage; see docs/lineage.md."""
        # Imported here because OpenLineage is an extra.
        from airflow_provider_osai.lineage.extractor import extract_lineage

        settings = self._client.settings if self._client else self.hook.settings()
        return extract_lineage(self.build_request(), settings, self._job[1] if self._job else None, self._result)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _event_for_current_job(self, event: JobEvent, context: Context) -> JobEvent:
        """Return the event; if it is about another job, or names none, an event that has this task's job read again.

        After a clear, the trigger of the earlier try may see the end of its job, and resume the new try with it.

        :raises OsaiJobLost: if neither the event nor the XCom names the job.
        """
        kind = self.build_request().kind
        if event.job_id and event.task_try == task_try(context["ti"]):
            return event.model_copy(update={"kind": kind})
        job_id = self._own_job_id(context) or event.job_id
        if not job_id:
            msg = f"neither the trigger's event nor the XCom {JOB} names the job; a retry finds it"
            raise OsaiJobLost(msg, kind=kind, job_id=UNKNOWN_ID)
        if event.job_id == job_id:
            return event.model_copy(update={"kind": kind})
        self.log.warning("Resumed by an event for OSAI job %s; this task waits for job %s", event.job_id or "?", job_id)
        return event.model_copy(update={"kind": kind, "job_id": job_id, "outcome": Outcome.ERROR, "deferrals": 0})

    def _on_key(self, context: Context, key: str) -> None:
        """Called with the idempotency key before a job is submitted under it. For subclasses."""

    def _on_job(self, context: Context, client: OsaiClient, job: Job) -> None:
        """Called with the job after it was submitted or found, and with the job that has ended. For subclasses."""

    def _update_asset_events(self, context: Context, result: dict[str, Any]) -> None:
        """Put the result into the events of the task's assets. For subclasses."""
        settings = self._client.settings if self._client else self.hook.settings()
        create_asset_events(self, context, result, settings.asset_region)

    def _own_job_id(self, context: Context) -> str | None:
        """Return the id of this task's latest job."""
        return job_id_in(self._pull_own_xcom(context, JOB))

    def _pull_own_xcom(self, context: Context, key: str) -> Any:
        ti = context["ti"]
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

    @property
    def _bond(self) -> Bond:
        if self.wait_for_ready:
            return Bond.RENTS
        if not self.cancel_on_kill:
            return Bond.KEEPS
        return Bond.WAITS if self.wait_for_completion else Bond.SUBMITS

    def _submission_plan(self, client: OsaiClient, request: JobRequest, context: Context) -> SubmissionPlan:
        ti, settings = context["ti"], client.settings
        map_index = -1 if ti.map_index is None else ti.map_index
        owner = TaskKey(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.max_tries)
        deployment = load_deployment(settings.deployment)
        has_webhook = self._has_webhook(client)
        url = webhook_url(settings, self.osai_conn_id, owner, deployment) if has_webhook else None
        run = context.get("dag_run")
        return SubmissionPlan(
            request=request,
            owner=owner,
            store=self._checkpoint_store(context),
            generation=Generation(ti.max_tries, self.retries or 0, getattr(run, "clear_number", 0) or 0),
            deployment=deployment,
            bond=self._bond,
            run=f"{getattr(run, 'run_after', None)}/{getattr(run, 'start_date', None)}",
            conn_id=self.osai_conn_id,
            endpoint=settings.endpoint_digest,
            try_number=ti.try_number,
            has_legacy_keys=True,
            webhook_url=url,
            log=self.log.warning,
            on_key=partial(self._on_key, context),
            on_doubt=self._remember_doubt,
            on_capacity=partial(report_capacity, ti),
            on_submission=partial(metrics.count_submission, request.kind),
            resubmit_states=TERMINAL_STATES if self.wait_for_ready else ENDED_BADLY,
            unreachable_timeout=float(self.unreachable_timeout),
            timeout=settings.timeout,
            find_existing_result=self.find_existing_result,
            on_moved=self._cancel_moved,
        )

    @tracing.traced(tracing.SUBMIT)
    def _submit(self, client: OsaiClient, request: JobRequest, context: Context, watch: WaitOptions) -> Job:
        ti, plan = context["ti"], self._submission_plan(client, request, context)
        job = submit_or_reconnect(client, plan) if self.durable else self._submit_new(client, plan, context)
        self._job = (job.kind, job.id)
        if self._killed:  # while there was no id to cancel the job by
            self.on_kill()
        self._raise_if_killed()
        self.log.info("OSAI %s job %s is %s", job.kind, job.id, job.state)
        about = {"kind": job.kind.value, "job_id": job.id, "conn_id": self.osai_conn_id}
        if self.requested_outputs or (self.requested_outputs is None and referenced_outputs(self, (JOB_ID,))):
            ti.xcom_push(key=JOB_ID, value=job.id)  # now, for tasks that run although this one may fail
        ti.xcom_push(key=JOB, value=about | ({"deadline": watch.deadline} if watch.deadline else {}))
        ti.xcom_push(key=OsaiPortalLink().xcom_key, value=OsaiPortalLink.url(client.settings, job.kind, job.id))
        self._on_job(context, client, job)
        return job

    def _submit_new(self, client: OsaiClient, plan: SubmissionPlan, context: Context) -> Job:
        """Submit a job for this try alone, without a checkpoint (``durable=False``)."""
        key = plan.key(f"{plan.run_of(plan.generation.number)} try {plan.try_number}", 0)
        self._on_key(context, key)
        existing = self.find_existing_result(client)
        if existing is not None:
            return existing
        job = submit(
            client,
            plan.request,
            key,
            plan.webhook_url,
            unreachable_timeout=plan.unreachable_timeout,
            visibility=plan.visibility,
            on_resubmit=partial(plan.repeat, key),
            on_capacity=plan.on_capacity,
            log=self.log.warning,
        )
        plan.on_submission(Submission.SUBMITTED)
        return job

    def _remember_doubt(self, key: str) -> None:
        self._doubtful_key = key

    def _cancel_moved(self, checkpoint: JobCheckpoint, *, is_mine: bool) -> None:
        """Cancel the job that an earlier try submitted through another connection.

        A job at another base URL of the same connection is left alone: the present token may not be meant for that URL.

        :raises OsaiJobLost: if this task's job is at another base URL of the same connection.
        """
        job_name = f"OSAI {checkpoint.kind} job {checkpoint.job_id or UNKNOWN_ID}"
        conn_id = str(checkpoint.conn_id)
        if conn_id == self.osai_conn_id:
            if is_mine:
                msg = (
                    f"submitted to another base URL of the connection {conn_id}, which has changed since. No job is "
                    "submitted: change the connection back and retry, or clear the task to submit a new job"
                )
                raise OsaiJobLost(msg, kind=checkpoint.kind, job_id=checkpoint.job_id or UNKNOWN_ID)
            self.log.warning("%s may continue: connection %s had another base URL then", job_name, conn_id)
            return
        try:
            with OsaiHook(conn_id).get_conn() as client:
                jobs = find_jobs_persistently(client, checkpoint, timeout=MOVED_TIMEOUT)
                for job in jobs:  # found by the idempotency key: the id alone may be of any job
                    found = checkpoint.model_copy(update={"job_id": job.id})
                    cancel_superseded(client, found, self.log.warning, MOVED_TIMEOUT)
        except Exception as error:  # the connection may be deleted, and backends raise anything
            reason = str(error) if isinstance(error, OsaiError) else type(error).__name__
            self.log.warning("%s may continue, using connection %s failed: %s", job_name, conn_id, reason)
        else:
            if not jobs:
                self.log.warning("%s was not found through connection %s; check the OSAI portal", job_name, conn_id)

    def _has_webhook(self, client: OsaiClient) -> bool:
        return (
            self.deferrable
            and self.wait_for_completion
            and webhook_enabled(self.use_webhook, client.settings, self.log)
        )

    def _wait_or_defer(
        self, context: Context, client: OsaiClient, job: Job, watch: WaitOptions, event: JobEvent | None = None
    ) -> dict[str, Any]:
        """Wait for the job here, or defer; return the result if it succeeded."""
        if not watch.is_over(job) and self.deferrable:
            watch = replace(watch, schedule=webhook_schedule(watch.schedule)) if self._has_webhook(client) else watch
            self._defer(self._trigger(job.kind, job.id, watch, event.next_deferral() if event else 0))
        if not watch.is_over(job):
            try:
                with tracing.span(tracing.WAIT, job.kind, job.id):
                    job = self._run(client, wait(client.calls, job.kind, job.id, watch), retry=False)
            except OsaiJobTimeout:
                job = self._cancel_at_deadline(client, job.kind, job.id)
            except OsaiJobStopped as error:
                job = self._cancel_at_deadline(client, job.kind, job.id, error.reason)
        self._cancel_late_duplicate(client, job)
        metrics.count_job_over(job, time.time() - started_at(context))
        self._on_job(context, client, job)
        log_summary(self.log, job)
        log_job_message(self.log, job)
        if job.is_terminal and job.state is not JobState.SUCCEEDED:
            self._push_end(context, job)
        result = self.build_result(client, job)
        self._update_asset_events(context, result)
        self._result = result
        self._push_result(context, result)
        measured = format_metrics(result["metrics"]) or "no metrics"
        self.log.info("OSAI %s job %s %s: %s", job.kind, job.id, job.state, measured)
        return result

    def _push_result(self, context: Context, result: dict[str, Any]) -> None:
        """Push the keys of the result that the Dag refers to. For subclasses."""
        push_outputs(self, context, result, but=(JOB_ID,))

    def _push_end(self, context: Context, job: Job) -> None:
        """Push how a job ended that did not succeed, for the list of jobs: the task will return nothing."""
        with suppress(Exception):  # the job's failure is what matters
            end = {"state": job.state.value, **({"simulated": True} if job.simulated else {})}
            context["ti"].xcom_push(key=JOB, value=self._pull_own_xcom(context, JOB) | end)

    def _cancel_late_duplicate(self, client: OsaiClient, job: Job) -> None:
        """Cancel a second job with this job's key, whose submission arrived after the client gave up on it."""
        if self._doubtful_key is None:
            return
        try:
            jobs = find_jobs(client, job.kind, self._doubtful_key)
            if jobs and len(jobs) > 1:
                cancel_duplicates(client, jobs, self.log.warning, keep=job.id)
        except OsaiError as error:
            message = "A second job with the idempotency key %s may be running, check the OSAI portal: %s"
            self.log.warning(message, self._doubtful_key, error)

    def _defer(self, trigger: OsaiJobTrigger) -> NoReturn:
        """Defer the task; from then on, the trigger cancels what it waits for."""
        self._raise_if_killed()  # a killed task must not be deferred
        remaining = None if trigger.deadline is None else max(0.0, trigger.deadline - time.time()) + GRACE
        self._job = None
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=None if remaining is None else timedelta(seconds=remaining),
        )

    def _trigger(self, kind: JobKind, job_id: str, watch: WaitOptions, deferrals: int = 0) -> OsaiJobTrigger:
        return OsaiJobTrigger(
            kind=kind.value,
            job_id=job_id,
            until_ready=watch.wait_for_ready,
            reference=self._doubtful_key,
            stop_when=watch.stop_rules.to_dict() if watch.stop_rules else None,
            **self._trigger_arguments(watch, deferrals),
        )

    def _trigger_arguments(self, watch: WaitOptions, deferrals: int) -> dict[str, Any]:
        """Return the arguments that are the same for the trigger of a job and that of a batch."""
        return {
            "osai_conn_id": self.osai_conn_id,
            "since": watch.since,
            "deadline": watch.deadline,
            "poll_interval": watch.schedule.max_interval,
            "shortest_interval": watch.schedule.min_interval,
            "max_unreachable": watch.unreachable_timeout,
            "deferrals": deferrals,
            "cancel_on_kill": self.cancel_on_kill,
            "deferred_at": time.time(),
            "start_latency": self._start_latency,
            "task_try": task_try(self._context["ti"]) if self._context else "",
        }

    def on_kill(self) -> None:
        """Cancel the job if it has not ended and this try still owns it.

        Airflow calls this in a signal handler, which may interrupt a request to Airflow. So a thread reads whether the
        task was killed, or only this process; the job of a task that continues is left to the next try. Airflow also
        calls this at the task's ``execution_timeout``, outside a signal handler.
        """
        try:
            if self._job is not None and self._client is not None and self.cancel_on_kill:
                self._cancel_on_kill(self._client, *self._job)
        finally:
            self._killed = True

    def _cancel_on_kill(self, client: OsaiClient, kind: JobKind, job_id: str) -> None:
        ti = self._context["ti"] if self._context else None
        if isinstance(sys.exception(), AirflowTaskTimeout):
            with suppress(OsaiJobTimeout), client.clone(KILL_TIMEOUT) as clone:
                self._cancel_at_deadline(clone, kind, job_id)
        elif not hasattr(ti, "get_task_states"):  # not run by Airflow
            self._cancel_killed("killed", kind, job_id, unreachable_timeout=0.0)
        elif self._decision is None or not self._decision.is_alive():
            # Also at a second signal: the task may have been marked or cleared since the first.
            self._decision = threading.Thread(target=self._cancel_if_killed, args=(ti, kind, job_id), daemon=True)
            self._decision.start()

    @property
    def _is_left_to_next_try(self) -> bool:
        """Whether this process was asked to end although the task was not killed."""
        return self._killed and self._decision is not None and not self._is_cancelled

    def _cancel_if_killed(self, ti: Any, kind: JobKind, job_id: str) -> None:
        state = self._state_in_airflow(ti)
        if state in KILLED_STATES and not self._is_superseded(ti):
            if state == "restarting":
                # A cleared running task starts a retry, which must not reconnect even if the cancellation fails now.
                with suppress(Exception):
                    self._give_up_jobs(job_id)
            self._cancel_killed(state, kind, job_id, unreachable_timeout=float(self.unreachable_timeout))
        else:
            message = "%s continues: this process was asked to end, but its task is %s"
            self.log.warning(message, self._job_text(kind, job_id), state)

    def _job_text(self, kind: JobKind, job_id: str) -> str:
        """Return what a kill is about, for the log."""
        return f"OSAI {kind} job {job_id}"

    def _cancel_killed(self, state: str, kind: JobKind, job_id: str, unreachable_timeout: float) -> None:
        """Cancel the job of a killed task; retry for as long as this process lives."""
        assert self._client is not None  # noqa: S101 - for the type
        self._is_cancelled = True
        message = "Cancelling OSAI %s job %s failed, it may continue: %s"
        try:
            with self._client.clone(KILL_TIMEOUT) as client:
                flow = retry_while_unreachable(
                    partial(cancel, client.calls, kind, job_id),
                    timeout=unreachable_timeout,
                    log=lambda text: self.log.warning(message, kind, job_id, text),
                )
                job = run(flow, client.send)
            outcome = f"had already ended: {job.state}" if job.is_terminal else "cancelled"
            if not job.is_terminal:
                metrics.count_kill(kind, is_cancelled=True)
            self.log.info("OSAI %s job %s %s, because its task is %s", kind, job_id, outcome, state)
        except OsaiError as error:
            metrics.count_kill(kind, is_cancelled=False)
            self.log.error("Cancelling OSAI %s job %s failed, check the OSAI portal: %s", kind, job_id, error)

    def _state_in_airflow(self, ti: Any) -> str:
        """Return the task's present state in Airflow; ``"gone"`` if the task was deleted."""
        map_index = -1 if ti.map_index is None else ti.map_index
        until = time.monotonic() + STATE_TIMEOUT
        while time.monotonic() < until:
            try:
                states = ti.get_task_states(
                    dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
                )
                return str(state_in(states, ti.run_id, ti.task_id, map_index))
            except Exception:  # an unreachable API server is not a kill
                time.sleep(KILL_CHECK_INTERVAL)
        return UNREADABLE

    def _is_superseded(self, ti: Any) -> bool:
        """Return whether a later try of the task owns the job now."""
        try:
            checkpoint = self._checkpoint_store(self._context).read() if self._context else None
        except Exception:  # the state alone decides then
            return False
        if checkpoint is None or checkpoint.try_number is None:
            return False
        return bool(checkpoint.try_number > ti.try_number)

    def _checkpoint_store(self, context: Context) -> JobCheckpointStore:
        return job_checkpoint_store(context)

    def _connected(self) -> OsaiClient:
        self._client = self.hook.get_conn()
        self._client.sleep = self._sleep
        return self._client

    def _cancel_at_deadline(self, client: OsaiClient, kind: JobKind, job_id: str, reason: str | None = None) -> Job:
        """Cancel a job at its deadline and raise OsaiJobTimeout; return the job if it ended just before.

        :param reason: why the job is stopped before its deadline, if it is; OsaiJobStopped is raised then.
        """
        flow = end_at_deadline(
            client.calls,
            kind,
            job_id,
            unreachable_timeout=float(self.unreachable_timeout),
            log=lambda text: self.log.warning("OSAI %s job %s may continue: %s", kind, job_id, text),
            wait_for_ready=self.wait_for_ready,
        )
        try:
            job = self._run(client, flow)
        except OsaiError as error:
            self._raise_timeout(kind, job_id, f"cancelling it failed, it may continue and cost money: {error}", reason)
        # Cancelled already: the response to an earlier attempt was lost.
        if job.state is JobState.CANCELLED or not (job.is_terminal or (self.wait_for_ready and job.is_ready)):
            log_summary(self.log, job)
            self._raise_timeout(kind, job_id, "it was cancelled", reason)
        return job

    def _raise_timeout(self, kind: JobKind, job_id: str, outcome: str, reason: str | None = None) -> NoReturn:
        """Record that the job was cancelled, so that a retry does not reconnect, and raise its error."""
        self._is_cancelled = True
        try:
            self._save_cancelled(job_id)
        except Exception as error:  # Airflow may be unreachable; the timeout is what matters
            self.log.warning("Saving that OSAI job %s was cancelled failed: %s", job_id, type(error).__name__)
        if reason is not None:
            raise OsaiJobStopped(f"{reason}; {outcome}", kind=kind, job_id=job_id, reason=reason)
        msg = f"not ended within the task's execution_timeout of {self.execution_timeout}; {outcome}"
        raise OsaiJobTimeout(msg, kind=kind, job_id=job_id)

    def _give_up_jobs(self, job_id: str) -> None:
        """Record that no job of the task is wanted any more. For subclasses with several."""
        self._save_cancelled(job_id)

    def _save_cancelled(self, job_id: str) -> None:
        if self._context is None:
            return
        store = self._checkpoint_store(self._context)
        checkpoint = store.read()
        if checkpoint is not None and checkpoint.job_id == job_id:
            store.write(checkpoint.model_copy(update={"cancelled": True}))

    def _run(self, client: OsaiClient, flow: Flow[T], *, retry: bool = True) -> T:
        """Run a flow. Between its requests, a kill ends it within half a second.

        :param retry: ``False``: send each request once, for a flow that polls; a retry's sleep would ignore a kill.
        """
        return run(flow, metrics.count_polls(partial(client.send, retry=retry)), client.sleep)

    def _sleep(self, seconds: float) -> None:
        """Sleep in slices, since a signal handler does not end a sleep.

        :raises OsaiJobCancelled: if the task was killed and its job cancelled.
        :raises OsaiJobLost: if only this process was asked to end; a retry reconnects to the job.
        """
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, KILL_CHECK_INTERVAL))
            self._raise_if_killed()

    def _raise_if_killed(self) -> None:
        if not self._killed or self._job is None:
            return
        if self._decision is not None:
            self._decision.join(DECISION_TIMEOUT)
        kind, job_id = self._job
        if self._is_cancelled or (self.cancel_on_kill and self._decision is None):
            raise OsaiJobCancelled("the task was killed, and the job cancelled", kind=kind, job_id=job_id)
        msg = "this process was asked to end; the job continues, and a retry reconnects to it"
        raise metrics.uncounted(OsaiJobLost(msg, kind=kind, job_id=job_id))
