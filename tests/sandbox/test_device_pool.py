"""Device rentals: queued, running, and ended by the clock."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.scenarios import Script
from airflow_provider_osai.sandbox.state import SandboxState

RENTAL = DeviceRentalRequest(device="jetson", duration=60)
KIND = JobKind.DEVICE_RENTAL


@pytest.fixture
def states(state):
    """Return a function that returns the current states of rentals."""
    return lambda *jobs: [state.jobs.get(KIND, job.id).state.value for job in jobs]


def test_rental_is_queued_then_runs_for_its_duration(state, clock, states):
    """Without a worker: this state has none."""
    job = state.submit(RENTAL)
    assert job.state is JobState.QUEUED
    assert states(job) == ["running"]
    assert job.result["deviceId"]
    assert job.result["expiresAt"] == "2027-01-15T08:01:00.000Z"
    assert "simulated" in job.message
    clock.now += 59
    assert states(job) == ["running"]
    clock.now += 1000
    assert states(job) == ["succeeded"]
    assert job.finished_at == job.started_at + 60


def test_rental_is_queued_until_a_device_is_free(state, clock, states):
    """In the order of submission."""
    control = Control(state)
    control.devices(1)
    first, second, third = (state.submit(RENTAL) for _ in range(3))
    assert states(first, second, third) == ["running", "queued", "queued"]
    state.jobs.cancel(KIND, first.id)
    assert states(first, second, third) == ["cancelled", "running", "queued"]
    clock.now += 60
    assert states(second, third) == ["succeeded", "running"]
    control.reset()
    fourth, fifth = state.submit(RENTAL), state.submit(RENTAL)
    assert states(fourth, fifth) == ["running", "running"]


def test_rentals_return_the_seconds_each_device_was_held(state, clock, states):
    """A leaked rental shows by growing seconds."""
    control = Control(state)
    held, returned = (state.submit(RENTAL, reference=name) for name in ("held", "returned"))
    states(held, returned)
    clock.now += 10
    state.jobs.cancel(KIND, returned.id)
    clock.now += 5
    control.devices(0)
    state.submit(RENTAL)
    rentals = [(rental["reference"], rental["state"], rental["seconds"]) for rental in control.rentals()]
    assert rentals == [("held", "running", 15.0), ("returned", "cancelled", 10.0), (None, "queued", 0.0)]


def test_rental_scripted_to_fail_fails_when_a_device_is_free(state, states):
    job = state.submit(RENTAL, Script(end="failed", message="no such device"))
    assert states(job) == ["failed"]
    assert (job.message, job.result) == ("no such device", None)


def test_scripted_rental_is_queued_for_a_number_of_reads(state):
    job = state.submit(RENTAL, Script(reads=2))
    assert [state.jobs.read(KIND, job.id).state.value for _ in range(3)] == ["queued", "queued", "running"]


def test_rental_ended_by_control_has_succeeded(state, states):
    """As if its time had passed."""
    job = state.submit(RENTAL)
    states(job)
    state.jobs.end(job.id)
    assert states(job) == ["succeeded"]
    assert job.result["deviceId"]


def test_running_rental_continues_after_a_restart(tmp_path, clock):
    """With the same device; its time has passed meanwhile."""

    def again() -> SandboxState:
        return SandboxState(folder=tmp_path / "held", workers=0, clock=clock)

    with again() as state:
        job = state.submit(RENTAL)
        device = state.jobs.get(KIND, job.id).result["deviceId"]
        clock.now += 30
    with again() as state:
        assert state.jobs.get(KIND, job.id).state is JobState.RUNNING
        assert state.jobs.get(KIND, job.id).result["deviceId"] == device
        clock.now += 30
        assert state.jobs.get(KIND, job.id).state is JobState.SUCCEEDED


def test_devices_are_controlled_over_http(api):
    url = f"{api.sandbox.portal_url}/sandbox"
    httpx.post(f"{url}/devices", params={"count": 0}).raise_for_status()
    api.ok("POST", "/DeviceRentals", json={"device": "jetson", "duration": 60})
    assert [rental["state"] for rental in httpx.get(f"{url}/rentals").json()] == ["queued"]
    httpx.post(f"{url}/devices").raise_for_status()
    assert [rental["state"] for rental in httpx.get(f"{url}/rentals").json()] == ["running"]
