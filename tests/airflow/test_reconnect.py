"""Which job a try reconnects to: its own, of this run, this deployment and this generation, and no other."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_osai.api.errors import OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.hooks import deployment
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.reference import JobKey
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance
from tests.conftest import CANARY

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def run(start=NOON, clears=0):
    """A Dag run as the task sees it."""
    return SimpleNamespace(run_after=NOON, start_date=start, clear_number=clears)


@pytest.fixture
def jobs(sandbox):
    return lambda: sandbox.control.record()["jobs"]


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
    """Two Airflows on one OSAI account never share a job."""

    def test_the_same_task_of_two_deployments_has_two_jobs(self, train, monkeypatch, jobs):
        """Each metadata database has a secret of its own."""
        for secret in ("staging", "production"):
            monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", secret)
            train({"ti": FakeTaskInstance(), "dag_run": run()})
        assert len(jobs()) == 2

    def test_a_copied_database_is_told_apart_by_the_connection(self, train, connection, jobs):
        for name in ("staging", "production"):
            connection(deployment=name)
            train({"ti": FakeTaskInstance(), "dag_run": run()})
        assert len(jobs()) == 2

    def test_the_secret_is_made_once_and_kept(self, monkeypatch):
        """As a variable of Airflow."""
        kept: dict[str, str] = {}
        monkeypatch.setattr(deployment, "SETTLING", 0.0)
        monkeypatch.setattr(deployment.Variable, "get", lambda key, default=None: kept.get(key, default))
        monkeypatch.setattr(deployment.Variable, "set", lambda key, value, description: kept.update({key: value}))
        first = deployment.load_deployment()
        assert kept
        assert deployment.load_deployment().tag == first.tag
        assert first.secret not in repr(first)

    def test_the_key_says_whose_job_it_is_and_only_the_deployment_can_make_it(self, train, sandbox):
        train({"ti": FakeTaskInstance(map_index=4), "dag_run": run()})
        key = JobKey.parse(sandbox.control.record()["jobs"][0]["reference"])
        assert (key.owner.dag_id, key.owner.task_id, key.owner.map_index, key.owner.run_id) == ("dag", "task", 4, "run")
        assert key.is_of(deployment.load_deployment())
        assert not key.is_of(deployment.Deployment("another secret"))


class TestRun:
    """A run that was deleted and created again under the same id is another run."""

    def test_its_task_gets_a_new_job(self, train, jobs):
        for start in (NOON, NOON + timedelta(hours=1)):
            train({"ti": FakeTaskInstance(), "dag_run": run(start)})
        assert len(jobs()) == 2

    def test_with_a_state_store_that_is_empty_nothing_is_looked_up(self, train, sandbox):
        """On 3.3 it says that nothing was submitted."""
        train({"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()})
        assert "training.list" not in sandbox.control.record()["counts"]


class TestClear:
    """A clear gets a new job, whatever was done to ``retries``; a retry does not."""

    def test_after_retries_were_lowered(self, train, context, ti, jobs):
        """Then ``max_tries`` may be what it was before."""
        context["dag_run"] = run()
        ti.max_tries = 2
        train(context, retries=2)
        ti.try_number, ti.max_tries, context["dag_run"] = 2, 1 + 1, run(clears=1)
        train(context, retries=1)
        assert len(jobs()) == 2

    def test_an_edit_of_retries_alone_is_no_clear(self, train, jobs):
        context = {"ti": FakeTaskInstance(max_tries=3), "dag_run": run(), "task_state_store": FakeStateStore()}
        for retries in (3, 2):
            train(context, retries=retries)
        assert len(jobs()) == 1

    def test_a_clear_of_another_task_is_none_of_this_one(self, train, context, ti, jobs):
        ti.max_tries = 3
        for clears in (0, 1):
            context["dag_run"] = run(clears=clears)
            train(context, retries=3)
        assert len(jobs()) == 1


class TestCheckpoint:
    """What an earlier try, an earlier version or a newer version has kept."""

    def test_a_row_of_version_0_1_is_followed(self, train, sandbox, jobs):
        """An upgrade does not double jobs that run."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        job_id = train(context)
        entry = context["task_state_store"].get("osai_job")
        from airflow_provider_osai.api.requests import TrainingRequest
        from airflow_provider_osai.jobs.reference import Owner

        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.find_datasets("digits"))[0].id
        request = TrainingRequest(dataset_ids=[dataset], model_name="m")
        old = {"version": 1, "kind": "training", "failed": 0, "at": entry["at"], "job_id": job_id, "void": False}
        old["reference"] = Owner("dag", "run", "task", -1, 0).legacy_reference(request)
        context["task_state_store"].set("osai_job", old)
        assert train(context) == job_id
        assert len(jobs()) == 1

    @pytest.mark.parametrize(
        "news", [{"failed": "none"}, {"at": {"s": 1}}, {"version": 9, "tags": ["x"]}, {"clears": "?"}]
    )
    def test_a_row_of_a_newer_version_is_read_as_far_as_it_is_understood(self, train, jobs, news):
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        train(context)
        store = context["task_state_store"]
        store.set("osai_job", store.get("osai_job") | news)
        train(context)
        assert len(jobs()) == 1

    def test_nor_is_one_that_goes_on_for_a_while_after_it_was_cancelled(self, train, jobs):
        """OSAI's list shows it alive, and under a key of this task."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        store = context["task_state_store"]
        store.set("osai_job", store.get("osai_job") | {"cancelled": True})
        first = jobs()[0]
        assert train(context) != first["id"]
        assert jobs()[1]["reference"] != first["reference"]

    def test_a_job_that_was_cancelled_at_its_deadline_is_not_reconnected_to(self, train, jobs, sandbox):
        """It may look alive for a while."""
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
    """The job of an earlier try is where that try submitted it."""

    def test_another_connection_cancels_the_job_of_the_first(self, train, sandbox, jobs, monkeypatch):
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        other = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
        train(context, osai_conn_id="other")
        assert [job["state"] for job in jobs()] == ["cancelled", "succeeded"]

    def test_a_job_at_another_address_of_the_connection_is_not_submitted_again(self, train, connection, jobs):
        """Another region, between two tries: the message says what to do."""
        context = {"ti": FakeTaskInstance(), "dag_run": run(), "task_state_store": FakeStateStore()}
        with pytest.raises(TaskDeferred):
            train(context, "reads", deferrable=True)
        entry = context["task_state_store"].get("osai_job")
        context["task_state_store"].set("osai_job", entry | {"endpoint": "elsewhere"})
        with pytest.raises(OsaiJobLost, match=r"change the connection back.*clear the task"):
            train(context)
        assert len(jobs()) == 1
