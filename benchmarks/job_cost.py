"""The CPU time that one job costs a whole Airflow, by component, and its calls of the execution API.

``python -m benchmarks.job_cost`` starts a complete Airflow (API server, scheduler with a LocalExecutor, Dag processor,
triggerer; PostgreSQL) and runs in it, in alternating order, a Dag for each side:

- ``trivial``: a task that does nothing, mapped over the jobs; what Airflow needs for any task;
- ``ours``: ``OsaiTrainModelOperator(deferrable=True)``, mapped;
- ``blocking``: the same with ``deferrable=False``;
- ``http``: ``HttpOperator``, which submits the job, and ``HttpSensor(deferrable=True)``, two mapped tasks for each job;
- ``batch50`` and ``batch500``: one ``OsaiJobBatchOperator`` with so many jobs.

Real: all of Airflow, operators, triggers, HTTP with TLS. Simulated: OSAI, by ``benchmarks/service.py`` in a separate
process, whose CPU is not counted; its jobs end five seconds after their first poll. The connections are environment
variables (``AIRFLOW_CONN_...``), so no side reads one from Airflow's API. Clients load certifi's authorities, as usual,
and the server's. Airflow's intervals are its defaults; the executor has eight slots.

CPU is user and system time from ``/proc``: of each component with its living descendants, and of the ended ones, which
the kernel adds to the parent that has waited for them. ``worker`` is what the scheduler's LocalExecutor has forked, and
what those have. ``other`` is the parent of the components, which adopts orphans. So nothing is lost when a process
ends, unless its parent ignores SIGCHLD: to check that, the sum is printed beside the CPU time of all other processes
and that of the whole machine, which the kernel counts separately. The CPU of the idle Airflow is measured before each
round, scaled to the length of each run, and subtracted. Before the first round, each side runs once with a few jobs,
since the first task in each executor process imports modules.

Figures are per job, and medians of the rounds; sums are of worker, API server, scheduler and triggerer. The last line
is JSON: ``floor_cpu_s`` is ``trivial``, ``batch_ratio`` is ``ours_cpu_s / batch500_cpu_s``; ``null``: not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import certifi
import psutil
from sqlalchemy import Engine, create_engine, text

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from benchmarks.deferred_jobs import say
from benchmarks.peer_process import SideError, until
from benchmarks.service import Service
from benchmarks.triggerer import writes_to
from tests.chaos.postgres import postgres

__all__ = ["Cost", "count_calls", "main", "net", "summary"]

COMPONENTS = ("api-server", "scheduler", "triggerer", "dag-processor")
COUNTED = ("worker", "api-server", "scheduler", "triggerer")
"""What a job's CPU is the sum of. The database may be another machine, and the Dag processor does not run tasks."""
DAGS = {
    "trivial": """
from airflow.sdk import DAG, task

with DAG("{dag}", schedule=None):

    @task
    def trivial(number):
        pass

    trivial.expand(number=list(range({jobs})))
""",
    "ours": """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("{dag}", schedule=None):
    OsaiTrainModelOperator.partial(
        task_id="train", osai_conn_id="bench_osai", dataset_ids="digits", deferrable={deferrable}
    ).expand(model_name=[f"m{{number}}" for number in range({jobs})])
""",
    "http": """
from airflow.sdk import DAG, task_group
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor

with DAG("{dag}", schedule=None):

    @task_group
    def job(body):
        HttpOperator(task_id="submit", http_conn_id="bench_http", endpoint="generic", data=body) >> HttpSensor(
            task_id="wait",
            http_conn_id="bench_http",
            endpoint="generic/{{{{ ti.xcom_pull('job.submit', map_indexes=ti.map_index) }}}}",
            poke_interval=5,
            deferrable=True,
        )

    job.expand(body=[f'{{{{"modelName": "m{{number}}", "datasetIds": ["digits"]}}}}' for number in range({jobs})])
""",
    "batch": """
from airflow.sdk import DAG
from airflow_provider_osai.operators.batch import OsaiJobBatchOperator

with DAG("{dag}", schedule=None):
    OsaiJobBatchOperator(
        task_id="batch",
        osai_conn_id="bench_osai",
        kind="training",
        argument="model_name",
        requests=[f"m{{number}}" for number in range({jobs})],
        arguments={{"dataset_ids": ["digits"]}},
        deferrable=True,
    )
""",
}
SIDES = ("trivial", "ours", "blocking", "http", "batch50", "batch500")
SLOTS = 8
BEFORE = "_before"
JOBS_BEFORE = 2 * SLOTS
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": str(SLOTS),
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__CORE__MAX_MAP_LENGTH": "10000",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "300",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "15",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "PYTHONDONTWRITEBYTECODE": "",
}
"""The intervals are Airflow's defaults; the demo's Airflow has shorter ones. Bytecode is cached, as on any worker."""
QUIET = 3.0
"""Seconds for which Airflow has run no task before CPU times are read."""
REQUEST = re.compile(r"request finished.*?\bmethod=(\w+) path=/execution/(\S+)")
"""A line of the API server's access log."""
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
XCOM_PARTS = 4
"""Parts of the path of an XCom before its key."""


