"""Operator that submits many jobs of one kind in one task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, cast

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiError,
    OsaiJobCancelled,
    OsaiJobError,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.assets.events import suppress_asset_events
from airflow_provider_osai.compat import TaskDeferralError, TaskDeferralTimeout
from airflow_provider_osai.jobs.batch_checkpoint import JOBS_PER_VALUE, BatchCheckpoints
from airflow_provider_osai.jobs.batch_errors import dump_errors, load_errors
from airflow_provider_osai.jobs.batch_log import BatchProgressLog, summary_lines
from airflow_provider_osai.jobs.batch_poller import MAX_BATCH_SIZE
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import NOT_FOUND_GRACE, cancel, get_job, retry_while_unreachable
from airflow_provider_osai.jobs.submission import (
    call_persistently,
    cancel_superseded,
    find_jobs,
    first_intent,
    reconnect,
    submit_intent,
    submit_or_reconnect,
)
from airflow_provider_osai.observability import metrics
from airflow_provider_osai.operators.base import fail_without_retry, started_at
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiManipulateDatasetOperator
from airflow_provider_osai.operators.job import (
    DEFERRALS,
    KILL_TIMEOUT,
    OsaiJobOperator,
    wait_options,
    webhook_schedule,
)
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiRetrainModelOperator, OsaiTrainModelOperator
from airflow_provider_osai.triggers.batch import OsaiJobBatchTrigger
from airflow_provider_osai.triggers.cancellation import BATCH
from airflow_provider_osai.triggers.event import JobEvent, Outcome

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.requests import JobRequest
    from airflow_provider_osai.jobs.checkpoint import JobCheckpoint
    from airflow_provider_osai.jobs.lifecycle import WaitOptions
    from airflow_provider_osai.jobs.submission import SubmissionPlan

__all__ = ["OsaiJobBatchOperator"]

OPERATORS: Final[Mapping[JobKind, type[OsaiJobOperator]]] = {
    JobKind.TRAINING: OsaiTrainModelOperator,
    JobKind.RETRAINING: OsaiRetrainModelOperator,
    JobKind.CONVERSION: OsaiConvertModelOperator,
    JobKind.MANIPULATION: OsaiManipulateDatasetOperator,
    JobKind.PREDICTION: OsaiPredictOperator,
}
"""The operators whose arguments a batch takes. A device is rented by a task of its own, which its release follows."""
NOT_IN_A_BATCH: Final = frozenset(
    {*OsaiJobOperator.template_fields, "stop_when", *OsaiTrainModelOperator.tracking_fields}
)
"""Arguments of the operators that a batch does not take: those of the batch itself, and those of a wait for one job."""
FAIL: Final = "fail"
COLLECT: Final = "collect"
MAX_REQUESTS: Final = 5_000
"""Maximum jobs of a batch: their ids are an XCom and arguments of a trigger."""
MAX_LOG_LINES: Final = 20
"""Maximum log lines about the submission of single jobs."""
MAX_CONCURRENT_REQUESTS: Final = 16
"""Maximum jobs that are cancelled at the same time."""
MAX_MESSAGE: Final = 500
"""Maximum characters of a failure's message in a result: XComs should be small."""


