"""Device rentals: a lease that waits, runs by the clock, and is over."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.scripts import Script
from airflow_provider_osai.sandbox.state import SandboxState

RENTAL = DeviceRentalRequest(device="jetson", duration=60)
KIND = JobKind.DEVICE_RENTAL


@pytest.fixture
def states(state):
    """The states of rentals, as they are now."""
    return lambda *jobs: [state.jobs.get(KIND, job.id).state.value for job in jobs]


def test_a_lease_waits_runs_with_a_device_and_is_over_when_its_duration_is(state, clock, states):
    """It needs no worker: this state has none."""
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


def test_who_comes_when_all_devices_are_lent_waits_for_the_next_that_is_free(state, clock, states):
    """In the order in which they came."""
    control = Control(state)
    control.devices(1)
    first, second, third = (state.submit(RENTAL) for _ in range(3))
    assert states(first, second, third) == ["running", "queued", "queued"]
    state.jobs.cancel(KIND, first.id)
    assert states(first, second, third) == ["cancelled", "running", "queued"]
    clock.now += 60
    assert states(second, third) == ["succeeded", "running"]
    control.reset()
    one, other = state.submit(RENTAL), state.submit(RENTAL)
    assert states(one, other) == ["running", "running"]


def test_control_says_for_how_long_each_device_was_lent(state, clock, states):
    """A leak is a rental whose seconds grow."""
    control = Control(state)
    kept, given_back = (state.submit(RENTAL, reference=name) for name in ("kept", "given back"))
    states(kept, given_back)
    clock.now += 10
    state.jobs.cancel(KIND, given_back.id)
    clock.now += 5
    control.devices(0)
    state.submit(RENTAL)
    told = [(one["reference"], one["state"], one["seconds"]) for one in control.rentals()]
    assert told == [("kept", "running", 15.0), ("given back", "cancelled", 10.0), (None, "queued", 0.0)]


def test_a_rental_of_a_device_that_fails_does_so_when_its_turn_comes(state, states):
    """A script says so."""
    job = state.submit(RENTAL, Script(end="failed", message="no such device"))
    assert states(job) == ["failed"]
    assert (job.message, job.result) == ("no such device", None)


def test_a_script_makes_a_rental_wait_for_so_many_reads(state):
    """So that a test sees somebody wait."""
    job = state.submit(RENTAL, Script(reads=2))
    assert [state.jobs.read(KIND, job.id).state.value for _ in range(3)] == ["queued", "queued", "running"]


def test_a_lease_that_is_ended_by_control_is_over(state, states):
    """As if its time were."""
    job = state.submit(RENTAL)
    states(job)
    state.jobs.end(job.id)
    assert states(job) == ["succeeded"]
    assert job.result["deviceId"]


def test_leases_go_on_after_a_restart_of_the_same_folder(tmp_path, clock):
    """The device is the same, and its time has gone on meanwhile."""

    def again() -> SandboxState:
        return SandboxState(folder=tmp_path / "kept", workers=0, clock=clock)

    with again() as state:
        job = state.submit(RENTAL)
        device = state.jobs.get(KIND, job.id).result["deviceId"]
        clock.now += 30
    with again() as state:
        assert state.jobs.get(KIND, job.id).state is JobState.RUNNING
        assert state.jobs.get(KIND, job.id).result["deviceId"] == device
        clock.now += 30
        assert state.jobs.get(KIND, job.id).state is JobState.SUCCEEDED


def test_leases_are_driven_over_http(api):
    """As a test in another process does."""
    url = f"{api.sandbox.portal_url}/sandbox"
    httpx.post(f"{url}/devices", params={"count": 0}).raise_for_status()
    api.ok("POST", "/DeviceRentals", json={"device": "jetson", "duration": 60})
    assert [one["state"] for one in httpx.get(f"{url}/rentals").json()] == ["queued"]
    httpx.post(f"{url}/devices").raise_for_status()
    assert [one["state"] for one in httpx.get(f"{url}/rentals").json()] == ["running"]
