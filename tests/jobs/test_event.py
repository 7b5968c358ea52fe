"""What a trigger tells the task that it wakes."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.errors import OsaiAuthError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.jobs.event import MAX_DEFERRALS, JobEvent, Outcome
from tests.jobs.conftest import job


def test_an_event_survives_json():
    """It travels through the database."""
    event = JobEvent.ended(job("succeeded"), deferrals=2)
    assert JobEvent.read(json.loads(json.dumps(event.payload()))) == event


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OsaiJobTimeout("t", kind="training", job_id="7"), Outcome.DEADLINE),
        (OsaiJobLost("t", kind="training", job_id="7"), Outcome.LOST),
        (OsaiAuthError("t"), Outcome.ERROR),
        (RuntimeError("secret in a message of others"), Outcome.ERROR),
    ],
)
def test_each_error_has_its_outcome_and_only_ours_are_quoted(error, outcome):
    """A stranger's message may hold anything."""
    event = JobEvent.stopped("training", "7", error)
    assert event.outcome is outcome
    assert "secret" not in event.message


@pytest.mark.parametrize("payload", [None, {}, "succeeded", [1], {"kind": ["training"], "deferrals": "many"}])
def test_an_event_that_says_nothing_is_read_as_a_reason_to_read_the_job(payload):
    """A newer version may have written it; nothing of it wakes a task into success."""
    assert JobEvent.read(payload) == JobEvent()


@pytest.mark.parametrize(
    "news", [{"outcome": "paused"}, {"state": "thinking"}, {"deadline": {"at": 1}}, {"version": 9}]
)
def test_what_is_not_understood_of_an_event_does_not_hide_the_rest(news):
    """The job's id and the count of deferrals are still good."""
    event = JobEvent.read(JobEvent.ended(job("running"), deferrals=3).payload() | news)
    assert (event.job_id, event.deferrals) == ("7", 3)
    assert event.outcome in (Outcome.READY, Outcome.ERROR)


def test_a_newer_event_with_more_fields_is_read():
    """The triggerer may be upgraded first."""
    assert JobEvent.read(JobEvent.ended(job("failed")).payload() | {"hint": 1}).job_id == "7"


def test_deferrals_on_one_job_are_counted_and_bounded():
    """A trigger that always stops must not defer for ever."""
    event = JobEvent.stopped("training", "7", RuntimeError())
    for expected in range(1, MAX_DEFERRALS + 1):
        assert event.once_more() == expected
        event = event.model_copy(update={"deferrals": expected})
    with pytest.raises(OsaiJobLost, match="stopped 6 times"):
        event.once_more()
