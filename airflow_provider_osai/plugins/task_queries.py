"""What Airflow's database says of tasks, for the search for orphaned jobs. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import XCom
from airflow.utils.session import create_session
from sqlalchemy import Select, and_, select

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.deployment import VARIABLE
from airflow_provider_osai.jobs.reference import Deployment, JobKey, Owner
from airflow_provider_osai.jobs.wanted import ENDED, GONE, KnownJob
from airflow_provider_osai.operators.job import JOB

__all__ = ["TasksInDatabase", "deployment_in_database"]

MOST: Final = 10_000
"""Jobs that are read from XComs, the newest first."""
THEIRS: Final = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
OURS: Final = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)


def deployment_in_database(name: str | None = None) -> Deployment | None:
    """Return this Airflow's deployment; ``None`` if it has none yet, since it has submitted no job.

    :param name: the connection's extra ``deployment``.
    :raises sqlalchemy.exc.SQLAlchemyError: if the database cannot be read.
    :raises OsaiArgumentError: if the variable's value cannot be decrypted.
    """
    with create_session() as session:  # what follows would take a database that is away for one without the variable
        is_there = session.execute(select(Variable.id).where(Variable.key == VARIABLE)).first() is not None
    secret = Variable.get_variable_from_secrets(VARIABLE)
    if is_there and not secret:
        msg = f"Airflow's variable {VARIABLE} cannot be decrypted: use the [core] fernet_key of the other components"
        raise OsaiArgumentError(msg)
    return Deployment(secret, name or "") if secret else None


class TasksInDatabase:
    """What Airflow's database says of tasks.

    :param osai_conn_id: the connection whose jobs are looked for where OSAI cannot list them.
    :param deployment: the Airflow deployment, to recognise the tasks of keys without names.
    :param note: called with a message if there are more jobs in the database than are read.
    """

    def __init__(self, osai_conn_id: str, deployment: Deployment, note: Callable[[str], object]) -> None:
        self._osai_conn_id = osai_conn_id
        self._deployment = deployment
        self._note = note
        self._known: list[KnownJob] | None = None

    def state(self, owner: Owner) -> str | None:
        """Read the task's state; ``"gone"`` if there is no such task."""
        query = select(TaskInstance.state).where(*_is(THEIRS, owner))
        with create_session() as session:
            row = session.execute(query).first()
        return _word(row[0]) if row else GONE

    def xcom(self, owner: Owner, key: str) -> Any:
        """Read an XCom, through the XCom backend."""
        query = select(XComModel.key, XComModel.value).where(*_is(OURS, owner), XComModel.key == key)
        with create_session() as session:
            row = session.execute(query).first()
        return XCom.deserialize_value(row) if row else None

    def run_state(self, owner: Owner) -> str | None:
        """Read the state of the Dag run; ``None`` if there is no such run."""
        query = select(DagRun.state).where(DagRun.dag_id == owner.dag_id, DagRun.run_id == owner.run_id)
        with create_session() as session:
            row = session.execute(query).first()
        return _word(row[0]) if row else None

    def owner_of(self, key: JobKey, kind: JobKind, job_id: str) -> Owner | None:
        """Return the task that has told of this job, if the key was made for it."""
        found = (known.owner for known in self._all() if (known.kind, known.job_id) == (kind, job_id))
        return next((owner for owner in found if key.is_of(self._deployment, owner)), None)

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterator[KnownJob]:
        """Return the jobs that ended tasks have told of, the newest 10,000 of them."""
        return (
            known
            for known in self._all()
            if known.kind in kinds and known.state in ENDED and known.conn_id == self._osai_conn_id
        )

    def _all(self) -> list[KnownJob]:
        if self._known is None:
            query = (
                select(XComModel.key, XComModel.value, *OURS, TaskInstance.state)
                .join(TaskInstance, and_(*(ours == theirs for ours, theirs in zip(OURS, THEIRS, strict=True))))
                .where(XComModel.key == JOB)
                .order_by(XComModel.timestamp.desc())
            )
            self._known = self._newest(query)
        return self._known

    def _newest(self, query: Select[Any]) -> list[KnownJob]:
        with create_session() as session:
            rows = session.execute(query.limit(MOST + 1)).all()
        if len(rows) > MOST:
            self._note(f"The database knows more than {MOST} jobs; only the newest {MOST} are looked at")
        found = []
        for row in rows[:MOST]:
            with suppress(Exception):  # of an XCom backend: the other rows are read
                owner = Owner(row[2], row[3], row[4], row[5], -1)
                found.append(KnownJob.read(XCom.deserialize_value(row), owner, str(_word(row[6]))))
        return [known for known in found if known is not None]


def _is(columns: tuple[Any, ...], owner: Owner) -> list[Any]:
    names = (owner.dag_id, owner.run_id, owner.task_id, owner.map_index)
    return [column == name for column, name in zip(columns, names, strict=True)]


def _word(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
