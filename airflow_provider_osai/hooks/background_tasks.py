"""Run coroutines in the background of an event loop, and blocking calls of Airflow in its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["in_airflow_thread", "run_in_background", "running_tasks"]

T = TypeVar("T")

running_tasks: set[asyncio.Task[Any]] = set()
"""Strong references to the background tasks; the event loop keeps only weak ones."""


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run *coroutine* as a task of the running loop, which continues if the caller is cancelled."""
    task = asyncio.get_running_loop().create_task(coroutine)
    running_tasks.add(task)
    task.add_done_callback(running_tasks.discard)
    return task


async def in_airflow_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a blocking function of Airflow that sends a request to the supervisor, and return its result.

    Before Airflow 3.3, that must run in a thread of asgiref: in any other it would read the responses to the
    triggerer's own calls and crash the triggerer.
    """
    # Imported here because the triggerer has imported it, and a task in a worker needs none of it.
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)(*args, **kwargs)
