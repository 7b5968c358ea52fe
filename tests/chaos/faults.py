"""The fault matrix: every fault of the sandbox in every call of a task, in every mode; then the retry.

``python -m tests.chaos.faults [--workers N] [FAULT ...]`` prints violations and, last, a line of JSON that counts them.
The first try may fail with an expected error; after its retry, exactly one job has succeeded and none is running. A
sensor meets the fault while it waits for a job that an operator has submitted without one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos import crash

from tests.chaos.harness import TOKEN, Osai, TaskInstance, report, sandbox, verdict  # isort: skip - makes Airflow a home

from airflow.providers.common.compat.sdk import TaskDeferred

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "503, come back in 1 s": {"kind": "status", "status": 503, "retry_after": "1"},
    "429, come back at a date": {"kind": "status", "status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"},
    "429, nonsense": {"kind": "status", "status": 429, "retry_after": "soon"},
    "400": {"kind": "status", "status": 400},
    "404": {"kind": "status", "status": 404},
    "reset": {"kind": "reset"},
    "reset before": {"kind": "reset_before"},
    "malformed": {"kind": "malformed"},
    "html": {"kind": "html"},
    "expired token": {"kind": "expired_token"},
    "unknown state": {"kind": "unknown_state"},
    "too slow": {"kind": "delay", "seconds": 0.6},
    "huge": {"kind": "huge"},
    "drip": {"kind": "drip", "seconds": 0.05},
}
CALLS = ("auth.sign_in", "training.submit", "training.list", "training.get")
MODES = {
    "blocking": tuple(call for call in CALLS if call != "training.list"),
    "blocking, forgetful": ("training.list",),
    "deferrable": (*CALLS, "second training.list"),
    "sensor poke": ("auth.sign_in", "training.get"),
    "sensor reschedule": ("auth.sign_in", "training.get"),
    "sensor deferrable": ("auth.sign_in", "training.list", "training.get"),
}
"""The calls of a task in each mode. Without Airflow's state store, a task lists jobs to find an earlier one; triggers
list them to poll."""
TIMES = (1, 3)
TIMEOUT = 0.4
"""The connection's ``timeout`` of a task that meets a fault, short so that ``too slow`` and ``drip`` soon time out."""
NAMED = {
    "AirflowFailException",
    "OsaiJobCancelled",
    "OsaiJobFailed",
    "OsaiJobLost",
    "OsaiJobTimeout",
    "OsaiUnreachable",
}
"""Errors that a task may end with. The first one is for non-retryable errors, with an OsaiError as its cause."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    fault: str
    mode: str
    call: str
    times: int


def cases(faults: list[str]) -> list[Case]:
    """Return all cells of the given faults, or of all."""
    places = [(mode, call) for mode, calls in MODES.items() for call in calls]
    return [Case(fault, *place, times) for fault, place, times in itertools.product(faults or FAULTS, places, TIMES)]


class SensorInstance(TaskInstance):
    """A task instance like the one that Airflow passes to a sensor."""

    def get_first_reschedule_date(self, context: Any) -> datetime:
        return self.start_date


def run_sensor(mode: str, folder: Path, job_id: str) -> dict:
    """Run the sensor like a worker, again after each reschedule, and its trigger like a triggerer."""

    def sensor() -> OsaiJobSensor:
        how: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
        return OsaiJobSensor(task_id="task", kind="training", job_id=job_id, poke_interval=0.02, timeout=120, **how)

    context: Any = {"ti": SensorInstance(folder, try_number=1, max_tries=1, tick=lambda _: None)}
    resume: Callable[[], Any] = partial(sensor().execute, context)
    while True:
        try:
            return {"result": resume()}
        except AirflowRescheduleException:
            resume = partial(sensor().execute, context)
        except TaskDeferred as deferred:
            event = asyncio.run(anext(deferred.trigger.run())).payload
            resume = partial(sensor().execute_complete, context, event)


def submit(folder: Path, dataset: str) -> dict:
    """Submit a job without waiting for it; return its references."""
    operator = OsaiTrainModelOperator(
        task_id="before", dataset_ids=[dataset], model_name="m", deferrable=False, wait_for_completion=False
    )
    return operator.execute({"ti": TaskInstance(folder, try_number=1, max_tries=1, tick=lambda _: None)})


def connect(osai: Osai, timeout: float) -> None:
    """Set Airflow's connection ``osai_default`` to the sandbox."""
    connection = {"conn_type": "osai", "password": TOKEN, "extra": {"base_url": osai.base_url, "timeout": timeout}}
    os.environ["AIRFLOW_CONN_OSAI_DEFAULT"] = json.dumps(connection)


