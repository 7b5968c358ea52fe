"""The crash matrix: a process that runs an operator is killed with SIGKILL at every step, and the task is retried.

``python -m tests.chaos.crash`` prints a table and, last, a line of JSON that counts violations.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tests.chaos.harness import LIVE, TOKEN, Files, Osai, TaskInstance, report, sandbox, verdict  # isort: skip - makes Airflow a home

import anyio._backends._asyncio  # noqa: F401 - imported once rather than in each of hundreds of children
from airflow.providers.common.compat.sdk import BaseHook, TaskDeferred

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

os.environ["AIRFLOW_CONN_FIRST"] = "generic://"
BaseHook.get_connection("first")  # slow imports, likewise
READS = 4
"""Number of reads of a job until it ends."""
POINTS = (
    "before intent",
    "after intent",
    "before training.submit",
    "after training.submit",
    "before kept",
    "after kept",
    "after xcom.osai_job",
    "before training.get",
    "after training.get",
    "after defer",
    "before complete",
    "after complete",
)
OPEN = {"after intent", "before training.submit", "after training.submit", "before kept"}
"""Points at which only OSAI's list can show whether there is a job."""
TAKEN = {"after training.submit", "before kept"}
"""Points at which OSAI has a job that is recorded nowhere else."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    point: str
    deferrable: bool
    remembers: bool
    lists: bool
    cleared: bool
    durable: ClassVar[bool] = True

    @property
    def applies(self) -> bool:
        """Whether the point is reached and the result defined: without OSAI's list and Airflow's state store, nothing
        records the job (see the README)."""
        if not self.remembers and (not self.lists or "intent" in self.point or "kept" in self.point):
            return False
        if self.cleared and not self.lists and self.point in TAKEN:
            return False
        return self.deferrable or self.point not in ("after defer", "before complete", "after complete")

    @property
    def asks(self) -> bool:
        """Whether the retry must ask for help instead of submitting, since it cannot know whether there is a job."""
        return not self.lists and self.point in OPEN and not self.cleared


def cases() -> list[Case]:
    """Return all cells that apply."""
    flags = (True, False)
    return [case for cell in itertools.product(POINTS, flags, flags, flags, flags) if (case := Case(*cell)).applies]


class Store(Files):
    """Airflow's state store of a task, with crash points around each write."""

    def __init__(self, folder: Path, tick: Any) -> None:
        super().__init__(folder)
        self._tick = tick

    def set(self, key: str, value: Any) -> None:
        step = "kept" if value["job_id"] else "intent"
        self._tick(f"before {step}")
        super().set(key, value)
        self._tick(f"after {step}")


class Hook(OsaiHook):
    """A hook whose clients have crash points around each call."""

    def __init__(self, tick: Any) -> None:
        super().__init__()
        self._tick = tick

    def get_conn(self) -> OsaiClient:
        client = super().get_conn()
        send, tick = client.send, self._tick

        def ticking(call: Any, **options: Any) -> Any:
            tick(f"before {call.name}")
            answer = send(call, **options)
            tick(f"after {call.name}")
            return answer

        client.send = ticking  # type: ignore[method-assign]  # of this client only
        return client


def run_task(case: Case, folder: Path, dataset: str, *, die_at: str | None, try_number: int, max_tries: int) -> dict:
    """Run the operator like a worker and its trigger like a triggerer; die at the crash point."""

    def tick(point: str) -> None:
        if point == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def operator() -> OsaiTrainModelOperator:
        made = OsaiTrainModelOperator(
            task_id="task",
            dataset_ids=[dataset],
            model_name="m",
            deferrable=case.deferrable,
            poll_interval=0.02,
            durable=case.durable,
        )
        made.hook = Hook(tick)
        return made

    ti = TaskInstance(folder, try_number=try_number, max_tries=max_tries, tick=tick)
    context: Any = {"ti": ti} | ({"task_state_store": Store(folder / "store", tick)} if case.remembers else {})
    return to_the_end(operator, context, tick)