class OsaiJobBatchOperator(OsaiJobOperator):
    """Submits many jobs of one kind in one task, waits for all, and returns their results as a list, in order.

    That OSAI queues jobs is documented (docs.onestepai.com/getting_started/three_main_actions); all calls are assumed.
    Airflow's work for a task is done once, not for each job. Each job is as durable as that of a task of its own: a
    retry reconnects to those that run, keeps those that succeeded, and submits only what is missing or failed. A kill
    and the ``execution_timeout`` cancel all jobs. While the task is deferred, up to 100 jobs are polled with one
    request. See docs/batch.md.

    Each result has ``index``, ``kind``, ``job_id``, ``state``, ``metrics`` and the ids that the kind's operator
    returns, such as ``model_id``; that of a job that did not succeed also ``message``. ``job_id`` is ``None`` if OSAI
    rejected the request. A gate takes the list as ``candidate``.

    :param kind: ``training``, ``retraining``, ``conversion``, ``manipulation`` or ``prediction``.
    :param requests: a list with the arguments of each job: dicts of the arguments of the kind's operator, or with
        ``argument`` the values of one of them. At most 5,000. An empty list returns an empty list.
    :param argument: the name of the argument whose values ``requests`` has. ``None`` (default): it has dicts.
    :param arguments: arguments of all jobs, by name. Those in ``requests`` take precedence.
    :param max_in_flight: maximum jobs that have not ended at the same time; the task submits more when half of them
        have ended. ``None`` (default): no limit, so that the task is deferred only once.
    :param on_failure: ``fail`` (default): after a job has failed, no more are submitted, and when those that run have
        ended, the task fails; a retry continues. ``collect``: the results have the failures too.
    :param max_failures: with ``collect``, the maximum number of failures; a number below 1 is a share of all jobs. If
        there are more, the task fails as with ``fail``. ``None`` (default): any number.
    :param kwargs: as for ``OsaiJobOperator``, without ``wait_for_completion`` and ``multiple_outputs``.
        ``execution_timeout`` is the time limit of the whole batch. ``use_webhook`` needs the kind's ``list`` in the
        contract, since each webhook has the other jobs of the batch read too.
    :raises OsaiJobFailed: if too many jobs did not succeed.
    :raises OsaiJobTimeout: if not all jobs had ended at the task's ``execution_timeout``.
    :raises OsaiJobLost: if no poll succeeded for ``unreachable_timeout``.
    :raises AirflowFailException: if no retry can help: an invalid value, a rejected token, a rejected request with
        ``on_failure="fail"``. Its cause is the OsaiError.
    """

    template_fields = (
        *("kind", "requests", "argument", "arguments", "max_in_flight", "on_failure", "max_failures"),
        *OsaiJobOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "arguments": "json"}
    operator_extra_links = ()
    fixed_arguments: ClassVar[Mapping[str, Any]] = {
        "wait_for_completion": True,
        "multiple_outputs": False,
    }

    _base_plan: SubmissionPlan
    """The submission plan that all jobs share."""
    _operators: Sequence[OsaiJobOperator] = ()
    """An operator for each job, which builds its request and its result."""
    _jobs: dict[int, Job]
    """The jobs as they were read last, by index."""
    _errors: dict[int, OsaiError]
    """Why there is no job, by index: the request was rejected, or OSAI does not have the job any more."""
    _failures: list[OsaiError]
    """Why jobs that OSAI has run did not succeed."""
    _intents: dict[int, JobCheckpoint]
    """The jobs to submit in place of those of earlier tries, by index."""
    _doubtful_keys: dict[int, str]
    """Idempotency keys under which a second job may have been submitted."""
    _cancelled_ids: set[str]
    _submitted_at: dict[int, float]
    _read_ids: list[str]
    """The ids of jobs that an earlier process submitted."""
    _checkpoints = BatchCheckpoints(None)
    _batch_id = ""
    _log_lines = 0
    _results: Sequence[Mapping[str, Any]] = ()
    """The results of the jobs that have ended, once all have."""

    def __init__(
        self,
        *,
        kind: str,
        requests: Sequence[Any],
        argument: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        max_in_flight: int | None = None,
        on_failure: str = FAIL,
        max_failures: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**self.fixed_arguments, **kwargs)
        self.kind = kind
        self.requests = requests
        self.argument = argument
        self.arguments = arguments
        self.max_in_flight = max_in_flight
        self.on_failure = on_failure
        self.max_failures = max_failures

    @property
    def job_kind(self) -> JobKind:
        """The kind of the jobs.

        :raises OsaiArgumentError: if there is no such kind, or it cannot be submitted in a batch.
        """
        kind = JobKind.parse(self.kind)
        if kind not in OPERATORS:
            raise OsaiArgumentError(f"kind = {self.kind!r}: a batch takes {', '.join(OPERATORS)}")
        return kind

    def build_request(self) -> JobRequest:
        """Return the request for the first job.

        :raises OsaiArgumentError: if there is none.
        """
        if not self._operators:
            self._operators = self.build_operators()
        if not self._operators:
            raise OsaiArgumentError("requests: there are none")
        return self._operators[0].build_request()

    def build_operators(self) -> list[OsaiJobOperator]:
        """Return an operator for each job, with its arguments; they are not tasks.

        :raises OsaiArgumentError: on an invalid value, with its index.
        """
        self._check_options()
        operator_class = OPERATORS[self.job_kind]
        names = [name for name in operator_class.template_fields if name not in NOT_IN_A_BATCH]
        operators: list[OsaiJobOperator] = []
        for index, values in enumerate(self._values()):
            given = {**(self.arguments or {}), **values}
            if unknown := sorted(map(str, given.keys() - set(names))):
                known = ", ".join(names)
                raise OsaiArgumentError(f"requests[{index}] has {', '.join(unknown)}; the arguments are {known}")
            try:
                operator = operator_class(
                    task_id=self.task_id, osai_conn_id=self.osai_conn_id, wait_for_completion=True, **given
                )
                operator.build_request()
            except OsaiArgumentError as error:
                raise OsaiArgumentError(f"requests[{index}]: {error}") from error
            except TypeError as error:
                raise OsaiArgumentError(f"requests[{index}]: {error}") from None
            operators.append(operator)
        return operators

    def _check_options(self) -> None:
        if self.on_failure not in (FAIL, COLLECT):
            raise OsaiArgumentError(f"on_failure = {self.on_failure!r}: choose {FAIL} or {COLLECT}")
        self._most_in_flight()
        self._most_failures(1)

    def _values(self) -> list[Mapping[str, Any]]:
        """Return the arguments of each job."""
        requests = self.requests
        # A set has another order in each process, and a job is known by its place.
        if isinstance(requests, (str, bytes, Mapping, Set)) or not isinstance(requests, Iterable):
            raise OsaiArgumentError(f"requests = {requests!r:.200}: a list is needed")
        several = list(requests)
        if len(several) > MAX_REQUESTS:
            raise OsaiArgumentError(f"requests has {len(several)} jobs; a batch has at most {MAX_REQUESTS:,}")
        if self.argument is not None:
            return [{self.argument: value} for value in several]
        for index, value in enumerate(several):
            if not isinstance(value, Mapping):
                msg = f"requests[{index}] = {value!r:.200}: a dict is needed, or argument='...' to name the argument"
                raise OsaiArgumentError(msg)
        return several

    def _most_in_flight(self) -> int:
        if self.max_in_flight is None:
            return MAX_REQUESTS
        number = _number("max_in_flight", self.max_in_flight, 1)
        if not number.is_integer():
            raise OsaiArgumentError(f"max_in_flight = {self.max_in_flight!r}: a whole number is needed")
        return int(number)

    def _most_failures(self, total: int) -> float:
        """Return how many jobs may fail."""
        if self.on_failure == FAIL:
            return 0
        if self.max_failures is None:
            return total
        number = _number("max_failures", self.max_failures, 0)
        return round(number * total, 6) if number < 1 else number  # 0.29 * 100 is a little less than 29

    def execute(self, context: Context) -> list[dict[str, Any]]:  # type: ignore[override]  # a list in place of a dict
        """Submit all jobs or reconnect to them, then wait for them here or in the triggerer."""
        self._start_latency = max(0.0, time.time() - started_at(context))
        self._begin(context)
        with fail_without_retry():
            self._operators = self.build_operators()
            options = wait_options(self, context)
            if not self._operators:
                return []
            with self._connected() as client:
                self._prepare(client, context)
                return self._proceed(context, client, options)

    def execute_complete(  # type: ignore[override]  # a list in place of a dict
        self, context: Context, event: Any
    ) -> list[dict[str, Any]]:
        """Continue after the trigger fired: read all jobs, and submit more or return the results."""
        self._begin(context)
        with fail_without_retry():
            self._operators = self.build_operators()
            job_event = JobEvent.parse(event)
            self.carried_deadline = job_event.deadline
            options = wait_options(self, context)
            with self._connected() as client:
                self._prepare(client, context)
                batch = self._pull_own_xcom(context, BATCH)
                ids = batch.get("job_ids") if isinstance(batch, dict) else None
                if not isinstance(ids, list) or len(ids) > len(self._operators):
                    msg = f"the XCom {BATCH} does not have the jobs of the batch; a retry finds them"
                    raise OsaiJobLost(msg, kind=self.job_kind, job_id=self._batch_id)
                if job_event.job_id != self._batch_id:
                    self.log.warning("Resumed by an event for another batch of jobs; this task waits for its own")
                    job_event = job_event.model_copy(update={"outcome": Outcome.ERROR, "deferrals": 0})
                self._errors |= load_errors(batch.get("errors"), self.job_kind)
                self._doubtful_keys |= _keys(batch.get("doubtful_keys"))
                known = {index: str(job_id) for index, job_id in enumerate(ids) if job_id is not None}
                self._read_ids = list(known.values())
                self._read_all(client, known, is_lost=job_event.outcome is Outcome.LOST)
                if job_event.outcome is Outcome.DEADLINE and self._has_not_ended_in_time():
                    self._load_checkpoints(client, context)
                    self._raise_batch_timeout()
                return self._proceed(context, client, options, job_event)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task, also if Airflow reports that its deferral failed, as ``OsaiJobOperator`` does."""
        try:
            return super(OsaiJobOperator, self).resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            batch = self._pull_own_xcom(context, BATCH)
            if not isinstance(batch, dict):
                raise
            deferrals = int(self._pull_own_xcom(context, DEFERRALS) or 0)
            context["ti"].xcom_push(key=DEFERRALS, value=deferrals + 1)
            job_event = JobEvent(
                kind=self.job_kind,
                job_id=str(batch.get("batch_id")),
                outcome=Outcome.DEADLINE if isinstance(error, TaskDeferralTimeout) else Outcome.ERROR,
                message=f"{type(error).__name__}: {error}",
                deferrals=deferrals,
                deadline=batch.get("deadline"),
            )
            return self.execute_complete(context, job_event.payload())

    def _begin(self, context: Context) -> None:
        self._context = context
        self._jobs = {}
        self._errors = {}
        self._failures = []
        self._intents = {}
        self._doubtful_keys = {}
        self._cancelled_ids = set()
        self._submitted_at = {}
        self._read_ids = []

    def _prepare(self, client: OsaiClient, context: Context) -> None:
        """Prepare the submission: the plan that all jobs share, and the batch's id."""
        base = replace(
            self._submission_plan(client, self._operators[0].build_request(), context), log=self._log_submission
        )
        names = (base.owner.dag_id, base.owner.task_id, base.owner.map_index, base.owner.run_id)
        generation = base.run_of(base.generation.number)
        if not self.durable:
            generation = f"{generation} try {base.try_number}"
        self._batch_id = base.deployment.sign("batch", *names, generation)[:20]
        self._job = (self.job_kind, self._batch_id)  # from now on, a kill cancels what is known
        self._base_plan = base

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the inputs and outputs of all jobs for OpenLineage; see docs/lineage.md."""
        # Imported here because OpenLineage is an extra.
        from airflow_provider_osai.lineage.extractor import extract_batch_lineage

        settings = self._client.settings if self._client else self.hook.settings()
        requests = [operator.build_request() for operator in self._operators or self.build_operators()]
        return extract_batch_lineage(self.job_kind, requests, settings, self._results)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _has_webhook(self, client: OsaiClient) -> bool:
        if f"{self.job_kind}.list" in client.calls.contract:
            return super()._has_webhook(client)
        if self.use_webhook:
            raise OsaiArgumentError(f"use_webhook = True: a batch needs {self.job_kind}.list in the contract")
        return False

    def _load_checkpoints(self, client: OsaiClient, context: Context) -> None:
        store = context.get("task_state_store") if self.durable else None
        can_list = f"{self.job_kind}.list" in client.calls.contract
        if store is not None and can_list:
            # A list that ignores the key, or does not exist after all, could not find a job whose id is not written.
            key = first_intent(self._plan_of(0)).reference
            find = partial(find_jobs, client, self.job_kind, key)
            timeout = float(self.unreachable_timeout)
            can_list = call_persistently(client, find, timeout=timeout, log=self.log.warning) is not None
        self._checkpoints = BatchCheckpoints(store, can_list=can_list, is_first_try=context["ti"].try_number <= 1)

    def _plan_of(self, index: int) -> SubmissionPlan:
        """Return the plan of one job."""
        base, operator = self._base_plan, self._operators[index]
        return replace(
            base,
            request=operator.build_request(),
            store=self._checkpoints.of(index),
            run=f"{base.run}[{index}]",
            has_legacy_keys=False,  # version 0.1 had no batches
            find_existing_result=operator.find_existing_result,
            on_doubt=partial(self._doubtful_keys.__setitem__, index),
        )

    def _proceed(
        self,
        context: Context,
        client: OsaiClient,
        options: WaitOptions,
        event: JobEvent | None = None,
    ) -> list[dict[str, Any]]:
        """Submit and wait until all jobs have ended, or defer; return the results."""
        is_loaded = False
        while True:
            if self._waiting() and not self._has_failed():
                try:
                    if not is_loaded:
                        self._load_checkpoints(client, context)
                        is_loaded = True
                    self._submit_more(client)
                except OsaiError as error:
                    self._raise_if_jobs_run(error, context, event)
                    raise
                finally:
                    with suppress(Exception):  # what stopped the submission is what matters
                        self._checkpoints.flush()
                self._push_batch(context, options)
            running = self._running()
            if not running:
                if not self._waiting() or self._has_failed():
                    return self._finish(client)
                continue
            resume_at = 0
            if self._waiting() and not self._has_failed():
                resume_at = self._most_in_flight() // 2
            if len(running) <= resume_at:
                continue
            if self.deferrable:
                if self._has_webhook(client):
                    options = replace(options, schedule=webhook_schedule(options.schedule))
                has_failed = event is not None and event.outcome is not Outcome.ENDED
                deferrals = event.next_deferral() if event and has_failed else 0
                self._defer(self._batch_trigger(running, options, resume_at, deferrals))
            self._wait_here(client, running, options, resume_at)

    def _raise_if_jobs_run(self, error: OsaiError, context: Context, event: JobEvent | None) -> None:
        """Raise an error that a retry follows, in place of one that would end the task while its jobs run."""
        may_run = bool(self._running()) or event is not None or context["ti"].try_number > 1
        if may_run and not error.retryable:
            msg = f"submitting more jobs failed ({error}). None was cancelled; a retry reconnects to those that run"
            raise OsaiJobLost(msg, kind=self.job_kind, job_id=self._batch_id) from error

    def _waiting(self) -> list[int]:
        """Return the indexes of the jobs that are neither known nor rejected."""
        return [index for index in range(len(self._operators)) if not self._is_known(index)]

    def _has_failed(self) -> bool:
        """Return whether so many jobs have failed that no more are submitted."""
        return self._failed() > self._most_failures(len(self._operators))

    def _failed(self) -> int:
        ended_badly = sum(job.is_terminal and job.state is not JobState.SUCCEEDED for job in self._jobs.values())
        return ended_badly + len(self._errors)

    def _running(self) -> dict[int, Job]:
        """Return the jobs that have not ended, by their index."""
        return {index: job for index, job in self._jobs.items() if not job.is_terminal}

    def _submit_more(self, client: OsaiClient) -> None:
        """Reconnect to all jobs of earlier tries; then submit more while there is room and not too many have failed."""
        known = self._checkpoints.known
        # Without checkpoints, each job of a retry may have been submitted.
        is_open = self.durable and not self._checkpoints.remembers and (self._base_plan.try_number or 1) > 1
        self._cancel_surplus(client)
        for index in self._waiting():
            if index not in self._intents and (is_open or index in known):
                self._attempt(index, partial(reconnect, client))
        waiting = self._waiting()
        for index in [each for each in waiting if each in self._intents]:
            if not self._has_room():
                return
            self._attempt(index, partial(submit_intent, client, intent=self._intents[index]))
        new = [each for each in waiting if each not in self._intents]
        for place, index in enumerate(new):
            if not self._has_room():
                return
            if place % JOBS_PER_VALUE == 0:
                room = min(JOBS_PER_VALUE, self._most_in_flight() - len(self._running()))
                self._checkpoints.prepare({each: first_intent(self._plan_of(each)) for each in new[place:][:room]})
            if self.durable:
                self._attempt(index, partial(submit_or_reconnect, client))
            else:
                self._attempt(index, partial(self._submit_new, client, context=self._own_context))

    def _has_room(self) -> bool:
        """Return whether another job may be submitted."""
        return len(self._running()) < self._most_in_flight() and not self._has_failed()

    def _attempt(self, index: int, get: Callable[[SubmissionPlan], Job | JobCheckpoint]) -> None:
        """Submit a job or reconnect to it. A rejected request is a failure of this job alone.

        :param get: returns the job, or the intent of one that is to be submitted when there is room.
        """
        plan = self._plan_of(index)
        try:
            found = get(plan)
            if isinstance(found, Job):
                self._jobs[index] = found
                self._submitted_at[index] = time.time()
            else:
                self._intents[index] = found
        except OsaiRequestError as error:
            self._errors[index] = error
            self._log_submission(f"requests[{index}] was rejected: {error}")
        except AirflowSkipException as error:  # an impossible conversion, with if_unsupported="skip"
            self._errors[index] = OsaiJobError(str(error), kind=self.job_kind, job_id="")
        if self._killed:
            self.on_kill()
        self._raise_if_killed()

    def _cancel_surplus(self, client: OsaiClient) -> None:
        """Cancel the jobs of an earlier try that had more requests."""
        for index, checkpoint in self._checkpoints.known.items():
            if index >= len(self._operators) and not checkpoint.cancelled:
                cancel_superseded(client, checkpoint, self._log_submission, float(self.unreachable_timeout))
                self._checkpoints.write(index, checkpoint.model_copy(update={"cancelled": True}))

    def _log_submission(self, message: str) -> None:
        """Log a message about a single job, unless there were too many."""
        self._log_lines += 1
        if self._log_lines < MAX_LOG_LINES:
            self.log.warning("%s", message)
        elif self._log_lines == MAX_LOG_LINES:
            self.log.warning("%s. Further messages about single jobs are not logged", message)

    def _push_batch(self, context: Context, options: WaitOptions) -> None:
        """Push what the resumed task, the trigger and the page need to know."""
        ids = [self._jobs[index].id if index in self._jobs else None for index in range(len(self._operators))]
        self.log.info("%d of %d OSAI %s jobs are submitted", len(self._jobs), len(ids), self.job_kind)
        batch = {
            "batch_id": self._batch_id,
            "kind": self.job_kind.value,
            "conn_id": self.osai_conn_id,
            "job_ids": ids,
            **({"deadline": options.deadline} if options.deadline else {}),
            **({"errors": dump_errors(self._errors)} if self._errors else {}),
            **({"doubtful_keys": self._doubtful_keys} if self._doubtful_keys else {}),
        }
        context["ti"].xcom_push(key=BATCH, value=batch)

    def _batch_trigger(
        self, running: Mapping[int, Job], options: WaitOptions, resume_at: int, deferrals: int
    ) -> OsaiJobBatchTrigger:
        return OsaiJobBatchTrigger(
            kind=self.job_kind.value,
            job_id=self._batch_id,
            job_ids=[job.id for job in running.values()],
            resume_at=resume_at,
            total=len(self._operators),
            ended=len(self._jobs) - len(running) + len(self._errors),
            failed=self._failed(),
            **self._trigger_arguments(options, deferrals),
        )

    def _wait_here(self, client: OsaiClient, running: Mapping[int, Job], options: WaitOptions, resume_at: int) -> None:
        """Poll the jobs on the worker until at most *resume_at* have not ended."""
        failed, ended = self._failed(), len(self._jobs) - len(running) + len(self._errors)
        progress = BatchProgressLog(self.log, self.job_kind, len(self._operators), ended, failed)
        left = dict(running)
        while len(left) > resume_at:
            now = time.time()
            if options.deadline is not None and now >= options.deadline:
                self._cancel_running()
                self._raise_batch_timeout()
            pause = options.schedule.next_interval(now - options.since)
            if options.deadline is not None:
                pause = min(pause, max(0.0, options.deadline - now))
            client.sleep(pause)
            self._read_all(client, {index: job.id for index, job in left.items()})
            still_running = self._running()
            for index in [index for index in left if index not in still_running]:
                del left[index]
                if index in self._jobs:
                    progress.ended(self._jobs[index])
                else:
                    progress.lost(self._errors[index])

    def _read_all(self, client: OsaiClient, ids: Mapping[int, str], *, is_lost: bool = False) -> None:
        """Read jobs, up to 100 with one request. A job that OSAI does not have any more is a failure of this job alone.

        :param is_lost: whether the trigger has already waited for an unreachable OSAI.
        :raises OsaiJobLost: if OSAI is unreachable for too long; no job was cancelled.
        """
        kind, calls = self.job_kind, client.calls
        found: dict[str, Job] = {}
        if f"{kind}.list" in calls.contract:
            several = list(dict.fromkeys(ids.values()))
            for start in range(0, len(several), MAX_BATCH_SIZE):
                with suppress(OsaiError):  # then each job is read by itself
                    jobs = client.send(calls.list_jobs(kind, several[start : start + MAX_BATCH_SIZE]), retry=False)
                    found |= {job.id: job for job in jobs}
        for index, job_id in ids.items():
            if job_id in found:
                self._jobs[index] = found[job_id]
                continue
            flow = retry_while_unreachable(
                partial(get_job, calls, kind, job_id),
                timeout=0.0 if is_lost else float(self.unreachable_timeout),
                log=self.log.warning,
            )
            try:
                self._jobs[index] = self._run(client, flow, retry=False)
            except OsaiJobLost as error:
                self._raise_if_killed()
                if time.time() - self._submitted_at.get(index, 0.0) > NOT_FOUND_GRACE:
                    self._jobs.pop(index, None)
                    self._errors[index] = error
            except OsaiJobError:  # of this task: it was killed meanwhile
                raise
            except OsaiError as error:
                msg = f"reading the jobs failed ({error}). None was cancelled; a retry reconnects"
                raise OsaiJobLost(msg, kind=kind, job_id=job_id) from error

    def _finish(self, client: OsaiClient) -> list[dict[str, Any]]:
        """Return the results of all jobs; fail if too many did not succeed."""
        if self._is_cancelled:
            raise OsaiJobCancelled(
                "the task was killed, and its jobs cancelled", kind=self.job_kind, job_id=self._batch_id
            )
        for index, key in self._doubtful_keys.items():
            self._doubtful_key = key
            if index in self._jobs:
                self._cancel_late_duplicate(client, self._jobs[index])
        waited = time.time() - started_at(self._own_context)
        for job in self._jobs.values():
            metrics.count_job_over(job, waited)
        results = [self._result_of(client, index) for index in range(len(self._operators)) if self._is_known(index)]
        self._results = results
        for line in summary_lines(self.job_kind, results):
            self.log.info("%s", line)
        if any(job.simulated for job in self._jobs.values()):
            self.log.warning("Simulated by the sandbox: the jobs were not really done, and their results are made up")
        if self._has_failed():
            suppress_asset_events(self)
            self._raise_failed(results)
        return results

    def _is_known(self, index: int) -> bool:
        return index in self._jobs or index in self._errors

    def _result_of(self, client: OsaiClient, index: int) -> dict[str, Any]:
        """Return the result of a job that has ended, or was rejected."""
        head = {"index": index, "kind": self.job_kind.value}
        error: Exception | None = self._errors.get(index)
        job = self._jobs.get(index)
        if job is not None:
            try:
                return head | self._operators[index].build_result(client, job)
            except (OsaiError, AirflowSkipException) as failure:
                error = failure
                if isinstance(failure, OsaiError):
                    self._failures.append(failure)
        state = job.state.value if job is not None else "rejected"
        if isinstance(error, OsaiJobLost):
            state = "lost"
        message = str(error)[:MAX_MESSAGE]
        return head | {"job_id": job.id if job else None, "state": state, "metrics": {}, "message": message}

    def _raise_failed(self, results: Sequence[Mapping[str, Any]]) -> NoReturn:
        """Fail the task; without retries if too many jobs failed for a reason that stays, such as a rejection."""
        bad = [result for result in results if result["state"] != JobState.SUCCEEDED]
        names = ", ".join(f"requests[{result['index']}] {result['state']}" for result in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        missing = len(self._operators) - len(results)
        rest = f"; {missing} were not submitted" if missing else ""
        msg = f"{len(bad)} of {len(self._operators)} jobs did not succeed: {names}{more}{rest}"
        lasting = [error for error in (*self._errors.values(), *self._failures) if not error.retryable]
        if len(lasting) > self._most_failures(len(self._operators)):
            raise AirflowFailException(f"{msg}. {lasting[0]}") from lasting[0]
        raise OsaiJobFailed(msg, kind=self.job_kind, job_id=self._batch_id)

    def _raise_batch_timeout(self) -> NoReturn:
        """Cancel what still runs, so that a retry does not reconnect to it, and raise OsaiJobTimeout."""
        self._cancel_running()
        self._save_cancelled("")
        succeeded = sum(job.state is JobState.SUCCEEDED for job in self._jobs.values())
        msg = (
            f"{succeeded} of {len(self._operators)} jobs succeeded within the task's execution_timeout of "
            f"{self.execution_timeout}; the others were cancelled"
        )
        raise OsaiJobTimeout(msg, kind=self.job_kind, job_id=self._batch_id)

    def _cancel_running(self) -> None:
        assert self._client is not None  # noqa: S101 - for the type
        timeout = float(self.unreachable_timeout)
        self._cancel_killed("at its deadline", self.job_kind, self._batch_id, unreachable_timeout=timeout)

    def _cancel_at_deadline(
        self, client: OsaiClient, kind: JobKind, job_id: str, reason: str | None = None
    ) -> NoReturn:
        """Airflow ended the task at its ``execution_timeout``."""
        self._cancel_running()
        self._save_cancelled(job_id)
        raise OsaiJobTimeout("the jobs were cancelled", kind=kind, job_id=job_id)

    def _job_text(self, kind: JobKind, job_id: str) -> str:
        return f"The batch of OSAI {kind} jobs {job_id}"

    def _cancel_killed(self, state: str, kind: JobKind, job_id: str, unreachable_timeout: float) -> None:
        """Cancel all jobs that are known and have not ended, several at a time."""
        assert self._client is not None  # noqa: S101 - for the type
        self._is_cancelled = True
        with self._client.clone(KILL_TIMEOUT) as client, ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as pool:

            def cancel_one(each: str) -> OsaiError | None:
                flow = retry_while_unreachable(partial(cancel, client.calls, kind, each), timeout=unreachable_timeout)
                try:
                    run(flow, client.send)
                except OsaiJobLost:
                    pass
                except OsaiError as error:
                    return error
                self._cancelled_ids.add(each)
                return None

            while ids := self._ids_to_cancel():
                errors = [error for error in pool.map(cancel_one, ids) if error is not None]
                self.log.info("Cancelled %d OSAI %s jobs: the task is %s", len(ids) - len(errors), kind, state)
                if errors:
                    message = "Cancelling %d OSAI %s jobs failed, check the OSAI portal: %s"
                    self.log.error(message, len(errors), kind, errors[0])
                    return

    def _has_not_ended_in_time(self) -> bool:
        """Return whether jobs run, or were cancelled by the trigger, at the deadline."""
        return any(job.state is JobState.CANCELLED or not job.is_terminal for job in self._jobs.values())

    @property
    def _own_context(self) -> Context:
        assert self._context is not None  # noqa: S101 - for the type
        return self._context

    def _ids_to_cancel(self) -> list[str]:
        """Return the ids of the jobs that may run and were not cancelled yet, including those of earlier tries."""
        jobs = list(self._jobs.copy().values())
        own = [job.id for job in jobs if not job.is_terminal]
        ended = {job.id for job in jobs if job.is_terminal}
        stored = [
            entry.job_id
            for index, entry in self._checkpoints.known.items()
            if entry.job_id is not None and index not in self._jobs
        ]
        handled = ended | self._cancelled_ids
        return [each for each in dict.fromkeys([*own, *stored, *self._read_ids]) if each not in handled]

    def _save_cancelled(self, _job_id: str) -> None:
        """Record which jobs were cancelled, so that a retry does not reconnect to them."""
        cancelled = {job.id for job in self._jobs.values() if job.state is JobState.CANCELLED} | self._cancelled_ids
        for index, entry in self._checkpoints.known.items():
            if entry.job_id in cancelled:
                self._checkpoints.write(index, entry.model_copy(update={"cancelled": True}))
        with suppress(Exception):  # Airflow may be unreachable; the timeout is what matters
            self._checkpoints.flush()

    def _give_up_jobs(self, _job_id: str) -> None:
        """Record that no job of this or an earlier try is wanted, so that the try after a clear does not reconnect."""
        if self._checkpoints is type(self)._checkpoints and self.durable:  # this process has submitted nothing
            self._checkpoints = BatchCheckpoints(self._own_context.get("task_state_store"))
        self._checkpoints.give_up()

    def _is_superseded(self, ti: Any) -> bool:
        tries = [entry.try_number for entry in self._checkpoints.known.values() if entry.try_number is not None]
        return bool(tries) and max(tries) > cast("int", ti.try_number)


def _keys(document: Any) -> dict[int, str]:
    """Return the idempotency keys by the index of their job; those of an XCom have texts as indexes."""
    entries = document.items() if isinstance(document, Mapping) else ()
    return {int(index): str(key) for index, key in entries if str(index).isdecimal()}


def _number(name: str, value: Any, minimum: float) -> float:
    """Return a number from an argument or a template.

    :raises OsaiArgumentError: if it is not a number, or below *minimum*.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not minimum <= number < float("inf"):
        raise OsaiArgumentError(f"{name} = {value!r}: a number from {minimum:g} is needed")
    return number
