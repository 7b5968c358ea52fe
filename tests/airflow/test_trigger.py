"""The trigger: plain arguments, one event, no harm from anything."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from airflow_provider_osai.jobs.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.conftest import CANARY

ARGUMENTS = {
    "osai_conn_id": "c",
    "kind": "training",
    "job_id": "7",
    "since": 1.5,
    "deadline": 2.5,
    "poll_interval": 3.0,
    "max_unreachable": 4.0,
    "deferrals": 1,
    "version": 1,
}


def test_the_arguments_round_trip_through_json():
    """They travel through the database into another process."""
    path, arguments = OsaiJobTrigger(**ARGUMENTS).serialize()
    assert path == "airflow_provider_osai.triggers.job.OsaiJobTrigger"
    assert json.loads(json.dumps(arguments)) == ARGUMENTS
    assert OsaiJobTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, ARGUMENTS)


@pytest.mark.parametrize("arguments", [{}, {"kind": None, "job_id": 7}, {"from_a_newer_version": {"x": 1}}])
def test_any_arguments_inflate(arguments):
    """A constructor that raises would bring the triggerer down."""
    assert OsaiJobTrigger(**arguments).serialize()


def first_event(trigger: OsaiJobTrigger) -> JobEvent:
    """Run the trigger to its event, and check that there is only one."""

    async def main():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(main())
    assert json.loads(json.dumps(payload)) == payload
    assert CANARY not in json.dumps(payload)
    return JobEvent.read(payload)


@pytest.fixture
def job(sandbox, connection):
    """A conversion that the sandbox pretends to do, and a trigger that waits for it."""
    from airflow_provider_osai.api.requests import TrainingRequest
    from airflow_provider_osai.hooks.osai import OsaiHook

    def submit(*script: object, **options: object) -> OsaiJobTrigger:
        sandbox.control.script("training", *script, **{k: options.pop(k) for k in ("reads", "end") if k in options})
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("d"))
            request = TrainingRequest(dataset_ids=[dataset.id], model_name="m")
            job_id = client.send(client.calls.submit_job(request, "r")).id
        defaults = {"kind": "training", "job_id": job_id, "since": time.time(), "poll_interval": 0.05}
        return OsaiJobTrigger(**defaults | options)

    return submit


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_every_end_is_told_once(job, end):
    """What it means is decided by the task."""
    event = first_event(job("reads", reads=3, end=end))
    assert (event.outcome, event.state) == (Outcome.ENDED, end)


def test_the_deadline_is_told_and_nothing_cancelled(job, sandbox):
    """A trigger only reads."""
    trigger = job("reads", reads=10**6, deadline=time.time() + 0.2)
    assert first_event(trigger).outcome is Outcome.DEADLINE
    assert "training.cancel" not in sandbox.control.record()["counts"]


def test_an_outage_is_borne(job, sandbox):
    """Resets, pages and broken JSON are not the job's end."""
    trigger = job("reads", reads=4)
    for fault in ("reset", "malformed", "html", "expired_token", "unknown_state"):
        sandbox.control.fault(fault, "training.get")
    assert first_event(trigger).state == "succeeded"


def test_a_longer_outage_is_told_as_lost(job, sandbox):
    """The task decides; the job is not cancelled."""
    trigger = job("reads", reads=4, max_unreachable=0.1)
    sandbox.control.fault("html", "training.get", times=10**6)
    assert first_event(trigger).outcome is Outcome.LOST


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "brewing"},
        {"osai_conn_id": "no such connection"},
        {"since": "yesterday"},
        {"poll_interval": None},
        {"job_id": None},
    ],
)
def test_an_error_comes_out_as_an_event(job, arguments):
    """Whatever the arguments are."""
    trigger = job("reads", reads=10**6, deadline=time.time() + 2)
    for name, value in arguments.items():
        setattr(trigger, name, value)
    assert first_event(trigger).outcome is not Outcome.ENDED


def test_a_cancellation_is_passed_on_and_the_job_lives(job, sandbox):
    """A triggerer that stops moves its triggers; it does not kill their jobs."""
    trigger = job("reads", reads=10**6)

    async def main():
        waiting = asyncio.create_task(anext(trigger.run()))
        await asyncio.sleep(0.3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.cleanup()

    asyncio.run(main())
    assert sandbox.control.record()["jobs"][0]["state"] == "running"
