"""Query Airflow's database for what the pages show: tasks, the jobs that they submitted, and the events of assets.

Any user who may edit a Dag's runs can write XComs over Airflow's REST API. So an XCom determines which job to show, but
never the connection: that comes from the task's rendered fields or from the Dag, which no REST call can write. The
functions block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from airflow.models.asset import AssetEvent, AssetModel, TaskInletAssetReference, TaskOutletAssetReference
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, func, or_, select

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.assets.events import MAX_EVENTS
from airflow_provider_osai.assets.uris import SCHEME
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.wanted import JOB
from airflow_provider_osai.operators._capacity import CAPACITY
from airflow_provider_osai.operators.gate import EVALUATION_JOBS
from airflow_provider_osai.operators.upload import QUALITY
from airflow_provider_osai.triggers.cancellation import BATCH

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "AssetRecord",
    "EventRecord",
    "GateTask",
    "JobFilter",
    "JobRecord",
    "SubmittedJob",
    "TaskAddress",
    "TaskRecord",
    "downstream_tasks",
    "find_asset",
    "find_connection",
    "find_task",
    "gate_results",
    "gate_tasks",
    "instance_states",
    "list_jobs",
    "model_events",
    "previous_result",
]

RESULT: Final = "return_value"
"""The XCom with what a task returned."""
MAX_ID_LENGTH: Final = 1_000
"""Maximum characters of a job id."""
CONNECTION: Final = "osai_conn_id"
"""The operators' argument for the connection id."""
MAX_REJECTIONS: Final = 200
"""Maximum results of gates that are read for the history of a model, latest first."""
MAX_PREVIOUS: Final = 5
"""Maximum results of earlier runs that are read to find the latest one with metrics."""


