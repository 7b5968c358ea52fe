"""Query Airflow's database for the OSAI jobs that tasks have submitted, and for the connections that they used.

Any user who may edit a Dag's runs can write XComs over Airflow's REST API. So an XCom determines which job to show, but
never the connection: that comes from the task's rendered fields or from the Dag, which no REST call can write.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.job import JOB

__all__ = ["SubmittedJob", "find_connection", "find_job", "recent_jobs"]

MAX_LISTED = 100
"""Maximum jobs in the list of recent jobs."""
MAX_ID_LENGTH = 1_000
"""Maximum characters of a job id."""
CONNECTION = "osai_conn_id"
"""The operators' argument for the connection id."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job and the task instance that submitted it.

    :param kind: the job's kind.
    :param job_id: OSAI's id of the job.
    :param task: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
    :param task_state: Airflow's state of the task instance.
    """

    kind: JobKind
    job_id: str
    task: tuple[str, str, str, int]
    task_state: str | None = None


def find_job(dag_id: str, run_id: str, task_id: str, map_index: int) -> SubmittedJob | None:
    """Return the latest job of a task instance. Blocks."""
    query = XComModel.get_many(run_id=run_id, key=JOB, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1)
    with create_session() as session:
        row = session.execute(query.with_only_columns(XComModel.value)).first()
    return _parse(row[0], (dag_id, run_id, task_id, map_index)) if row else None


def recent_jobs(dag_ids: Collection[str]) -> list[SubmittedJob]:
    """Return the most recent jobs of these Dags, newest first. Blocks."""
    task_columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    xcom_columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    query = (
        select(XComModel.value, *xcom_columns, TaskInstance.state)
        .join(TaskInstance, and_(*(task == xcom for task, xcom in zip(task_columns, xcom_columns, strict=True))))
        .where(XComModel.key == JOB, XComModel.dag_id.in_(dag_ids))
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_LISTED)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    jobs = [_parse(row[0], (row[1], row[2], row[3], row[4]), row[5]) for row in rows]
    return [job for job in jobs if job is not None]


def find_connection(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """Return the id of the connection that a task instance used. Blocks.

    Airflow keeps the rendered fields of only a task's latest runs; for older ones the current Dag is used. ``None`` if
    the Dag no longer has the task, or the connection is known only at run time.
    """
    fields = RenderedTaskInstanceFields
    query = select(fields.rendered_fields).where(
        fields.dag_id == dag_id,
        fields.run_id == run_id,
        fields.task_id == task_id,
        fields.map_index == map_index,
    )
    with create_session() as session:
        rendered = session.execute(query).scalar()
        if isinstance(rendered, dict) and CONNECTION in rendered:
            return _literal(rendered[CONNECTION])
        dag = SerializedDagModel.get_dag(dag_id, session=session)
    task = dag.task_dict.get(task_id) if dag is not None else None
    if task is None:
        return None
    if not task.is_mapped:
        return _literal(getattr(task, CONNECTION, None))
    return _literal(task.partial_kwargs.get(CONNECTION, OsaiHook.default_conn_name))


def _literal(value: Any) -> str | None:
    """Return a connection id; ``None`` if it is an unrendered template or not an id at all."""
    return value if isinstance(value, str) and value and "{{" not in value else None


def _parse(value: Any, task: tuple[str, str, str, int], state: str | None = None) -> SubmittedJob | None:
    """Return the job in an XCom; ``None`` if the value is not one that our operators push."""
    if not isinstance(value, dict):
        return None
    kind = value.get("kind")
    job_id = value.get("job_id")
    if not isinstance(kind, str) or not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_ID_LENGTH:
        return None
    try:
        job_id.encode()  # lone surrogates cannot be encoded
        return SubmittedJob(JobKind.parse(kind), job_id, task, state and str(state))
    except (OsaiArgumentError, UnicodeEncodeError):
        return None
