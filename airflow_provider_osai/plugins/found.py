"""Which OSAI jobs Airflow's tasks have submitted, from the XComs that they pushed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select

from airflow_provider_osai.operators.job import JOB

__all__ = ["FoundJob", "find_job", "recent_jobs"]

MOST = 100
"""Jobs that are listed."""


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A job, and the task instance whose it is.

    :param task: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
    :param task_state: Airflow's word.
    """

    kind: str
    job_id: str
    osai_conn_id: str
    task: tuple[str, str, str, int]
    task_state: str | None = None


def find_job(dag_id: str, run_id: str, task_id: str, map_index: int) -> FoundJob | None:
    """Return the latest job of a task instance. Blocks."""
    query = XComModel.get_many(run_id=run_id, key=JOB, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1)
    with create_session() as session:
        row = session.execute(query.with_only_columns(XComModel.value)).first()
    return _read(row[0], (dag_id, run_id, task_id, map_index)) if row else None


def recent_jobs(dag_ids: Collection[str]) -> list[FoundJob]:
    """Return the latest jobs of these Dags, the newest first. Blocks."""
    theirs = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    ours = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    query = (
        select(XComModel.value, *ours, TaskInstance.state)
        .join(TaskInstance, and_(*(one == other for one, other in zip(theirs, ours, strict=True))))
        .where(XComModel.key == JOB, XComModel.dag_id.in_(dag_ids))
        .order_by(XComModel.timestamp.desc())
        .limit(MOST)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    found = [_read(row[0], (row[1], row[2], row[3], row[4]), row[5]) for row in rows]
    return [job for job in found if job is not None]


def _read(value: Any, task: tuple[str, str, str, int], state: str | None = None) -> FoundJob | None:
    """Return what a task pushed, unless something else did."""
    if not isinstance(value, dict) or not all(
        isinstance(value.get(name), str) for name in ("kind", "job_id", "conn_id")
    ):
        return None
    return FoundJob(value["kind"], value["job_id"], value["conn_id"], task, state and str(state))
