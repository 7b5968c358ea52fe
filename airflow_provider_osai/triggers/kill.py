"""What a trigger does when somebody may have killed its task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.flow import arun
from airflow_provider_osai.jobs.lifecycle import cancel
from airflow_provider_osai.triggers.sharing import join, leave

if TYPE_CHECKING:
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["AIRFLOW_TELLS_KILLS", "cancel_if_killed", "task_state"]

AIRFLOW_TELLS_KILLS: Final = hasattr(BaseTrigger, "on_kill")
"""Whether this Airflow (3.3 and newer) calls ``on_kill``; before, a trigger is only cancelled, for whatever reason."""
KILL_TIMEOUT: Final = 20.0
"""Seconds that it may take to find out about a kill and to cancel the job. Airflow grants 30."""
STILL_WAITING: Final = "deferred"
UNREADABLE: Final = "unreadable"


async def cancel_if_killed(ti: Any, hook: OsaiHook, kind: str, job_id: str, log: Any) -> None:
    """Cancel the job if its task no longer waits for it. Takes at most 20 seconds and raises nothing of its own.

    A trigger is also stopped when its triggerer ends or another one takes it over, and Airflow does not always tell
    that from a kill. So the task's own state decides: while it is deferred, or cannot be read, the job lives.

    Airflow 3.3 cancels a trigger anew, ``on_kill`` and all, at each round of the triggerer until it is gone. So the
    work is done beside it and goes on when the caller is cancelled.
    """
    work = asyncio.get_running_loop().create_task(_find_out(ti, hook, kind, job_id, log))
    _going_on.add(work)
    work.add_done_callback(_going_on.discard)
    await asyncio.shield(work)


_going_on: set[asyncio.Task[None]] = set()
"""Keeps a reference to each kill on its way; the event loop alone would not."""


async def _find_out(ti: Any, hook: OsaiHook, kind: str, job_id: str, log: Any) -> None:
    said = "Could not tell whether OSAI %s job %s goes on, look into the portal: %s"
    try:
        async with asyncio.timeout(KILL_TIMEOUT):
            state = await task_state(ti)
            if state in (STILL_WAITING, UNREADABLE):
                log.info("OSAI %s job %s goes on: the task is %s", kind, job_id, state)
                return
            said = f"Could not cancel OSAI %s job %s of a task that is {state}, look into the portal: %s"
            shared = await join(hook)
            try:
                job = await arun(cancel(shared.client.calls, JobKind.parse(kind), job_id), shared.client.send)
            finally:
                await leave(shared)
            fate = f"has ended as {job.state}" if job.is_terminal else "was told to stop"
            log.info("OSAI %s job %s %s: its task is %s", kind, job_id, fate, state)
    except Exception as error:  # noqa: BLE001 - Airflow would only say that something went wrong
        log.error(said, kind, job_id, str(error) if isinstance(error, OsaiError) else type(error).__name__)


async def task_state(ti: Any) -> str:
    """Return the state of a task instance as Airflow knows it now; ``"unreadable"`` if it cannot be told."""
    # Not at the top: importing it makes a worker's whole machinery ready.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    try:
        known = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        states = known[ti.run_id]
        key = ti.task_id if ti.task_id in states else f"{ti.task_id}_{ti.map_index}"
        return str(states[key])
    except Exception:  # noqa: BLE001 - whatever it is, the job must live
        return UNREADABLE