class Check(NamedTuple):
    """CPU seconds of what is measured, of all processes, and of the machine, which the kernel counts separately."""

    measured: float
    processes: float
    machine: float

    def since(self, before: Check) -> Check:
        """Return the difference to an earlier reading."""
        return Check(*(now - then for now, then in zip(self, before, strict=True)))

    def __str__(self) -> str:
        others = self.processes - self.measured
        return f"measured {self.measured:.1f} + other processes {others:.1f} of the machine's {self.machine:.1f} CPU s"


@dataclass(frozen=True)
class Cost:
    """What a side has cost per job.

    :param side: the side's name.
    :param cpu: CPU seconds by component, without the idle Airflow's.
    :param idle: CPU seconds that were subtracted, by component.
    :param calls: calls of the execution API, by route.
    :param requests: requests to OSAI.
    :param seconds: wall time of the whole run in seconds.
    :param check: CPU seconds in the window, of what is measured, of other processes, and of the machine.
    """

    side: str
    cpu: Mapping[str, float]
    idle: Mapping[str, float]
    calls: Mapping[str, float]
    requests: float
    seconds: float
    check: Check

    @property
    def total(self) -> float:
        """CPU seconds of worker, API server, scheduler and triggerer."""
        return sum(self.cpu[part] for part in COUNTED)


def count_calls(log: str) -> Counter[str]:
    """Count the calls of the execution API in the API server's access log by route, such as ``PATCH .../{id}/run``."""
    return Counter(f"{method} {_route(path)}" for method, path in REQUEST.findall(log))


