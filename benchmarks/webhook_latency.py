"""The latency from the end of a job to the resumption of its task, with webhooks and with polling.

``python -m benchmarks.webhook_latency`` starts a complete Airflow (scheduler, Dag processor, API server, triggerer,
LocalExecutor; SQLite) for each side in turn: ``webhook`` (the connection has webhooks enabled), ``poll`` (it has not;
the operator's default interval of 30 s), and ``flood`` (webhooks, with a thousand forged ones sent at the same time as
each real one). All run the same Dag, with one mapped training per job.

Real: all of Airflow, the operators, the sandbox's HTTP server, its webhooks, the resumed tasks. Simulated: the training
itself; the benchmark ends one job every few seconds, to measure the latency of a single webhook rather than of a queue
of tasks on a small machine.

Latency is measured from the job's end in the sandbox, just before it sends the webhook, to the time at which the task
instance is ``running`` in the database, which is read every 20 ms; ``resumed`` is when it has left ``deferred``. The
scheduler's intervals are Airflow's defaults. Polls are those of a job before its end, as counted by the sandbox. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from benchmarks.deferred_jobs import say
from benchmarks.peer_process import SideError, until

__all__ = ["main"]

DAG = "training"
TEXT = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("training", schedule=None):
    OsaiTrainModelOperator.partial(
        task_id="train", dataset_ids="{dataset}", deferrable=True, use_webhook={use_webhook}
    ).expand(model_name=[f"m{{number}}" for number in range({jobs})])
"""
SETTINGS = {
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__CORE__MAX_MAP_LENGTH": "1000",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
}
"""The scheduler's intervals are Airflow's defaults; the demo's Airflow has shorter ones."""
LOOK = 0.02
JUNK = 1000
ROOT = Path(__file__).resolve().parents[1]


class Instances:
    """The task instances of a run, read from the database."""

    def __init__(self, home: Path, run_id: str) -> None:
        self._address, self._run_id = f"file:{home / 'airflow.db'}?mode=ro", run_id

    def states(self) -> dict[int, str]:
        """Return the states by map index."""
        with sqlite3.connect(self._address, uri=True, timeout=30) as connection:
            sql = "select map_index, state from task_instance where run_id = ?"
            return dict(connection.execute(sql, [self._run_id]).fetchall())


def measure(side: str, jobs: int, pause: float) -> dict[str, Any]:
    """Run one side in a new Airflow, and return its figures.

    :param pause: seconds between the ends of two jobs.
    """
    with Sandbox() as osai, tempfile.TemporaryDirectory(prefix="osai-bench-") as folder:
        dags, home = Path(folder) / "dags", Path(folder) / "home"
        dags.mkdir()
        home.mkdir()
        extra = {"base_url": osai.base_url}
        with OsaiClient(OsaiSettings.from_connection(osai.access_token, extra)) as client:
            dataset = client.send(client.calls.create_dataset("digits")).id
        osai.control.script("training", "reads", reads=10**9)
        (dags / "training.py").write_text(TEXT.format(dataset=dataset, use_webhook=side != "poll", jobs=jobs))
        connection = {"conn_type": "osai", "password": osai.access_token, "extra": extra}
        airflow = WholeAirflow(dags, home=home, connections={"osai_default": connection}, environment=SETTINGS)
        if side != "poll":
            extra |= {"webhook_base_url": airflow.url, "webhook_secret": "a-secret-of-the-benchmark"}
        with airflow:
            airflow.wait_for_dag(DAG)
            instances = Instances(home, airflow.trigger(DAG))
            until(lambda: list(instances.states().values()) == ["deferred"] * jobs, 30 + 5 * jobs, "deferred tasks")
            time.sleep(5.0)
            return _end_all(osai, instances, pause, airflow.url if side == "flood" else None)


def _end_all(osai: Sandbox, instances: Instances, pause: float, flooded: str | None) -> dict[str, Any]:
    """End one job after the other, and return the latencies of their tasks.

    :param flooded: the address to send a thousand forged webhooks to with each real one; ``None``: none.
    """
    records = {int(job.request.wire()["modelName"][1:]): job for job in osai.state.jobs.all_jobs()}
    left = sorted(records)
    ended: dict[int, float] = {}
    polls: list[int] = []
    resumed: dict[int, float] = {}
    running: dict[int, float] = {}
    floods: list[subprocess.Popen[str]] = []
    begin = time.monotonic()
    give_up = begin + pause * len(records) + 120
    while len(running) < len(records):
        now = time.monotonic()
        if now > give_up:
            raise SideError(f"Timed out: {len(running)} of {len(records)} tasks were resumed")
        if left and now - begin >= pause * len(ended):
            number = left.pop(0)
            if flooded:
                command = [sys.executable, "-m", "benchmarks.webhook_flood", flooded, str(JUNK)]
                floods.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT))
                time.sleep(0.3)  # until it starts sending
            polls.append(records[number].reads)
            ended[number] = time.monotonic()
            osai.control.end(records[number].id)
        for index, state in instances.states().items():
            if index in ended and state != "deferred":
                resumed.setdefault(index, time.monotonic())
                if state in ("running", "success"):
                    running.setdefault(index, time.monotonic())
        time.sleep(LOOK)
    late = sorted(went_on - ended[number] for number, went_on in running.items())
    quick = sorted(when - ended[number] for number, when in resumed.items())
    for one in floods:
        refused, _ = one.communicate()[0].split()
        if int(refused) != JUNK:
            raise SideError(f"{JUNK - int(refused)} of {JUNK} forged webhooks were not rejected with 404")
    return {
        "n": len(late),
        "post_to_resumed_s_median": median(quick),
        "post_to_resumed_s_max": quick[-1],
        "post_to_running_s_median": median(late),
        "post_to_running_s_p95": late[int(0.95 * (len(late) - 1))],
        "post_to_running_s_max": late[-1],
        "polls_per_job": mean(polls),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure all sides and print the line of JSON; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between the ends of two jobs")
    parser.add_argument("--sides", default="webhook,poll,flood")
    options = parser.parse_args(arguments)
    line: dict[str, Any] = {}
    for side in options.sides.split(","):
        figures = {key: round(value, 3) for key, value in measure(side, options.jobs, options.pause).items()}
        say(json.dumps({"side": side, **figures}))
        line |= figures if side == "webhook" else {f"{side}_{key}": value for key, value in figures.items()}
    say(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
