"""The process of one side: triggers that wait on one event loop, as in Airflow's triggerer.

As in ``airflow.jobs.triggerer_job_runner.TriggerRunner`` of 3.3, triggers are created one by one, with two iterations
of the loop before each; each has an asyncio task with greenback's portal, which iterates ``trigger.run()`` and then
calls ``cleanup()``. A triggerer starts at most 50 new triggers per round of about a second, so that their polls are not
synchronized; here the starts are spread evenly over one interval, for the same effect, unless requested otherwise. Not
included, since it is the same for all sides: the database and the supervising process, decrypting the arguments, the
task instance and its template context, the span, and all logging (which is disabled).

Run as a module, ``python -m benchmarks.waiting SIDE INTERVAL``: reads commands from the standard input, one line of
JSON each, and writes one line of JSON for each. Used by :class:`benchmarks.peer_process.Side`.
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
"""Seconds of the sleeps by which the lag of the event loop is measured."""


class IdleTrigger(BaseTrigger):
    """Waits forever without requests, to measure the cost of a trigger itself."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait forever."""
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent(None)


def _http() -> Callable[[str, float], BaseTrigger]:
    from airflow.providers.http.triggers.http import HttpSensorTrigger  # each side imports only its own

    return lambda job_id, interval: HttpSensorTrigger(
        endpoint=f"generic/{job_id}", http_conn_id="bench_http", poke_interval=interval
    )


def _dbt() -> Callable[[str, float], BaseTrigger]:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger  # same

    return lambda job_id, interval: DbtCloudRunJobTrigger(
        conn_id="bench_dbt", run_id=int(job_id), account_id=1, poll_interval=interval, end_time=time.time() + 86_400
    )


def _osai(conn_id: str) -> Callable[[str, float], BaseTrigger]:
    from airflow_provider_osai.triggers.job import OsaiJobTrigger  # same

    # An hour old, since new jobs are polled more often than once per interval.
    return lambda job_id, interval: OsaiJobTrigger(
        osai_conn_id=conn_id, kind="training", job_id=job_id, since=time.time() - 3600, poll_interval=interval
    )


SIDES: dict[str, Callable[[], Callable[[str, float], BaseTrigger]]] = {
    "idle": lambda: lambda _job_id, _interval: IdleTrigger(),  # type: ignore[no-untyped-call]  # Airflow has no types for it
    "http": _http,
    "dbt": _dbt,
    "ours": lambda: _osai("bench_osai"),
    "single": lambda: _osai("bench_single"),
}
"""For each side, a function that imports what it needs and returns the factory of its triggers."""


class Runner:
    """Runs the triggers of one side, and measures its process.

    :param make: creates a trigger from a job's id and the poll interval in seconds.
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
        """Start a trigger for each of *jobs*, spread evenly over *seconds* (0: all at once)."""
        begin = time.monotonic()
        for number, job in enumerate(jobs):
            await asyncio.sleep(max(0.0, begin + seconds * number / len(jobs) - time.monotonic()))
            await asyncio.sleep(0)
            self._tasks[job] = asyncio.create_task(self._run_trigger(job, self._make(job, self._interval)), name=job)
        return {}

    async def memory(self) -> dict[str, Any]:
        """Return the resident memory in bytes, after garbage collection and trimming the heap."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        return {"rss": psutil.Process().memory_info().rss}

    async def start(self) -> dict[str, Any]:
        """Start the measurement, after collecting the garbage of the start phase."""
        gc.collect()
        self._late.clear()
        self._watch = asyncio.create_task(self._watch_the_loop())
        self._began = (time.monotonic(), _cpu())
        return {}

    async def stop(self) -> dict[str, Any]:
        """Stop the measurement; return its seconds, CPU as a share of one core, and the loop's lag in milliseconds."""
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
        """Return the jobs whose triggers fired an event, and those whose triggers raised or ended without an event."""
        dead = [job for job, task in self._tasks.items() if task.done() and job not in set(self._fired)]
        return {"fired": self._fired, "dead": dead}

    async def _run_trigger(self, job: str, trigger: BaseTrigger) -> None:
        await greenback.ensure_portal()
        try:
            async for _event in trigger.run():
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
    """Run the commands from the standard input until it is closed."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_obey(Runner(SIDES[side](), interval)))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
