"""Query Airflow's database for the states and XComs of tasks, to find orphaned jobs. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import XCom
from airflow.utils.session import create_session
from sqlalchemy import Select, and_, select

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.idempotency import Deployment, JobKey, TaskKey
from airflow_provider_osai.jobs.wanted import ENDED, GONE, JOB, KnownJob

__all__ = ["TasksInDatabase"]

MAX_JOBS: Final = 10_000
"""Maximum jobs that are read from XComs, newest first."""
TASK_COLUMNS: Final = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
XCOM_COLUMNS: Final = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)


class TasksInDatabase:
    """Reads the states and XComs of tasks from Airflow's database.

    :param osai_conn_id: the connection whose jobs are read from XComs where OSAI cannot list jobs.
    :param deployment: the Airflow deployment, to match idempotency keys that leave out the task's names.
    :param log: called with a message if there are more jobs in the database than the maximum.
    """

    def __init__(self, osai_conn_id: str, deployment: Deployment, log: Callable[[str], object]) -> None:
        self._osai_conn_id = osai_conn_id
        self._deployment = deployment
        self._log = log
        self._cached_jobs: list[KnownJob] | None = None

    def state(self, owner: TaskKey) -> str | None:
        """Return the task's state; ``"gone"`` if there is no such task."""
        query = select(TaskInstance.state).where(*_equals(TASK_COLUMNS, owner))
        with create_session() as session:
            row = session.execute(query).first()
        return _state_name(row[0]) if row else GONE

    def xcom(self, owner: TaskKey, key: str) -> Any:
        """Return an XCom, deserialized by the XCom backend; ``None`` if there is none."""
        query = select(XComModel.key, XComModel.value).where(*_equals(XCOM_COLUMNS, owner), XComModel.key == key)
        with create_session() as session:
            row = session.execute(query).first()
        return XCom.deserialize_value(row) if row else None

    def run_state(self, owner: TaskKey) -> str | None:
        """Return the state of the Dag run; ``None`` if there is no such run."""
        query = select(DagRun.state).where(DagRun.dag_id == owner.dag_id, DagRun.run_id == owner.run_id)
        with create_session() as session:
            row = session.execute(query).first()
        return _state_name(row[0]) if row else None

    def find_owner(self, key: JobKey, kind: JobKind, job_id: str) -> TaskKey | None:
        """Return the task that pushed this job's XCom, if the idempotency key was created for it."""
        owners = (job.owner for job in self._jobs() if (job.kind, job.job_id) == (kind, job_id))
        return next((owner for owner in owners if key.matches(self._deployment, owner)), None)

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterator[KnownJob]:
        """Return the jobs in the XComs of ended tasks, among the newest 10,000 jobs."""
        return (
            job
            for job in self._jobs()
            if job.kind in kinds and job.state in ENDED and job.conn_id == self._osai_conn_id
        )

    def _jobs(self) -> list[KnownJob]:
        if self._cached_jobs is None:
            columns = zip(XCOM_COLUMNS, TASK_COLUMNS, strict=True)
            query = (
                select(XComModel.key, XComModel.value, *XCOM_COLUMNS, TaskInstance.state)
                .join(TaskInstance, and_(*(xcom_column == task_column for xcom_column, task_column in columns)))
                .where(XComModel.key == JOB)
                .order_by(XComModel.timestamp.desc())
            )
            self._cached_jobs = self._read_newest(query)
        return self._cached_jobs

    def _read_newest(self, query: Select[Any]) -> list[KnownJob]:
        with create_session() as session:
            rows = session.execute(query.limit(MAX_JOBS + 1)).all()
        if len(rows) > MAX_JOBS:
            self._log(f"The database has more than {MAX_JOBS} jobs; only the newest {MAX_JOBS} are checked")
        jobs = []
        for row in rows[:MAX_JOBS]:
            with suppress(Exception):  # an XCom backend may raise anything; the other rows are still read
                owner = TaskKey(row[2], row[3], row[4], row[5], -1)
                jobs.append(KnownJob.parse(XCom.deserialize_value(row), owner, str(_state_name(row[6]))))
        return [job for job in jobs if job is not None]


def _equals(columns: tuple[Any, ...], owner: TaskKey) -> list[Any]:
    values = (owner.dag_id, owner.run_id, owner.task_id, owner.map_index)
    return [column == value for column, value in zip(columns, values, strict=True)]


def _state_name(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