def to_the_end(operator: Callable[[], Any], context: Any, tick: Callable[[str], None]) -> dict:
    """Execute a task like workers and a triggerer, each with a new operator."""
    resume: Callable[[], dict] = partial(operator().execute, context)
    while True:
        try:
            result = resume()
        except TaskDeferred as deferred:
            tick("after defer")
            event = asyncio.run(anext(deferred.trigger.run())).payload
            tick("before complete")
            resume = partial(operator().execute_complete, context, event)
        else:
            tick("after complete")
            return {"result": result}


def forked(case: Case, folder: Path, dataset: str, **options: Any) -> tuple[int, dict]:
    """Run the task in a separate process; return its exit code and its result."""
    return in_child(folder, lambda: run_task(case, folder, dataset, **options))


def in_child(folder: Path, work: Callable[[], dict]) -> tuple[int, dict]:
    """Run *work* in a separate process; return its exit code, and its result or error."""
    outcome = folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            with Path(folder / "log").open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            outcome.write_text(json.dumps(work()))
        except BaseException as error:  # the error is the result
            outcome.write_text(json.dumps({"error": type(error).__name__, "message": str(error)}))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return status, json.loads(outcome.read_text()) if outcome.exists() else {}


def check(osai: Osai, case: Case, folder: Path) -> Counter[str]:
    """Kill the first try at the point, run the second one, and count violations."""
    osai.post("reset")
    osai.post("scripts", {"kind": "training", "timing": "reads", "reads": READS})
    extra: dict[str, Any] = {"base_url": osai.base_url}
    if not case.lists:
        extra["contract"] = {"training.list": None}
    connection = {"conn_type": "osai", "password": TOKEN, "extra": extra}
    os.environ["AIRFLOW_CONN_OSAI_DEFAULT"] = json.dumps(connection)
    dataset = osai.new_dataset()
    status, _ = forked(case, folder, dataset, die_at=case.point, try_number=1, max_tries=1)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    before = {job["id"] for job in osai.jobs() if case.cleared and job["state"] not in LIVE}
    _, outcome = forked(case, folder, dataset, die_at=None, try_number=2, max_tries=2 if case.cleared else 1)
    if case.asks:
        wrong = outcome.get("error") != "OsaiJobLost"
        return Counter(not_killed=not killed, doubled=len(osai.jobs()) > 1, wrong_result=wrong)
    return Counter(not_killed=not killed) + verdict(osai.jobs(), outcome, before)


def main(arguments: list[str]) -> int:
    """Run the matrix; return 0 if no job was duplicated, lost, left running or wrong.

    Arguments select crash points; ``forget`` runs operators that are not durable, which must cause violations.
    """
    Case.durable = "forget" not in arguments
    points = [point for point in arguments if point in POINTS] or POINTS
    chosen = [case for case in cases() if case.point in points]
    table = []
    with tempfile.TemporaryDirectory(prefix="osai-crash-") as home, sandbox() as osai:
        started = time.monotonic()
        for number, case in enumerate(chosen):
            folder = Path(home) / str(number)
            folder.mkdir()
            found = check(osai, case, folder)
            table.append((case, found))
            if found.total():
                sys.stderr.write(f"{case}: {dict(found)}\n{(folder / 'log').read_text()[-3000:]}\n")
    print_table(table)
    return report([found for _, found in table], started)


def print_table(table: list[tuple[Case, Counter[str]]]) -> None:
    """Print one row per crash point and one column per mode."""
    columns = sorted({(c.deferrable, c.remembers, c.lists, c.cleared) for c, _ in table}, reverse=True)
    words = (("defer", "block"), ("store", "no store"), ("list", "no list"), ("clear", "retry"))
    heads = ["/".join(yes if flag else no for flag, (yes, no) in zip(c, words, strict=True)) for c in columns]
    for index, head in enumerate(heads):
        sys.stdout.write(f"{chr(97 + index)} = {head}\n")
    cells = {(c.point, c.deferrable, c.remembers, c.lists, c.cleared): "BAD" if f.total() else "ok" for c, f in table}
    width = max(map(len, POINTS))
    sys.stdout.write(" " * width + "".join(f"{chr(97 + i):>5}" for i in range(len(columns))) + "\n")
    for point in POINTS:
        row = "".join(f"{cells.get((point, *column), '-'):>5}" for column in columns)
        sys.stdout.write(f"{point:<{width}}{row}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