def prepared(osai: Osai, mode: str, folder: Path) -> Callable[[int], dict]:
    """Return a function that runs a try of the task in a separate process; for a sensor, submit a job first."""
    dataset = osai.new_dataset()
    if not mode.startswith("sensor"):
        task = crash.Case("", mode == "deferrable", remembers="forgetful" not in mode, lists=True, cleared=False)
        return lambda number: crash.forked(task, folder, dataset, die_at=None, try_number=number, max_tries=1)[1]
    connect(osai, 30.0)
    _, job = crash.in_child(folder, lambda: submit(folder, dataset))
    work = partial(run_sensor, mode.removeprefix("sensor "), folder, job["job_id"])
    return lambda _: crash.in_child(folder, work)[1]


def check(osai: Osai, case: Case, folder: Path) -> Counter[str]:
    """Run a task with the fault and its retry without it, and count violations."""
    osai.post("reset")
    osai.post("scripts", {"kind": "training", "timing": "reads", "reads": 2})
    run = prepared(osai, case.mode, folder)
    connect(osai, TIMEOUT)
    is_second, _, endpoint = case.call.rpartition(" ")
    osai.post(
        "faults", {"endpoint": endpoint, "after": 1 if is_second else 0, "times": case.times, **FAULTS[case.fault]}
    )
    first = run(1)
    between = osai.jobs()
    not_met = [fault["times"] for fault in osai.faults()] == [case.times]
    osai.clear_faults()
    connect(osai, 30.0)
    second = run(2)
    found = verdict(osai.jobs(), second)
    found["not_met"] = not_met
    if "result" not in first:
        found["wrong_result"] += first.get("error") not in NAMED
    else:
        found["wrong_result"] += verdict(between, first)["wrong_result"]
        found["wrong_result"] += first["result"]["job_id"] != second.get("result", {}).get("job_id")
    return found


def work(share: list[Case], home: str) -> list[tuple[Case, Counter[str]]]:
    """Run a share of the cells with a separate sandbox."""
    results = []
    with sandbox() as osai:
        for number, case in enumerate(share):
            folder = Path(home) / f"{os.getpid()}-{number}"
            folder.mkdir()
            found = check(osai, case, folder)
            results.append((case, found))
            if found.total():
                sys.stderr.write(f"{case}: {dict(found)}\n{(folder / 'log').read_text()[-3000:]}\n")
    return results


def main(arguments: list[str]) -> int:
    """Run the matrix, or the rows of some faults; return 0 if no job was duplicated, lost, left running or wrong."""
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"one of: {'; '.join(FAULTS)}")
    parser.add_argument("--workers", type=int, default=4, help="cells at once; they mostly sleep")
    given = parser.parse_args(arguments)
    if unknown := set(given.faults) - FAULTS.keys():
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    cells = cases(given.faults)
    random.Random(0).shuffle(cells)  # distributes the slow ones
    shares = [cells[number :: given.workers] for number in range(given.workers)]
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="osai-faults-") as home,
        multiprocessing.get_context("fork").Pool(given.workers) as pool,
    ):
        results = list(itertools.chain(*pool.starmap(work, [(share, home) for share in shares], chunksize=1)))
    ends = Counter((case.mode, case.call, bool(found.total())) for case, found in results)
    for (mode, call, bad), count in sorted(ends.items()):
        sys.stdout.write(f"{mode:<20}{call:<20}{'BAD' if bad else 'ok':>4}{count:>5}\n")
    return report([found for _, found in results], started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
