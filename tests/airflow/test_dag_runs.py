"""Whole Dags against the sandbox, triggers inline: every mode gives the same result."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.requests import TrainingRequest
from tests.conftest import settings_for


@pytest.mark.parametrize("mode", ["deferrable", "blocking"])
def test_a_training_returns_the_same_in_every_mode(run_dag, sandbox, connection, images, mode):
    """References and metrics, and the link to the portal."""
    ran = run_dag(f"journey_{mode}", images=str(images))
    assert ran.state == "success"
    result = ran.xcom("train")
    assert set(result) == {"kind", "job_id", "state", "model_id", "metrics"}
    assert (result["kind"], result["state"]) == ("training", "succeeded")
    assert result["metrics"]["accuracy"] > 0.5
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        assert client.get_job("training", result["job_id"]).result.confusion_matrix is not None
    assert ran.outputs("train") == set()  # XComs stay small, and no task refers to one
    assert ran.outputs("upload") == {"dataset_id"}
    assert ran.xcom("upload", "dataset_id") == ran.result("upload", "dataset_id")
    assert ran.xcom("train", "osai_portal_link") == f"{sandbox.portal_url}/trainings/{result['job_id']}"


def test_without_waiting_the_task_ends_right_after_submission(run_dag, sandbox, connection, images):
    """The job is left to OSAI and, if wanted, to a sensor."""
    sandbox.control.script("training", "seconds", seconds=60)
    ran = run_dag("journey_submit_only", images=str(images))
    assert ran.state == "success"
    assert ran.xcom("train")["state"] in ("queued", "running")


def test_mapped_tasks_each_have_a_job_of_their_own(run_dag, connection, images):
    """``expand`` over models, and over what the mapped tasks return."""
    ran = run_dag("journey_mapped", images=str(images))
    assert ran.state == "success"
    jobs = {ran.result(task, "job_id", index) for task in ("train", "convert", "predict") for index in (0, 1)}
    assert len(jobs) == 6
    assert [ran.xcom("train", map_index=i)["metrics"]["epochs"] for i in (0, 1)] == [2, 3]
    assert ran.xcom("predict", map_index=0)["metrics"]["images"] == 60


@pytest.fixture
def job(sandbox):
    """Submit a job that the sandbox only pretends to do, in *seconds*."""

    def submit(seconds: float = 1.0, **forced: object):
        sandbox.control.script("training", "seconds", seconds=seconds, **forced)
        with OsaiClient(settings_for(sandbox.base_url)) as client:
            dataset = client.send(client.calls.create_dataset("d"))
            request = TrainingRequest(dataset_ids=[dataset.id], model_name="m")
            return client.send(client.calls.submit_job(request, "r"))

    return submit


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_a_sensor_waits_for_a_job_of_others_in_every_mode(run_dag, connection, job, mode):
    """It returns what the job's own task would have."""
    waited_for = job()
    ran = run_dag(f"sensor_{mode}", job_id=waited_for.id)
    assert ran.state == "success"
    assert (ran.xcom("wait")["job_id"], ran.xcom("wait")["state"]) == (waited_for.id, "succeeded")


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_a_sensor_fails_with_the_job_in_every_mode(run_dag, connection, job, mode):
    """Success only on succeeded."""
    waited_for = job(0.5, end="failed")
    assert run_dag(f"sensor_{mode}", job_id=waited_for.id).tasks == {"wait": "failed"}


def test_a_sensor_of_an_unknown_kind_fails(run_dag, connection):
    """Bad input is found at once."""
    assert run_dag("sensor_poke", job_id="1", kind="brewing").state == "failed"
