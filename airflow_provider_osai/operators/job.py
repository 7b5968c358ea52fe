"""The one operator that submits a job, waits for it and reports it; the concrete ones only say which job."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_osai.api.errors import OsaiError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.models import TERMINAL_STATES, JobKind, JobState
from airflow_provider_osai.assets.events import announce, keep_silent
from airflow_provider_osai.compat import TaskDeferralError, TaskDeferralTimeout
from airflow_provider_osai.hooks.deployment import load_deployment
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.claim import ENDED_BADLY, Claim, claim, retire
from airflow_provider_osai.jobs.event import JobEvent, Outcome
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.ledger import Generation
from airflow_provider_osai.jobs.lifecycle import (
    Watch,
    cancel_duplicates,
    find,
    look,
    outcome,
    persist,
    see,
    submit,
    visibility_timeout,
    wait,
)
from airflow_provider_osai.jobs.reference import Bond, Owner
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.operators.base import no_vain_retries, started_at
from airflow_provider_osai.operators.stopping import OsaiStoppingOperator
from airflow_provider_osai.operators.waiting import takes_webhook, watch_of, webhook_pace, webhook_url
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.jobs.flow import Flow
    from airflow_provider_osai.jobs.ledger import Entry

__all__ = ["JOB", "OsaiJobOperator"]

T = TypeVar("T")

GRACE = 300.0
"""Seconds after the deadline at which Airflow itself ends a deferral, in case no triggerer runs."""
JOB = "osai_job"
"""The XCom that says which job this is, of what kind, and through which connection; for the panel."""
MOVED_PATIENCE = 60.0
"""Seconds for which a job that was submitted through another connection is looked for, to cancel it."""
DEFERRALS = "osai_deferrals"
"""The XCom that counts the triggers of this task that died."""


class OsaiJobOperator(OsaiStoppingOperator):
    """Submits a job to OSAI, waits for its end and returns references to what it made.

    Returns ``kind``, ``job_id``, ``state``, the ids that the job made (``model_id``, ``dataset_id``, ``conversion_id``,
    ``device_id``) and ``metrics``; each is also an XCom of its own. Right after submission it pushes the XCom
    ``job_id`` and the portal link. The time limit is the task's ``execution_timeout``, counted from its start: then the
    job is cancelled.

    :param osai_conn_id: the connection's id.
    :param deferrable: wait in the triggerer, without holding a worker. Default: Airflow's
        ``[operators] default_deferrable``.
    :param wait_for_completion: ``False``: return right after submission; an ``OsaiJobSensor`` can wait later.
    :param poll_interval: seconds between two looks at the job at the most; while it is young or nearly done they are
        closer together.
    :param durable: a retry of the task adopts the job that an earlier try left running, and a cleared task cancels it
        first; see docs/reliability.md. ``False``: every try submits anew.
    :param cancel_on_kill: cancel the job when the task is killed, marked or cleared, on a worker or while deferred.
    :param max_unreachable: seconds for which OSAI may be out of reach before the task gives up waiting; the job is not
        cancelled then. Also for how long an OSAI that takes no more jobs at the moment (429, or what the contract binds
        as ``busy``) is asked again.
    :param use_webhook: deferred, let OSAI tell of the end, and poll as a safety net only; see docs/webhooks.md.
        ``None``: if the connection is set up for webhooks. ``True``: fail if it is not.
    :raises OsaiJobFailed: if the job failed.
    :raises OsaiJobCancelled: if it was cancelled.
    :raises OsaiJobTimeout: if it had not ended at the task's ``execution_timeout``.
    :raises OsaiJobLost: if it was out of sight for too long.
    :raises AirflowFailException: if no retry can help: a bad value, a refused token or request, a contract that does
        not fit. Its cause is the OsaiError.
    """

    operator_extra_links = (OsaiPortalLink(),)
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    carried_deadline: float | None = None
    """The deadline that came back from the trigger, in seconds since the epoch."""
    _told: dict[str, Any] | None = None
    """What is handed on, once the job has ended well."""
    _start_latency = 0.0
    """Seconds that Airflow took to start this try."""
    _doubtful: str | None = None
    """The idempotency key under which a second job may have been submitted."""

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_for_completion: bool = True,
        poll_interval: float = 30.0,
        durable: bool = True,
        cancel_on_kill: bool = True,
        max_unreachable: float = 3600.0,
        use_webhook: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cancel_on_kill=cancel_on_kill, **kwargs)
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.durable = durable
        self.max_unreachable = max_unreachable
        self.use_webhook = use_webhook

    @abstractmethod
    def build_request(self) -> JobRequest:
        """Return what OSAI is asked to do; raise OsaiArgumentError on a bad value."""

    def instead(self, calls: Calls) -> Flow[Job | None]:  # noqa: ARG002 - for subclasses
        """Return an ended job that stands in for a new one, or nothing; run right before one would be submitted."""
        yield from ()
        return None

    def report(self, client: OsaiClient, job: Job) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return what is handed on of a job that has ended; raise what a bad end means."""
        return outcome(job, until_ready=self.until_ready).references()

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit or adopt the job, then wait for it here or in the triggerer."""
        if self._context is None:  # and not a resumed task, which goes on to its next job
            self._start_latency = max(0.0, time.time() - started_at(context))
        self._context = context
        with no_vain_retries():
            request = self.build_request()
            watch = watch_of(self, context)
            # A trigger that cannot be written down must be found before there is a job that nobody waits for.
            json.dumps(self._trigger(request.kind, "", watch).serialize())
            with self._connected() as client:
                job = self._submit(client, request, context, watch)
                if self.wait_for_completion:
                    return self._conclude(context, client, job, watch)
                keep_silent(self)  # nobody knows yet whether there will be something to tell of
                self._job = None  # no more ours to stop, even if Airflow kills this process while it tidies up
                return job.references()

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on after the trigger fired: what counts is what OSAI says of the job now, not the event."""
        self._context = context
        with no_vain_retries():
            told = self._of_my_job(JobEvent.read(event), context)
            kind = JobKind.parse(told.kind)
            self._job = (kind, told.job_id)
            self.carried_deadline, self._doubtful = told.deadline, told.reference
            with self._connected() as client:
                watch = watch_of(self, context)
                # A trigger that has lost sight of the job has been patient enough.
                sight = look(client.calls, kind, told.job_id)
                if told.outcome is not Outcome.LOST:
                    sight = see(client.calls, kind, told.job_id, watch)
                job = self._run(client, self._retryable(sight, kind, told.job_id))
                if told.outcome is Outcome.DEADLINE:
                    job = self._at_deadline(client, job, watch)
                return self._conclude(context, client, job, watch, told)

    def _retryable(self, flow: Flow[Job], kind: JobKind, job_id: str) -> Flow[Job]:
        """Have the task fail with OsaiJobLost, which a retry mends, if a job that is there cannot be read."""
        try:
            return (yield from flow)
        except OsaiJobLost:
            raise
        except OsaiError as error:
            msg = f"it cannot be read ({error}); it was not cancelled, and a retry of the task adopts it"
            raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error

    def _at_deadline(self, client: OsaiClient, job: Job, watch: Watch) -> Job:
        """Return a job that ended by itself; stop it and raise OsaiJobTimeout if it was or is to be cancelled."""
        if job.state is JobState.CANCELLED:
            self._timed_out(job.kind, job.id, "it was cancelled")
        return job if watch.is_over(job) else self._stop(client, job.kind, job.id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task, also when Airflow says that its deferral failed.

        If the trigger died, the task is deferred again on the same job, a few times. If Airflow ended the deferral at
        its time limit, because no triggerer did, the job is stopped.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            job_id, deferrals = self._recall(context, "job_id"), int(self._recall(context, DEFERRALS) or 0)
            if not job_id:
                raise
            is_over = isinstance(error, TaskDeferralTimeout)
            context["ti"].xcom_push(key=DEFERRALS, value=deferrals + 1)
            told = JobEvent(
                kind=self.build_request().kind,
                job_id=str(job_id),
                outcome=Outcome.DEADLINE if is_over else Outcome.ERROR,
                message=f"{type(error).__name__}: {error}",
                deferrals=deferrals,
                deadline=(self._recall(context, JOB) or {}).get("deadline"),
            )
            return self.execute_complete(context, told.payload())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 - its signature
        """Return what the job read and made, for OpenLineage; see docs/lineage.md."""
        # Not at the top: only OpenLineage asks, which is an extra.
        from airflow_provider_osai.lineage.jobs import lineage_of  # noqa: PLC0415

        settings = self._client.settings if self._client else self.hook.settings()
        return lineage_of(self.build_request(), settings, self._job[1] if self._job else None, self._told)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _of_my_job(self, told: JobEvent, context: Context) -> JobEvent:
        """Return the event, or what it means for this task's job if it is about another, or does not say about which.

        After a clear, the trigger of before may see the end of its job, and Airflow may wake the new try with that.

        :raises OsaiJobLost: if neither the event nor an XCom says which job it is.
        """
        mine, kind = str(self._recall(context, "job_id") or told.job_id), self.build_request().kind
        if not mine:
            msg = "neither the trigger's event nor the XCom job_id says which job it is; a retry finds it"
            raise OsaiJobLost(msg, kind=kind, job_id="of unknown id")
        if told.job_id == mine:
            return told.model_copy(update={"kind": kind})
        self.log.warning("Woken by an event about OSAI job %s; this task waits for %s", told.job_id or "?", mine)
        return told.model_copy(update={"kind": kind, "job_id": mine, "outcome": Outcome.ERROR, "deferrals": 0})

    def _announce(self, context: Context, reference: str) -> None:
        """Be told the reference before anything is submitted under it; for subclasses."""

    def _announce_result(self, context: Context, result: dict[str, Any]) -> None:
        """Say in the events of the task's assets what its job has made; for subclasses."""
        announce(self, context, result)

    def _recall(self, context: Context, key: str) -> Any:
        ti = context["ti"]
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

    @property
    def _bond(self) -> Bond:
        if self.until_ready:
            return Bond.RENTS
        if not self.cancel_on_kill:
            return Bond.KEEPS
        return Bond.WAITS if self.wait_for_completion else Bond.SUBMITS

    def _claim(self, client: OsaiClient, request: JobRequest, context: Context) -> Claim:
        ti, settings = context["ti"], client.settings
        map_index = -1 if ti.map_index is None else ti.map_index
        owner = Owner(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.max_tries)
        url = webhook_url(settings, self.osai_conn_id, owner) if self._awaits_webhook(client) else None
        run = context.get("dag_run")
        return Claim(
            request=request,
            owner=owner,
            ledger=self._ledger(context),
            generation=Generation(ti.max_tries, self.retries or 0, getattr(run, "clear_number", 0) or 0),
            deployment=load_deployment(settings.deployment),
            bond=self._bond,
            run=f"{getattr(run, 'run_after', None)}/{getattr(run, 'start_date', None)}",
            conn_id=self.osai_conn_id,
            endpoint=settings.endpoint_digest,
            try_number=ti.try_number,
            webhook_url=url,
            note=self.log.warning,
            announce=partial(self._announce, context),
            doubtful=self._note_doubt,
            spent=TERMINAL_STATES if self.until_ready else ENDED_BADLY,
            patience=float(self.max_unreachable),
            timeout=settings.timeout,
            instead=self.instead,
            elsewhere=self._leave,
        )

    def _submit(self, client: OsaiClient, request: JobRequest, context: Context, watch: Watch) -> Job:
        ti, wish = context["ti"], self._claim(client, request, context)
        if self.durable:
            job = self._run(client, claim(client.calls, wish))
        else:
            reference = wish.reference(f"{wish.run_of(wish.generation.number)} try {ti.try_number}", 0)
            self._announce(context, reference)
            standing_in = self._run(client, self.instead(client.calls))
            how: dict[str, Any] = {"patience": wish.patience, "visibility": visibility_timeout(wish.timeout)}
            how |= {"repeated": partial(self._note_doubt, reference), "note": self.log.warning}
            flow = submit(client.calls, request, reference, wish.webhook_url, **how)
            job = standing_in or self._run(client, flow)
        self._job = (job.kind, job.id)
        if self._killed:  # the kill came while there was no id to cancel by
            self.on_kill()
        self._go_on()
        self.log.info("OSAI %s job %s is %s", job.kind, job.id, job.state)
        about = {"kind": job.kind.value, "job_id": job.id, "conn_id": self.osai_conn_id}
        ti.xcom_push(key="job_id", value=job.id)
        ti.xcom_push(key=JOB, value=about | ({"deadline": watch.deadline} if watch.deadline else {}))
        ti.xcom_push(key=OsaiPortalLink().xcom_key, value=OsaiPortalLink.url(client.settings, job.kind, job.id))
        return job

    def _note_doubt(self, reference: str) -> None:
        self._doubtful = reference

    def _leave(self, entry: Entry, *, is_mine: bool) -> None:
        """Stop the job that an earlier try submitted elsewhere: through another connection, or to another address.

        The address of before is not asked: nothing says that the token of now is for it.

        :raises OsaiJobLost: if this task's job is at another address of the same connection.
        """
        where = f"OSAI {entry.kind} job {entry.job_id or 'of unknown id'}"
        if entry.conn_id == self.osai_conn_id:
            if is_mine:
                msg = (
                    f"it was submitted to another address of the connection {entry.conn_id}, which was changed since. "
                    "Nothing is submitted: change the connection back and retry, or clear the task to submit anew"
                )
                raise OsaiJobLost(msg, kind=entry.kind, job_id=entry.job_id or "of unknown id")
            self.log.warning("%s may go on: connection %s had another address then", where, entry.conn_id)
            return
        kind, note, patience = JobKind.parse(entry.kind), self.log.warning, MOVED_PATIENCE
        try:
            with OsaiHook(str(entry.conn_id)).get_conn() as client:
                flow = persist(partial(find, client.calls, kind, entry.reference), patience=patience)
                jobs = run(flow, client.send) or []
                for job in jobs:  # found by its key: the id alone could be anybody's
                    its = entry.model_copy(update={"job_id": job.id})
                    run(retire(client.calls, its, note, patience), client.send)
        except Exception as error:  # noqa: BLE001 - the connection may be gone, and backends raise what they like
            named = str(error) if isinstance(error, OsaiError) else type(error).__name__
            self.log.warning("%s may go on, connection %s could not be used: %s", where, entry.conn_id, named)
        else:
            if not jobs:
                self.log.warning("%s was not found through connection %s; look into the portal", where, entry.conn_id)

    def _awaits_webhook(self, client: OsaiClient) -> bool:
        can_be_woken = self.deferrable and self.wait_for_completion
        return can_be_woken and takes_webhook(self.use_webhook, client.settings, self.log)

    def _conclude(
        self, context: Context, client: OsaiClient, job: Job, watch: Watch, told: JobEvent | None = None
    ) -> dict[str, Any]:
        """Wait for the job as long as there is something to wait for, and return its references if it succeeded."""
        if not watch.is_over(job) and self.deferrable:
            watch = replace(watch, pace=webhook_pace(watch.pace)) if self._awaits_webhook(client) else watch
            self._defer(job, watch, told.once_more() if told else 0)
        if not watch.is_over(job):
            try:
                job = self._run(client, wait(client.calls, job.kind, job.id, watch))
            except OsaiJobTimeout:
                job = self._stop(client, job.kind, job.id)
        self._cancel_late_duplicate(client, job)
        done = self.report(client, job)
        self._announce_result(context, done)
        self._told = done
        self.log.info("OSAI %s job %s %s: %s", job.kind, job.id, job.state, json.dumps(done["metrics"]))
        return done

    def _cancel_late_duplicate(self, client: OsaiClient, job: Job) -> None:
        """Cancel a second job under this job's key, whose submission arrived after its client gave up."""
        if self._doubtful is None:
            return
        try:
            jobs = self._run(client, find(client.calls, job.kind, self._doubtful))
            if jobs and len(jobs) > 1:
                self._run(client, cancel_duplicates(client.calls, jobs, self.log.warning, keep=job.id))
        except OsaiError as error:
            self.log.warning("A second job may run under the key %s, look into the portal: %s", self._doubtful, error)

    def _defer(self, job: Job, watch: Watch, deferrals: int) -> NoReturn:
        self._go_on()  # nobody may wait for a job whose task was killed meanwhile
        left = None if watch.deadline is None else max(0.0, watch.deadline - time.time()) + GRACE
        self._job = None  # the trigger's to stop from now on
        self.defer(
            trigger=self._trigger(job.kind, job.id, watch, deferrals),
            method_name="execute_complete",
            timeout=None if left is None else timedelta(seconds=left),
        )

    def _trigger(self, kind: JobKind, job_id: str, watch: Watch, deferrals: int = 0) -> OsaiJobTrigger:
        return OsaiJobTrigger(
            osai_conn_id=self.osai_conn_id,
            kind=kind.value,
            job_id=job_id,
            since=watch.since,
            deadline=watch.deadline,
            poll_interval=watch.pace.longest,
            shortest_interval=watch.pace.shortest,
            max_unreachable=watch.max_unreachable,
            deferrals=deferrals,
            cancel_on_kill=self.cancel_on_kill,
            until_ready=watch.until_ready,
            deferred_at=time.time(),
            reference=self._doubtful,
            start_latency=self._start_latency,
        )
