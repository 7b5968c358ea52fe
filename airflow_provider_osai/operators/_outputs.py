"""Which keys of a task's result other tasks of the Dag refer to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from airflow.sdk import XComArg

__all__ = ["referenced_outputs"]


def referenced_outputs(task: Any, keys: Collection[str]) -> set[str]:
    """Return those of *keys* of the task's result that other tasks refer to, as in ``task.output["model_id"]``.

    References in the code of a task, such as ``ti.xcom_pull(key=...)``, are not seen.
    """
    dag = task.get_dag()
    if dag is None:
        return set()
    found: set[str] = set()
    for other in (dag.task_dict[task_id] for task_id in task.downstream_task_ids if task_id in dag.task_dict):
        references = XComArg.iter_xcom_references(list(_arguments(other)))
        found |= {key for operator, key in references if operator.task_id == task.task_id}
    return found & set(keys)


def _arguments(task: Any) -> Iterator[Any]:
    """Yield the arguments of a task, mapped or not."""
    if task.is_mapped:
        yield task.partial_kwargs  # Airflow does not map over the XCom of a single key
    else:
        yield from (getattr(task, name, None) for name in task.template_fields)
