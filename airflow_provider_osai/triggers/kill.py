"""Decides whether the task of a stopped trigger was killed, and cancels its job then, in the background."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.jobs.flow import arun
from airflow_provider_osai.jobs.lifecycle import cancel, persist
from airflow_provider_osai.jobs.wanted import ENDED, GONE, state_in
from airflow_provider_osai.triggers.sharing import join_persistently, leave

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["AIRFLOW_TELLS_KILLS", "KilledTask", "in_background", "prepare", "task_state"]

T = TypeVar("T")

AIRFLOW_TELLS_KILLS: Final = hasattr(BaseTrigger, "on_kill")
"""Whether this Airflow (3.3 and newer) calls ``on_kill``; before, a trigger is only cancelled, for whatever reason."""
ON_KILL_TIMEOUT: Final = 20.0
"""Seconds for which ``on_kill`` waits for the work, which goes on in the background then. Airflow grants 30."""
STATE_PATIENCE: Final = 600.0
"""Seconds for which Airflow is asked for a state that it does not tell."""
TRANSIT: Final = 6.0
"""Seconds for which a task that is on its way to a worker is watched: it was cleared, or (rarely) it resumes."""
RECHECK: Final = 1.0
"""Seconds between two questions."""
STILL_WAITING: Final = "deferred"
UNREADABLE: Final = "unreadable"
WANTED: Final = frozenset({"up_for_retry", "up_for_reschedule"})
"""States in which a task will reconnect to its job. No kill leads to them."""


@dataclass(frozen=True, slots=True)
class KilledTask:
    """A task that may have been killed while it was deferred, and the job that it waited for.

    :param ti: the task instance, as the trigger has it.
    :param hook: of the job's connection.
    :param kind: of the job.
    :param job_id: OSAI's id of it.
    :param unreachable_timeout: seconds for which an OSAI that is out of reach is asked to cancel the job.
    :param log: the trigger's logger, which writes into the task's log as long as the trigger lives.
    :param until_ready: whether the task waited for a device, which outlives a task that succeeded.
    """

    ti: Any
    hook: OsaiHook
    kind: str
    job_id: str
    unreachable_timeout: float
    log: Any = field(repr=False)
    until_ready: bool = False

    async def cancel_job(self) -> None:
        """Cancel the job if its task no longer wants it. Returns within 20 seconds, and raises nothing of its own.

        A trigger is also stopped when its triggerer ends or another one takes it over, and Airflow does not always tell
        that from a kill. So the task's own state decides. The work is done in the background: it goes on when the
        caller is cancelled (Airflow 3.3 cancels a trigger at each round until it is gone) and when it takes longer.
        """
        # Now, since Airflow closes the task's log when the trigger is gone, which may be long before the work is done.
        self.log.info(
            "The trigger was stopped. If its task was killed, OSAI %s job %s is cancelled now. As long as OSAI does "
            "not answer, that is retried in the triggerer for up to %.0f s, and the job may still run",
            self.kind,
            self.job_id,
            self.unreachable_timeout,
        )
        work = in_background(self._decide_and_cancel())
        await asyncio.wait({work}, timeout=ON_KILL_TIMEOUT)

    async def _decide_and_cancel(self) -> None:
        said = "Could not tell whether OSAI %s job %s is still wanted, it may go on: %s"
        try:
            state = await self._killed_state()
            if state is None:
                return
            said = f"Could not cancel OSAI %s job %s of a task that is {state}, it may go on: %s"
            job = await self._cancel()
            fate = f"has ended as {job.state}" if job.is_terminal else "was told to stop"
            self.log.info("OSAI %s job %s %s: its task is %s", self.kind, self.job_id, fate, state)
        except Exception as error:  # noqa: BLE001 - Airflow would only say that something went wrong
            self.log.error(
                said, self.kind, self.job_id, str(error) if isinstance(error, OsaiError) else type(error).__name__
            )

    async def _cancel(self) -> Job:
        shared = await join_persistently(self.hook, self.unreachable_timeout, self.log)
        try:
            flow = persist(
                partial(cancel, shared.client.calls, JobKind.parse(self.kind), self.job_id),
                patience=self.unreachable_timeout,
                note=lambda text: self.log.warning(
                    "OSAI %s job %s may still run, its cancellation did not get through: %s",
                    self.kind,
                    self.job_id,
                    text,
                ),
            )
            return await arun(flow, partial(shared.client.send, once=True))
        finally:
            await leave(shared)

    async def _killed_state(self) -> str | None:
        """Return the state of a task that no longer wants the job; ``None`` if the job shall live."""
        began = time.monotonic()
        resumed = 0
        while True:
            state, waited = await task_state(self.ti), time.monotonic() - began
            job_id = await self._xcom("job_id") if state in (STILL_WAITING, "running") else None
            has_another = job_id not in (None, UNREADABLE, self.job_id)
            resumed += state == "running" and job_id == self.job_id
            if state in ENDED or state == GONE:
                has_device = self.until_ready and state == "success" and bool(await self._xcom("return_value"))
                is_killed = not has_device
            elif state == STILL_WAITING or (state == "running" and (has_another or resumed > 1)):
                is_killed = has_another
            elif waited > (STATE_PATIENCE if state == UNREADABLE else TRANSIT):
                # A running try that has told no job yet finds this one, or has it cancelled if it runs after a clear.
                has_none_yet = state == "running" and job_id is None
                is_killed = state not in WANTED and state != UNREADABLE and not has_none_yet
            else:
                await asyncio.sleep(RECHECK)
                continue
            if not is_killed:
                self.log.info("OSAI %s job %s goes on: the task is %s", self.kind, self.job_id, state)
            return state if is_killed else None

    async def _xcom(self, key: str) -> Any:
        """Return an XCom of the task, ``None`` if there is none, ``"unreadable"`` if Airflow does not tell."""
        if not AIRFLOW_TELLS_KILLS:
            return UNREADABLE  # its triggerer answers one question at a time, and the state says enough
        ti = self.ti
        where = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": _map_index(ti)}
        try:
            return await sync_to_async(XCom.get_one)(key=key, **where)
        except Exception:  # noqa: BLE001 - it only refines the decision
            return UNREADABLE


_going_on: set[asyncio.Task[Any]] = set()
"""Keeps a reference to each work in the background; the event loop alone would not."""


def in_background(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start *work* on the running loop, where it goes on when the caller is cancelled."""
    task = asyncio.get_running_loop().create_task(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)
    return task


_prepared: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def prepare(ti: Any) -> None:
    """Read a task's state once in a triggerer's life, in the background, so that the first kill need not wait.

    Airflow builds what answers such questions at the first one, which takes 17 seconds and more on a busy machine.
    """
    loop = asyncio.get_running_loop()
    if not AIRFLOW_TELLS_KILLS or loop in _prepared or "airflow.sdk.execution_time.task_runner" not in sys.modules:
        return  # outside of a triggerer there is nobody to ask
    _prepared.add(loop)
    in_background(task_state(ti))


async def task_state(ti: Any) -> str:
    """Return the state of a task instance as Airflow knows it now.

    :return: ``"gone"`` if Airflow answers and does not know the task, ``"unreadable"`` if it does not answer.
    """
    # Not at the top: importing it makes a worker's whole machinery ready.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # noqa: PLC0415

    try:
        known = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=_map_index(ti)
        )
        return str(state_in(known, ti.run_id, ti.task_id, _map_index(ti)))
    except Exception:  # noqa: BLE001 - whatever it is, the job must live
        return UNREADABLE


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)
