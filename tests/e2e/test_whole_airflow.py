"""The demo's Airflow: it runs Dags, and nothing of it outlives its owner."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from airflow_provider_osai.demo import supervisor
from airflow_provider_osai.demo.airflow_api import WholeAirflowError
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from tests.waiting import until

TINY = """
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import dag, task

@dag(params={"until": "", "number": 0})
def tiny():
    wait = DateTimeSensorAsync(task_id="wait", target_time="{{ params.until }}")

    @task
    def double(params):
        return {"number": 2 * params["number"], "pair": (1, 2)}

    @task
    def fail():
        raise ValueError("this task always fails")

    wait >> double() >> fail()

tiny()
"""
OWNER = """
import os, subprocess, sys, time
command = ["/bin/sh", "-c", "setsid sleep 600 & sleep 600"]
keeper = subprocess.Popen(
    [sys.executable, "-P", sys.argv[1], str(os.getpid()), "5", sys.argv[2], *command],
    stdin=subprocess.PIPE, start_new_session=True,
)
print(keeper.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "tiny.py").write_text(TINY)
    return folder


@pytest.mark.e2e
def test_whole_airflow_runs_a_deferring_dag_and_leaves_nothing(dags: Path, tmp_path: Path) -> None:
    """A run defers, resumes and ends, its results and failures can be read, and after the block no process is left."""
    secret = "canary-token-of-a-connection"
    connections = {"some_default": {"conn_type": "generic", "password": secret}}
    with WholeAirflow(dags, home=tmp_path / "home", connections=connections) as airflow:
        airflow.wait_for_dag("tiny")
        run_id = airflow.trigger("tiny", {"number": 21, "until": datetime.now(UTC).isoformat()}, run_id="first")
        running = airflow.processes
        assert airflow.wait("tiny", run_id) == "failed"
        assert airflow.xcom("tiny", run_id, "double") == {"number": 42, "pair": (1, 2)}
        assert "DEFERRED" in airflow.task_log("tiny", run_id, "wait")
        assert "ValueError: this task always fails" in airflow.failures("tiny", run_id)
        airflow.set_task_state("tiny", run_id, "fail", "success")
        states = {task["task_id"]: task["state"] for task in airflow.task_instances("tiny", run_id)}
        assert states == {"wait": "success", "double": "success", "fail": "success"}
    assert running
    assert airflow.processes == []
    assert not [pid for pid in running if psutil.pid_exists(pid)]
    assert not [path for path in airflow.all_logs() if secret in path.read_text(errors="replace")]


@pytest.mark.e2e
def test_a_locked_database_delays_requests_and_fails_none(dags: Path, tmp_path: Path) -> None:
    """Python's SQLite gives up after 5 s, and a busy machine holds locks for longer."""
    held = 7.0
    with WholeAirflow(dags, home=tmp_path / "home") as airflow:
        airflow.unpause("tiny")
        database = sqlite3.connect(tmp_path / "home" / "airflow.db", timeout=60, isolation_level=None)
        with closing(database), ThreadPoolExecutor(1) as pool:
            database.execute("BEGIN IMMEDIATE")
            run = pool.submit(airflow.trigger, "tiny", run_id="first")
            time.sleep(held)
            assert not run.done()
            database.execute("COMMIT")
            assert run.result() == "first"


def test_whole_airflow_that_cannot_start_says_why_and_leaves_nothing(dags: Path) -> None:
    """If a part ends, entering raises at once with the end of the logs, and the temporary home is gone."""
    airflow = WholeAirflow(dags, executable=shutil.which("false") or "/bin/false")
    with pytest.raises(WholeAirflowError, match=r"(?s)not running.*== launch"), airflow:
        pytest.fail("it has started")
    assert airflow.processes == []
    assert not airflow.home.exists()


def test_keeper_ends_all_descendants_when_the_owner_is_killed(tmp_path: Path) -> None:
    """Not even a SIGKILL of the owner leaves a process behind, whatever session it is in, or the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, supervisor.__file__, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        leader = psutil.Process(int(owner.stdout.readline()))
        until(lambda: len(leader.children(recursive=True)) == 3)
        family = [leader, *leader.children(recursive=True)]
        owner.kill()
    until(lambda: not any(process.is_running() for process in family))
    assert not folder.exists()
