"""The payload of the trigger event."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.triggers.event import MAX_DEFERRALS, JobEvent, Outcome
from tests.jobs.conftest import job


def test_an_event_survives_json():
    """It is stored in Airflow's database."""
    event = JobEvent.ended(job("succeeded"), deferrals=2)
    assert JobEvent.parse(json.loads(json.dumps(event.payload()))) == event


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OsaiJobTimeout("t", kind="training", job_id="7"), Outcome.DEADLINE),
        (OsaiJobLost("t", kind="training", job_id="7"), Outcome.LOST),
        (OsaiAuthError("t"), Outcome.ERROR),
        (RuntimeError("a message with a secret"), Outcome.ERROR),
    ],
)
def test_each_error_has_its_outcome_and_only_osai_errors_are_quoted(error, outcome):
    """Messages of other errors may contain secrets."""
    event = JobEvent.stopped("training", "7", error)
    assert event.outcome is outcome
    assert "secret" not in event.message


@pytest.mark.parametrize("payload", [None, {}, "succeeded", [1], {"kind": ["training"], "deferrals": "many"}])
def test_an_invalid_payload_is_an_event_without_information(payload):
    """The task then reads its job; success is never assumed."""
    assert JobEvent.parse(payload) == JobEvent()


@pytest.mark.parametrize(
    "fields", [{"outcome": "paused"}, {"state": "thinking"}, {"deadline": {"at": 1}}, {"version": 9}]
)
def test_an_invalid_field_does_not_invalidate_the_others(fields):
    """The job's id and the number of deferrals are still used."""
    event = JobEvent.parse(JobEvent.ended(job("running"), deferrals=3).payload() | fields)
    assert (event.job_id, event.deferrals) == ("7", 3)
    assert event.outcome in (Outcome.READY, Outcome.ERROR)


def test_an_event_of_a_newer_version_with_more_fields_is_read():
    """The triggerer may be upgraded first."""
    assert JobEvent.parse(JobEvent.ended(job("failed")).payload() | {"hint": 1}).job_id == "7"


def test_deferrals_on_one_job_are_limited():
    """A trigger that always fails must not defer endlessly."""
    event = JobEvent.stopped("training", "7", RuntimeError())
    for expected in range(1, MAX_DEFERRALS + 1):
        assert event.next_deferral() == expected
        event = event.model_copy(update={"deferrals": expected})
    with pytest.raises(OsaiJobLost, match="stopped 6 times"):
        event.next_deferral()
