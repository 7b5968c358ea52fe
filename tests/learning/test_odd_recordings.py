"""Recordings of APIs that no document of the gallery has, written by hand."""

from __future__ import annotations

import json

import pytest
import yaml

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.cli.contract import main

ORIGIN = "https://vision.example/api"


def entry(number, method, path, sent, answer, status=200):
    """One entry of a recording, a second after the one before."""
    request = {
        "method": method,
        "url": ORIGIN + path,
        "headers": [{"name": "Authorization", "value": "Bearer abcdef123456"}],
    }
    if sent is not None:
        request["postData"] = {"mimeType": "application/json", "text": json.dumps(sent)}
    content = {"mimeType": "application/json", "text": json.dumps(answer), "size": 9}
    return {
        "startedDateTime": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        "request": request,
        "response": {"status": status, "headers": [], "content": content},
    }


@pytest.fixture
def learn(tmp_path, capfd):
    """Learn from rows of method, path, what is sent and the answer; return the contract, the document, the text."""

    def run(*rows, answers=None):
        path, output = tmp_path / "odd.har", tmp_path / "osai.yaml"
        path.write_text(json.dumps({"log": {"entries": [entry(n, *row) for n, row in enumerate(rows)]}}))
        given = tmp_path / "answers.yaml"
        given.write_text(yaml.safe_dump({"documented": "recording", **(answers or {})}))
        assert main(["learn", str(path), "-o", str(output), "--answers", str(given)]) in (0, 1)
        document = yaml.safe_load(output.read_text())
        return apply_overrides(Contract(), document), document, output.read_text() + capfd.readouterr().out

    return run


def dataset(path="/datasets", answer=None):
    """Make a dataset with a category, and send an image."""
    return (
        ("POST", path, {"name": "bolts"}, answer or {"id": "ds-100001", "name": "bolts"}),
        ("GET", f"{path}/ds-100001", None, {"id": "ds-100001", "name": "bolts", "imageCount": 0}),
    )


def test_a_job_that_is_watched_in_a_list_is_picked_from_it(learn):
    def jobs(state, **more):
        old = {"id": "run-200000", "state": "Done", "modelId": "m-300000"}
        return {"runs": [old, {"id": "run-200001", "state": state, "modelId": None, **more}]}

    contract, document, _ = learn(
        *dataset(),
        ("POST", "/runs", {"name": "first", "datasetIds": ["ds-100001"]}, {"id": "run-200001"}),
        ("GET", "/runs", None, jobs("Waiting")),
        ("GET", "/runs", None, jobs("Training")),
        ("GET", "/runs", None, jobs("Done", modelId="m-300001")),
        ("GET", "/models/m-300001", None, {"id": "m-300001", "name": "first"}),
    )
    row = document["training.get"]
    assert (row["path"], row["pick"], row["response"]["items"]) == ("/runs", True, "runs")
    assert contract.state("Done") is JobState.SUCCEEDED
    call = OsaiApi(contract).get_job("training", "run-200001")
    job = call.parse(jobs("Done", modelId="m-300001"))
    assert (job.id, job.state, job.result.model_id) == ("run-200001", JobState.SUCCEEDED, "m-300001")


def test_an_id_of_the_account_stays_in_the_path_and_is_doubtful(learn):
    """The project was there before, and no field of ours is its id."""
    _, document, text = learn(
        ("GET", "/projects", None, [{"id": "prj-9000001", "title": "plant"}]),
        *dataset("/projects/prj-9000001/datasets"),
        ("POST", "/projects/prj-9000001/trainings", {"name": "a", "datasetIds": ["ds-100001"]}, {"id": "job-500001"}),
        ("GET", "/projects/prj-9000001/trainings/job-500001", None, {"id": "job-500001", "status": "running"}),
        ("GET", "/projects/prj-9000001/trainings/job-500001", None, {"id": "job-500001", "status": "succeeded"}),
    )
    assert document["training.get"]["path"] == "/projects/prj-9000001/trainings/{id}"
    assert "the path has prj-9000001" in text


def test_numbers_of_several_things_are_told_apart(learn):
    """Every first thing has the number 1."""
    contract, document, _ = learn(
        ("POST", "/datasets", {"name": "bolts"}, {"id": 1, "name": "bolts"}),
        ("POST", "/datasets/1/labels", {"name": "good"}, {"id": 1, "datasetId": 1}),
        ("POST", "/trainings", {"title": "a", "datasetId": 1}, {"id": 1, "state": "Open", "datasetId": 1}),
        ("GET", "/trainings/1", None, {"id": 1, "state": "Open", "modelId": None, "percent": 30}),
        ("GET", "/trainings/1", None, {"id": 1, "state": "Closed", "modelId": 1, "percent": 100}),
        ("GET", "/models/1", None, {"id": 1, "title": "a"}),
        ("POST", "/exports", {"model": 1, "chip": "nano"}, {"id": 1, "state": "Open"}),
        ("GET", "/exports/1", None, {"id": 1, "state": "Open", "exportId": None}),
        ("GET", "/exports/1", None, {"id": 1, "state": "Closed", "exportId": 7}),
    )
    assert document["training.get"]["path"] == "/trainings/{id}"
    assert document["conversion.submit"]["request"]["modelId"] == {"name": "model", "type": "number"}
    assert document["training.submit"]["request"]["datasetIds"] == {
        "name": "datasetId",
        "type": "number",
        "shape": "one",
    }
    assert document["training.get"]["response"]["progress"] == {"name": "percent", "scale": 100}
    assert contract.state("Closed") is JobState.SUCCEEDED


def test_a_job_that_ends_without_a_result_is_asked_for(learn):
    rows = (
        *dataset(),
        ("POST", "/trainings", {"name": "a", "datasetIds": ["ds-100001"]}, {"id": "job-500001"}),
        ("GET", "/trainings/job-500001", None, {"id": "job-500001", "state": "Busy"}),
        ("GET", "/trainings/job-500001", None, {"id": "job-500001", "state": "Completed"}),
    )
    contract, _, text = learn(*rows)
    assert contract.state("Completed") is JobState.UNKNOWN
    assert "Question 'state:Completed'" in text
    contract, _, _ = learn(*rows, answers={"state:Completed": "failed"})
    assert contract.state("Completed") is JobState.FAILED


def test_a_failure_that_repeats_its_input_is_no_success(learn):
    """The model of a prediction's request is in each response."""
    contract, _, text = learn(
        *dataset(),
        ("POST", "/trainings", {"name": "a", "datasetIds": ["ds-100001"]}, {"id": "job-500001", "state": "New"}),
        ("GET", "/trainings/job-500001", None, {"id": "job-500001", "state": "Busy", "modelId": None}),
        ("GET", "/trainings/job-500001", None, {"id": "job-500001", "state": "Ready", "modelId": "m-600001"}),
        (
            "POST",
            "/predictions",
            {"modelId": "m-600001", "datasetId": "ds-100001", "mode": "all"},
            {"id": "job-500002"},
        ),
        ("GET", "/predictions/job-500002", None, {"id": "job-500002", "state": "Busy", "datasetId": "ds-100001"}),
        ("GET", "/predictions/job-500002", None, {"id": "job-500002", "state": "Broke", "datasetId": "ds-100001"}),
    )
    assert contract.state("Ready") is JobState.SUCCEEDED
    assert contract.state("Broke") is JobState.UNKNOWN
    assert "state:Broke" in text
