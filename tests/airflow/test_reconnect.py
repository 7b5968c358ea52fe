"""Which job a try reconnects to: only one of the same task, run, generation and deployment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_osai.api.errors import OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.hooks import deployment
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.idempotency import JobKey
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance
from tests.conftest import CANARY

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def run(start=NOON, clears=0):
    """A Dag run as the task sees it."""
    return SimpleNamespace(run_after=NOON, start_date=start, clear_number=clears)


@pytest.fixture
def train(connection, sandbox):
    """Run a training task and return its job's id."""
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id

    def execute(context, timing="immediate", retries=0, **options):
        sandbox.control.script("training", timing, **({"reads": 10**6} if timing == "reads" else {}))
        arguments = {"dataset_ids": dataset, "model_name": "m", "poll_interval": 0.05, "retries": retries}
        return OsaiTrainModelOperator(task_id="task", **arguments | options).execute(context)["job_id"]

    return execute


class TestDeployment:
    """Two Airflow deployments on one OSAI account never share a job."""

    def test_the_same_task_of_two_deployments_has_two_jobs(self, train, monkeypatch, jobs):
        """Each metadata database has a secret of its own."""
        for secret in ("staging", "production"):
            monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", secret)
            train({"ti": FakeTaskInstance(), "dag_run": run()})
        assert len(jobs()) == 2

    def test_a_copied_database_is_distinguished_by_the_connection(self, train, connection, jobs):
        for name in ("staging", "production"):
            connection(deployment=name)
            train({"ti": FakeTaskInstance(), "dag_run": run()})
        assert len(jobs()) == 2

    def test_the_secret_is_generated_once_and_stored(self, monkeypatch):
        """As an Airflow variable."""
        variables: dict[str, str] = {}
        monkeypatch.setattr(deployment, "WRITE_RACE_PAUSE", 0.0)
        monkeypatch.setattr(deployment.Variable, "get", lambda key, default=None: variables.get(key, default))
        monkeypatch.setattr(deployment.Variable, "set", lambda key, value, description: variables.update({key: value}))
        first = deployment.load_deployment()
        assert variables
        assert deployment.load_deployment().tag == first.tag
        assert first.secret not in repr(first)

    @pytest.mark.parametrize(("request_seconds", "pause"), [(0.01, 1.0), (0.3, 6.0), (20.0, 30.0)])
    def test_on_a_slow_machine_a_secret_that_another_task_writes_late_counts(self, monkeypatch, request_seconds, pause):
        """Both have found none, and each would sign its job's key with its own, which no retry would find."""
        variables, now, pauses = {}, [0.0], []

        def requested(function):
            def request(*args):
                now[0] += request_seconds
                return function(*args)

            return request

        def sleep(seconds):
            pauses.append(seconds)
            variables[deployment.VARIABLE] = "the other task's"

        monkeypatch.setattr(deployment.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(deployment.time, "sleep", sleep)
        monkeypatch.setattr(deployment.Variable, "get", requested(variables.get))
        monkeypatch.setattr(deployment.Variable, "set", requested(lambda key, value, _: variables.update({key: value})))
        assert deployment.load_deployment().secret == "the other task's"
        assert pauses == [pytest.approx(pause)]

    def test_the_key_identifies_the_task_and_is_signed_by_the_deployment(self, train, sandbox):
        train({"ti": FakeTaskInstance(map_index=4), "dag_run": run()})
        key = JobKey.parse(sandbox.control.record()["jobs"][0]["reference"])
        assert (key.owner.dag_id, key.owner.task_id, key.owner.map_index, key.owner.run_id) == ("dag", "task", 4, "run")
        assert key.matches(deployment.load_deployment())
        assert not key.matches(deployment.Deployment("another secret"))


class TestRun:
    """A run that was deleted and created again under the same id is another run."""

    def test_a_new_run_with_the_same_id_gets_a_new_job(self, train, jobs):
        for start in (NOON, NOON + timedelta(hours=1)):
            train({"ti": FakeTaskInstance(), "dag_run": run(start)})
        assert len(jobs()) == 2

    def test_with_an_empty_state_store_no_list_is_requested(self, train, sandbox):
        """On Airflow 3.3 it proves that nothing was submitted."""
        train({"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()})
        assert "training.list" not in sandbox.control.record()["counts"]


class TestClear:
    """A clear gets a new job, even if ``retries`` was changed; a retry does not."""

    def test_after_retries_were_lowered(self, train, context, ti, jobs):
        """``max_tries`` may then be unchanged."""
        context["dag_run"] = run()
        ti.max_tries = 2
        train(context, retries=2)
        ti.try_number, ti.max_tries, context["dag_run"] = 2, 1 + 1, run(clears=1)
        train(context, retries=1)
        assert len(jobs()) == 2

    def test_a_change_of_retries_alone_is_not_a_clear(self, train, jobs):
        context = {"ti": FakeTaskInstance(max_tries=3), "dag_run": run(), "task_state_store": FakeStateStore()}
        for retries in (3, 2):
            train(context, retries=retries)
        assert len(jobs()) == 1

    def test_a_clear_of_another_task_is_not_a_clear_of_this_one(self, train, context, ti, jobs):
        ti.max_tries = 3
        for clears in (0, 1):
            context["dag_run"] = run(clears=clears)
            train(context, retries=3)
        assert len(jobs()) == 1


class TestCheckpoint:
    """Checkpoints of earlier tries, and of older and newer versions."""

    def test_a_checkpoint_of_version_0_1_is_used(self, train, sandbox, jobs):
        """An upgrade does not submit running jobs again."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        job_id = train(context)
        checkpoint = context["task_state_store"].get("osai_job")
        from airflow_provider_osai.api.requests import TrainingRequest
        from airflow_provider_osai.jobs.idempotency import TaskKey

        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.list_datasets("digits"))[0].id
        request = TrainingRequest(dataset_ids=[dataset], model_name="m")
        old = {"version": 1, "kind": "training", "failed": 0, "at": checkpoint["at"], "job_id": job_id, "void": False}
        old["reference"] = TaskKey("dag", "run", "task", -1, 0).legacy_reference(request)
        context["task_state_store"].set("osai_job", old)
        assert train(context) == job_id
        assert len(jobs()) == 1

    @pytest.mark.parametrize(
        "fields", [{"failed": "none"}, {"at": {"s": 1}}, {"version": 9, "tags": ["x"]}, {"clears": "?"}]
    )
    def test_invalid_fields_of_a_newer_version_are_ignored(self, train, jobs, fields):
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        train(context)
        store = context["task_state_store"]
        store.set("osai_job", store.get("osai_job") | fields)
        train(context)
        assert len(jobs()) == 1

    def test_a_cancelled_job_that_still_runs_is_not_reconnected_to(self, train, jobs):
        """OSAI still lists it as live, under a key of this task."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        store = context["task_state_store"]
        store.set("osai_job", store.get("osai_job") | {"cancelled": True})
        first = jobs()[0]
        assert train(context) != first["id"]
        assert jobs()[1]["reference"] != first["reference"]

    def test_a_job_that_was_cancelled_at_its_deadline_is_not_reconnected_to(self, train, jobs, sandbox):
        """It may be live for a while."""
        context = {"ti": FakeTaskInstance(max_tries=1), "dag_run": run(), "task_state_store": FakeStateStore()}
        context["ti"].start_date = datetime.now(UTC) - timedelta(minutes=10)
        with pytest.raises(OsaiJobTimeout):
            train(context, "reads", execution_timeout=timedelta(minutes=5))
        store = context["task_state_store"]
        assert store.get("osai_job")["cancelled"]
        context["ti"] = FakeTaskInstance(try_number=2, max_tries=1)
        assert train(context) != jobs()[0]["id"]
        assert [job["state"] for job in jobs()] == ["cancelled", "succeeded"]


class TestConnection:
    """The job of an earlier try stays at the connection through which it was submitted."""

    def test_after_a_change_of_connection_the_earlier_job_is_cancelled(self, train, sandbox, jobs, monkeypatch):
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        other = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
        train(context, osai_conn_id="other")
        assert [job["state"] for job in jobs()] == ["cancelled", "succeeded"]

    def test_after_a_change_of_the_base_url_no_second_job_is_submitted(self, train, connection, jobs):
        """The region may change between two tries; the message contains the remedy."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        checkpoint = context["task_state_store"].get("osai_job")
        context["task_state_store"].set("osai_job", checkpoint | {"endpoint": "elsewhere"})
        with pytest.raises(OsaiJobLost, match=r"change the connection back.*clear the task"):
            train(context)
        assert len(jobs()) == 1
