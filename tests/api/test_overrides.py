"""Contract overrides, and the errors of invalid ones."""

from __future__ import annotations

import json

import httpx
import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.error_mapping import error_from_response
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import TrainingRequest

EXAMPLE = {
    "training.submit": {
        "method": "POST",
        "path": "/Models/Train",
        "request": {"datasetIds": "datasets", "webhookUrl": "callbackUrl"},
    },
    "training.get": {
        "path": "/Models/{id}",
        "response": {"id": "modelId", "status": "trainingStatus", "result.modelId": "modelId"},
    },
    "training.list": None,
    "training.cancel": None,
    "states": {"Ausgeführt": "succeeded"},
}


@pytest.mark.parametrize("overrides", [EXAMPLE, json.dumps(EXAMPLE)])
def test_documented_example_overrides_paths_fields_and_status_words(overrides):
    """As an object and as JSON text."""
    calls = OsaiApi(apply_overrides(Contract(), overrides))
    request = TrainingRequest(dataset_ids=["3"], model_name="m")
    submit = calls.submit_job(request, "ref", "https://airflow.example.com/x")
    assert (submit.method, submit.path) == ("POST", "/Models/Train")
    assert submit.body["datasets"] == ["3"]
    assert submit.body["callbackUrl"] == "https://airflow.example.com/x"
    job = calls.get_job(JobKind.TRAINING, "7").parse({"modelId": 7, "trainingStatus": "AUSGEFÜHRT"})
    assert (job.id, job.state, job.status) == ("7", JobState.SUCCEEDED, "AUSGEFÜHRT")
    assert job.references()["model_id"] == "7"


def test_operation_set_to_null_is_missing_and_raises_when_used():
    calls = OsaiApi(apply_overrides(Contract(), EXAMPLE))
    assert "training.cancel" not in calls.contract
    with pytest.raises(OsaiContractError, match=r"training\.cancel.*null"):
        calls.cancel_job(JobKind.TRAINING, "7")


@pytest.mark.parametrize(("overrides", "is_busy"), [({}, False), ({"training.submit": {"busy": [409]}}, True)])
def test_busy_status_can_be_added(overrides, is_busy):
    """By default, 409 is a rejection: of a locked dataset, for instance."""
    calls = OsaiApi(apply_overrides(Contract(), overrides))
    call = calls.submit_job(TrainingRequest(dataset_ids=["3"], model_name="m"), "ref")
    error = error_from_response(
        httpx.Response(409, request=httpx.Request("POST", "https://x")), "POST", "/x", call.rules
    )
    assert getattr(error, "is_busy", False) is is_busy
    assert isinstance(error, OsaiRequestError) is not is_busy


def test_field_without_a_placeholder_is_sent_in_the_query_or_body():
    contract = apply_overrides(
        Contract(),
        {
            "training.get": {"path": "/TrainingStatus", "request": {"id": "trainingId"}},
            "training.cancel": {"path": "/Cancel"},
        },
    )
    calls = OsaiApi(contract)
    assert calls.get_job(JobKind.TRAINING, "7").query == {"trainingId": "7"}
    assert calls.cancel_job(JobKind.TRAINING, "7").body == {"id": "7"}


def test_other_operations_keep_their_defaults():
    assert apply_overrides(Contract(), EXAMPLE)["prediction.get"] == Contract()["prediction.get"]
    assert apply_overrides(Contract(), None)["training.get"] == Contract()["training.get"]
    assert apply_overrides(Contract(), "")["training.get"] == Contract()["training.get"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "JSON object or a YAML mapping"),
        (7, "JSON object"),
        ({"trainig.submit": {}}, "training.submit"),
        ({"training.get": None}, "cannot be null"),
        ({"training.get": "x"}, "training.get"),
        ({"training.get": {"pth": "/x"}}, "pth"),
        ({"training.get": {"path": "Models"}}, "path = 'Models'"),
        ({"training.get": {"path": "/Models?x=1"}}, "path"),
        ({"training.get": {"path": "/Models/{name}"}}, "'name'"),
        ({"training.get": {"path": "/Models/{id"}}, "brace"),
        ({"training.get": {"request": {"id": "jobId"}}}, "'id', which is in the path"),
        ({"training.get": {"method": "FETCH"}}, "method = 'FETCH'"),
        ({"training.submit": {"request": {"dataset": "x"}}}, "'dataset'.*datasetIds"),
        ({"training.get": {"response": {"colour": "x"}}}, "'colour'"),
        ({"training.get": {"response": {"id": ""}}}, "training.get"),
        ({"training.get": {"response": {"state": "phase"}}}, "unknown field 'state'.*status"),
        ({"training.get": {"response": {"kind": "type"}}}, "unknown field 'kind'"),
        ({"model.conversions": {"response": {"state": "phase"}}}, "unknown field 'state'"),
        ({"training.get": {"response": {"result.modelID": "m"}}}, "'result.modelID'.*did you mean modelId"),
        ({"training.get": {"response": {"result.model.id": "m"}}}, "'result' has: .*modelId"),
        ({"training.get": {"response": {"status.text": "s"}}}, "'status' is not an object"),
        ({"training.submit": {"request": {"modelName.first": "n"}}}, "'modelName' is not an object"),
        ({"training.submit": {"request": {"webhookUrl.host": "h"}}}, "'webhookUrl' is not an object"),
        ({"training.submit": {"request": {"datasetIDs": "d"}}}, "did you mean datasetIds"),
        ({"training.get": {"response": {"history.loss": "l"}}}, "'history' is not an object"),
        ({"states": {"Fertig": "done"}}, r"states\.Fertig.*'done'"),
        ({"states": {"Fertig": "unknown"}}, "not a state"),
        ({"states": ["Fertig"]}, "states"),
    ],
)
def test_invalid_override_is_an_error_that_names_the_key(overrides, message):
    with pytest.raises(OsaiContractError, match=message):
        apply_overrides(Contract(), overrides)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("response", "result.modelId"),
        ("response", "result.metrics"),
        ("response", "result.metrics.f1"),
        ("response", "result.confusionMatrix"),
        ("response", "result.confusionMatrix.labels"),
        ("response", "result.samples"),
    ],
)
def test_nested_fields_of_the_models_can_be_renamed(part, field):
    apply_overrides(Contract(), {"training.get": {part: {field: "x.y"}}})


def test_parameters_of_a_training_have_any_names():
    apply_overrides(Contract(), {"training.submit": {"request": {"parameters.epochs": "settings.rounds"}}})
