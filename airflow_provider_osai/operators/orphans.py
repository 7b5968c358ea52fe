"""The second line: cancel jobs that no task wants any more. See docs/orphans.md."""

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
from airflow_provider_osai.jobs.orphans import OrphansFound, Search
from airflow_provider_osai.jobs.reference import JobKey, Owner
from airflow_provider_osai.jobs.wanted import ENDED, KnownJob, state_in
from airflow_provider_osai.operators.base import OsaiOperator, no_vain_retries
from airflow_provider_osai.operators.job import JOB

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["OsaiCancelOrphanedJobsOperator"]

LONGEST_LIST: Final = 100
"""Entries of each list in the XComs. The log has a line for each job."""
MOST_TASKS: Final = 1_000
"""Ended tasks of one Dag whose XComs are read where OSAI cannot list jobs, those of the latest runs first."""
ACTIONS: Final = ("report", "cancel")
MAPPED: Final = re.compile(r"(.+)_(\d+)")
"""How Airflow names a mapped task instance among states; a task may have such a name of its own."""


class OsaiCancelOrphanedJobsOperator(OsaiOperator):
    """Cancels the live jobs of this Airflow that no task wants any more; by default it only reports them.

    All live jobs of the account are listed; those whose idempotency key was made by this Airflow are compared with
    their tasks. Jobs of other deployments, jobs submitted by hand, and jobs whose task Airflow does not tell are left
    alone. docs/orphans.md has the rules. Returns ``action``, ``checked`` (jobs compared), ``orphans``, ``cancelled``
    (ids), ``unknown``, ``not_cancelled`` and ``unchecked_kinds``; each list has at most 100 entries, the log has all.
    That OSAI runs jobs is documented (docs.onestepai.com); the calls that list, read and cancel them are assumed.

    A retry goes on with what is left, and so does the next run after a kill.

    :param action: ``"report"`` (default) or ``"cancel"``.
    :param grace: a timedelta or seconds, 0 or more; a younger job is left alone. Default: 10 minutes.
    :param kinds: kinds of jobs, a list or text with commas: ``training``, ``retraining``, ``conversion``,
        ``manipulation``, ``prediction``, ``device_rental``. ``None`` (default): all.
    :param dag_ids: ids of Dags, a list or text with commas; only their jobs are looked for. ``None`` (default): all.
        Where OSAI cannot list a kind's jobs, the latest jobs of the ended tasks of these Dags are read one by one;
        without ``dag_ids`` such kinds are returned as ``unchecked_kinds``.
    :raises OsaiUnreachable: if OSAI gives no usable answer, for one job or for all; what could be cancelled is.
    :raises AirflowFailException: if no retry can help: a bad argument, a refused token. Its cause is the OsaiError.
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
        """Compare, and cancel if that is the action."""
        with no_vain_retries():
            if self.action not in ACTIONS:
                raise OsaiArgumentError(f"action = {self.action!r}: choose one of {', '.join(ACTIONS)}")
            grace, dag_ids = _seconds_of(self.grace), _several("dag_ids", self.dag_ids)
            kinds = [JobKind.parse(kind) for kind in _several("kinds", self.kinds) or JobKind]
            tasks = _TasksOnWorker(context["ti"], self.osai_conn_id, dag_ids, self.log.warning)
            with self.hook.get_conn() as client:
                deployment = load_deployment(client.settings.deployment)
                search = Search(client, deployment, tasks, grace=grace, dag_ids=dag_ids, note=self.log.warning)
                report = search.run(kinds, cancels=self.action == "cancel")
            self.log.info("%s", report.summary())
            if report.failures:
                raise report.failures[0]
        return report.found(self.action, LONGEST_LIST)


class _TasksOnWorker:
    """What Airflow tells a task of other tasks, through the Task SDK.

    :param ti: the task instance that runs.
    :param osai_conn_id: the connection whose jobs are looked for.
    :param dag_ids: the Dags whose tasks may be searched for jobs.
    """

    def __init__(
        self, ti: Any, osai_conn_id: str, dag_ids: Collection[str] | None, note: Callable[[str], object]
    ) -> None:
        self._ti = ti
        self._osai_conn_id = osai_conn_id
        self._dag_ids = dag_ids
        self._note = note

    def state(self, owner: Owner) -> str | None:
        """Ask Airflow's API server for the task's state."""
        known = self._ti.get_task_states(
            dag_id=owner.dag_id, task_ids=[owner.task_id], run_ids=[owner.run_id], map_index=owner.map_index
        )
        return _word(state_in(known, owner.run_id, owner.task_id, owner.map_index))

    def xcom(self, owner: Owner, key: str) -> Any:
        """Read an XCom."""
        where = {"dag_id": owner.dag_id, "run_id": owner.run_id, "task_id": owner.task_id}
        return XCom.get_one(key=key, map_index=owner.map_index, **where)

    def run_state(self, owner: Owner) -> str | None:
        """Ask Airflow's API server for the state of the Dag run."""
        return _word(self._ti.get_dagrun_state(owner.dag_id, owner.run_id))

    def owner_of(self, key: JobKey, kind: JobKind, job_id: str) -> Owner | None:  # noqa: ARG002 - the database is needed
        """Return nothing: tasks can be searched by the names of their Dags only."""
        return None

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterable[KnownJob] | None:
        """Read the XComs of the ended tasks of the Dags, if these were given."""
        return None if self._dag_ids is None else self._known_jobs(kinds, self._dag_ids)

    def _known_jobs(self, kinds: Collection[JobKind], dag_ids: Collection[str]) -> Iterator[KnownJob]:
        for dag_id in dag_ids:
            try:
                runs = self._ti.get_task_states(dag_id=dag_id)
            except Exception as error:  # noqa: BLE001 - whatever Airflow raises, the other Dags are read
                self._note(f"Airflow does not tell the tasks of Dag {dag_id}: {type(error).__name__}")
                continue
            # Ids of runs end with their time.
            latest = sorted(runs, key=lambda run_id: str(run_id).partition("__")[2], reverse=True)
            ended = [(run, name, state) for run in latest for name, state in runs[run].items() if state in ENDED]
            if len(ended) > MOST_TASKS:
                self._note(f"Dag {dag_id} has {len(ended)} ended tasks; the jobs of the latest {MOST_TASKS} are read")
            for run_id, name, state in ended[:MOST_TASKS]:
                for task_id, map_index in _names(name):
                    known = self._known_job(Owner(dag_id, run_id, task_id, map_index, -1), str(state))
                    if known is not None and known.kind in kinds:
                        yield known

    def _known_job(self, owner: Owner, state: str) -> KnownJob | None:
        try:
            job = KnownJob.read(self.xcom(owner, JOB), owner, state)
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises, the other tasks are read
            self._note(f"Airflow does not tell the job of task {owner.dag_id}.{owner.task_id}: {type(error).__name__}")
            return None
        return job if job is not None and job.conn_id == self._osai_conn_id else None


def _seconds_of(grace: timedelta | float | str) -> float:
    """Return a grace time in seconds.

    :raises OsaiArgumentError: if it is neither a timedelta nor a number, or negative.
    """
    try:
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else float(grace)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OsaiArgumentError(f"grace = {grace!r}: a timedelta or a number of seconds, 0 or more, is needed")
    return seconds


def _several(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable) or not all(isinstance(item, str) for item in items):
        raise OsaiArgumentError(f"{name} = {value!r}: a list of text, or text with commas, is needed")
    given = [item.strip() for item in items if item.strip()]
    if not given:
        raise OsaiArgumentError(f"{name} = {value!r}: name at least one, or give None for all")
    return list(dict.fromkeys(given))


def _names(name: str) -> list[tuple[str, int]]:
    """Return what a name among states may mean: a task, or a task and its map index."""
    match = MAPPED.fullmatch(name)
    return [(name, -1), *([(match[1], int(match[2]))] if match else [])]


def _word(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
