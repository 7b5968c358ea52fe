"""The batch matrix: a process with a batch of twenty jobs is killed with SIGKILL at every step, and the task retried.

``python -m tests.chaos.batch [EVERY]`` kills at each EVERY-th step (default: 8; 1 takes half an hour) and prints a row
for each mode and, last, a line of JSON that counts violations. A step is right before or after a request to OSAI, a
write to Airflow's state store, an XCom, or the deferral. ``forget`` runs batches that are not durable, which must cause
violations.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.harness import LIVE, TOKEN, Files, Osai, TaskInstance, report, sandbox  # isort: skip - makes Airflow a home

from airflow_provider_osai.operators.batch import OsaiJobBatchOperator
from tests.chaos.crash import Hook, in_child, to_the_end

JOBS = 20
READS = 3
"""Number of reads of a job until it ends."""
NAMES = [f"m{number}" for number in range(JOBS)]


@dataclass(frozen=True)
class Mode:
    """How the batch runs, and what is there to remember it."""

    deferrable: bool
    remembers: bool
    lists: bool
    cleared: bool
    max_in_flight: int | None = None

    def __str__(self) -> str:
        words = (
            "defer" if self.deferrable else "block",
            "store" if self.remembers else "no store",
            "list" if self.lists else "no list",
            "clear" if self.cleared else "retry",
            f"{self.max_in_flight or 'all'} in flight",
        )
        return "/".join(words)


MODES = (
    Mode(deferrable=True, remembers=True, lists=True, cleared=False),
    Mode(deferrable=True, remembers=True, lists=True, cleared=False, max_in_flight=6),
    Mode(deferrable=False, remembers=True, lists=True, cleared=False),
    Mode(deferrable=True, remembers=False, lists=True, cleared=False),
    Mode(deferrable=True, remembers=True, lists=False, cleared=False),
    Mode(deferrable=True, remembers=True, lists=True, cleared=True),
    Mode(deferrable=False, remembers=False, lists=True, cleared=True),
)


class Store(Files):
    """Airflow's state store of a task, with steps around each write."""

    def __init__(self, folder: Path, tick: Any) -> None:
        super().__init__(folder)
        self._tick = tick

    def set(self, key: str, value: Any) -> None:
        self._tick("before write")
        super().set(key, value)
        self._tick("after write")


def run_task(mode: Mode, folder: Path, dataset: str, *, die_at: int, try_number: int, durable: bool) -> dict:
    """Run the batch like workers and a triggerer; die at the step with this number."""
    steps = itertools.count(1)

    def tick(_step: str) -> None:
        if next(steps) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def operator() -> OsaiJobBatchOperator:
        made = OsaiJobBatchOperator(
            task_id="task",
            kind="training",
            argument="model_name",
            requests=NAMES,
            arguments={"dataset_ids": [dataset]},
            max_in_flight=mode.max_in_flight,
            deferrable=mode.deferrable,
            poll_interval=0.02,
            durable=durable,
        )
        made.hook = Hook(tick)
        return made

    max_tries = 2 if mode.cleared and try_number > 1 else 1
    ti = TaskInstance(folder, try_number=try_number, max_tries=max_tries, tick=tick)
    context: Any = {"ti": ti} | ({"task_state_store": Store(folder / "store", tick)} if mode.remembers else {})
    return to_the_end(operator, context, tick)


def check(osai: Osai, mode: Mode, folder: Path, die_at: int, *, durable: bool) -> Counter[str] | None:
    """Kill the first try at the step, run the second one, and count violations; ``None`` if there is no such step."""
    osai.post("reset")
    osai.post("scripts", {"kind": "training", "timing": "reads", "reads": READS})
    extra: dict[str, Any] = {"base_url": osai.base_url}
    if not mode.lists:
        extra["contract"] = {"training.list": None}
    os.environ["AIRFLOW_CONN_OSAI_DEFAULT"] = json.dumps({"conn_type": "osai", "password": TOKEN, "extra": extra})
    dataset = osai.new_dataset()

    def forked(**options: Any) -> tuple[int, dict]:
        return in_child(folder, lambda: run_task(mode, folder, dataset, durable=durable, **options))

    status, _ = forked(die_at=die_at, try_number=1)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return None
    # A job that ends by the read that precedes its cancellation is no violation.
    before = {job["id"] for job in osai.jobs() if mode.cleared}
    _, outcome = forked(die_at=0, try_number=2)
    jobs = osai.jobs()
    if not mode.lists and outcome.get("error") == "OsaiJobLost":
        # Whether the job exists whose id was not written cannot be known: the task fails rather than doubles it.
        return Counter(doubled=len(jobs) > JOBS)
    done = {job["id"] for job in jobs if job["state"] == "succeeded" and job["id"] not in before}
    results = outcome.get("result") or []
    found = [result.get("job_id") for result in results if isinstance(result, dict)]
    return Counter(
        doubled=len(done) > JOBS,
        lost=len(done) < JOBS,
        left_running=sum(job["state"] in LIVE for job in jobs),
        wrong_result=len(found) != JOBS or set(found) != done,
    )


def main(arguments: list[str]) -> int:
    """Run the matrix; return 0 if no job was duplicated, lost, left running or missing in the result."""
    durable = "forget" not in arguments
    every = next((int(argument) for argument in arguments if argument.isdecimal()), 8)
    found: list[Counter[str]] = []
    with tempfile.TemporaryDirectory(prefix="osai-batch-") as home, sandbox() as osai:
        started = time.monotonic()
        for number, mode in enumerate(MODES if durable else MODES[:1]):
            row = ""
            for die_at in itertools.count(1 + number % every, every):
                folder = Path(home) / f"{number}-{die_at}"
                folder.mkdir()
                counts = check(osai, mode, folder, die_at, durable=durable)
                if counts is None:
                    break
                found.append(counts)
                row += "x" if counts.total() else "."
                if counts.total() and durable:
                    sys.stderr.write(f"{mode}, step {die_at}: {dict(counts)}\n{(folder / 'log').read_text()[-3000:]}\n")
            sys.stdout.write(f"{mode!s:<45} {row}\n")
            sys.stdout.flush()
    return report(found, started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
