"""Rules that decide whether a task still wants its job, from the job's bond and Airflow's current state of the task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.idempotency import Bond, JobKey, TaskKey

__all__ = [
    "ENDED",
    "GONE",
    "JOB",
    "JOB_ID",
    "RETURN_VALUE",
    "KnownJob",
    "Tasks",
    "Wanted",
    "WantedResult",
    "check_wanted",
    "job_id_in",
    "state_in",
]

GONE: Final = "gone"
"""The state of a task that is missing from Airflow's response: its run or Dag was deleted."""
ENDED: Final = frozenset({"failed", "upstream_failed", "skipped", "removed", "success"})
"""Airflow states in which a task stays until it is cleared."""
RUN_ENDED: Final = frozenset({"success", "failed"})
"""States of a Dag run that has ended."""
JOB: Final = "osai_job"
"""Key of the XCom with id, kind and connection id of the task's latest job, pushed right after the submission."""
JOB_ID: Final = "job_id"
"""Key of the job's id in that XCom, and in a task's result."""
RETURN_VALUE: Final = "return_value"


def state_in(states_by_run: Mapping[str, Mapping[str, Any]], run_id: str, task_id: str, map_index: int) -> Any:
    """Return a task's state from the result of Airflow's ``get_task_states``; it may be ``None`` or :data:`GONE`."""
    states = states_by_run.get(run_id) or {}
    return states.get(task_id, states.get(f"{task_id}_{map_index}", GONE))


class Wanted(StrEnum):
    """Whether a task still wants a job."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It cannot be determined; such a job is never cancelled."""


@dataclass(frozen=True, slots=True)
class WantedResult:
    """Whether a job is wanted, and why.

    :param other_job_id: the id of another job that the task has instead, if it has one.
    """

    wanted: Wanted
    reason: str
    other_job_id: str | None = None


@dataclass(frozen=True, slots=True)
class KnownJob:
    """The job of an ended task, as recorded in Airflow.

    :param state: Airflow's state of the task, one of :data:`ENDED`.
    """

    kind: JobKind
    job_id: str
    conn_id: str
    owner: TaskKey
    state: str

    @classmethod
    def parse(cls, value: Any, owner: TaskKey, state: str) -> KnownJob | None:
        """Parse *value*, the XCom ``osai_job`` of a task; return ``None`` if it is invalid or of an unknown kind."""
        names = ("kind", "job_id", "conn_id")
        if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in names):
            return None
        if value["kind"] not in set(JobKind):
            return None
        return cls(JobKind(value["kind"]), value["job_id"], value["conn_id"], owner, state)


class Tasks(Protocol):
    """Looks up tasks in Airflow. Each method may raise any exception, which means that the result is unknown."""

    def state(self, owner: TaskKey) -> str | None:
        """Return the task's state: ``None`` before it is scheduled, :data:`GONE` if Airflow has no such task."""

    def xcom(self, owner: TaskKey, key: str) -> Any:
        """Return an XCom of the task, or ``None`` if there is none with this key."""

    def run_state(self, owner: TaskKey) -> str | None:
        """Return the state of the task's Dag run; ``None`` if there is no such run."""

    def find_owner(self, key: JobKey, kind: JobKind, job_id: str) -> TaskKey | None:
        """Return the task of a job whose key omits the names; ``None`` if it cannot be found."""

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterable[KnownJob] | None:
        """Return the jobs recorded by ended tasks; ``None`` if they cannot be looked up."""


def check_wanted(tasks: Tasks, owner: TaskKey, bond: Bond, job_id: str) -> WantedResult:
    """Return whether the task *owner* still wants its live job. Never raises.

    :param tasks: looks up tasks in Airflow.
    :param bond: what happens to the job without its task.
    """
    try:
        return _check(tasks, owner, bond, job_id)
    except Exception as error:  # whatever Airflow raises, the state is unknown, so the job is kept
        return WantedResult(Wanted.UNKNOWN, f"the state of its task could not be read ({type(error).__name__})")


def _check(tasks: Tasks, owner: TaskKey, bond: Bond, job_id: str) -> WantedResult:
    state = tasks.state(owner)
    if state not in ENDED and state != GONE:
        return _check_unfinished(state, tasks.xcom(owner, JOB), job_id)
    if bond is Bond.KEEPS:
        return WantedResult(Wanted.YES, f"its task is {state}, and has cancel_on_kill=False")
    if state == "success":
        return _check_succeeded(tasks, owner, bond, job_id)
    deleted = "its task is missing from Airflow: the run or the Dag was deleted"
    return WantedResult(Wanted.NO, deleted if state == GONE else f"its task is {state}")


def _check_succeeded(tasks: Tasks, owner: TaskKey, bond: Bond, job_id: str) -> WantedResult:
    if bond is Bond.RENTS:
        return _check_rental(tasks.run_state(owner))
    if bond is Bond.SUBMITS:
        if job_id_in(tasks.xcom(owner, JOB)) == job_id:
            return WantedResult(Wanted.YES, "its task submitted it with wait_for_completion=False")
    elif job_id_in(tasks.xcom(owner, RETURN_VALUE)) == job_id:
        return WantedResult(Wanted.UNKNOWN, "its task returned it as succeeded, although OSAI lists it as live")
    return WantedResult(Wanted.NO, "its task is success, but this job is not its result")


def _check_unfinished(state: str | None, xcom: Any, job_id: str) -> WantedResult:
    task_job_id = job_id_in(xcom)
    state = state or "not scheduled"
    if xcom is not None and task_job_id is None:
        return WantedResult(Wanted.UNKNOWN, f"the XCom {JOB} of its task has no job_id: {type(xcom).__name__}")
    if task_job_id in (None, job_id):
        return WantedResult(Wanted.YES, f"its task is {state}")
    return WantedResult(Wanted.NO, f"its task is {state} and has another job, {task_job_id}", task_job_id)


def _check_rental(run_state: str | None) -> WantedResult:
    if run_state is None:
        return WantedResult(Wanted.UNKNOWN, "the state of its Dag run is unknown")
    if run_state in RUN_ENDED:
        return WantedResult(Wanted.NO, f"its Dag run is {run_state}, and the device was not released")
    return WantedResult(Wanted.YES, f"its Dag run is {run_state}")


def job_id_in(returned: Any) -> str | None:
    """Return the job's id from an operator's return value or the XCom :data:`JOB`; ``None`` if it has none."""
    value = returned.get(JOB_ID) if isinstance(returned, dict) else None
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
