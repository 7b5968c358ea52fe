"""``osai-airflow orphans`` with access to Airflow's database."""

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
from airflow_provider_osai.hooks.deployment import VARIABLE, deployment_in_database
from airflow_provider_osai.jobs import idempotency
from airflow_provider_osai.plugins import task_queries
from tests.conftest import settings_for

ARGUMENTS = ("orphans", "--grace", "0")


@pytest.fixture
def submitted(run_dag, sandbox, connection):
    """A run whose two mapped jobs still run."""
    with create_session() as session:  # runs of earlier tests, whose sandbox had other jobs
        session.execute(delete(TaskInstance).where(TaskInstance.dag_id == "orphans_left"))
        session.execute(delete(DagRun).where(DagRun.dag_id == "orphans_left"))
    sandbox.control.script(timing="reads", reads=10**9)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    ran = run_dag("orphans_left", dataset=dataset)
    assert ran.state == "success", ran.tasks
    return ran


@pytest.fixture
def jobs(submitted):
    """The ids of the run's jobs."""
    return [submitted.result("train", "job_id", index) for index in (0, 1)]


@pytest.fixture
def states(sandbox):
    return lambda: {job["id"]: job["state"] for job in sandbox.control.record()["jobs"]}


def mark(submitted, state, map_index):
    with create_session() as session:
        which = [TaskInstance.run_id == submitted.run.run_id, TaskInstance.map_index == map_index]
        session.execute(update(TaskInstance).where(*which).values(state=state))


def delete_run(submitted):
    with create_session() as session:
        session.execute(delete(TaskInstance).where(TaskInstance.run_id == submitted.run.run_id))
        session.execute(delete(DagRun).where(DagRun.run_id == submitted.run.run_id))


@pytest.fixture
def command(capfd):
    """Run the command; return its exit code and its output, parsed if it is JSON."""

    def run(*arguments):
        capfd.readouterr()
        code = main([*ARGUMENTS, *arguments])
        text = capfd.readouterr().out
        return code, json.loads(text) if "--json" in arguments else text

    return run


def test_jobs_of_tasks_that_only_submit_are_no_orphans(submitted, command, states):
    code, text = command("--action", "cancel")
    assert code == 0
    assert text.startswith("2 live OSAI jobs of this Airflow compared with their tasks: 0 orphaned, 0 cancelled")
    assert "cancelled" not in states().values()


def test_orphans_are_reported_by_default(submitted, jobs, command, states):
    mark(submitted, "failed", 1)
    code, text = command()
    assert code == 1
    task = f"task orphans_left.train[1] in run {submitted.run.run_id}"
    assert f"OSAI training job {jobs[1]} (running) of {task}: its task is failed; not cancelled" in text
    assert states()[jobs[1]] == "running"


def test_orphans_are_cancelled(submitted, jobs, command, states):
    mark(submitted, "failed", 1)
    code, result = command("--action", "cancel", "--json")
    assert (code, result["action"], result["checked"], result["cancelled"]) == (0, "cancel", 2, [jobs[1]])
    assert result["orphans"][0]["map_index"] == 1
    assert states() == {jobs[0]: "running", jobs[1]: "cancelled"}
    assert command("--json")[1]["orphans"] == []


def test_jobs_younger_than_the_grace_time_are_ignored(submitted, command):
    mark(submitted, "failed", 1)
    code, result = command("--grace", "600", "--action", "cancel", "--json")
    assert (code, result["checked"], result["orphans"]) == (0, 0, [])


def test_it_works_after_the_run_was_deleted(submitted, jobs, command):
    delete_run(submitted)
    code, result = command("--action", "cancel", "--json")
    assert (code, set(result["cancelled"])) == (0, set(jobs))
    assert "deleted" in result["orphans"][0]["reason"]


def test_jobs_of_another_deployment_are_ignored(submitted, command, connection):
    delete_run(submitted)
    connection(deployment="staging")
    assert command("--json") == (0, {**command("--json")[1], "checked": 0, "orphans": []})


def test_a_job_that_cannot_be_cancelled_is_reported(submitted, jobs, command, connection):
    connection(contract='{"training.cancel": null}')
    mark(submitted, "failed", 1)
    code, result = command("--action", "cancel", "--json")
    assert (code, result["cancelled"], [orphan["job_id"] for orphan in result["not_cancelled"]]) == (1, [], [jobs[1]])


