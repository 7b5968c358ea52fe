"""Find a deferred task and resume it as its trigger would have. The only module that updates Airflow's own tables.

Airflow has no public API to resume a deferred task, so this calls ``Trigger.submit_event``, as the triggerer does.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update

from airflow_provider_osai.triggers.batch import OsaiJobBatchTrigger
from airflow_provider_osai.triggers.job import OsaiJobTrigger

if TYPE_CHECKING:
    from sqlalchemy import CursorResult

    from airflow_provider_osai.jobs.idempotency import TaskKey
    from airflow_provider_osai.triggers.event import JobEvent

__all__ = ["DeferredTask", "find_deferred_task", "incompatibility_reason", "resume"]

COLUMNS: Final = ("id", "dag_id", "run_id", "task_id", "map_index", "max_tries", "state", "trigger_id", "updated_at")
"""Columns of ``TaskInstance`` that this module needs."""
TRIGGERS: Final = {f"{each.__module__}.{each.__name__}": each for each in (OsaiJobTrigger, OsaiJobBatchTrigger)}
"""The triggers whose tasks can be resumed, by class path."""


@cache
def incompatibility_reason() -> str | None:
    """Return why this version cannot resume tasks of this Airflow; ``None`` if it can."""
    missing = [name for name in COLUMNS if not hasattr(TaskInstance, name)]
    if missing:
        return f"TaskInstance has no {', '.join(missing)}"
    try:
        inspect.signature(Trigger.submit_event).bind(1, TriggerEvent({}), session=None)
    except (AttributeError, TypeError) as error:
        return f"Trigger.submit_event is incompatible: {error}"
    return None


@dataclass(frozen=True, slots=True)
class DeferredTask:
    """A task instance that is deferred on a job, or on the jobs of a batch.

    :param ti_id: the task instance's id.
    :param trigger_id: the trigger's id.
    :param trigger: the trigger, which does not run here.
    :param resume_delay: seconds until the task may be resumed, see :meth:`OsaiJobTrigger.hold_seconds`.
    """

    ti_id: Any
    trigger_id: int
    trigger: OsaiJobTrigger
    resume_delay: float = 0.0

    @property
    def is_batch(self) -> bool:
        """Whether the task waits for the jobs of a batch."""
        return isinstance(self.trigger, OsaiJobBatchTrigger)


def find_deferred_task(owner: TaskKey) -> DeferredTask | None:
    """Return the task instance of *owner* if it is now deferred by our trigger, in the same generation. Blocks."""
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
                Trigger.classpath.in_(TRIGGERS),
            )
        ).one_or_none()
        if row is None:
            return None
        ti_id, trigger_row = row
        trigger = TRIGGERS[trigger_row.classpath](**trigger_row.kwargs)
        delay = trigger.hold_seconds(time.time(), trigger_row.created_date.timestamp())
        return DeferredTask(ti_id, trigger_row.id, trigger, delay)


def resume(task: DeferredTask, event: JobEvent) -> bool:
    """Resume the task with *event*; return ``False`` if it was resumed or ended in the meantime. Blocks."""
    with create_session() as session:
        # The first update locks the row until its transaction ends; a later one then matches no row.
        claim = (
            update(TaskInstance)
            .where(
                TaskInstance.id == task.ti_id,
                TaskInstance.trigger_id == task.trigger_id,
                TaskInstance.state == TaskInstanceState.DEFERRED,
            )
            .values(updated_at=datetime.now(UTC))
            .execution_options(synchronize_session=False)
        )
        if cast("CursorResult[Any]", session.execute(claim)).rowcount != 1:
            return False
        Trigger.submit_event(task.trigger_id, TriggerEvent(event.payload()), session=session)
        return True
