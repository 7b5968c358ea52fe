"""Push the keys of a task's result to which the Dag refers as XComs of their own: each costs Airflow a request."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import XComArg

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["push_outputs", "referenced_outputs"]

Result = TypeVar("Result", bound=Mapping[str, Any])


def push_outputs(task: Any, context: Context, result: Result, *, but: Collection[str] = ()) -> Result:
    """Push the referenced keys of a task's result, unless ``multiple_outputs`` or ``do_xcom_push`` is set; return it.

    Airflow pushes the result itself. With ``multiple_outputs=True``, Airflow also pushes all its keys.

    :param but: keys that were pushed already.
    """
    if task.requested_outputs is None:
        task.multiple_outputs = False  # of this process; elsewhere Airflow reads a key that is missing as None
    if task.requested_outputs is None and task.do_xcom_push:
        for key in referenced_outputs(task, result.keys() - but):
            context["ti"].xcom_push(key=key, value=result[key])
    return result


def referenced_outputs(task: Any, keys: Collection[str]) -> set[str]:
    """Return those of *keys* of the task's result that the Dag refers to.

    That is, in the arguments of any task: ``task.output["model_id"]``, or the key's name in a template that pulls
    XComs, as in ``{{ ti.xcom_pull("train", key="model_id") }}``. References in Python code and in files are not seen.
    """
    dag = task.get_dag()
    if dag is None or not keys:
        return set()
    arguments = [argument for other in dag.task_dict.values() for argument in _arguments(other)]
    pulled = " ".join(text for text in _strings(arguments) if "xcom_pull" in text)
    references = XComArg.iter_xcom_references(arguments)
    referenced = {key for operator, key in references if operator.task_id == task.task_id}
    return {key for key in keys if key in referenced or key in pulled}


def _arguments(task: Any) -> Iterator[Any]:
    """Yield the arguments of a task, mapped or not."""
    if task.is_mapped:
        yield task.partial_kwargs
        decorated = getattr(task, "op_kwargs_expand_input", None)
        yield (decorated or task.expand_input).value
    else:
        yield from (getattr(task, name, None) for name in task.template_fields)


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in nested lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _strings(each)
