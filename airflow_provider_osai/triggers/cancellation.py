"""Decide on kill whether to cancel the job of a stopped trigger, and cancel it in the background."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import WeakSet

from airflow.providers.common.compat.sdk import XCom
from airflow.triggers.base import BaseTrigger

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.background_tasks import in_airflow_thread, run_in_background
from airflow_provider_osai.hooks.shared_client import acquire_with_retries, release_shared_client
from airflow_provider_osai.jobs.flow import arun
from airflow_provider_osai.jobs.lifecycle import cancel, retry_while_unreachable
from airflow_provider_osai.jobs.wanted import ENDED, GONE, JOB, state_in
from airflow_provider_osai.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["BATCH", "HAS_ON_KILL", "KilledTask", "job_text", "task_state", "warm_up"]

T = TypeVar("T")

HAS_ON_KILL: Final = hasattr(BaseTrigger, "on_kill")
"""Whether this Airflow calls ``on_kill`` (3.3 and newer). Older ones only cancel the trigger, without a reason."""
ON_KILL_TIMEOUT: Final = 20.0
"""Seconds that ``on_kill`` waits for the cancellation, which then continues in the background. Airflow allows 30."""
STATE_TIMEOUT: Final = 600.0
"""Seconds for which reading an unreadable task state is retried."""
TRANSITION_TIMEOUT: Final = 6.0
"""Seconds for which a task on its way to a worker is watched: it was cleared or, rarely, it resumes."""
RECHECK_INTERVAL: Final = 1.0
"""Seconds between two reads of the task state."""
MAX_CONCURRENT_CANCELLATIONS: Final = 16
"""Maximum jobs of a batch that are cancelled at the same time."""
MAX_LINES: Final = 10
"""Maximum log lines about single jobs of a batch."""
BATCH: Final = "osai_batch"
"""The XCom with the jobs of a batch and the id of the batch, ``batch_id``."""
ID_IN: Final = {JOB: "job_id", BATCH: "batch_id"}
"""Key of the id in the XCom that names the job or batch of a task."""
DEFERRED: Final = "deferred"
UNREADABLE: Final = "unreadable"
RETRY_STATES: Final = frozenset({"up_for_retry", "up_for_reschedule"})
"""States in which a task will reconnect to its job. A kill does not lead to them."""


@dataclass(frozen=True, slots=True)
class KilledTask:
    """A task that may have been killed while it was deferred, and the job that it waited for.

    :param ti: the task instance, as the trigger has it.
    :param hook: hook of the job's connection.
    :param kind: the job's kind.
    :param job_id: OSAI's id of the job, or the id of the batch of jobs.
    :param job_ids: the ids of the jobs to cancel.
    :param job_key: the XCom that names the job or batch of the task's latest try, one of :data:`ID_IN`.
    :param unreachable_timeout: seconds for which the cancellation is retried while OSAI is unreachable.
    :param log: the trigger's logger, which writes into the task log as long as the trigger runs.
    :param wait_for_ready: whether the task waited for a device, which is kept if the task succeeded.
    """

    ti: Any
    hook: OsaiHook
    kind: str
    job_id: str
    job_ids: tuple[str, ...]
    job_key: str
    unreachable_timeout: float
    log: Any = field(repr=False)
    wait_for_ready: bool = False

    async def cancel_jobs(self) -> None:
        """Cancel the jobs if their task no longer wants them. Returns within 20 seconds and raises no errors.

        A trigger is also stopped when its triggerer ends or another triggerer takes it over, and Airflow does not
        always distinguish that from a kill, so the state of the task decides. The cancellation runs in the background:
        it continues if the caller is cancelled (Airflow 3.3 cancels a trigger repeatedly until it has stopped) or if it
        takes longer.
        """
        # Logged first: Airflow closes the task log when the trigger has stopped, possibly long before the cancellation.
        self.log.info(
            "The trigger was stopped. If its task was killed, %s will be cancelled. While OSAI is unreachable, the "
            "triggerer retries for up to %.0f s, and the job may still run",
            job_text(self.kind, self.job_ids),
            self.unreachable_timeout,
        )
        cancellation = run_in_background(self._cancel_if_killed())
        await asyncio.wait({cancellation}, timeout=ON_KILL_TIMEOUT)

    async def _cancel_if_killed(self) -> None:
        subject = job_text(self.kind, self.job_ids)
        failure = f"Checking whether {subject} is still wanted failed; it may still run: %s"
        try:
            state = await self._killed_state()
            if state is None:
                return
            failure = f"Cancelling {subject} failed, although its task is {state}; it may still run: %s"
            jobs = await self._cancel()
            ended = [job for job in jobs if job.is_terminal]
            for job in ended[:MAX_LINES]:
                message = "OSAI %s job %s has ended as %s; its task is %s"
                self.log.info(message, job.kind, job.id, job.state, state)
            if cancelled := [job.id for job in jobs if not job.is_terminal]:
                metrics.count_kill(self.kind, is_cancelled=True)
                message = "Requested cancellation of %s, since its task is %s"
                self.log.info(message, job_text(self.kind, cancelled), state)
        except Exception as error:  # Airflow would log no more than that something failed
            metrics.count_kill(self.kind, is_cancelled=False)
            self.log.error(failure, str(error) if isinstance(error, OsaiError) else type(error).__name__)

    async def _cancel(self) -> list[Job]:
        """Cancel all jobs, a few at a time, and return them as they were before; then raise the first error, if any."""
        shared = await acquire_with_retries(self.hook, self.unreachable_timeout, self.log)
        slots = asyncio.Semaphore(MAX_CONCURRENT_CANCELLATIONS)

        async def cancel_one(job_id: str) -> Job:
            flow = retry_while_unreachable(
                partial(cancel, shared.client.calls, JobKind.parse(self.kind), job_id),
                timeout=self.unreachable_timeout,
                log=lambda reason: self.log.warning(
                    "Cancelling OSAI %s job %s failed; it may still run: %s", self.kind, job_id, reason
                ),
            )
            async with slots:
                return await arun(flow, partial(shared.client.send, retry=False))

        try:
            results = await asyncio.gather(*map(cancel_one, self.job_ids), return_exceptions=True)
        finally:
            await release_shared_client(shared)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast("list[Job]", results)

    async def _killed_state(self) -> str | None:
        """Decide whether to cancel: return the task's state if it no longer needs the job; ``None`` to keep the job."""
        started = time.monotonic()
        seen_resumed = 0
        while True:
            state = await task_state(self.ti)
            elapsed = time.monotonic() - started
            job_id = await self._current_job_id() if state in (DEFERRED, "running") else None
            has_other_job = job_id not in (None, UNREADABLE, self.job_id)
            seen_resumed += state == "running" and job_id == self.job_id
            if state in ENDED or state == GONE:
                keeps_device = self.wait_for_ready and state == "success" and bool(await self._xcom("return_value"))
                is_killed = not keeps_device
            elif state == DEFERRED or (state == "running" and (has_other_job or seen_resumed > 1)):
                is_killed = has_other_job
            elif elapsed > (STATE_TIMEOUT if state == UNREADABLE else TRANSITION_TIMEOUT):
                # A running try without a job yet reconnects to this one, or cancels it if it runs after a clear.
                has_no_job_yet = state == "running" and job_id is None
                is_killed = state not in RETRY_STATES and state != UNREADABLE and not has_no_job_yet
            else:
                await asyncio.sleep(RECHECK_INTERVAL)
                continue
            if not is_killed:
                self.log.info("OSAI %s job %s is kept, since its task is %s", self.kind, self.job_id, state)
            return state if is_killed else None

    async def _current_job_id(self) -> Any:
        """Return the id of the task's present job or batch; ``None`` if it has none, or ``"unreadable"``."""
        value = await self._xcom(self.job_key)
        if value is None:
            return None
        return value.get(ID_IN[self.job_key], UNREADABLE) if isinstance(value, dict) else UNREADABLE

    async def _xcom(self, key: str) -> Any:
        """Return an XCom of the task; ``None`` if there is none, ``"unreadable"`` if it cannot be read."""
        if not HAS_ON_KILL:
            return UNREADABLE  # that triggerer handles one request at a time, and the state is sufficient
        ti = self.ti
        try:
            return await in_airflow_thread(
                XCom.get_one, key=key, dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=_map_index(ti)
            )
        except Exception:  # the XCom only refines the decision
            return UNREADABLE


