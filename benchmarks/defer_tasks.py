"""Mark the task instances of a run as deferred, as the execution API does when a task defers itself.

Run with the environment of the Airflow instance: ``python -m benchmarks.defer_tasks DAG RUN SIDE INTERVAL``. Prints the
number of task instances. They must be ``scheduled``; task ``map_index`` waits for job ``map_index + 1``.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select

from benchmarks.waiting import SIDES

__all__ = ["defer"]


def defer(dag_id: str, run_id: str, side: str, interval: float) -> int:
    """Give each scheduled task instance of the run a trigger of *side*, in one transaction; return their number."""
    make = SIDES[side]()
    with create_session() as session:
        chosen = select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        instances = session.scalars(chosen.where(TaskInstance.state == TaskInstanceState.SCHEDULED)).all()
        now = datetime.now(UTC)
        for instance in instances:
            classpath, arguments = make(str(instance.map_index + 1), interval).serialize()
            trigger = Trigger(classpath=classpath, kwargs=arguments)
            session.add(trigger)
            session.flush()
            instance.state = TaskInstanceState.DEFERRED
            instance.trigger_id = trigger.id
            instance.next_method = "execute_complete"
            instance.next_kwargs = {}
            instance.start_date = now
            instance.try_number = 1
        return len(instances)


if __name__ == "__main__":
    sys.stdout.write(f"{defer(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))}\n")
