"""The job sensor in each mode: outages, failures, timeouts and results."""

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
def test_first_poll_tolerates_an_outage(submitted, context, sandbox, deferrable):
    job_id = submitted(reads=2)
    sandbox.control.fault("html", "training.get", times=1)
    task = sensor(job_id, deferrable=deferrable)
    if not deferrable:
        assert task.execute(context)["job_id"] == job_id
        return
    event = asyncio.run(anext(deferral(task, context).trigger.run())).payload
    assert sensor(job_id).execute_complete(context, event)["job_id"] == job_id


@pytest.mark.parametrize("deferrable", [True, False])
def test_simulated_job_is_marked_in_the_result_and_logged_as_a_warning(submitted, context, logged, deferrable):
    job_id = submitted(reads=2)
    task = sensor(job_id, deferrable=deferrable)
    if deferrable:
        event = asyncio.run(anext(deferral(task, context).trigger.run())).payload
        result = sensor(job_id).execute_complete(context, event)
    else:
        result = task.execute(context)
    assert result["simulated"] is True
    assert ["warning" in line for line in logged().splitlines() if "is simulated" in line] == [True]


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
def test_failed_job_skips_the_sensor_with_soft_fail_or_never_fail(submitted, context, deferrable, option):
    job_id = submitted("immediate", end="failed")
    with pytest.raises(AirflowSkipException):
        sensor(job_id, deferrable=deferrable, **{option: True}).execute(context)


@pytest.mark.parametrize("deferrable", [True, False])
def test_failed_job_fails_the_sensor_by_default(submitted, context, deferrable):
    job_id = submitted("immediate", end="failed")
    with pytest.raises(OsaiJobFailed):
        sensor(job_id, deferrable=deferrable).execute(context)


def test_lost_job_skips_the_resumed_sensor_with_soft_fail(submitted, context):
    job_id = submitted(reads=10**6)
    event = {"kind": "training", "job_id": job_id, "outcome": "lost", "message": "gone"}
    with pytest.raises(AirflowSkipException):
        sensor(job_id, soft_fail=True).execute_complete(context, event)
    with pytest.raises(OsaiJobLost):
        sensor(job_id).execute_complete(context, event)


class TestTimeouts:
    """``timeout`` and ``execution_timeout`` apply to a deferred sensor too."""

    def test_execution_timeout_fails_the_sensor_without_cancelling_the_job(self, submitted, context, ti, sandbox):
        job_id = submitted(reads=10**6)
        ti.start_date = datetime.now(UTC) - timedelta(seconds=60)
        limits = {"execution_timeout": timedelta(seconds=60), "deferrable": True}
        trigger = deferral(sensor(job_id, **limits), context).trigger
        event = asyncio.run(anext(trigger.run())).payload
        with pytest.raises(OsaiJobTimeout, match="not cancelled"):
            sensor(job_id, **limits).execute_complete(context, event)
        assert sandbox.control.record()["jobs"][0]["state"] == "running"

    def test_sensor_timeout_raises_the_airflow_error(self, submitted, context, ti):
        job_id = submitted(reads=10**6)
        ti.start_date = datetime.now(UTC) - timedelta(seconds=30)
        trigger = deferral(sensor(job_id, timeout=30, deferrable=True), context).trigger
        event = asyncio.run(anext(trigger.run())).payload
        with pytest.raises(AirflowSensorTimeout):
            sensor(job_id, timeout=30).execute_complete(context, event)

    def test_resume_keeps_the_deadline(self, submitted, context, ti):
        """On Airflow 3.1, a resumed task has a new start date."""
        job_id = submitted(reads=10**6)
        first = deferral(sensor(job_id, timeout=100, deferrable=True), context).trigger
        ti.start_date = datetime.now(UTC) + timedelta(seconds=50)
        event = {"kind": "training", "job_id": job_id, "outcome": "error", "deadline": first.deadline}
        with pytest.raises(TaskDeferred) as second:
            sensor(job_id, timeout=100).execute_complete(context, event)
        assert second.value.trigger.deadline == first.deadline
        assert second.value.timeout.total_seconds() < 100 + 60

    def test_airflow_times_out_the_deferral_shortly_after_the_deadline(self, submitted, context):
        """In case no triggerer runs."""
        caught = deferral(sensor(submitted(reads=10**6), timeout=100, deferrable=True), context)
        assert caught.trigger.deadline < time.time() + caught.timeout.total_seconds() < caught.trigger.deadline + 60


def test_job_is_read_after_an_event_of_a_newer_version(submitted, context):
    job_id = submitted("immediate")
    assert sensor(job_id).execute_complete(context, {"outcome": "paused", "version": 7})["job_id"] == job_id


def test_trigger_of_the_sensor_never_cancels_the_job(submitted, context, sandbox):
    """Neither at a kill nor at the deadline."""
    trigger = deferral(sensor(submitted(reads=10**6), timeout=0.2, deferrable=True), context).trigger
    assert (trigger.cancel_on_kill, trigger.cancel_at_deadline) == (False, False)
