"""What version 0.1.0 left in Airflow's database, recorded by record_0_1_0.py, is read by the present code."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_osai.api.requests import DeviceRentalRequest, TrainingRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.checkpoint import JobCheckpoint
from airflow_provider_osai.jobs.idempotency import TaskKey
from airflow_provider_osai.operators._state_store import StateStoreUploadCheckpoints
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance

RECORDED = json.loads((Path(__file__).parent / "recorded" / "0.1.0.json").read_text())
TASKS = RECORDED["tasks"]
EVENTS = RECORDED["events"]
OUTCOMES = {"succeeded": "ended", "failed": "ended", "cancelled": "ended"}
REQUESTS = {
    "train": TrainingRequest(dataset_ids=[TASKS["upload"]["result"]["dataset_id"]], model_name="m"),
    "rent": DeviceRentalRequest(device="jetson", duration=3600),
}


@pytest.mark.parametrize("task", ["train", "rent"])
def test_a_trigger_is_recreated_with_its_arguments(task):
    path, arguments = TASKS[task]["trigger"]
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    assert trigger.serialize()[0] == path
    assert trigger.serialize()[1].items() >= arguments.items()


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_parsed_in_full(name):
    event = JobEvent.parse(EVENTS[name])
    assert event.model_dump(mode="json").items() >= EVENTS[name].items()
    assert event.outcome is Outcome(OUTCOMES.get(name, name))
    assert event.task_try == ""  # so the XCom job_id tells whether it is of this try


@pytest.mark.parametrize("task", ["train", "rent"])
def test_a_checkpoint_is_of_the_same_request(task):
    """The request's document and the names in the key have not changed since."""
    checkpoint = JobCheckpoint.model_validate(TASKS[task]["store"]["osai_job"])
    assert checkpoint.generation is None
    assert checkpoint.job_id == TASKS[task]["xcoms"]["osai_job"]["job_id"]
    assert TaskKey("dag", "run", task, -1, 2).legacy_reference(REQUESTS[task]) == checkpoint.reference


def test_the_checkpoint_of_an_upload_has_its_images():
    store = FakeStateStore()
    for key, value in TASKS["upload"]["store"].items():
        store.set(key, value)
    result = TASKS["upload"]["result"]
    assert len(StateStoreUploadCheckpoints(store).load(result["dataset_id"]).keys) == result["images"]


class TestRetry:
    """A retry after the upgrade, whose first try has left no checkpoint: it ran on Airflow 3.1 or 3.2."""

    @pytest.fixture
    def jobs(self, sandbox):
        return lambda: sandbox.control.record()["jobs"]

    @pytest.fixture(params=["with a state store", "without a state store"])
    def context(self, request):
        """The second try, after an upgrade to 3.3 or on the same Airflow."""
        run = SimpleNamespace(run_after=None, start_date=None, clear_number=0)
        store = {"task_state_store": FakeStateStore()} if request.param == "with a state store" else {}
        return {"ti": FakeTaskInstance(try_number=2, max_tries=1), "dag_run": run, **store}

    @pytest.fixture
    def train(self, connection, sandbox):
        """Return a training task, and what it requests."""
        sandbox.control.script("training", "reads", reads=3)
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("digits")).id
        arguments = {"dataset_ids": [dataset], "model_name": "m"}
        task = OsaiTrainModelOperator(task_id="task", poll_interval=0.05, retries=1, **arguments)
        return task, TrainingRequest(**arguments)

    def test_it_reconnects_to_a_job_of_version_0_1(self, train, context, jobs):
        task, request = train
        submit(request, TaskKey("dag", "run", "task", -1, 1).legacy_reference(request))
        assert task.execute(context)["job_id"] == jobs()[0]["id"]
        assert len(jobs()) == 1

    def test_its_next_retry_knows_that_job(self, train, context, jobs):
        """The checkpoint that the retry writes has the job's own key."""
        task, request = train
        submit(request, TaskKey("dag", "run", "task", -1, 1).legacy_reference(request))
        task.execute(context)
        context["ti"].try_number = 3
        assert task.execute(context)["job_id"] == jobs()[0]["id"]
        assert len(jobs()) == 1

    def test_after_a_failed_job_it_submits_another(self, train, context, jobs, sandbox):
        task, request = train
        sandbox.control.script("training", "immediate", end="failed")
        submit(request, TaskKey("dag", "run", "task", -1, 1).legacy_reference(request))
        sandbox.control.script("training", "immediate")
        task.execute(context)
        assert [job["state"] for job in jobs()] == ["failed", "succeeded"]

    def test_a_cleared_task_cancels_the_job_of_version_0_1(self, train, context, jobs):
        task, request = train
        submit(request, TaskKey("dag", "run", "task", -1, 1).legacy_reference(request))
        context["ti"].max_tries = 2  # a clear after the first try
        task.execute(context)
        assert [job["state"] for job in jobs()] == ["cancelled", "succeeded"]

    def test_it_reconnects_to_a_job_of_the_same_version(self, train, context, jobs):
        """Submitted on Airflow 3.2, where there is no store."""
        task, _ = train
        first = {**context, "ti": FakeTaskInstance(max_tries=1)}
        first.pop("task_state_store", None)
        task.wait_for_completion = False
        job_id = task.execute(first)["job_id"]
        assert task.execute(context)["job_id"] == job_id
        assert len(jobs()) == 1

    def test_the_device_of_version_0_1_is_rented_once_and_can_be_released_by_its_key(self, context, connection, jobs):
        request = REQUESTS["rent"]
        key = TaskKey("dag", "run", "task", -1, 1).legacy_reference(request)
        submit(request, key)
        rent = OsaiRentDeviceOperator(task_id="task", device="jetson", duration=3600, poll_interval=0.05, retries=1)
        assert rent.execute(context)["reference"] == key
        assert len(jobs()) == 1


def test_the_first_try_on_airflow_3_3_requests_no_list(connection, sandbox):
    """An empty store means that nothing was submitted."""
    context = {"ti": FakeTaskInstance(max_tries=1), "task_state_store": FakeStateStore()}
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    sandbox.control.script("training", "immediate")
    OsaiTrainModelOperator(task_id="task", dataset_ids=[dataset], model_name="m").execute(context)
    assert "training.list" not in sandbox.control.record()["counts"]


def submit(request, key):
    """Submit a job as version 0.1 did."""
    with OsaiHook().get_conn() as client:
        client.send(client.calls.submit_job(request, key))
