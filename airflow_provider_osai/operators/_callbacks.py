"""Callbacks that an operator calls in its task: functions and Airflow's notifiers. Their errors are only logged."""

from __future__ import annotations

import copy
import inspect
import re
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_osai.api.errors import OsaiArgumentError, sanitize_server_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

__all__ = ["MappedCallbacks", "collect_callbacks", "describe_error", "run_callbacks"]

MAX_MESSAGE: Final = 300
"""Maximum characters of an error's message in the log."""
ADDRESS: Final = re.compile(r"(\w+://|\burl: )\S+")
"""An address in a message. That of an incoming webhook is itself a secret."""


class MappedCallbacks:
    """The callbacks of a mapped task, so that they are not in the serialized Dag.

    Airflow stores the arguments of ``partial()``, and of a function its source, which may contain a secret. A function
    without source, such as one made by ``exec``, even fails the serialization.

    :param value: the argument as given: a callback, or a list of them.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<callbacks>"


def collect_callbacks(argument: str, value: Any) -> list[Callable[[Context], object]]:
    """Return the callbacks that an argument holds: none, one, or a list of them.

    :param argument: its name, for the error.
    :param value: its value.
    :raises OsaiArgumentError: if one cannot be called with a context. The error names only its type, since its value
        may contain a secret.
    """
    if isinstance(value, MappedCallbacks):
        value = value.value
    if value is None:
        return []
    callbacks = list(value) if isinstance(value, (list, tuple)) else [value]
    for callback in callbacks:
        if reason := _why_not_callable(callback):
            raise OsaiArgumentError(
                f"{argument} contains {_name(callback)}, which {reason}. A function f(context) or a notifier is "
                "required, or a list of them"
            )
    return callbacks


def run_callbacks(
    callbacks: Sequence[Callable[[Context], object]], context: Context, log: Any, **extra: object
) -> None:
    """Call each callback with the task's context. An error is logged, and the next one is called.

    A copy of a notifier is called, because it replaces its templates by their text: another task that runs in this
    process, as in ``dag.test()``, may use the same notifier.

    :param callbacks: from :func:`collect_callbacks`.
    :param context: the running task's context. Each callback gets a copy.
    :param log: a logger, such as that of an Airflow operator.
    :param extra: further keys of the context. Each callback gets a deep copy.
    """
    from airflow.sdk import BaseNotifier  # imported here because most tasks have no callbacks

    for number, callback in enumerate(callbacks, start=1):
        place = (number, len(callbacks), _name(callback))
        try:
            own = cast("Context", {**context, **copy.deepcopy(extra)})
            (copy.copy(callback) if isinstance(callback, BaseNotifier) else callback)(own)
        except (Exception, TaskDeferred) as error:  # a deferral is that of an operator which the callback runs
            log.error("Callback %d of %d, %s, failed and is ignored: %s", *place, describe_error(error))
        else:
            log.info("Callback %d of %d, %s, was called", *place)


def _why_not_callable(callback: object) -> str | None:
    """Return why a task cannot call an object with its context; ``None`` if it can."""
    from airflow.sdk import BaseNotifier  # imported here because most tasks have no callbacks

    if isinstance(callback, type) and issubclass(callback, BaseNotifier):
        return "is a class"
    if not callable(callback):
        return "is not callable"
    if isinstance(callback, BaseNotifier) and type(callback).notify is BaseNotifier.notify:
        return "can only be awaited: it has no notify()"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds for function in (callback, type(callback).__call__)):
        return "is async or a generator, so a call would not run it"
    return None


def _name(callback: object) -> str:
    """Return the name of a function or class, or of an object's class: a ``repr`` may contain a secret."""
    named = callback if inspect.isroutine(callback) or isinstance(callback, type) else type(callback)
    return sanitize_server_text(named.__name__, MAX_MESSAGE)


def describe_error(error: BaseException, mask: Callable[[str], str] = str) -> str:
    """Return the type and the message of an error of somebody else's code, without addresses.

    :param mask: returns the message without known secrets.
    """
    try:
        message = str(error)
    except Exception:  # of its __str__
        message = "its message cannot be read"
    return ADDRESS.sub(r"\1***", sanitize_server_text(mask(f"{type(error).__name__}: {message}"), MAX_MESSAGE))
