"""Operator that finds and cancels orphaned jobs. See docs/orphans.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import XCom

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.deployment import load_deployment
from airflow_provider_osai.jobs.idempotency import JobKey, TaskKey
from airflow_provider_osai.jobs.orphans import OrphanSearch, OrphansFound
from airflow_provider_osai.jobs.wanted import ENDED, JOB, KnownJob, state_in
from airflow_provider_osai.operators._outputs import push_outputs
from airflow_provider_osai.operators.base import OsaiOperator, fail_without_retry

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["OsaiCancelOrphanedJobsOperator"]

MAX_LIST_LENGTH: Final = 100
"""Maximum number of entries of each list in the XComs. The log has a line for each job."""
MAX_TASKS: Final = 1_000
"""Maximum number of ended tasks of a Dag whose XComs are read if OSAI cannot list jobs, latest runs first."""
ACTIONS: Final = ("report", "cancel")
MAPPED_TASK: Final = re.compile(r"(.+)_(\d+)")
"""Airflow's name of a mapped task instance in its list of states; a task id may look the same."""


class OsaiCancelOrphanedJobsOperator(OsaiOperator):
    """Cancels orphaned jobs: live jobs of this Airflow that no task wants any more. By default, only reports them.

    All live jobs of the account are listed; those whose idempotency key was created by this Airflow are compared with
    their tasks. Jobs of other deployments, jobs submitted by hand, and jobs whose task cannot be determined or
    read are never cancelled. docs/orphans.md has the rules. Returns ``action``, ``checked`` (number of jobs compared),
    ``orphans``, ``cancelled`` (ids), ``unknown``, ``not_cancelled`` and ``unchecked_kinds``; each list has at most 100
    entries, the log has all. That OSAI runs jobs is documented (docs.onestepai.com); the calls that list, read and
    cancel them are assumed.

    A retry continues with the remaining orphans, and so does the next run after a kill.

    :param action: ``"report"`` (default) or ``"cancel"``.
    :param grace: minimum age of a job, a timedelta or seconds, 0 or more; younger jobs are ignored. Default: 10
        minutes.
    :param kinds: kinds of jobs, a list or comma-separated text: ``training``, ``retraining``, ``conversion``,
        ``manipulation``, ``prediction``, ``device_rental``. ``None`` (default): all.
    :param dag_ids: ids of Dags, a list or comma-separated text; only their jobs are searched for. ``None`` (default):
        all. If OSAI cannot list the jobs of a kind, the latest job of each ended task of these Dags is read; without
        ``dag_ids``, such kinds are returned as ``unchecked_kinds``.
    :raises OsaiUnreachable: if OSAI gives no usable response, for one job or for all; other orphans are still
        cancelled.
    :raises AirflowFailException: if a retry cannot help: an invalid argument, a rejected token. Its cause is the
        OsaiError.
    """

    template_fields: Sequence[str] = ("action", "grace", "kinds", "dag_ids", *OsaiOperator.template_fields)

    def __init__(
        self,
        *,
        action: Literal["report", "cancel"] | str = "report",
        grace: timedelta | float | str = timedelta(minutes=10),
        kinds: Sequence[str] | str | None = None,
        dag_ids: Sequence[str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.grace = grace
        self.kinds = kinds
        self.dag_ids = dag_ids

    def execute(self, context: Context) -> OrphansFound:
        """Report orphaned jobs, and cancel them if ``action`` is ``"cancel"``."""
        with fail_without_retry():
            if self.action not in ACTIONS:
                raise OsaiArgumentError(f"action = {self.action!r}: choose one of {', '.join(ACTIONS)}")
            grace = _parse_grace(self.grace)
            dag_ids = _parse_names("dag_ids", self.dag_ids)
            kinds = [JobKind.parse(kind) for kind in _parse_names("kinds", self.kinds) or JobKind]
            tasks = _TasksFromApi(context["ti"], self.osai_conn_id, dag_ids, self.log.warning)
            with self.hook.get_conn() as client:
                deployment = load_deployment(client.settings.deployment)
                search = OrphanSearch(client, deployment, tasks, grace=grace, dag_ids=dag_ids, log=self.log.warning)
                report = search.run(kinds, cancels=self.action == "cancel")
            self.log.info("%s", report.summary())
            if report.failures:
                raise report.failures[0]
        return push_outputs(self, context, report.found(self.action, MAX_LIST_LENGTH))


class _TasksFromApi:
    """Looks up tasks in Airflow through the Task SDK.

    :param ti: the running task instance.
    :param osai_conn_id: the connection whose jobs are searched for.
    :param dag_ids: the Dags whose tasks may be searched for jobs.
    :param log: called with messages for the log.
    """

    def __init__(
        self, ti: Any, osai_conn_id: str, dag_ids: Collection[str] | None, log: Callable[[str], object]
    ) -> None:
        self._ti = ti
        self._osai_conn_id = osai_conn_id
        self._dag_ids = dag_ids
        self._log = log

    def state(self, owner: TaskKey) -> str | None:
        """Return the task's state from Airflow's API server."""
        states = self._ti.get_task_states(
            dag_id=owner.dag_id, task_ids=[owner.task_id], run_ids=[owner.run_id], map_index=owner.map_index
        )
        return _as_text(state_in(states, owner.run_id, owner.task_id, owner.map_index))

    def xcom(self, owner: TaskKey, key: str) -> Any:
        """Return an XCom."""
        return XCom.get_one(
            key=key, dag_id=owner.dag_id, run_id=owner.run_id, task_id=owner.task_id, map_index=owner.map_index
        )

    def run_state(self, owner: TaskKey) -> str | None:
        """Return the state of the Dag run from Airflow's API server."""
        return _as_text(self._ti.get_dagrun_state(owner.dag_id, owner.run_id))

    def find_owner(self, key: JobKey, kind: JobKind, job_id: str) -> TaskKey | None:  # the protocol
        """Return ``None``: the Task SDK can only search the tasks of a named Dag."""
        return None

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterable[KnownJob] | None:
        """Return the jobs in the XComs of the ended tasks of the Dags; ``None`` if no Dags were given."""
        return None if self._dag_ids is None else self._known_jobs(kinds, self._dag_ids)

    def _known_jobs(self, kinds: Collection[JobKind], dag_ids: Collection[str]) -> Iterator[KnownJob]:
        for dag_id in dag_ids:
            try:
                runs = self._ti.get_task_states(dag_id=dag_id)
            except Exception as error:  # whatever Airflow raises, the other Dags are read
                self._log(f"Reading the tasks of Dag {dag_id} failed; its jobs are not checked: {type(error).__name__}")
                continue
            # Run ids end with a timestamp.
            run_ids = sorted(runs, key=lambda run_id: str(run_id).partition("__")[2], reverse=True)
            ended = [
                (run_id, name, state) for run_id in run_ids for name, state in runs[run_id].items() if state in ENDED
            ]
            if len(ended) > MAX_TASKS:
                self._log(f"Dag {dag_id} has {len(ended)} ended tasks; only the latest {MAX_TASKS} are read")
            for run_id, name, state in ended[:MAX_TASKS]:
                for task_id, map_index in _parse_task_name(name):
                    job = self._known_job(TaskKey(dag_id, run_id, task_id, map_index, -1), str(state))
                    if job is not None and job.kind in kinds:
                        yield job

    def _known_job(self, owner: TaskKey, state: str) -> KnownJob | None:
        try:
            job = KnownJob.parse(self.xcom(owner, JOB), owner, state)
        except Exception as error:  # whatever Airflow raises, the other tasks are read
            self._log(f"Reading XCom {JOB} of task {owner.dag_id}.{owner.task_id} failed: {type(error).__name__}")
            return None
        return job if job is not None and job.conn_id == self._osai_conn_id else None


def _parse_grace(grace: timedelta | float | str) -> float:
    """Return the grace time in seconds.

    :raises OsaiArgumentError: if it is neither a timedelta nor a number, or is negative.
    """
    try:
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else float(grace)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OsaiArgumentError(f"grace = {grace!r}: must be a timedelta or a number of seconds, 0 or more")
    return seconds


def _parse_names(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable) or not all(isinstance(item, str) for item in items):
        raise OsaiArgumentError(f"{name} = {value!r}: must be a list of text, or comma-separated text")
    names = [item.strip() for item in items if item.strip()]
    if not names:
        raise OsaiArgumentError(f"{name} = {value!r}: must not be empty; use None for all")
    return list(dict.fromkeys(names))


def _parse_task_name(name: str) -> list[tuple[str, int]]:
    """Return the possible meanings of a name in Airflow's list of states: a task id, or a task id and a map index."""
    match = MAPPED_TASK.fullmatch(name)
    return [(name, -1), *([(match[1], int(match[2]))] if match else [])]


def _as_text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