_warm_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def warm_up(ti: Any) -> None:
    """Read a task's state once per event loop, in the background, so that the first kill is not delayed.

    Airflow initialises the code behind that at the first call, which takes 17 seconds and more on a busy machine.
    """
    loop = asyncio.get_running_loop()
    if not HAS_ON_KILL or loop in _warm_loops or "airflow.sdk.execution_time.task_runner" not in sys.modules:
        return  # outside a triggerer, no supervisor can answer
    _warm_loops.add(loop)
    run_in_background(task_state(ti))


async def task_state(ti: Any) -> str:
    """Return the current state of a task instance.

    :return: ``"gone"`` if Airflow has no such task, ``"unreadable"`` if the state cannot be read.
    """
    # Imported late, since the module initialises the whole task runner.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        states = await in_airflow_thread(
            RuntimeTaskInstance.get_task_states,
            dag_id=ti.dag_id,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            map_index=_map_index(ti),
        )
        return str(state_in(states, ti.run_id, ti.task_id, _map_index(ti)))
    except Exception:  # whatever Airflow raises, the job must be kept
        return UNREADABLE


def job_text(kind: str, job_ids: Sequence[str]) -> str:
    """Return the job or jobs as words for the log."""
    return f"OSAI {kind} job {job_ids[0]}" if len(job_ids) == 1 else f"{len(job_ids)} OSAI {kind} jobs"


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)
