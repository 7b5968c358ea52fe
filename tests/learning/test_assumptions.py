"""What is assumed where a recording does not show it, each with a doubt."""

from __future__ import annotations

from airflow_provider_osai.learning.learner import learn
from airflow_provider_osai.learning.recording import read_recording
from airflow_provider_osai.learning.redaction import Redactor
from tests.learning.scoring import ANSWERS, recordings_of
from tests.learning.styles import STYLES


def learned(style):
    """Return what is learned from the recordings of a style."""
    recording = read_recording(recordings_of(STYLES[style]))
    redactor = Redactor()
    redactor.collect(recording.exchanges)
    recording.exchanges[:] = map(redactor.redact, recording.exchanges)
    return learn(recording, ANSWERS)


def test_items_of_an_empty_list_are_those_of_the_operation_that_shows_one():
    """Without the object around the one."""
    rows = learned("graph_objects").rows
    one, many = (rows[name].rules["response"] for name in ("model.get", "model.list"))
    assert (one["id"], many["items"], many["id"]) == ("model.id", "models.nodes", "id")
    assert many["createdAt"] == one["createdAt"].removeprefix("model.")
    assert many["metrics"]["name"] == one["metrics"]["name"].removeprefix("model.")
    assert rows["model.list"].doubts == ["the list was empty: its items are assumed to be as in model.get"]


def test_result_of_a_job_with_only_a_status_is_its_own_id():
    row = learned("text_answers").rows["device_rental.get"]
    assert row.rules["response"]["result.deviceId"] == "$id"
    assert "result.deviceId: the response is only a status, so the job's own id is assumed" in row.doubts