def _route(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "xcoms":
        return "/".join(["xcoms", "{dag}/{run}/{task}", *parts[XCOM_PARTS:]])
    return "/".join("{id}" if UUID.match(part) else part for part in parts)


def net(used: Mapping[str, float], rates: Mapping[str, float], seconds: float, jobs: int) -> dict[str, float]:
    """Return the CPU seconds per job: what was *used* in a window of *seconds*, less the idle Airflow's *rates*."""
    return {part: (used[part] - rates[part] * seconds) / jobs for part in used}


def summary(costs: list[Cost]) -> dict[str, float | None]:
    """Return the figures of the last line, medians of the rounds; ``None`` for a side that was not measured."""

    def figure(side: str) -> float | None:
        return median(totals) if (totals := [cost.total for cost in costs if cost.side == side]) else None

    calls = [sum(cost.calls.values()) for cost in costs if cost.side == "ours"]
    ours, batch = figure("ours"), figure("batch500")
    line = {
        "floor_cpu_s": figure("trivial"),
        "ours_cpu_s": ours,
        "http_cpu_s": figure("http"),
        "batch500_cpu_s": batch,
        "ours_api_calls": median(calls) if calls else None,
        "batch_ratio": ours / batch if ours is not None and batch else None,
        "blocking_cpu_s": figure("blocking"),
        "batch50_cpu_s": figure("batch50"),
    }
    return {name: None if value is None else round(value, 4) for name, value in line.items()}


class CpuTimes:
    """The CPU times of a running Airflow's components and of its database.

    :param airflow: the running Airflow.
    :param postmaster: id of the database's main process.
    :raises SideError: if the process of a component is not found.
    """

    def __init__(self, airflow: WholeAirflow, postmaster: int) -> None:
        self._airflow = airflow
        self._roots = {part: psutil.Process(_component(airflow, part)) for part in COMPONENTS}
        self._roots["database"] = psutil.Process(postmaster)
        self._supervisor = os.getsid(self._roots["scheduler"].pid)

    def read(self) -> dict[str, float]:
        """Return the CPU seconds so far by component; read again if a process has started or ended meanwhile."""
        while True:
            processes = self._airflow.processes
            try:
                found = self._read(processes)
            except psutil.NoSuchProcess:
                continue
            if self._airflow.processes == processes:
                return found

    def is_quiet(self) -> bool:
        """Whether no task is running."""
        return not any(worker.children() for worker in self._roots["scheduler"].children())

    def _read(self, processes: list[int]) -> dict[str, float]:
        trees = {part: [root, *root.children(recursive=True)] for part, root in self._roots.items()}
        known = {process.pid for tree in trees.values() for process in tree}
        trees["other"] = [psutil.Process(pid) for pid in {self._supervisor, *processes} - known]
        found = {part: sum(sum(_times(process)) for process in tree) for part, tree in trees.items()}
        own, _ = _times(self._roots["scheduler"])  # the scheduler's ended children were executor processes
        return {**found, "scheduler": own, "worker": found["scheduler"] - own}


def _times(process: psutil.Process) -> tuple[float, float]:
    """Return the CPU seconds of a process and of its ended descendants."""
    times = process.cpu_times()
    return times.user + times.system, times.children_user + times.children_system


def _component(airflow: WholeAirflow, part: str) -> int:
    """Return the process of a component: the one that writes to its log, and whose parent does not."""
    log = airflow.logs / "parts" / f"{part}.log"
    found = {process.pid: process for pid in airflow.processes if writes_to(process := psutil.Process(pid), log)}
    for pid, process in found.items():
        if process.ppid() not in found:
            return pid
    raise SideError(f"No process of Airflow writes to {log.name}")


def _all_processes() -> float:
    """Return the CPU seconds of all processes of the machine, and of those that they have waited for."""
    seconds = 0.0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            seconds += sum(_times(process))
    return seconds


def _machine() -> float:
    """Return the CPU seconds of the whole machine, in all processes and interrupts."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


class Bench:
    """One Airflow in which the sides run one after the other.

    :param airflow: the running Airflow.
    :param service: the server of jobs.
    :param times: CPU times of the components.
    :param engine: the database.
    """

    def __init__(self, airflow: WholeAirflow, service: Service, times: CpuTimes, engine: Engine) -> None:
        self._airflow, self._service, self._times, self._engine = airflow, service, times, engine
        self._log = airflow.logs / "parts" / "api-server.log"

    def idle(self, seconds: float) -> dict[str, float]:
        """Return the CPU seconds per second that the idle Airflow uses, by component."""
        self._wait_until_quiet()
        before, began = self._times.read(), time.monotonic()
        time.sleep(seconds)
        after, passed = self._times.read(), time.monotonic() - began
        return {part: (after[part] - before[part]) / passed for part in after}

    def run(self, dag_id: str, jobs: int) -> float:
        """Run a Dag once and return its wall time in seconds.

        The state is read from the database: requests to the API server would be counted.

        :raises SideError: if the run fails.
        """
        run_id = self._airflow.trigger(dag_id)
        row: Any = None

        def ended() -> bool:
            nonlocal row
            sql = text(
                "select state, extract(epoch from end_date - queued_at) from dag_run where dag_id = :d and run_id = :r"
            )
            with self._engine.connect() as connection:
                row = connection.execute(sql, {"d": dag_id, "r": run_id}).one()
            return row[0] in {"success", "failed"}

        until(ended, 120 + 15 * jobs, f"the run of {dag_id}")
        if row[0] != "success":
            raise SideError(self._airflow.failures(dag_id, run_id)[-3000:])
        return float(row[1])

    def measure(self, side: str, jobs: int, rates: Mapping[str, float]) -> Cost:
        """Run a side and return what it costs per job.

        :param rates: CPU seconds per second of the idle Airflow.
        """
        self._wait_until_quiet()
        position, counts = self._log.stat().st_size, self._service.counts()
        before, check, began = self._times.read(), self._check(), time.monotonic()
        seconds = self.run(side, jobs)
        self._wait_until_quiet()
        after, passed = self._times.read(), time.monotonic() - began
        check = self._check().since(check)
        used = {part: after[part] - before[part] for part in after}
        calls = count_calls(self._log.read_bytes()[position:].decode(errors="replace"))
        counts = {name: value - counts[name] for name, value in self._service.counts().items()}
        wanted = 0 if side == "trivial" else jobs
        if counts["submitted"] != wanted:
            raise SideError(f"{side}: {counts['submitted']} jobs were submitted, expected {wanted}")
        return Cost(
            side,
            cpu=net(used, rates, passed, jobs),
            idle={part: rate * passed / jobs for part, rate in rates.items()},
            calls={route: count / jobs for route, count in calls.items()},
            requests=counts["requests"] / jobs,
            seconds=seconds,
            check=check,
        )

    def _wait_until_quiet(self) -> None:
        until(self._times.is_quiet, 60, "the end of all task processes")
        time.sleep(QUIET)

    def _check(self) -> Check:
        measured = sum(self._times.read().values()) + self._service.cpu() + time.process_time()
        return Check(measured, _all_processes(), _machine())


def jobs_of(side: str, jobs: int) -> int:
    """Return the number of jobs of a side: the one in its name, or *jobs*."""
    return int(side.removeprefix("batch")) if side.startswith("batch") else jobs


def write_dags(folder: Path, sides: list[str], jobs: int) -> None:
    """Write two Dags for each side, the second for the run before; each in a file of its own, which its tasks parse."""
    for side in sides:
        template = DAGS.get(side) or DAGS["batch" if side.startswith("batch") else "ours"]
        for dag, number in ((side, jobs_of(side, jobs)), (side + BEFORE, JOBS_BEFORE)):
            source = template.format(dag=dag, jobs=number, deferrable=side != "blocking")
            (folder / f"{dag}.py").write_text(source.lstrip())


def measure(sides: list[str], jobs: int, rounds: int, idle: float) -> list[Cost]:
    """Run all sides in one Airflow and return their costs.

    :param jobs: number of jobs of each side whose name has none.
    :param idle: seconds of the idle window before each round.
    """
    costs = []
    with (
        tempfile.TemporaryDirectory(prefix="osai-bench-") as name,
        postgres(Path(name) / "pg") as database,
        Service(0) as service,
    ):
        dags, home = Path(name) / "dags", Path(name) / "home"
        dags.mkdir()
        home.mkdir()
        write_dags(dags, sides, jobs)
        bundle = Path(name) / "authorities.pem"
        bundle.write_text(certifi.contents() + service.authority.read_text())
        trusted = {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
        environment = SETTINGS | service.environment | trusted
        with WholeAirflow(dags, home=home, database=database, environment=environment, grace=5) as airflow:
            postmaster = int((Path(name) / "pg" / "data" / "postmaster.pid").read_text().split()[0])
            times = CpuTimes(airflow, postmaster)
            bench = Bench(airflow, service, times, create_engine(database, pool_size=1))
            for side in sides:
                bench.run(side + BEFORE, JOBS_BEFORE)
                airflow.unpause(side)
            for number in range(rounds):
                rates = bench.idle(idle)
                say(f"round {number + 1}: idle: {_columns(rates, 4)} CPU s per s")
                for side in sides if number % 2 == 0 else reversed(sides):
                    cost = bench.measure(side, jobs_of(side, jobs), rates)
                    costs.append(cost)
                    say(f"round {number + 1}: {side}: {_columns(cost.cpu)} CPU s per job")
                    say(f"  subtracted as idle: {_columns(cost.idle)}; {cost.check}")
    return costs


def _columns(figures: Mapping[str, float], digits: int = 3) -> str:
    return ", ".join(f"{part} {value:.{digits}f}" for part, value in sorted(figures.items()))


def table(costs: list[Cost]) -> Iterator[str]:
    """Yield the lines of the table, medians of the rounds, and the calls of a deferred job by route."""
    parts = [*COUNTED, "sum", "database", "dag-processor", "other", "api calls", "requests", "wall s"]
    yield "".join([f"{'per job':<10}", *(f"  {part:>8}" for part in parts)])
    by_side: dict[str, list[Cost]] = {}
    for cost in costs:
        by_side.setdefault(cost.side, []).append(cost)
    for side, found in by_side.items():
        rows = [
            {
                **cost.cpu,
                "sum": cost.total,
                "api calls": sum(cost.calls.values()),
                "requests": cost.requests,
                "wall s": cost.seconds,
            }
            for cost in found
        ]
        figures = {part: median(row[part] for row in rows) for part in parts}
        yield "".join([f"{side:<10}", *(f"  {figures[part]:>{max(8, len(part))}.3f}" for part in parts)])
    for side in ("trivial", "ours", "http"):
        found = by_side.get(side, [])
        for route in sorted({route for cost in found for route in cost.calls}):
            yield f"{side}: {route}: {median(cost.calls.get(route, 0.0) for cost in found):g} calls per job"


def main(arguments: list[str] | None = None) -> int:
    """Measure with the command line's options; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50, help="jobs of each side that has no number in its name")
    parser.add_argument("--sides", default=",".join(SIDES), help="comma-separated, default: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of the idle window before each round")
    options = parser.parse_args(arguments)
    sides = options.sides.split(",")
    if unknown := [side for side in sides if side not in SIDES]:
        parser.error(f"--sides: unknown {', '.join(unknown)}; known are {', '.join(SIDES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is stopped
    costs = measure(sides, options.jobs, options.rounds, options.idle)
    for line in table(costs):
        say(line)
    say(json.dumps(summary(costs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
