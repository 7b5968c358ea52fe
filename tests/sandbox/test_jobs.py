"""Jobs: the queue, cancelling, and how scripts make them end."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest, TrainingRequest
from airflow_provider_osai.sandbox.records import Refused
from airflow_provider_osai.sandbox.scripts import Script

RENTAL = DeviceRentalRequest(device="jetson", duration=60)
KIND = JobKind.DEVICE_RENTAL


def test_job_waits_in_the_queue_until_a_worker_is_free(state):
    """Without a free worker a job stays queued, however often it is read."""
    job = state.submit(TrainingRequest(dataset_ids=state.datasets.create("d").id, model_name="m"))
    assert {state.jobs.read(JobKind.TRAINING, job.id).state for _ in range(5)} == {JobState.QUEUED}


def test_job_by_reads_runs_for_so_many_reads_and_then_ends(state):
    """The count is of reads of that job, by id or in a list."""
    job = state.submit(RENTAL, Script(timing="reads", reads=3))
    seen = [state.jobs.read(KIND, job.id).state for _ in range(2)]
    seen += [state.jobs.find(KIND, [job.id], None)[0].state for _ in range(2)]
    assert seen == [JobState.RUNNING] * 3 + [JobState.SUCCEEDED]


def test_job_by_seconds_ends_by_the_clock_of_the_sandbox(state, clock):
    """Nothing but the injected clock moves it."""
    job = state.submit(RENTAL, Script(timing="seconds", seconds=60))
    clock.now += 59
    assert state.jobs.get(KIND, job.id).state is JobState.RUNNING
    clock.now += 1
    ended = state.jobs.get(KIND, job.id)
    assert (ended.state, ended.finished_at) == (JobState.SUCCEEDED, clock.now)


def test_job_by_seconds_ends_without_anybody_reading_it(state, clock):
    """Whoever waits for a webhook does not poll."""
    ended = threading.Event()
    state.jobs.on_end = lambda _: ended.set()
    state.submit(RENTAL, Script(timing="seconds", seconds=60))
    clock.now += 60
    assert ended.wait(10)


def test_immediate_job_has_ended_when_it_is_submitted_and_says_it_is_simulated(state):
    """What was not really done says so."""
    job = state.submit(RENTAL, Script(timing="immediate"))
    assert job.state is JobState.SUCCEEDED
    assert "simulated" in job.message
    assert job.result["deviceId"]


@pytest.mark.parametrize("timing", ["immediate", "reads", "seconds"])
@pytest.mark.parametrize("end", ["failed", "cancelled", "succeeded"])
def test_script_forces_how_a_job_ends_and_what_it_says(state, timing, end):
    """The end and its message are the script's, whatever the timing."""
    job = state.submit(RENTAL, Script(timing=timing, end=end, message="out of devices"))
    ended = state.jobs.read(KIND, job.id)
    assert (ended.state, ended.message) == (JobState(end), "out of devices")


def test_script_metrics_are_laid_over_the_result(state):
    """A test of a quality gate says how good the model is."""
    dataset = state.datasets.create("d")
    request = TrainingRequest(dataset_ids=dataset.id, model_name="m")
    job = state.submit(request, Script(timing="immediate", metrics={"accuracy": 0.42}))
    assert job.result["metrics"]["accuracy"] == 0.42
    assert job.result["modelId"] in state.models


def test_queued_job_is_cancelled_at_once_and_twice_is_harmless(state):
    """Nothing has to notice it."""
    job = state.submit(RENTAL)
    state.jobs.cancel(KIND, job.id)
    finished_at = job.finished_at
    assert state.jobs.cancel(KIND, job.id).state is JobState.CANCELLED
    assert job.finished_at == finished_at


def test_cancelling_an_ended_job_changes_nothing(state):
    """An end is an end."""
    job = state.submit(RENTAL, Script(timing="immediate"))
    assert state.jobs.cancel(KIND, job.id).state is JobState.SUCCEEDED


def test_cancelled_job_by_reads_does_not_come_back(state):
    """Later reads do not finish what was cancelled."""
    job = state.submit(RENTAL, Script(timing="reads", reads=1))
    state.jobs.cancel(KIND, job.id)
    assert {state.jobs.read(KIND, job.id).state for _ in range(3)} == {JobState.CANCELLED}


def test_jobs_are_found_by_reference_within_their_kind(state):
    """A reference may be used twice: the server does not know that it means once."""
    first, second = (state.submit(RENTAL, reference="r") for _ in range(2))
    state.submit(RENTAL, reference="other")
    assert state.jobs.find(KIND, None, "r") == [first, second]
    assert state.jobs.find(JobKind.TRAINING, None, "r") == []


def test_jobs_are_listed_by_ids_in_the_order_asked_for_without_the_unknown(state):
    """A list answers what it knows."""
    first, second = state.submit(RENTAL), state.submit(RENTAL)
    assert state.jobs.find(KIND, [second.id, "unknown", first.id, second.id], None) == [second, first]


def test_job_of_another_kind_is_not_found(state):
    """Ids are looked up within their kind."""
    job = state.submit(RENTAL)
    with pytest.raises(Refused, match="no training job"):
        state.jobs.get(JobKind.TRAINING, job.id)


def test_job_on_what_does_not_exist_is_refused_at_submission(state):
    """Unknown ids are 404 before anything is queued."""
    with pytest.raises(Refused) as refusal:
        state.submit(TrainingRequest(dataset_ids="nothing", model_name="m"))
    assert refusal.value.status == 404
    assert state.jobs.everything() == []
