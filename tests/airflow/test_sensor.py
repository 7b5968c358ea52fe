"""The sensor keeps the same promises in each mode."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_provider_osai.api.errors import OsaiJobFailed, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.sensors.job import OsaiJobSensor


@pytest.fixture
def submitted(connection, sandbox):
    """Submit a training and return its id."""

    def submit(timing="reads", **script):
        sandbox.control.script("training", timing, **script)
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("digits")).id
            return client.send(client.calls.submit_job(TrainingRequest(dataset_ids=[dataset], model_name="m"), "k")).id

    return submit


def sensor(job_id: str, **options) -> OsaiJobSensor:
    return OsaiJobSensor(task_id="task", kind="training", job_id=job_id, **{"poke_interval": 0.05} | options)


def deferral(task: OsaiJobSensor, context) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_first_look_outlasts_an_outage(submitted, context, sandbox, deferrable):
    job_id = submitted(reads=2)
    sandbox.control.fault("html", "training.get", times=1)
    task = sensor(job_id, deferrable=deferrable)
    if not deferrable:
        assert task.execute(context)["job_id"] == job_id
        return
    event = asyncio.run(anext(deferral(task, context).trigger.run())).payload
    assert sensor(job_id).execute_complete(context, event)["job_id"] == job_id


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("choice", ["soft_fail", "never_fail"])
def test_a_job_that_failed_skips_a_sensor_that_shall_not_fail(submitted, context, deferrable, choice):
    job_id = submitted("immediate", end="failed")
    with pytest.raises(AirflowSkipException):
        sensor(job_id, deferrable=deferrable, **{choice: True}).execute(context)


@pytest.mark.parametrize("deferrable", [True, False])
def test_without_soft_fail_it_fails(submitted, context, deferrable):
    job_id = submitted("immediate", end="failed")
    with pytest.raises(OsaiJobFailed):
        sensor(job_id, deferrable=deferrable).execute(context)


def test_a_job_that_was_lost_skips_a_soft_sensor_on_resume(submitted, context):
    job_id = submitted(reads=10**6)
    event = {"kind": "training", "job_id": job_id, "outcome": "lost", "message": "gone"}
    with pytest.raises(AirflowSkipException):
        sensor(job_id, soft_fail=True).execute_complete(context, event)
    with pytest.raises(OsaiJobLost):
        sensor(job_id).execute_complete(context, event)


class TestTimeLimit:
    """``timeout`` and ``execution_timeout`` bound a deferred sensor too."""

    def test_the_execution_timeout(self, submitted, context, ti, sandbox):
        job_id = submitted(reads=10**6)
        ti.start_date = datetime.now(UTC) - timedelta(seconds=60)
        limits = {"execution_timeout": timedelta(seconds=60), "deferrable": True}
        trigger = deferral(sensor(job_id, **limits), context).trigger
        event = asyncio.run(anext(trigger.run())).payload
        with pytest.raises(OsaiJobTimeout, match="not cancelled"):
            sensor(job_id, **limits).execute_complete(context, event)
        assert sandbox.control.record()["jobs"][0]["state"] == "running"

    def test_the_sensors_own_timeout(self, submitted, context, ti):
        job_id = submitted(reads=10**6)
        ti.start_date = datetime.now(UTC) - timedelta(seconds=30)
        trigger = deferral(sensor(job_id, timeout=30, deferrable=True), context).trigger
        event = asyncio.run(anext(trigger.run())).payload
        with pytest.raises(AirflowSensorTimeout):
            sensor(job_id, timeout=30).execute_complete(context, event)

    def test_a_resume_does_not_start_it_anew(self, submitted, context, ti):
        """On 3.1 Airflow says then that the task has just started."""
        job_id = submitted(reads=10**6)
        first = deferral(sensor(job_id, timeout=100, deferrable=True), context).trigger
        ti.start_date = datetime.now(UTC) + timedelta(seconds=50)
        event = {"kind": "training", "job_id": job_id, "outcome": "error", "deadline": first.deadline}
        with pytest.raises(TaskDeferred) as again:
            sensor(job_id, timeout=100).execute_complete(context, event)
        assert again.value.trigger.deadline == first.deadline
        assert again.value.timeout.total_seconds() < 100 + 60

    def test_airflow_ends_the_deferral_itself_a_moment_later(self, submitted, context):
        """In case no triggerer runs."""
        caught = deferral(sensor(submitted(reads=10**6), timeout=100, deferrable=True), context)
        assert caught.trigger.deadline < time.time() + caught.timeout.total_seconds() < caught.trigger.deadline + 60


def test_an_event_of_a_newer_version_is_a_reason_to_read_the_job(submitted, context):
    job_id = submitted("immediate")
    assert sensor(job_id).execute_complete(context, {"outcome": "paused", "version": 7})["job_id"] == job_id


def test_its_trigger_never_cancels_the_job(submitted, context, sandbox):
    """It did not submit it: neither at a kill nor at the deadline."""
    trigger = deferral(sensor(submitted(reads=10**6), timeout=0.2, deferrable=True), context).trigger
    assert (trigger.cancel_on_kill, trigger.cancel_at_deadline) == (False, False)


def test_each_key_of_its_result_is_an_xcom_of_its_own(submitted):
    """As the operators' are."""
    assert sensor(submitted("immediate")).multiple_outputs is True
