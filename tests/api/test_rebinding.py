"""A user's bindings over the contract, and what is said when they are wrong."""

from __future__ import annotations

import json

import httpx
import pytest

from airflow_provider_osai.api.answers import decipher
from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.api.requests import TrainingRequest

EXAMPLE = {
    "training.submit": {
        "method": "POST",
        "path": "/Models/Train",
        "request": {"datasetIds": "datasets", "webhookUrl": "callbackUrl"},
    },
    "training.get": {"path": "/Models/{id}", "response": {"id": "modelId", "status": "trainingStatus"}},
    "training.list": None,
    "training.cancel": None,
    "states": {"Ausgeführt": "succeeded"},
}


@pytest.mark.parametrize("bindings", [EXAMPLE, json.dumps(EXAMPLE)])
def test_the_documented_example_rebinds_paths_fields_and_words(bindings):
    """The connection's extra may hold the object or its text."""
    calls = Calls(rebind(Contract(), bindings))
    request = TrainingRequest(dataset_ids=["3"], model_name="m")
    submit = calls.submit_job(request, "ref", "https://airflow.example.com/x")
    assert (submit.method, submit.path) == ("POST", "/Models/Train")
    assert submit.body["datasets"] == ["3"]
    assert submit.body["callbackUrl"] == "https://airflow.example.com/x"
    job = calls.get_job(JobKind.TRAINING, "7").parse({"modelId": 7, "trainingStatus": "AUSGEFÜHRT"})
    assert (job.id, job.state, job.status) == ("7", JobState.SUCCEEDED, "AUSGEFÜHRT")


def test_a_null_operation_is_absent_and_says_so_when_used():
    """``null`` means that the API has no such operation."""
    calls = Calls(rebind(Contract(), EXAMPLE))
    assert "training.cancel" not in calls.contract
    with pytest.raises(OsaiContractError, match=r"training\.cancel.*null"):
        calls.cancel_job(JobKind.TRAINING, "7")


@pytest.mark.parametrize(("bindings", "is_busy"), [({}, False), ({"training.submit": {"busy": [409]}}, True)])
def test_a_status_that_means_not_now_can_be_bound(bindings, is_busy):
    """By itself 409 is a refusal: of a locked dataset, for instance."""
    calls = Calls(rebind(Contract(), bindings))
    call = calls.submit_job(TrainingRequest(dataset_ids=["3"], model_name="m"), "ref")
    error = decipher(httpx.Response(409, request=httpx.Request("POST", "https://x")), "POST", "/x", call.busy)
    assert getattr(error, "is_busy", False) is is_busy
    assert isinstance(error, OsaiRequestError) is not is_busy


def test_a_path_without_its_placeholder_sends_the_field_along():
    """An API may want the id in the query of a GET, or in the body of a POST."""
    contract = rebind(
        Contract(),
        {
            "training.get": {"path": "/TrainingStatus", "request": {"id": "trainingId"}},
            "training.cancel": {"path": "/Cancel"},
        },
    )
    calls = Calls(contract)
    assert calls.get_job(JobKind.TRAINING, "7").query == {"trainingId": "7"}
    assert calls.cancel_job(JobKind.TRAINING, "7").body == {"id": "7"}


def test_what_is_not_bound_stays_as_it_was():
    """Bindings lie over the default table."""
    assert rebind(Contract(), EXAMPLE)["prediction.get"] == Contract()["prediction.get"]
    assert rebind(Contract(), None)["training.get"] == Contract()["training.get"]
    assert rebind(Contract(), "")["training.get"] == Contract()["training.get"]


@pytest.mark.parametrize(
    ("bindings", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "JSON object"),
        (7, "JSON object"),
        ({"trainig.submit": {}}, "training.submit"),
        ({"training.get": None}, "cannot be null"),
        ({"training.get": "x"}, "training.get"),
        ({"training.get": {"pth": "/x"}}, "pth"),
        ({"training.get": {"path": "Models"}}, "path = 'Models'"),
        ({"training.get": {"path": "/Models?x=1"}}, "path"),
        ({"training.get": {"path": "/Models/{name}"}}, "'name'"),
        ({"training.get": {"path": "/Models/{id"}}, "brace"),
        ({"training.get": {"request": {"id": "jobId"}}}, "'id', which the path holds"),
        ({"training.get": {"method": "FETCH"}}, "method = 'FETCH'"),
        ({"training.submit": {"request": {"dataset": "x"}}}, "'dataset'.*datasetIds"),
        ({"training.get": {"response": {"colour": "x"}}}, "'colour'"),
        ({"training.get": {"response": {"id": ""}}}, "training.get"),
        ({"states": {"Fertig": "done"}}, r"states\.Fertig.*'done'"),
        ({"states": {"Fertig": "unknown"}}, "no state"),
        ({"states": ["Fertig"]}, "states"),
    ],
)
def test_a_bad_binding_is_one_error_that_names_the_key(bindings, said):
    """A user finds the mistake by the message alone."""
    with pytest.raises(OsaiContractError, match=said):
        rebind(Contract(), bindings)
