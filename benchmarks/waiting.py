"""One side in a process of its own: triggers that wait on one event loop, as in Airflow's triggerer.

As there (``airflow.jobs.triggerer_job_runner.TriggerRunner`` of 3.3): triggers are made one by one, with two turns of
the loop before each; each has an asyncio task with greenback's portal, which iterates ``trigger.run()`` and then calls
``cleanup()``. A triggerer takes at most 50 new triggers in each round of about a second, so their polls do not start in
step; here their starts are spread evenly over one interval for the same effect, and in one go only if asked for.
Not included, since it is the same for all sides: the database and the supervising process, decrypting
the arguments, the task instance and its template context, the span, the log lines about a trigger and those that the
triggers write themselves (logging is off).

Run as a module, ``python -m benchmarks.waiting SIDE INTERVAL``: reads commands from its input, a line of JSON each, and
answers each with one. Used by :class:`benchmarks.side.Side`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenback
import psutil
import structlog
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SIDES", "Runner"]

TICK = 0.05
"""Seconds between two looks at how late the loop is."""


class IdleTrigger(BaseTrigger):
    """Waits for ever and asks nobody: what a trigger costs before it does anything."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes this trigger from."""
        return f"{__name__}.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent(None)


def _http() -> Callable[[str, float], BaseTrigger]:
    from airflow.providers.http.triggers.http import HttpSensorTrigger  # noqa: PLC0415 - each side pays for its own

    return lambda job_id, interval: HttpSensorTrigger(
        endpoint=f"generic/{job_id}", http_conn_id="bench_http", poke_interval=interval
    )


def _dbt() -> Callable[[str, float], BaseTrigger]:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger  # noqa: PLC0415 - same

    return lambda job_id, interval: DbtCloudRunJobTrigger(
        conn_id="bench_dbt", run_id=int(job_id), account_id=1, poll_interval=interval, end_time=time.time() + 86_400
    )


def _osai(conn_id: str) -> Callable[[str, float], BaseTrigger]:
    from airflow_provider_osai.triggers.job import OsaiJobTrigger  # noqa: PLC0415 - same

    # An hour old, so that the interval is the whole one: a young job is looked at more often.
    return lambda job_id, interval: OsaiJobTrigger(
        osai_conn_id=conn_id, kind="training", job_id=job_id, since=time.time() - 3600, poll_interval=interval
    )


SIDES: dict[str, Callable[[], Callable[[str, float], BaseTrigger]]] = {
    "idle": lambda: lambda _job_id, _interval: IdleTrigger(),  # type: ignore[no-untyped-call]
    "http": _http,
    "dbt": _dbt,
    "ours": lambda: _osai("bench_osai"),
    "single": lambda: _osai("bench_single"),
}
"""What may wait: the name of a side and how its triggers are made."""


class Runner:
    """Runs the triggers of one side, and measures its own process.

    :param make: makes a trigger from a job's id and the poll interval in seconds.
    :param interval: the poll interval.
    """

    def __init__(self, make: Callable[[str, float], BaseTrigger], interval: float) -> None:
        self._make, self._interval = make, interval
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fired: list[str] = []
        self._late: list[float] = []
        self._watch: asyncio.Task[None] | None = None
        self._began = (0.0, 0.0)

    async def add(self, jobs: list[str], seconds: float = 0.0) -> dict[str, Any]:
        """Start a trigger for each of *jobs*; spread over *seconds*; 0: in one go."""
        begin = time.monotonic()
        for number, job in enumerate(jobs):
            await asyncio.sleep(max(0.0, begin + seconds * number / len(jobs) - time.monotonic()))
            await asyncio.sleep(0)
            self._tasks[job] = asyncio.create_task(self._run_trigger(job, self._make(job, self._interval)), name=job)
        return {}

    async def memory(self) -> dict[str, Any]:
        """Return the resident memory in bytes, after all garbage is collected and given back."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        return {"rss": psutil.Process().memory_info().rss}

    async def start(self) -> dict[str, Any]:
        """Begin to measure. What filling up has left behind is collected before, so that all begin alike."""
        gc.collect()
        self._late.clear()
        self._watch = asyncio.create_task(self._watch_the_loop())
        self._began = (time.monotonic(), _cpu())
        return {}

    async def stop(self) -> dict[str, Any]:
        """End the measuring: seconds, CPU as a share of one core, and how late the loop was, in milliseconds."""
        seconds, cpu = time.monotonic() - self._began[0], _cpu() - self._began[1]
        if self._watch:
            self._watch.cancel()
        late = sorted(1000 * value for value in self._late) or [float("nan")]
        return {
            "seconds": seconds,
            "cpu": cpu / seconds,
            "lag_p50_ms": late[len(late) // 2],
            "lag_p99_ms": late[int(len(late) * 0.99)],
            "lag_max_ms": late[-1],
        }

    async def fired(self) -> dict[str, Any]:
        """Return the jobs whose triggers fired an event, and those whose triggers raised or ended without one."""
        dead = [job for job, task in self._tasks.items() if task.done() and job not in set(self._fired)]
        return {"fired": self._fired, "dead": dead}

    async def _run_trigger(self, job: str, trigger: BaseTrigger) -> None:
        await greenback.ensure_portal()
        try:
            async for _event in trigger.run():  # type: ignore[attr-defined]  # Airflow declares a coroutine
                self._fired.append(job)
        finally:
            await trigger.cleanup()

    async def _watch_the_loop(self) -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(TICK)
            self._late.append(time.monotonic() - begin - TICK)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _obey(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        verb, arguments = json.loads(line)
        answer = await getattr(runner, verb)(*arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(side: str, interval: float) -> None:
    """Obey the commands of the input, until it ends."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_obey(Runner(SIDES[side](), interval)))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
