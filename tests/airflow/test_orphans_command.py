"""``osai-airflow orphans``, where Airflow's database is reachable."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from airflow.configuration import conf
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from cryptography.fernet import Fernet
from sqlalchemy import delete, select, update

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.cli import main
from airflow_provider_osai.hooks.deployment import VARIABLE
from airflow_provider_osai.jobs import reference
from airflow_provider_osai.plugins import task_queries
from airflow_provider_osai.plugins.task_queries import deployment_in_database
from tests.conftest import settings_for

NOW = ("orphans", "--grace", "0")


@pytest.fixture
def left(run_dag, sandbox, connection):
    """A run whose two mapped jobs go on."""
    with create_session() as session:  # of earlier tests, whose sandbox had other jobs
        session.execute(delete(TaskInstance).where(TaskInstance.dag_id == "orphans_left"))
        session.execute(delete(DagRun).where(DagRun.dag_id == "orphans_left"))
    sandbox.control.script(timing="reads", reads=10**9)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    ran = run_dag("orphans_left", dataset=dataset)
    assert ran.state == "success", ran.tasks
    return ran


@pytest.fixture
def jobs(left):
    """The ids of its jobs."""
    return [left.xcom("train", "job_id", index) for index in (0, 1)]


@pytest.fixture
def states(sandbox):
    return lambda: {job["id"]: job["state"] for job in sandbox.control.record()["jobs"]}


def mark(left, state, map_index):
    with create_session() as session:
        which = [TaskInstance.run_id == left.run.run_id, TaskInstance.map_index == map_index]
        session.execute(update(TaskInstance).where(*which).values(state=state))


def delete_run(left):
    with create_session() as session:
        session.execute(delete(TaskInstance).where(TaskInstance.run_id == left.run.run_id))
        session.execute(delete(DagRun).where(DagRun.run_id == left.run.run_id))


@pytest.fixture
def command(capfd):
    """Run the command; return its exit code and what it prints, as an object if that is JSON."""

    def run(*arguments):
        capfd.readouterr()
        code = main([*NOW, *arguments])
        text = capfd.readouterr().out
        return code, json.loads(text) if "--json" in arguments else text

    return run


def test_nothing_is_left(left, command, states):
    """The tasks only submit."""
    code, text = command("--action", "cancel")
    assert code == 0
    assert text.startswith("2 live OSAI jobs of this Airflow compared with their tasks: 0 orphaned, 0 cancelled")
    assert "cancelled" not in states().values()


def test_orphans_are_reported_by_default(left, jobs, command, states):
    mark(left, "failed", 1)
    code, text = command()
    assert code == 1
    whose = f"task orphans_left.train[1] in run {left.run.run_id}"
    assert f"OSAI training job {jobs[1]} (running) of {whose}: its task is failed; not cancelled" in text
    assert states()[jobs[1]] == "running"


def test_orphans_are_cancelled(left, jobs, command, states):
    mark(left, "failed", 1)
    code, told = command("--action", "cancel", "--json")
    assert (code, told["action"], told["checked"], told["cancelled"]) == (0, "cancel", 2, [jobs[1]])
    assert told["orphans"][0]["map_index"] == 1
    assert states() == {jobs[0]: "running", jobs[1]: "cancelled"}
    assert command("--json")[1]["orphans"] == []


def test_young_jobs_are_left_alone(left, command):
    mark(left, "failed", 1)
    code, told = command("--grace", "600", "--action", "cancel", "--json")
    assert (code, told["checked"], told["orphans"]) == (0, 0, [])


def test_it_works_after_the_run_was_deleted(left, jobs, command):
    delete_run(left)
    code, told = command("--action", "cancel", "--json")
    assert (code, set(told["cancelled"])) == (0, set(jobs))
    assert "deleted" in told["orphans"][0]["reason"]


def test_jobs_of_another_deployment_are_left_alone(left, command, connection):
    delete_run(left)
    connection(deployment="staging")
    assert command("--json") == (0, {**command("--json")[1], "checked": 0, "orphans": []})


def test_what_cannot_be_cancelled_is_left(left, jobs, command, connection):
    connection(contract='{"training.cancel": null}')
    mark(left, "failed", 1)
    code, told = command("--action", "cancel", "--json")
    assert (code, told["cancelled"], [one["job_id"] for one in told["not_cancelled"]]) == (1, [], [jobs[1]])


def test_a_task_of_a_key_without_names_is_found(run_dag, sandbox, connection, command, monkeypatch, request):
    """Among those that have told of this job."""
    monkeypatch.setattr(reference, "MAX_LENGTH", 60)
    left = request.getfixturevalue("left")
    mark(left, "failed", 1)
    code, told = command("--json")
    assert (code, told["unknown"], told["orphans"][0]["map_index"]) == (1, [], 1)


class TestWithoutAList:
    """From the XComs."""

    @pytest.fixture
    def unlisted(self, left, connection):
        connection(contract='{"training.list": null}')

    def test_the_jobs_of_ended_tasks_are_read(self, unlisted, left, jobs, command, states):
        mark(left, "failed", 1)
        code, text = command("--action", "cancel")
        assert code == 0
        assert "works from what Airflow still knows" in text
        assert states()[jobs[1]] == "cancelled"
        assert states()[jobs[0]] != "cancelled"

    def test_of_many_the_newest_are_read_and_that_is_said(self, unlisted, left, command, monkeypatch):
        monkeypatch.setattr(task_queries, "MOST", 1)
        mark(left, "failed", 0)
        mark(left, "failed", 1)
        code, text = command()
        assert code == 1
        assert "1 orphaned" in text
        assert "only the newest 1 are looked at" in text

    def test_jobs_of_another_connection_are_not_asked_for(self, unlisted, left, command):
        mark(left, "failed", 1)
        with create_session() as session:
            for xcom in session.scalars(select(XComModel).where(XComModel.key == "osai_job")):
                xcom.value = {**xcom.value, "conn_id": "osai_other"}
        assert command("--json")[1]["checked"] == 0


class TestTrouble:
    """Exit code 2."""

    def test_osai_out_of_reach(self, left, connection, monkeypatch, capfd):
        impatient = partial(OsaiClient, patience=0)
        monkeypatch.setattr("airflow_provider_osai.api.client.OsaiClient", impatient)
        connection(base_url="http://127.0.0.1:9/api")
        capfd.readouterr()
        assert main([*NOW, "--json"]) == 2
        told = capfd.readouterr()
        assert told.out == ""
        assert "OsaiUnreachable: GET " in told.err

    def test_a_connection_that_is_not_there(self, dagbag, capfd):
        assert main([*NOW, "--connection", "osai_nowhere"]) == 2
        assert "Airflow could not be read for connection osai_nowhere" in capfd.readouterr().err

    @pytest.mark.parametrize("arguments", [["--action", "delete"], ["--grace", "-1"], ["--grace", "soon"]])
    def test_a_bad_argument(self, arguments):
        with pytest.raises(SystemExit) as ended:
            main(["orphans", *arguments])
        assert ended.value.code == 2


class TestDeployment:
    """The variable is read, and never made."""

    @pytest.fixture
    def forgotten(self, dagbag):
        with create_session() as session:
            kept = session.scalar(select(Variable).where(Variable.key == VARIABLE))
            value = kept and kept.get_val()
            session.execute(delete(Variable).where(Variable.key == VARIABLE))
        yield
        if value:
            with create_session() as session:
                session.add(Variable(key=VARIABLE, val=value))

    def test_before_the_first_job_there_is_none(self, forgotten, connection, command):
        code, told = command("--json")
        assert (code, told["checked"]) == (0, 0)
        assert "has not submitted a job yet" in command()[1]
        assert deployment_in_database() is None

    @pytest.fixture
    def process(self, left, monkeypatch):
        """Run the command in a process of its own; return its exit code and what it prints."""

        def run(fernet_key):
            monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", fernet_key)
            command = [str(Path(sys.executable).parent / "osai-airflow"), *NOW, "--json"]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        return run

    def test_a_process_of_its_own_reads_it_and_prints_nothing_but_json(self, process, left, jobs):
        mark(left, "failed", 1)
        done = process(conf.get("core", "fernet_key"))
        assert done.returncode == 1, done.stderr
        assert [one["job_id"] for one in json.loads(done.stdout)["orphans"]] == [jobs[1]]

    def test_a_secret_that_cannot_be_decrypted_is_not_taken_for_none(self, process):
        done = process(Fernet.generate_key().decode())
        assert (done.returncode, done.stdout) == (2, "")
        assert "fernet_key" in done.stderr
