"""``osai-airflow jobs``: what it lists, shows, cancels and waits for, and what it says of what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES
from airflow_provider_osai.cli.parsers import CONN_ID, KINDS, NO_ID, STATES
from airflow_provider_osai.hooks.osai import OsaiHook
from tests.cli.conftest import QUIET, SCRIPT


def test_kinds_states_and_the_connection_are_those_of_the_library():
    """The options have them as literals, which cost no import."""
    assert list(JobKind) == list(KINDS)
    assert list(JobState) == list(STATES)
    assert OsaiHook.default_conn_name == CONN_ID
    assert EMPTY_TEMPLATE_VALUES == NO_ID


class TestList:
    def test_has_a_line_of_seven_columns_for_each_job(self, cli, submit):
        ids = [submit(), submit(timing="immediate")]
        result = cli("jobs", "list")
        assert (result.code, result.err) == (0, "")
        assert result.rows[0] == ["KIND", "ID", "STATE", "PROGRESS", "CREATED", "TASK", "NOTE"]
        by_id = {row[1]: row for row in result.rows[1:]}
        assert set(by_id) == set(ids)
        assert all(len(row) == 7 for row in result.rows)
        assert by_id[ids[0]][2] in ("queued", "running")
        assert by_id[ids[1]][2::3] == ["succeeded", "retrain.train[1]"]
        assert by_id[ids[1]][6] == "simulated"

    def test_json_is_one_document(self, cli, submit):
        job_id = submit(timing="immediate")
        document = cli("jobs", "list", "--json").json
        (job,) = document["jobs"]
        assert (document["conn_id"], document["total"], document["not_listed"]) == ("osai_default", 1, {})
        assert (job["kind"], job["id"], job["state"], job["simulated"]) == ("training", job_id, "succeeded", True)
        assert job["task"] == {"dag_id": "retrain", "run_id": "manual__1", "task_id": "train", "map_index": 0}

    def test_filters_combine(self, cli, submit):
        live, ended = submit(), submit(timing="immediate")
        submit(timing="immediate", end="failed")

        def ids(*options):
            return {job["id"] for job in cli("jobs", "list", "--json", *options).json["jobs"]}

        assert ids("--state", "succeeded") == {ended}
        assert ids("--state", "queued", "--state", "running", "--state", "succeeded") == {live, ended}
        assert ids("--kind", "conversion") == set()
        assert len(ids("--kind", "training", "--kind", "conversion")) == 3

    def test_a_limit_is_said_outside_of_the_output(self, cli, submit):
        latest = [submit() for _ in range(3)][-1]
        result = cli("jobs", "list", "--limit", "1")
        assert [row[1] for row in result.rows[1:]] == [latest]
        assert result.error == "The latest 1 of 3 jobs are listed; --limit 3 lists all."
        assert cli("jobs", "list", "--limit", "1", "--json").json["total"] == 3

    def test_without_jobs_it_is_the_header_or_an_empty_list(self, cli, osai_sandbox):
        assert len(cli("jobs", "list").rows) == 1
        assert cli("jobs", "list", "--json").json["jobs"] == []

    @pytest.mark.osai_sandbox(contract={"training.list": None})
    def test_a_kind_that_the_contract_sets_to_null_is_named(self, cli, osai_sandbox):
        result = cli("jobs", "list", "--json")
        assert result.code == 0
        assert result.json["not_listed"] == {"training": "the contract sets training.list to null"}
        assert "the training jobs cannot be listed" in result.error

    def test_a_kind_whose_list_is_rejected_does_not_hide_the_others(self, cli, submit, osai_sandbox):
        job_id = submit()
        osai_sandbox.control.fault("status", "conversion.list", status=404)
        result = cli("jobs", "list", "--json")
        assert result.code == 1
        assert [job["id"] for job in result.json["jobs"]] == [job_id]
        assert list(result.json["not_listed"]) == ["conversion"]
        assert "osai-airflow contract check --live" in result.error

    @pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "²"])
    def test_an_invalid_limit_is_a_usage_error(self, cli, limit):
        result = cli("jobs", "list", "--limit", limit)
        assert (result.code, result.out) == (2, "")
        assert result.error.endswith("'osai-airflow jobs list --help' lists the options.")


class TestShow:
    def test_by_kind_and_id_or_by_the_id_alone(self, cli, submit):
        job_id = submit(timing="immediate", metrics={"accuracy": 0.5})
        by_both, by_id = cli("jobs", "show", "training", job_id), cli("jobs", "show", job_id)
        assert by_both.code == by_id.code == 0
        assert by_both.out == by_id.out
        facts = dict(line.split(None, 1) for line in by_id.out.splitlines())
        assert (facts["id"], facts["state"], facts["task"]) == (job_id, "succeeded", "retrain.train[0]")
        assert facts["metrics"] == "accuracy 0.5"
        assert facts["simulated"] == "yes: the result is made up"

    def test_json_has_result_and_history(self, cli, submit):
        job = cli("jobs", "show", submit(timing="immediate", metrics={"accuracy": 0.5}), "--json").json["job"]
        assert job["result"]["metrics"] == {"accuracy": 0.5}
        assert job["reference"].startswith("airflow-")
        assert {"history", "invalid_data", "message", "progress"} <= set(job)

    def test_a_failed_job_is_shown_and_no_failure_of_the_command(self, cli, submit):
        result = cli("jobs", "show", submit(timing="immediate", end="failed", message="out of memory"))
        assert result.code == 0
        assert "out of memory" in result.out

    @pytest.mark.parametrize("words", [["0"], ["training", "0"], ["conversion", "no such"], ["../x"], ["x" * 900]])
    def test_an_unknown_id_is_one_line(self, cli, osai_sandbox, words):
        result = cli("jobs", "show", *words)
        assert (result.code, result.out) == (1, "")
        assert result.error.startswith("osai-airflow jobs show: ")

    @pytest.mark.parametrize("words", ["show", "show training", "watch training", "cancel --yes training 1"])
    def test_an_empty_id_is_a_usage_error(self, cli, words):
        result = cli("jobs", *words.split(), "")
        assert (result.code, result.out) == (2, "")
        said = f"jobs {words.split()[0]}: argument ID: '': the id is empty. 'osai-airflow jobs list' lists the jobs. "
        assert said in result.error

    def test_a_kind_without_a_clear_answer_is_not_guessed(self, cli, submit, osai_sandbox):
        """The id may be that of a conversion too."""
        job_id = submit()
        osai_sandbox.control.fault("status", "conversion.get", status=403)
        result = cli("jobs", "show", job_id)
        assert result.code == 1
        assert "conversion" in result.error
        assert "Name the kind" in result.error
        assert cli("jobs", "show", "training", job_id).code == 0

    def test_an_id_of_another_kind_is_not_shown(self, cli, submit):
        assert cli("jobs", "show", "conversion", submit()).code == 1


class TestCancel:
    def test_says_what_became_of_each_job(self, cli, submit):
        live, ended = submit(), submit(timing="immediate", end="failed")
        result = cli("jobs", "cancel", "training", live, ended, "0", "--yes", "--json")
        assert result.code == 1
        assert {job["id"]: job["outcome"] for job in result.json["jobs"]} == {
            live: "cancelled",
            ended: "ended",
            "0": "unknown",
        }
        assert result.json["ok"] is False
        assert cli("jobs", "show", live, "--json").json["job"]["state"] == "cancelled"

    def test_a_second_run_changes_nothing_and_succeeds(self, cli, submit):
        job_id = submit()
        first, second = (cli("jobs", "cancel", "training", job_id, job_id, "--yes") for _ in range(2))
        assert (first.code, second.code) == (0, 0)
        assert first.rows[1][2] == "cancelled"
        assert "It had ended as cancelled." in second.out
        assert len(second.rows) == 2

    def test_without_a_terminal_it_needs_yes(self, cli, submit):
        job_id = submit()
        result = cli("jobs", "cancel", "training", job_id)
        assert (result.code, result.out) == (2, "")
        assert result.error.endswith("There is no terminal to ask; add --yes.")
        assert cli("jobs", "show", job_id, "--json").json["job"]["state"] != "cancelled"

    def test_an_outage_in_between_is_no_success(self, cli, submit, osai_sandbox):
        ids = [submit() for _ in range(3)]
        osai_sandbox.control.fault("status", "training.cancel", status=503, after=1, times=100)
        result = cli("jobs", "cancel", "training", *ids, "--yes", "--wait", "0", "--json")
        assert result.code == 1
        assert [job["outcome"] for job in result.json["jobs"]] == ["cancelled", "failed", "not tried"]
        assert "may still run" in result.json["jobs"][1]["details"]

    @pytest.mark.osai_sandbox(contract={"training.cancel": None})
    def test_an_api_without_cancel_is_a_failure(self, cli, submit):
        result = cli("jobs", "cancel", "training", submit(), "--yes")
        assert result.code == 1
        assert result.rows[1][2] == "failed"

    def test_a_cancellation_that_takes_no_effect_is_not_called_one(self, cli, submit, osai_sandbox):
        """OSAI accepts it, but the job goes on."""
        job_id = submit()
        osai_sandbox.control.fault("unknown_state", "training.get", times=100)
        result = cli("jobs", "cancel", "training", job_id, "--yes", "--wait", "0")
        assert result.code == 1
        assert result.rows[1][2] == "requested"


class TestWatch:
    def test_succeeds_only_with_the_job(self, cli, submit):
        for end, code in (("succeeded", 0), ("failed", 1), ("cancelled", 1)):
            result = cli("jobs", "watch", "training", submit(reads=2, end=end), "--json")
            assert (result.code, result.json["job"]["state"]) == (code, end)

    def test_progress_is_outside_of_the_output(self, cli, submit):
        job_id = submit(reads=3, message="out of memory", end="failed")
        result = cli("jobs", "watch", "training", job_id)
        lines = result.err.splitlines()
        assert lines[0].startswith(f"OSAI training job {job_id} is ")
        assert lines[-1] == f"osai-airflow jobs watch: training job {job_id} ended as failed: out of memory"
        assert "out of memory" in result.out

    def test_a_job_that_has_ended_is_not_waited_for(self, cli, submit, osai_sandbox):
        job_id = submit(timing="immediate")
        before = osai_sandbox.control.record()["counts"].get("training.get", 0)
        assert cli("jobs", "watch", "training", job_id).code == 0
        assert osai_sandbox.control.record()["counts"]["training.get"] == before + 1

    def test_a_timeout_leaves_the_job_alone(self, cli, submit):
        job_id = submit()
        result = cli("jobs", "watch", "training", job_id, "--timeout", "0.2")
        assert (result.code, result.out) == (1, "")
        assert f"osai-airflow jobs cancel training {job_id}" in result.err.splitlines()[-1]
        assert cli("jobs", "show", job_id, "--json").json["job"]["state"] != "cancelled"

    def test_an_unknown_job_is_an_error_at_once(self, cli, osai_sandbox):
        assert "unknown to OSAI" in cli("jobs", "watch", "training", "0").error

    def test_a_short_outage_is_survived(self, cli, submit, osai_sandbox):
        job_id = submit(reads=2)
        osai_sandbox.control.fault("status", "training.get", status=503, after=1, times=2)
        assert cli("jobs", "watch", "training", job_id).code == 0


WORDS = {
    "jobs list": ["jobs", "list"],
    "jobs show": ["jobs", "show", "training", "1"],
    "jobs watch": ["jobs", "watch", "training", "1"],
    "datasets list": ["datasets", "list"],
}


@pytest.mark.parametrize("name", WORDS)
class TestWithoutAWorkingConnection:
    """Each error is one line on the standard error, with a remedy; with --json too, the output is empty then."""

    def failed(self, cli, name, *options):
        results = [cli(*WORDS[name], *options), cli(*WORDS[name], *options, "--json")]
        for result in results:
            assert (result.code, result.out) == (1, "")
            assert result.error.startswith(f"osai-airflow {name}: ")
        return results[0].error

    def test_no_connection(self, cli, osai_sandbox, name):
        error = self.failed(cli, name, "--conn-id", "nowhere")
        assert "There is no connection 'nowhere'. Set AIRFLOW_CONN_NOWHERE in this shell, or add it under " in error

    def test_a_connection_of_another_type(self, cli, osai_sandbox, name, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", "postgres://user:canary-5f0c@localhost/db")
        error = self.failed(cli, name, "--conn-id", "other")
        assert "has the type 'postgres' instead of 'osai'" in error
        assert "canary-5f0c" not in error

    def test_a_rejected_token(self, cli, osai_sandbox, name, monkeypatch):
        document = {"conn_type": "osai", "password": "wrong", "extra": {"base_url": osai_sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        assert "Create a new one in OSAI under Settings" in self.failed(cli, name)

    def test_an_outage(self, cli, osai_sandbox, name, monkeypatch):
        document = {"conn_type": "osai", "password": "t", "extra": {"base_url": "http://127.0.0.1:9/api"}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        error = self.failed(cli, name)
        assert "got no response from http://127.0.0.1:9/api" in error
        assert "osai-airflow check --conn-id osai_default" in error


def test_datasets_are_listed_as_osai_has_them(cli, client):
    ids = [client.create_dataset(name).id for name in ("defects", "[red]\x1b[31m Größe")]
    result = cli("datasets", "list", "--name", "defects")
    assert [row[:3] for row in result.rows[1:]] == [[ids[0], "defects", "0"]]
    assert "\x1b" not in cli("datasets", "list").out
    listed = cli("datasets", "list", "--json").json["datasets"]
    assert {each["id"]: each["name"] for each in listed}[ids[1]] == "[red]\x1b[31m Größe"


def test_output_fits_an_encoding_without_its_characters(client):
    client.create_dataset("Größe")
    env = {**os.environ, **QUIET, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([SCRIPT, "datasets", "list"], capture_output=True, check=False, env=env)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert rb"Gr\xf6\xdfe" in done.stdout


@pytest.mark.osai_sandbox(contract={"conversion.get": {"path": "/Trainings/{id}"}})
def test_two_kinds_with_one_id_are_not_guessed(cli, submit):
    result = cli("jobs", "show", submit())
    assert (result.code, result.out) == (1, "")
    assert "2 kinds have a job" in result.error
    assert "Name the kind: jobs show KIND ID." in result.error
