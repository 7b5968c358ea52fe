"""Whether a task still wants its job: the rules, by the job's bond and by what Airflow says of the task now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.reference import Bond, JobKey, Owner

__all__ = [
    "ENDED",
    "GONE",
    "JOB_ID",
    "RETURNED",
    "KnownJob",
    "Tasks",
    "Verdict",
    "Want",
    "job_id_in",
    "judge",
    "state_in",
]

GONE: Final = "gone"
"""The state of a task that Airflow does not know, although it has answered: the run or the Dag was deleted."""
ENDED: Final = frozenset({"failed", "upstream_failed", "skipped", "removed", "success"})
"""States of Airflow in which a task stays until somebody clears it."""
RUN_ENDED: Final = frozenset({"success", "failed"})
"""States of a Dag run that is over."""
JOB_ID: Final = "job_id"
"""The XCom with the id of the task's latest job, pushed right after its submission."""
RETURNED: Final = "return_value"


def state_in(answer: Mapping[str, Mapping[str, Any]], run_id: str, task_id: str, map_index: int) -> Any:
    """Return a task's state in what Airflow's ``get_task_states`` answers: its word, ``None``, or :data:`GONE`."""
    states = answer.get(run_id) or {}
    return states.get(task_id, states.get(f"{task_id}_{map_index}", GONE))


class Want(StrEnum):
    """Whether a task still wants a job."""

    WANTED = "wanted"
    UNWANTED = "unwanted"
    UNKNOWN = "unknown"
    """Unknown whether it is wanted; such a job is never cancelled."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a job is wanted, and why.

    :param other: the id of another job that the task has instead, if it has one.
    """

    want: Want
    reason: str
    other: str | None = None


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that Airflow remembers of a task that has ended.

    :param state: Airflow's word for the task's state, one of :data:`ENDED`.
    """

    kind: JobKind
    job_id: str
    conn_id: str
    owner: Owner
    state: str

    @classmethod
    def read(cls, told: Any, owner: Owner, state: str) -> KnownJob | None:
        """Return the job in the XCom ``osai_job`` of a task; ``None`` if there is none that this version knows."""
        names = ("kind", "job_id", "conn_id")
        if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in names):
            return None
        if told["kind"] not in set(JobKind):
            return None
        return cls(JobKind(told["kind"]), told["job_id"], told["conn_id"], owner, state)


class Tasks(Protocol):
    """What Airflow says of tasks now. Each method may raise any exception: then the answer is unknown."""

    def state(self, owner: Owner) -> str | None:
        """Return Airflow's word for the task's state; ``None`` before it is scheduled, :data:`GONE` if it has none."""

    def xcom(self, owner: Owner, key: str) -> Any:
        """Return an XCom of the task, or ``None`` if it has none of that key."""

    def run_state(self, owner: Owner) -> str | None:
        """Return Airflow's word for the state of the task's Dag run; ``None`` if there is no such run."""

    def owner_of(self, key: JobKey, kind: JobKind, job_id: str) -> Owner | None:
        """Return the task of a job whose key leaves out its names; ``None`` if it cannot be found."""

    def known_jobs(self, kinds: Collection[JobKind]) -> Iterable[KnownJob] | None:
        """Return the jobs that ended tasks have told of; ``None`` if Airflow cannot be asked for them."""


def judge(tasks: Tasks, owner: Owner, bond: Bond, job_id: str) -> Verdict:
    """Return whether the task of *owner* still wants its live job. Raises nothing.

    :param tasks: what Airflow says.
    :param bond: what becomes of the job without its task.
    """
    try:
        return _judge(tasks, owner, bond, job_id)
    except Exception as error:  # noqa: BLE001 - whatever Airflow raises: it has not answered, so the job lives
        return Verdict(Want.UNKNOWN, f"Airflow does not tell what became of its task ({type(error).__name__})")


def _judge(tasks: Tasks, owner: Owner, bond: Bond, job_id: str) -> Verdict:
    state = tasks.state(owner)
    if state not in ENDED and state != GONE:
        return _of_unfinished(state, tasks.xcom(owner, JOB_ID), job_id)
    if bond is Bond.KEEPS:
        return Verdict(Want.WANTED, f"its task is {state}, and has cancel_on_kill=False")
    if state == "success":
        return _of_success(tasks, owner, bond, job_id)
    gone = "Airflow does not know its task: the run or the Dag was deleted"
    return Verdict(Want.UNWANTED, gone if state == GONE else f"its task is {state}")


def _of_success(tasks: Tasks, owner: Owner, bond: Bond, job_id: str) -> Verdict:
    if bond is Bond.RENTS:
        return _of_rental(tasks.run_state(owner))
    if bond is Bond.SUBMITS:
        if _as_id(tasks.xcom(owner, JOB_ID)) == job_id:
            return Verdict(Want.WANTED, "its task has submitted it without waiting for it")
    elif job_id_in(tasks.xcom(owner, RETURNED)) == job_id:
        return Verdict(Want.UNKNOWN, "its task has seen it succeed, although OSAI lists it as live")
    return Verdict(Want.UNWANTED, "its task is success, without having seen the job's end")


def _of_unfinished(state: str | None, told: Any, job_id: str) -> Verdict:
    its, named = _as_id(told), state or "not scheduled"
    if told is not None and its is None:
        return Verdict(Want.UNKNOWN, f"the XCom {JOB_ID} of its task is not an id but a {type(told).__name__}")
    if its in (None, job_id):
        return Verdict(Want.WANTED, f"its task is {named}")
    return Verdict(Want.UNWANTED, f"its task is {named} and has another job, {its}", its)


def _of_rental(run_state: str | None) -> Verdict:
    if run_state is None:
        return Verdict(Want.UNKNOWN, "Airflow does not tell the state of its Dag run")
    if run_state in RUN_ENDED:
        return Verdict(Want.UNWANTED, f"its Dag run is {run_state}, and the device was not given back")
    return Verdict(Want.WANTED, f"its Dag run is {run_state}")


def job_id_in(returned: Any) -> str | None:
    """Return the job's id in what an operator has returned."""
    return _as_id(returned.get(JOB_ID)) if isinstance(returned, dict) else None


def _as_id(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
