"""A real triggerer with a thousand deferred tasks: its CPU while they wait, and the latency from job end to resumption.

``python -m benchmarks.triggerer`` starts a complete Airflow (scheduler, Dag processor, API server, triggerer; SQLite)
for each side in turn: ``http`` (``HttpSensor(deferrable=True)``), ``ours`` (``OsaiJobSensor(deferrable=True)``) and
``idle`` (triggers that send no requests, to measure Airflow's own cost). All poll the same TLS server.

Real: all components of Airflow, the Dag with its mapped task, the run and its task instances, the triggers in the
database and in the triggerer, and the event written back to the database. Simulated, since starting a thousand workers
would take an hour and is not part of the measurement: the tasks do not run before they defer. The pool has no slots, so
the scheduler leaves them ``scheduled``; :mod:`benchmarks.defer_tasks` then makes the same changes to the database as a
deferring task. For the same reason, a resumed task stays ``scheduled``.

Latency is measured from the job's end on the server to the time at which the task instance left ``deferred`` (its
``scheduled_dttm``). CPU is that of the triggerer's two processes, as a share of one core. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from cryptography.fernet import Fernet

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from benchmarks.deferred_jobs import say
from benchmarks.peer_process import SideError, until, wait_until_seen
from benchmarks.service import Service

__all__ = ["main", "writes_to"]

DAG = "waiting"
BLOCKED = "async thread was blocked"
DAGS = {
    "http": """
from airflow.providers.http.sensors.http import HttpSensor
with DAG("waiting", schedule=None):
    HttpSensor.partial(
        task_id="wait", http_conn_id="bench_http", deferrable=True, poke_interval={interval}
    ).expand(endpoint=[f"generic/{{job}}" for job in range(1, {jobs} + 1)])
""",
    "ours": """
from airflow_provider_osai.sensors.job import OsaiJobSensor
with DAG("waiting", schedule=None):
    OsaiJobSensor.partial(
        task_id="wait", osai_conn_id="bench_osai", kind="training", deferrable=True, poke_interval={interval}
    ).expand(job_id=[str(job) for job in range(1, {jobs} + 1)])
