"""The lease matrix: a device is rented and released, and the tasks are killed or fail at every step of both.

``python -m tests.chaos.leases [kills] [faults] [forget]`` prints violations and, last, a line of JSON that counts them:
a second running lease, a device that is returned although it is not rented, a lease that runs after its release, or
after a rent task that was killed with SIGTERM and so had to release it. ``forget`` releases nothing, which must cause
violations.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.crash import Hook, Store, in_child, to_the_end

from tests.chaos.harness import LIVE, Files, Osai, TaskInstance, report, sandbox  # isort: skip - makes Airflow a home


from airflow_provider_osai.operators.device import OsaiReleaseDeviceOperator, OsaiRentDeviceOperator

READS = 2
"""Number of reads of a lease until it runs."""
TIMES = 2
"""How many times in a row a fault occurs."""
CALL = "device_rental"
RENT = (
    "after xcom.reference",
    "before intent",
    "after intent",
    f"before {CALL}.submit",
    f"after {CALL}.submit",
    "before kept",
    "after kept",
    "after xcom.job_id",
    f"before {CALL}.get",
    f"after {CALL}.get",
    "after defer",
    "before complete",
    "after complete",
)
RELEASE = tuple(f"{when} {CALL}.{call}" for call in ("list", "get", "cancel") for when in ("before", "after"))
WITHOUT_A_WORKER = ("after defer", "before complete", "after complete")
"""Points at which no process of the task is left to handle SIGTERM."""
KILLS = (signal.SIGKILL, signal.SIGTERM)
RENT_CALLS = (*((call, False) for call in ("auth.sign_in", f"{CALL}.submit", f"{CALL}.list")),
              *((f"{CALL}.get", deferrable) for deferrable in (True, False)))  # fmt: skip
RELEASE_CALLS = (f"{CALL}.list", f"{CALL}.get", f"{CALL}.cancel")


@dataclass(frozen=True)
class Case:
    """One cell: the disturbance, the task that it affects, and the point.

    :param where: a crash point for a kill, an endpoint for a fault.
    :param retried: whether the rent task has a retry left; if not, its release runs at once.
    """

    what: str
    task: str
    where: str
    deferrable: bool
    remembers: bool
    retried: bool

    @property
    def applies(self) -> bool:
        """Whether the point is reached."""
        if self.task == "rent" and not self.remembers and ("intent" in self.where or "kept" in self.where):
            return False
        if self.what == "SIGTERM" and (self.task == "release" or self.where in WITHOUT_A_WORKER):
            return False
        return self.deferrable or self.where not in WITHOUT_A_WORKER


def kills() -> list[Case]:
    """Return all kills. For the release, it makes no difference how the device was rented."""
    flags = (True, False)
    rents = (
        Case(kill.name, "rent", point, *flag)
        for kill, point, *flag in itertools.product(KILLS, RENT, flags, flags, flags)
    )
    return [case for case in rents if case.applies] + [
        Case("SIGKILL", "release", point, deferrable=False, remembers=True, retried=True) for point in RELEASE
    ]


def faulty() -> list[Case]:
    """Return all faults, in all calls of both tasks."""
    rents = [
        Case(fault, "rent", call, deferrable, remembers=not call.endswith("list"), retried=retried)
        for fault, (call, deferrable), retried in itertools.product(faults.FAULTS, RENT_CALLS, (True, False))
        if retried or call.endswith("submit")  # may leave a lease whose id is unknown
    ]
    releases = itertools.product(faults.FAULTS, RELEASE_CALLS)
    return rents + [Case(fault, "release", call, False, True, True) for fault, call in releases]


def ticking(folder: Path, die_at: str | None, kill: str, on_term: Callable[[], None]) -> Callable[[str], None]:
    """Return the function called at each crash point, which kills the process at one of them, once."""

    def tick(point: str) -> None:
        if point != die_at or (folder / "met").exists():
            return
        (folder / "met").touch()
        signal.signal(signal.SIGTERM, lambda *_: on_term())
        os.kill(os.getpid(), signal.Signals[kill])

    return tick


def run_rent(case: Case, folder: Path, number: int, die_at: str | None) -> dict:
    """Run the rent task like a worker and its trigger like a triggerer."""
    running: list[OsaiRentDeviceOperator] = []

    def on_term() -> None:
        running[-1].on_kill()

    tick = ticking(folder, die_at, case.what if die_at else "", on_term)

    def operator() -> OsaiRentDeviceOperator:
        how: dict[str, Any] = {"deferrable": case.deferrable, "poll_interval": 0.02, "multiple_outputs": True}
        made = OsaiRentDeviceOperator(task_id="task", device="jetson", duration=600, **how)
        made.hook = Hook(tick)
        running.append(made)
        return made

    ti = TaskInstance(folder, try_number=number, max_tries=1, tick=tick)
    context: Any = {"ti": ti} | ({"task_state_store": Store(folder / "store", tick)} if case.remembers else {})
    return to_the_end(operator, context, tick)


def run_release(folder: Path, die_at: str | None) -> dict:
    """Run the release with the XComs of the rent task."""
    left = Files(folder / "xcoms")
    operator = OsaiReleaseDeviceOperator(task_id="end", job_id=left.get("job_id"), reference=left.get("reference"))
    operator.hook = Hook(ticking(folder, die_at, "SIGKILL", lambda: None))
    return {"result": operator.execute({})}


def live(osai: Osai) -> list[str]:
    """Return the ids of the leases that have not ended."""
    return [job["id"] for job in osai.jobs() if job["state"] in LIVE]


def check(osai: Osai, case: Case, folder: Path, *, forget: bool) -> Counter[str]:
    """Rent and release with one disturbance, and count violations."""
    osai.post("reset")
    osai.post("scripts", {"kind": "device_rental", "timing": "work", "reads": READS})
    is_kill = case.what in signal.Signals.__members__
    found: Counter[str] = Counter()

    def tried(task: str, work: Callable[[int, str | None], dict], tries: int) -> dict:
        """Run a task until it succeeds or has no try left."""
        outcome: dict = {}
        for number in range(1, tries + 1):
            hit = number == 1 and case.task == task
            faults.connect(osai, 30.0 if is_kill or not hit else faults.TIMEOUT)
            if hit and not is_kill:
                osai.post("faults", {"endpoint": case.where, "times": TIMES, **faults.FAULTS[case.what]})
            _, outcome = in_child(folder, partial(work, number, case.where if hit and is_kill else None))
            if hit and is_kill:
                found["not_killed"] += not (folder / "met").exists()
                found["left_running"] += bool(live(osai)) and case.what == "SIGTERM"
            elif hit:
                found["not_met"] += [fault["times"] for fault in osai.faults()] == [TIMES]
                osai.clear_faults()
            if "error" in outcome and outcome["error"] not in faults.NAMED:
                found["wrong_result"] += 1
                outcome["said"] = (folder / "outcome.json").read_text()
            found["doubled"] += max(0, len(live(osai)) - 1)
            if "result" in outcome:
                break
        return outcome

    rented = tried("rent", lambda number, die_at: run_rent(case, folder, number, die_at), 2 if case.retried else 1)
    if "result" in rented:
        found["lost"] += live(osai) != [rented["result"]["job_id"]]
    elif case.retried:
        found["lost"] += 1
    released = tried("release", lambda _, die_at: {} if forget else run_release(folder, die_at), 2)
    found["wrong_result"] += "result" not in released and not forget
    found["left_running"] += len(live(osai))
    return found


def work(share: list[Case], home: str, forget: bool) -> list[tuple[Case, Counter[str]]]:
    """Run a share of the cells with a separate sandbox."""
    results = []
    with sandbox() as osai:
        for number, case in enumerate(share):
            folder = Path(home) / f"{os.getpid()}-{number}"
            folder.mkdir()
            found = check(osai, case, folder, forget=forget)
            results.append((case, found))
            if found.total():
                sys.stderr.write(f"{case}: {json.dumps(found)}\n{(folder / 'log').read_text()[-3000:]}\n")
    return results


def main(arguments: list[str]) -> int:
    """Run the matrix, or half of it; return 0 if no lease was duplicated, lost, left running or wrong."""
    # Cells mostly sleep.
    started, workers = time.monotonic(), 8
    halves = [name for name in ("kills", "faults") if name in arguments] or ["kills", "faults"]
    cells = [case for name in halves for case in {"kills": kills, "faults": faulty}[name]()]
    few = [int(argument) for argument in arguments if argument.isdigit()]
    random.Random(0).shuffle(cells)  # distributes the slow ones
    cells = cells[: few[0]] if few else cells
    shares = [cells[number::workers] for number in range(workers)]
    with (
        tempfile.TemporaryDirectory(prefix="osai-leases-") as home,
        multiprocessing.get_context("fork").Pool(workers) as pool,
    ):
        jobs = [(share, home, "forget" in arguments) for share in shares]
        results = list(itertools.chain(*pool.starmap(work, jobs, chunksize=1)))
    ends = Counter((case.task, case.where, bool(found.total())) for case, found in results)
    for (task, where, bad), count in sorted(ends.items()):
        sys.stdout.write(f"{task:<10}{where:<30}{'BAD' if bad else 'ok':>4}{count:>5}\n")
    return report([found for _, found in results], started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
