"""Jobs: queue, cancellation, scripts."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest, TrainingRequest
from airflow_provider_osai.sandbox.models import ApiError
from airflow_provider_osai.sandbox.scenarios import Script

RENTAL = DeviceRentalRequest(device="jetson", duration=60)
KIND = JobKind.DEVICE_RENTAL


def test_job_stays_queued_until_a_worker_is_free(state):
    job = state.submit(TrainingRequest(dataset_ids=state.datasets.create("d").id, model_name="m"))
    assert {state.jobs.read(JobKind.TRAINING, job.id).state for _ in range(5)} == {JobState.QUEUED}


def test_job_timed_by_reads_ends_after_them(state):
    """Reads by id and in lists count."""
    job = state.submit(RENTAL, Script(timing="reads", reads=3))
    seen = [state.jobs.read(KIND, job.id).state for _ in range(2)]
    seen += [state.jobs.find(KIND, [job.id], None)[0].state for _ in range(2)]
    assert seen == [JobState.RUNNING] * 3 + [JobState.SUCCEEDED]


def test_job_timed_by_seconds_ends_by_the_injected_clock(state, clock):
    job = state.submit(RENTAL, Script(timing="seconds", seconds=60))
    clock.now += 59
    assert state.jobs.get(KIND, job.id).state is JobState.RUNNING
    clock.now += 1
    ended = state.jobs.get(KIND, job.id)
    assert (ended.state, ended.finished_at) == (JobState.SUCCEEDED, clock.now)


def test_job_timed_by_seconds_ends_without_being_read(state, clock):
    """As is needed to test a webhook."""
    ended = threading.Event()
    state.jobs.on_end = lambda _: ended.set()
    state.submit(RENTAL, Script(timing="seconds", seconds=60))
    clock.now += 60
    assert ended.wait(10)


def test_immediate_job_has_ended_at_submission_and_is_simulated(state):
    job = state.submit(RENTAL, Script(timing="immediate"))
    assert job.state is JobState.SUCCEEDED
    assert "simulated" in job.message
    assert job.result["deviceId"]


@pytest.mark.parametrize("timing", ["immediate", "reads", "seconds"])
@pytest.mark.parametrize("end", ["failed", "cancelled", "succeeded"])
def test_script_sets_the_end_and_message_of_a_job(state, timing, end):
    job = state.submit(RENTAL, Script(timing=timing, end=end, message="out of devices"))
    ended = state.jobs.read(KIND, job.id)
    assert (ended.state, ended.message) == (JobState(end), "out of devices")


def test_script_stalls_a_job_and_adds_an_epoch_at_each_read(state):
    epochs = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": "NaN"}]
    job = state.submit(RENTAL, Script(timing="reads", reads=9, progress=0.4, history=epochs))
    seen = [state.jobs.read(KIND, job.id).wire("running") for _ in range(3)]
    assert [fields["progress"] for fields in seen] == [0.4] * 3
    assert [fields["history"] for fields in seen] == [epochs[:1], epochs, epochs]


def test_a_cancelled_job_has_no_more_epochs(state):
    job = state.submit(RENTAL, Script(timing="reads", reads=9, history=[{"epoch": 1}, {"epoch": 2}]))
    state.jobs.read(KIND, job.id)
    state.jobs.cancel(KIND, job.id)
    assert state.jobs.read(KIND, job.id).history == [{"epoch": 1}]


@pytest.mark.parametrize("details", [{"progress": 0.4}, {"history": []}, {"history": [{"loss": float("nan")}]}])
def test_a_script_that_cannot_work_is_rejected(details):
    """Progress and history need the timing ``reads``, and JSON has no NaN."""
    timing = "reads" if details.get("history") else "seconds"
    with pytest.raises(ValueError, match=r"need the timing 'reads'|has no NaN"):
        Script(timing=timing, **details)


def test_script_metrics_are_merged_into_the_result(state):
    dataset = state.datasets.create("d")
    request = TrainingRequest(dataset_ids=dataset.id, model_name="m")
    job = state.submit(request, Script(timing="immediate", metrics={"accuracy": 0.42}))
    assert job.result["metrics"]["accuracy"] == 0.42
    assert job.result["modelId"] in state.models


def test_cancelling_a_queued_job_ends_it_at_once_and_is_idempotent(state):
    job = state.submit(RENTAL)
    state.jobs.cancel(KIND, job.id)
    finished_at = job.finished_at
    assert state.jobs.cancel(KIND, job.id).state is JobState.CANCELLED
    assert job.finished_at == finished_at


def test_cancelling_an_ended_job_changes_nothing(state):
    job = state.submit(RENTAL, Script(timing="immediate"))
    assert state.jobs.cancel(KIND, job.id).state is JobState.SUCCEEDED


def test_cancelled_job_timed_by_reads_stays_cancelled(state):
    job = state.submit(RENTAL, Script(timing="reads", reads=1))
    state.jobs.cancel(KIND, job.id)
    assert {state.jobs.read(KIND, job.id).state for _ in range(3)} == {JobState.CANCELLED}


def test_jobs_are_found_by_reference_within_their_kind(state):
    """References need not be unique: the server does not treat them as idempotency keys."""
    first, second = (state.submit(RENTAL, reference="r") for _ in range(2))
    state.submit(RENTAL, reference="other")
    assert state.jobs.find(KIND, None, "r") == [first, second]
    assert state.jobs.find(JobKind.TRAINING, None, "r") == []


def test_jobs_are_listed_in_the_order_of_the_ids_without_unknown_ones(state):
    first, second = state.submit(RENTAL), state.submit(RENTAL)
    assert state.jobs.find(KIND, [second.id, "unknown", first.id, second.id], None) == [second, first]


def test_job_of_another_kind_is_not_found(state):
    job = state.submit(RENTAL)
    with pytest.raises(ApiError, match="training job .* does not exist"):
        state.jobs.get(JobKind.TRAINING, job.id)


def test_job_on_an_unknown_dataset_or_model_is_rejected(state):
    with pytest.raises(ApiError) as raised:
        state.submit(TrainingRequest(dataset_ids="nothing", model_name="m"))
    assert raised.value.status == 404
    assert state.jobs.all_jobs() == []
