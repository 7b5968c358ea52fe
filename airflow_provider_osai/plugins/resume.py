"""Finds a deferred task and resumes it as its trigger would have: the one module that touches Airflow's own tables.

Airflow has no public way to end a deferral from outside, so this uses what the triggerer's own events go through.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update

from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from sqlalchemy import CursorResult

    from airflow_provider_osai.jobs.event import JobEvent
    from airflow_provider_osai.jobs.reference import Owner

__all__ = ["Waiting", "find_waiting", "misfit", "resume"]

NEEDED: Final = ("id", "dag_id", "run_id", "task_id", "map_index", "max_tries", "state", "trigger_id", "updated_at")
CLASSPATH: Final = f"{OsaiJobTrigger.__module__}.{OsaiJobTrigger.__name__}"


@cache
def misfit() -> str | None:
    """Return why this Airflow's tasks cannot be resumed from here; ``None`` if they can."""
    lacking = [name for name in NEEDED if not hasattr(TaskInstance, name)]
    if lacking:
        return f"its task instances have no {', '.join(lacking)}"
    try:
        inspect.signature(Trigger.submit_event).bind(1, TriggerEvent({}), session=None)
    except (AttributeError, TypeError) as error:
        return f"Trigger.submit_event does not fit: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task instance that is deferred on a job.

    :param ti_id: the task instance's id.
    :param trigger_id: of the trigger that waits for it.
    :param osai_conn_id: the connection through which it waits.
    :param kind: of the job.
    :param job_id: OSAI's id of it.
    :param deferrals: how often the task was deferred on this job before.
    :param carried: what the trigger hands on in its event.
    :param held_back: seconds until the task may be resumed, see :meth:`OsaiJobTrigger.held_back`.
    """

    ti_id: Any
    trigger_id: int
    osai_conn_id: str
    kind: str
    job_id: str
    deferrals: int
    carried: Mapping[str, Any] = field(default_factory=dict)
    held_back: float = 0.0


def find_waiting(owner: Owner) -> Waiting | None:
    """Return the task instance of *owner*, if it is deferred now, in this generation, by a trigger of ours. Blocks."""
    with create_session() as session:
        row = session.execute(
            select(TaskInstance.id, Trigger)
            .join(Trigger, Trigger.id == TaskInstance.trigger_id)
            .where(
                TaskInstance.dag_id == owner.dag_id,
                TaskInstance.run_id == owner.run_id,
                TaskInstance.task_id == owner.task_id,
                TaskInstance.map_index == owner.map_index,
                TaskInstance.max_tries == owner.generation,
                TaskInstance.state == TaskInstanceState.DEFERRED,
                Trigger.classpath == CLASSPATH,
            )
        ).one_or_none()
        if row is None:
            return None
        ti_id, trigger = row
        waits = OsaiJobTrigger(**trigger.kwargs)
        return Waiting(
            ti_id,
            trigger.id,
            waits.osai_conn_id,
            str(waits.kind),
            str(waits.job_id),
            waits.deferrals,
            carried={"deadline": waits.deadline, "reference": waits.reference},
            held_back=waits.held_back(time.time(), trigger.created_date.timestamp()),
        )


def resume(waiting: Waiting, event: JobEvent) -> bool:
    """Resume the task with *event*, unless something else has resumed or ended it since; say whether it was. Blocks."""
    with create_session() as session:
        # Whoever changes the row first holds it until the end of the transaction; who comes later finds nothing.
        mine = (
            update(TaskInstance)
            .where(
                TaskInstance.id == waiting.ti_id,
                TaskInstance.trigger_id == waiting.trigger_id,
                TaskInstance.state == TaskInstanceState.DEFERRED,
            )
            .values(updated_at=datetime.now(UTC))
            .execution_options(synchronize_session=False)
        )
        if cast("CursorResult[Any]", session.execute(mine)).rowcount != 1:
            return False
        Trigger.submit_event(waiting.trigger_id, TriggerEvent(event.payload()), session=session)
        return True