""",
}
DAGS["idle"] = DAGS["http"]


class Triggerer:
    """The triggerer of a running Airflow, observed through the database, the logs and its processes.

    :param airflow: the running Airflow.
    :param run_id: id of the run whose tasks wait.
    """

    def __init__(self, airflow: WholeAirflow, run_id: str) -> None:
        self._airflow, self._run_id = airflow, run_id
        log = airflow.logs / "parts" / "triggerer.log"
        parents = [process for pid in airflow.processes if writes_to(process := psutil.Process(pid), log)]
        self._processes = {found.pid: found for parent in parents for found in [parent, *parent.children()]}
        if len(self._processes) != 2:
            raise SideError(f"Expected two processes of the triggerer, found {len(self._processes)}")

    def cpu(self) -> float:
        """Return the CPU seconds used so far by supervisor and runner."""
        times = [process.cpu_times() for process in self._processes.values()]
        return sum(time.user + time.system for time in times)

    def memory(self) -> int:
        """Return the resident memory of supervisor and runner in bytes."""
        return sum(process.memory_info().rss for process in self._processes.values())

    def states(self) -> dict[str, int]:
        """Return the number of task instances by state."""
        return dict(self._query("select state, count(*) from task_instance where run_id = ? group by state"))

    def resumed(self) -> dict[int, float]:
        """Return the resumption time of each task instance that is no longer deferred, in seconds since the epoch."""
        rows = self._query(
            "select map_index, scheduled_dttm from task_instance where run_id = ? and state != 'deferred'"
        )
        return {index: datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp() for index, when in rows}

    def blocked(self) -> int:
        """Return the number of Airflow's warnings that a trigger blocked the event loop."""
        return sum(path.read_text(errors="replace").count(BLOCKED) for path in self._airflow.all_logs())

    def _query(self, sql: str) -> list[Any]:
        with sqlite3.connect(f"file:{self._airflow.home / 'airflow.db'}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(sql, [self._run_id]).fetchall()


def measure(side: str, jobs: int, interval: float, seconds: float, ends: int) -> dict[str, Any]:
    """Run one side in a new Airflow, and return its figures.

    :param seconds: length of the window in which all tasks wait and CPU is measured.
    :param ends: number of jobs that end afterwards, spread over two intervals.
    """
    with Service(jobs) as service, tempfile.TemporaryDirectory(prefix="osai-bench-") as folder:
        dags, home = Path(folder) / "dags", Path(folder) / "home"
        dags.mkdir()
        text = DAGS[side].format(interval=interval, jobs=jobs)
        (dags / "waiting.py").write_text(f"from airflow.sdk import DAG\n{text}")
        settings = {
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "0",
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(jobs),
            "AIRFLOW__TRIGGERER__CAPACITY": str(jobs + 1),
        }
        home.mkdir()
        environment = service.environment | settings
        with WholeAirflow(dags, home=home, environment=environment) as airflow:
            airflow.wait_for_dag(DAG)
            run_id = airflow.trigger(DAG)
            triggerer = Triggerer(airflow, run_id)
            until(lambda: triggerer.states().get("scheduled") == jobs, 120, f"{jobs} scheduled tasks")
            empty = triggerer.memory()
            _defer(home, environment, run_id, side, interval, jobs)
            say(f"{side}: {jobs} tasks are deferred")
            wait_until_seen(side, service, jobs)
            time.sleep(interval)
            figures = _wait_and_resume(triggerer, service, side, jobs, seconds, ends, 2 * interval)
            return figures | {"kb_per_job": (triggerer.memory() - empty) / 1000 / jobs}


def _wait_and_resume(
    triggerer: Triggerer, service: Service, side: str, jobs: int, seconds: float, ends: int, span: float
) -> dict[str, Any]:
    blocked, cpu, begin, counts = triggerer.blocked(), triggerer.cpu(), time.monotonic(), service.counts()
    time.sleep(seconds)
    passed = time.monotonic() - begin
    figures: dict[str, Any] = {
        "cpu": (triggerer.cpu() - cpu) / passed,
        "requests": (service.counts()["requests"] - counts["requests"]) / passed,
        "blocked_at_start": blocked,
    }
    if side != "idle":
        late = _latencies(triggerer, service, jobs, ends, span)
        figures |= {"median_s": median(late), "p95_s": late[int(0.95 * len(late))], "max_s": late[-1]}
    waiting = triggerer.states().get("deferred", 0)
    if waiting != jobs - (0 if side == "idle" else ends):
        raise SideError(f"{side}: {waiting} tasks are still deferred; the wrong tasks were resumed")
    return figures | {"blocked": triggerer.blocked() - blocked}


def _latencies(triggerer: Triggerer, service: Service, jobs: int, ends: int, span: float) -> list[float]:
    """End *ends* jobs, spread over *span* seconds and over all jobs; return the sorted latencies in seconds."""
    step = jobs // ends
    ended: dict[int, float] = {}
    begin = time.monotonic()
    for number in range(ends):
        time.sleep(max(0.0, begin + span * number / ends - time.monotonic()))
        index = number * step
        service.end([str(index + 1)])
        ended[index] = time.time()
    until(lambda: ended.keys() <= triggerer.resumed().keys(), 10 * span, f"{ends} resumed tasks")
    resumed = triggerer.resumed()
    return sorted(resumed[index] - when for index, when in ended.items())


def _defer(home: Path, environment: dict[str, str], run_id: str, side: str, interval: float, jobs: int) -> None:
    root = Path(__file__).resolve().parents[1]
    env = {key: value for key, value in os.environ.items() if "AIRFLOW" not in key}
    env |= {"AIRFLOW_HOME": str(home), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}"}
    command = [sys.executable, "-m", "benchmarks.defer_tasks", DAG, run_id, side, str(interval)]
    env |= {"PYTHONPATH": str(root), **environment}
    output = subprocess.run(command, env=env, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    if int(output.splitlines()[-1]) != jobs:
        raise SideError(f"{output.splitlines()[-1]} tasks were deferred, expected {jobs}")


def writes_to(process: psutil.Process, log: Path) -> bool:
    """Whether *process* is the Airflow component that writes to *log*; its children write to pipes to it."""
    try:
        return Path(os.readlink(f"/proc/{process.pid}/fd/1")) == log.resolve()
    except OSError:  # not Linux; there each component is a separate command
        return process.cmdline()[-2:-1] == ["triggerer"]


def main(arguments: list[str] | None = None) -> int:
    """Measure all sides and print the line of JSON; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of the window")
    parser.add_argument("--ends", type=int, default=200, help="number of jobs that end, to measure the latency")
    parser.add_argument("--sides", default="http,ours,idle")
    options = parser.parse_args(arguments)
    found = {}
    for side in options.sides.split(","):
        figures = measure(side, options.jobs, options.interval, options.seconds, options.ends)
        found[side] = {key: round(value, 4) for key, value in figures.items()}
        say(json.dumps({"side": side, **found[side]}))
    line: dict[str, Any] = {"jobs": options.jobs, "interval": options.interval}
    if {"http", "ours"} <= found.keys() and found["ours"]["cpu"]:
        line["cpu_ratio"] = round(found["http"]["cpu"] / found["ours"]["cpu"], 2)
    say(
        json.dumps(line | {f"{side}_{key}": value for side, figures in found.items() for key, value in figures.items()})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