@dataclass(frozen=True, slots=True, order=True)
class TaskAddress:
    """The identity of a task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job as the task that submitted it pushed it.

    :param kind: the job's kind.
    :param job_id: OSAI's id of the job.
    :param state: the state in which the job has ended; ``None`` if unknown.
    :param simulated: whether the job is known to be simulated.
    """

    kind: JobKind
    job_id: str
    state: str | None = None
    simulated: bool = False

    @classmethod
    def parse(cls, value: Any) -> SubmittedJob | None:
        """Return the job in an XCom; ``None`` if the value is not one that our operators push."""
        if not isinstance(value, dict):
            return None
        kind, job_id, state = (value.get(name) for name in ("kind", "job_id", "state"))
        if not isinstance(kind, str) or not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_ID_LENGTH:
            return None
        try:
            job_id.encode()  # lone surrogates cannot be encoded
            is_simulated = value.get("simulated") is True
            return cls(JobKind.parse(kind), job_id, state if isinstance(state, str) else None, is_simulated)
        except (OsaiArgumentError, UnicodeEncodeError):
            return None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What Airflow's database has about a task instance.

    :param address: its identity.
    :param operator: the name of its operator's class.
    :param state: its state in Airflow; ``None`` = not scheduled yet.
    :param started_at: when its latest try started.
    :param ended_at: when its latest try ended.
    :param job: the latest job that it submitted.
    :param result: what it returned; empty if it returned nothing, or something else than a dict.
    :param evaluation_jobs: job ids of a gate's evaluations by model id.
    :param fields: its rendered template fields; empty for runs whose fields Airflow has deleted.
    :param capacity: its latest wait for room at OSAI; empty if it never waited.
    :param batch: the jobs of a batch; empty for another task.
    :param quality: the summary of an upload's data quality check; empty if there was none.
    :param results: the list that it returned; empty if it returned nothing, or something else than a list.
    """

    address: TaskAddress
    operator: str = ""
    state: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    job: SubmittedJob | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluation_jobs: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    capacity: Mapping[str, Any] = field(default_factory=dict)
    batch: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class GateTask:
    """A gate of a Dag and the champion asset that it reads and updates."""

    task_id: str
    asset_id: int
    uri: str


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """An asset of a model: its id in Airflow's database, and its URI."""

    id: int
    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event of an asset; ``source`` is the task that created it, ``None`` for an event that was created by hand."""

    at: datetime
    extra: Mapping[str, Any]
    source: TaskAddress | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list. ``None`` = any.

    :param kind: the job's kind.
    :param state: the task's state in Airflow.
    :param dag_id: the Dag's id.
    :param task: only instances of this mapped task in its run, in the order of their map index.
    :param after: submitted at this time or later.
    :param before: submitted before this time.
    :param page: number of the page, from 0.
    :param size: jobs on a page.
    """

    kind: str | None = None
    state: str | None = None
    dag_id: str | None = None
    task: TaskAddress | None = None
    after: datetime | None = None
    before: datetime | None = None
    page: int = 0
    size: int = 50


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job in the list: what its task has pushed and returned.

    :param task: the task instance that submitted it.
    :param submitted_at: when the job was submitted.
    """

    task: TaskRecord
    job: SubmittedJob
    submitted_at: datetime


def find_task(address: TaskAddress) -> TaskRecord | None:
    """Return the record of a task instance; ``None`` if there is no such task instance."""
    where = _is_task(TaskInstance, address)
    query = select(TaskInstance.operator, TaskInstance.state, TaskInstance.start_date, TaskInstance.end_date)
    keys = (JOB, RESULT, EVALUATION_JOBS, CAPACITY, BATCH, QUALITY)
    xcoms = select(XComModel.key, XComModel.value).where(_is_task(XComModel, address), XComModel.key.in_(keys))
    rendered = select(RenderedTaskInstanceFields.rendered_fields)
    with create_session() as session:
        row = session.execute(query.where(where)).first()
        if row is None:
            return None
        values: dict[str, Any] = {row.key: row.value for row in session.execute(xcoms)}
        fields = session.execute(rendered.where(_is_task(RenderedTaskInstanceFields, address))).scalar()
    return TaskRecord(
        address,
        row.operator or "",
        row.state and str(getattr(row.state, "value", row.state)),
        row.start_date,
        row.end_date,
        SubmittedJob.parse(values.get(JOB)),
        _mapping(values.get(RESULT)),
        _mapping(values.get(EVALUATION_JOBS)),
        _mapping(fields),
        _mapping(values.get(CAPACITY)),
        _mapping(values.get(BATCH)),
        _mapping(values.get(QUALITY)),
        tuple(values[RESULT]) if isinstance(values.get(RESULT), list) else (),
    )


def find_connection(task: TaskRecord) -> str | None:
    """Return the id of the connection that a task instance used.

    Airflow keeps the rendered fields of only a task's latest runs; for older ones the current Dag is used. ``None`` if
    the Dag no longer has the task, or the connection is known only at run time.
    """
    if CONNECTION in task.fields:
        return _literal(task.fields[CONNECTION])
    with create_session() as session:
        dag = SerializedDagModel.get_dag(task.address.dag_id, session=session)
    operator = dag.task_dict.get(task.address.task_id) if dag is not None else None
    if operator is None:
        return None
    if not operator.is_mapped:
        return _literal(getattr(operator, CONNECTION, None))
    return _literal(operator.partial_kwargs.get(CONNECTION, OsaiHook.default_conn_name))


def downstream_tasks(address: TaskAddress) -> tuple[list[str], set[str]]:
    """Return the ids of the tasks directly downstream in the current Dag, and of all downstream tasks."""
    query = (
        select(SerializedDagModel.dag_hash)
        .where(SerializedDagModel.dag_id == address.dag_id)
        .order_by(SerializedDagModel.created_at.desc())
        .limit(1)
    )
    with create_session() as session:
        dag_hash = session.execute(query).scalar()
    return _relatives(address.dag_id, dag_hash or "").get(address.task_id, ([], set()))


@lru_cache(maxsize=128)
def _relatives(dag_id: str, dag_hash: str) -> dict[str, tuple[list[str], set[str]]]:  # noqa: ARG001 - a cache key
    with create_session() as session:
        dag = SerializedDagModel.get_dag(dag_id, session=session)
    if dag is None:
        return {}
    return {
        task_id: (sorted(task.downstream_task_ids), set(task.get_flat_relative_ids(upstream=False)))
        for task_id, task in dag.task_dict.items()
    }


def previous_result(address: TaskAddress) -> Mapping[str, Any]:
    """Return what the same task returned in the latest earlier run in which it returned metrics; empty if in none."""
    this = select(DagRun.id, DagRun.run_after).where(DagRun.dag_id == address.dag_id, DagRun.run_id == address.run_id)
    with create_session() as session:
        run = session.execute(this).first()
        if run is None:
            return {}
        query = (
            select(XComModel.value)
            .join(DagRun, XComModel.dag_run_id == DagRun.id)
            .where(
                XComModel.dag_id == address.dag_id,
                XComModel.task_id == address.task_id,
                XComModel.map_index == address.map_index,
                XComModel.key == RESULT,
                DagRun.run_after < run.run_after,
            )
            .order_by(DagRun.run_after.desc())
            .limit(MAX_PREVIOUS)
        )
        values = session.execute(query).scalars().all()
    return next((value for value in map(_mapping, values) if value.get("metrics")), {})


def gate_tasks(dag_ids: Collection[str] | None = None, asset_id: int | None = None) -> list[tuple[str, GateTask]]:
    """Return the gates with their Dags: the tasks that both read and update a model's asset.

    :param dag_ids: only gates of these Dags; ``None`` = of any.
    :param asset_id: only gates of this asset; ``None`` = of any.
    """
    reads, updates = TaskInletAssetReference, TaskOutletAssetReference
    is_same = and_(reads.asset_id == updates.asset_id, reads.dag_id == updates.dag_id, reads.task_id == updates.task_id)
    query = (
        select(reads.dag_id, reads.task_id, AssetModel.id, AssetModel.uri)
        .join(updates, is_same)
        .join(AssetModel, AssetModel.id == reads.asset_id)
        .where(AssetModel.uri.like(f"{SCHEME}://%/models/%"))
        .order_by(reads.dag_id, reads.task_id)
    )
    if dag_ids is not None:
        query = query.where(reads.dag_id.in_(dag_ids))
    if asset_id is not None:
        query = query.where(reads.asset_id == asset_id)
    with create_session() as session:
        return [(row[0], GateTask(row[1], row[2], row[3])) for row in session.execute(query)]


def find_asset(asset_id: int) -> AssetRecord | None:
    """Return the asset of a model; ``None`` if there is no such asset."""
    query = select(AssetModel.id, AssetModel.uri, AssetModel.name).where(
        AssetModel.id == asset_id, AssetModel.uri.like(f"{SCHEME}://%/models/%")
    )
    with create_session() as session:
        row = session.execute(query).first()
    return AssetRecord(*row) if row else None


def model_events(asset_ids: Collection[int], limit: int = MAX_EVENTS) -> dict[int, list[EventRecord]]:
    """Return the latest events of each asset, oldest first."""
    event = AssetEvent
    columns = (event.source_dag_id, event.source_run_id, event.source_task_id, event.source_map_index)
    found: dict[int, list[EventRecord]] = {asset_id: [] for asset_id in asset_ids}
    with create_session() as session:
        for asset_id, records in found.items():
            query = (
                select(event.timestamp, event.extra, *columns)
                .where(event.asset_id == asset_id)
                .order_by(event.timestamp.desc(), event.id.desc())
                .limit(limit)
            )
            for at, extra, *source in session.execute(query):
                address = TaskAddress(*source) if all(source[:3]) else None
                records.insert(0, EventRecord(at, _mapping(extra), address))
    return found


def gate_results(gates: Collection[tuple[str, str]]) -> list[tuple[TaskAddress, datetime, Mapping[str, Any]]]:
    """Return the latest results of gates, oldest first, with the task instance and the time of each decision.

    :param gates: ``dag_id`` and ``task_id`` of each gate.
    """
    if not gates:
        return []
    is_gate = [and_(XComModel.dag_id == dag_id, XComModel.task_id == task_id) for dag_id, task_id in gates]
    columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    query = (
        select(*columns, XComModel.timestamp, XComModel.value)
        .where(XComModel.key == RESULT, or_(*is_gate))
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_REJECTIONS)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    return [(TaskAddress(*row[:4]), row[4], _mapping(row[5])) for row in reversed(rows)]


def instance_states(address: TaskAddress) -> dict[str, int]:
    """Return the number of mapped instances of a task by their state in Airflow; empty if it has none."""
    query = (
        select(TaskInstance.state, func.count())
        .where(
            TaskInstance.dag_id == address.dag_id,
            TaskInstance.run_id == address.run_id,
            TaskInstance.task_id == address.task_id,
            TaskInstance.map_index >= 0,
        )
        .group_by(TaskInstance.state)
        .order_by(TaskInstance.state)
    )
    with create_session() as session:
        return {str(getattr(state, "value", state) or "none"): count for state, count in session.execute(query)}


def list_jobs(dag_ids: Collection[str], wanted: JobFilter) -> tuple[list[JobRecord], bool]:
    """Return a page of the jobs that tasks of these Dags submitted, latest first, and whether there are more.

    Uses two SQL statements.
    """
    order = [] if wanted.task else [XComModel.timestamp.desc()]
    query = (
        select(
            XComModel.dag_id,
            XComModel.run_id,
            XComModel.task_id,
            XComModel.map_index,
            XComModel.dag_run_id,
            XComModel.timestamp,
            XComModel.value,
            TaskInstance.operator,
            TaskInstance.state,
            TaskInstance.start_date,
            TaskInstance.end_date,
        )
        .join(TaskInstance, _is_same_task(XComModel, TaskInstance))
        .where(XComModel.key == JOB, XComModel.dag_id.in_(dag_ids), *_conditions(wanted))
        .order_by(*order, XComModel.dag_run_id.desc(), XComModel.task_id, XComModel.map_index)
        .offset(wanted.page * wanted.size)
        .limit(wanted.size + 1)
    )
    with create_session() as session:
        rows = session.execute(query).all()
        results = select(XComModel.dag_run_id, XComModel.task_id, XComModel.map_index, XComModel.value).where(
            XComModel.key == RESULT,
            XComModel.dag_run_id.in_({row.dag_run_id for row in rows}),
            XComModel.task_id.in_({row.task_id for row in rows}),
        )
        by_task = {row[:3]: row[3] for row in session.execute(results)} if rows else {}
    jobs = []
    for row in rows[: wanted.size]:
        job = SubmittedJob.parse(row.value)
        if job is not None:
            result = _mapping(by_task.get((row.dag_run_id, row.task_id, row.map_index)))
            state = row.state and str(getattr(row.state, "value", row.state))
            address = TaskAddress(row.dag_id, row.run_id, row.task_id, row.map_index)
            task = TaskRecord(address, row.operator or "", state, row.start_date, row.end_date, job, result)
            jobs.append(JobRecord(task, job, row.timestamp))
    return jobs, len(rows) > wanted.size


def _conditions(wanted: JobFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.kind is not None:
        conditions.append(XComModel.value["kind"].as_string() == wanted.kind)
    if wanted.state is not None:
        conditions.append(TaskInstance.state == wanted.state)
    if wanted.dag_id is not None:
        conditions.append(XComModel.dag_id == wanted.dag_id)
    if wanted.task is not None:
        conditions += [XComModel.run_id == wanted.task.run_id, XComModel.task_id == wanted.task.task_id]
    if wanted.after is not None:
        conditions.append(XComModel.timestamp >= wanted.after)
    if wanted.before is not None:
        conditions.append(XComModel.timestamp < wanted.before)
    return conditions


def _is_task(table: Any, address: TaskAddress) -> Any:
    return and_(
        table.dag_id == address.dag_id,
        table.run_id == address.run_id,
        table.task_id == address.task_id,
        table.map_index == address.map_index,
    )


def _is_same_task(one: Any, other: Any) -> Any:
    return and_(*(getattr(one, name) == getattr(other, name) for name in ("dag_id", "run_id", "task_id", "map_index")))


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a dict from the database; empty for anything else, such as the reference of an XCom backend."""
    return value if isinstance(value, dict) else {}


def _literal(value: Any) -> str | None:
    """Return a connection id; ``None`` if it is an unrendered template or not an id at all."""
    return value if isinstance(value, str) and value and "{{" not in value else None
