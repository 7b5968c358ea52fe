"""Run coroutines in the background of an event loop, independent of the caller's cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_in_background", "running_tasks"]

T = TypeVar("T")

running_tasks: set[asyncio.Task[Any]] = set()
"""Strong references to the background tasks; the event loop keeps only weak ones."""


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run *coroutine* as a task of the running loop, which continues if the caller is cancelled."""
    task = asyncio.get_running_loop().create_task(coroutine)
    running_tasks.add(task)
    task.add_done_callback(running_tasks.discard)
    return task