def test_the_task_of_a_key_without_names_is_found(run_dag, sandbox, connection, command, monkeypatch, request):
    """Among the tasks that recorded this job."""
    monkeypatch.setattr(idempotency, "MAX_LENGTH", 60)
    submitted = request.getfixturevalue("submitted")
    mark(submitted, "failed", 1)
    code, result = command("--json")
    assert (code, result["unknown"], result["orphans"][0]["map_index"]) == (1, [], 1)


class TestWithoutList:
    """OSAI cannot list jobs, so those in the XComs are read."""

    @pytest.fixture
    def unlisted(self, submitted, connection):
        connection(contract='{"training.list": null}')

    def test_the_recorded_jobs_of_ended_tasks_are_read(self, unlisted, submitted, jobs, command, states):
        mark(submitted, "failed", 1)
        code, text = command("--action", "cancel")
        assert code == 0
        assert "the latest job of each ended task" in text
        assert states()[jobs[1]] == "cancelled"
        assert states()[jobs[0]] != "cancelled"

    def test_of_many_jobs_the_newest_are_read_with_a_log_line(self, unlisted, submitted, command, monkeypatch):
        monkeypatch.setattr(task_queries, "MAX_JOBS", 1)
        mark(submitted, "failed", 0)
        mark(submitted, "failed", 1)
        code, text = command()
        assert code == 1
        assert "1 orphaned" in text
        assert "only the newest 1 are checked" in text

    def test_jobs_of_another_connection_are_ignored(self, unlisted, submitted, command):
        mark(submitted, "failed", 1)
        with create_session() as session:
            for xcom in session.scalars(select(XComModel).where(XComModel.key == "osai_job")):
                xcom.value = {**xcom.value, "conn_id": "osai_other"}
        assert command("--json")[1]["checked"] == 0


class TestErrors:
    """Exit code 2."""

    def test_unreachable_osai(self, submitted, connection, monkeypatch, capfd):
        without_retries = partial(OsaiClient, retry_budget=0)
        monkeypatch.setattr("airflow_provider_osai.api.client.OsaiClient", without_retries)
        connection(base_url="http://127.0.0.1:9/api")
        capfd.readouterr()
        assert main([*ARGUMENTS, "--json"]) == 2
        result = capfd.readouterr()
        assert result.out == ""
        error = result.err.splitlines()[-1]
        assert error.startswith("osai-airflow orphans: GET ")
        assert error.endswith("'osai-airflow check --conn-id osai_default' names the reason.")

    def test_missing_connection(self, dagbag, capfd):
        assert main([*ARGUMENTS, "--connection", "osai_nowhere"]) == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert error.startswith(
            "osai-airflow orphans: There is no connection 'osai_nowhere'. Set AIRFLOW_CONN_OSAI_NOWHERE"
        )

    @pytest.mark.parametrize("arguments", [["--action", "delete"], ["--grace", "-1"], ["--grace", "soon"]])
    def test_invalid_argument(self, arguments):
        with pytest.raises(SystemExit) as exited:
            main(["orphans", *arguments])
        assert exited.value.code == 2


class TestDeployment:
    """The command reads the deployment secret and never creates it."""

    @pytest.fixture
    def without_secret(self, dagbag):
        with create_session() as session:
            variable = session.scalar(select(Variable).where(Variable.key == VARIABLE))
            value = variable and variable.get_val()
            session.execute(delete(Variable).where(Variable.key == VARIABLE))
        yield
        if value:
            with create_session() as session:
                session.add(Variable(key=VARIABLE, val=value))

    def test_without_a_secret_there_are_no_jobs(self, without_secret, connection, command):
        code, result = command("--json")
        assert (code, result["checked"]) == (0, 0)
        assert "has not submitted a job yet" in command()[1]
        assert deployment_in_database() is None

    @pytest.fixture
    def process(self, submitted, monkeypatch):
        """Run the command in a process of its own."""

        def run(fernet_key):
            monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", fernet_key)
            command = [str(Path(sys.executable).parent / "osai-airflow"), *ARGUMENTS, "--json"]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        return run

    def test_in_its_own_process_it_prints_only_json(self, process, submitted, jobs):
        mark(submitted, "failed", 1)
        done = process(conf.get("core", "fernet_key"))
        assert done.returncode == 1, done.stderr
        assert [orphan["job_id"] for orphan in json.loads(done.stdout)["orphans"]] == [jobs[1]]

    def test_a_secret_that_cannot_be_decrypted_is_an_error(self, process):
        done = process(Fernet.generate_key().decode())
        assert (done.returncode, done.stdout) == (2, "")
        assert "fernet_key" in done.stderr
