"""The sandbox's API, with the default contract and with a renamed one."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.contract import ENDPOINTS, JOB_REQUESTS, RESOURCES, UNBOUND, Contract
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox, SandboxState
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.handlers import Handlers
from tests.sandbox.client import Api, png

RENTAL = {"device": "jetson", "duration": 60}
RENAMED = {
    "training.submit": {"path": "/Models/Train", "request": {"datasetIds": "input.datasets", "modelName": "title"}},
    "training.get": {"path": "/Models/{id}", "response": {"id": "modelId", "status": "training.status"}},
    "training.list": {"path": "/Train", "request": {"ids": "of"}, "response": {"items": "data.rows", "id": "modelId"}},
    "training.cancel": None,
    "training.page": {"path": "/jobs/{id}"},
    "upload.image": {"path": "/Images", "request": {"file": "picture", "datasetId": "set"}},
    "dataset.get": {"response": {"imageCount": "size"}},
    "states": {"Ausgeführt": "succeeded", "Läuft": "running"},
}


@pytest.fixture(scope="module")
def renamed():
    """Return a client of a sandbox with a renamed contract."""
    with Sandbox(contract=apply_overrides(Contract(), RENAMED)) as sandbox, Api(sandbox) as client:
        yield client


def test_every_endpoint_of_the_contract_has_a_handler():
    with SandboxState() as state:
        assert Handlers(state, Control(state), Contract()).names() == set(ENDPOINTS)


@pytest.mark.parametrize("name", sorted(ENDPOINTS.keys() - UNBOUND))
def test_every_endpoint_has_a_route(trained, name):
    """Responses come from the handlers, never from a missing route or an unexpected error."""
    row = ENDPOINTS[name]
    root = trained.sandbox.portal_url if name.endswith(".page") else trained.sandbox.base_url
    response = trained.request(row.method, root + row.path.replace("{id}", "x").replace("{datasetId}", "x"))
    assert response.status_code in (200, 400, 404)
    assert response.text not in ('{"message":"Not Found"}', "")


def test_documented_responses_validate_against_the_client_models(api):
    api.sandbox.control.script(timing="immediate")
    dataset_id = api.dataset({"dark": [png()]})
    paths = {"user.me": "/Users", "dataset.get": f"/Datasets/{dataset_id}", "dataset.find": "/Datasets"}
    for name, path in paths.items():
        row, response = ENDPOINTS[name], api.ok("GET", path)
        read = row.read(response)
        for fields in read if row.is_list else [read]:
            assert row.response_model.model_validate(fields).id


def test_listed_model_equals_the_fetched_model(trained):
    (listed,) = (model for model in trained.ok("GET", "/Models") if model["id"] == trained.model_id)
    assert listed == trained.ok("GET", f"/Models/{trained.model_id}")
    model = ENDPOINTS["model.list"].response_model.model_validate(listed)
    assert (model.id, model.created_at) == (trained.model_id, listed["createdAt"])
    assert model.created_at.endswith("Z")


@pytest.mark.parametrize("kind", list(JobKind))
def test_every_kind_of_job_can_be_submitted_read_listed_and_cancelled(trained, kind):
    ids = {"datasetIds": [trained.dataset_id], "datasetId": trained.dataset_id, "modelId": trained.model_id}
    operations = [{"type": "rotation", "angle": 9}]
    every = {**ids, **RENTAL, "modelName": "m", "target": "x", "name": "n", "operations": operations}
    trained.sandbox.control.script(kind, "reads", reads=100)
    body = {name: every[name] for name in map(alias, JOB_REQUESTS[kind].model_fields) if name in every}
    path = f"/{RESOURCES[kind]}"
    job = trained.ok("POST", path, json={**body, "reference": f"ref-{kind}"})
    assert trained.ok("GET", path, params={"reference": f"ref-{kind}"})[0]["id"] == job["id"]
    assert trained.ok("GET", path, params={"ids": f"{job['id']},nothing"})[0]["status"] == "running"
    assert trained.ok("POST", f"{path}/{job['id']}/Cancel") == {}
    ended = Job.model_validate({**trained.ok("GET", f"{path}/{job['id']}"), "kind": kind, "state": "cancelled"})
    assert (ended.status, ended.reference) == ("cancelled", f"ref-{kind}")
    trained.sandbox.control.script(kind)


def alias(name: str) -> str:
    """Return a field's name on the wire."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "object"),
        (b'{"device": "jetson"}', "duration"),
        (b'{"device": "jetson", "duration": -1}', "duration"),
        (b'{"device": "jetson", "duration": 60, "colour": "red"}', "colour"),
    ],
)
def test_invalid_body_returns_400_with_the_reason(api, content, message):
    response = api.post("/DeviceRentals", content=content)
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_unknown_paths_and_ids_return_404_with_a_message(api):
    for path in ("/Nothing", "/Datasets/x", "/Trainings/x", "/Models/x", "/Categories?datasetId=x"):
        response = api.get(path)
        assert (response.status_code, bool(response.json()["message"])) == (404, True)


def test_renamed_contract_is_served_with_renamed_paths_fields_and_statuses(renamed):
    renamed.sandbox.control.script("training", "reads", reads=2)
    body = {"input": {"datasets": [renamed.dataset()]}, "title": "m"}
    job = renamed.ok("POST", "/Models/Train", json=body)
    running = renamed.ok("GET", f"/Models/{job['id']}")
    listed = renamed.ok("GET", "/Train", params={"of": job["id"]})
    ended = renamed.ok("GET", f"/Models/{job['id']}")
    assert (running["modelId"], running["training"], "id" in running) == (job["id"], {"status": "Läuft"}, False)
    assert listed["data"]["rows"][0]["modelId"] == job["id"]
    assert ended["training"]["status"] == "Ausgeführt"


def test_default_names_are_rejected_where_they_are_renamed(renamed):
    """Otherwise the test of an override without effect would pass."""
    body = {"datasetIds": [renamed.dataset()], "modelName": "m"}
    assert renamed.post("/Models/Train", json=body).status_code == 400
    assert renamed.post("/Trainings", json=body).status_code == 404


def test_path_shared_by_two_operations_serves_both(renamed):
    """``GET /Models/{id}`` returns the training or the model with that id."""
    renamed.sandbox.control.script("training", "immediate")
    body = {"input": {"datasets": [renamed.dataset()]}, "title": "m"}
    job = renamed.ok("POST", "/Models/Train", json=body)
    model_id = job["result"]["modelId"]
    assert renamed.ok("GET", f"/Models/{model_id}")["modelType"] == "classification"
    assert renamed.ok("GET", f"/Models/{job['id']}")["training"]["status"] == "Ausgeführt"
    assert renamed.get("/Models/nobody").status_code == 404


def test_operation_set_to_null_has_no_route(renamed):
    assert renamed.post("/Trainings/x/Cancel").status_code == 404


def test_renamed_form_fields_are_accepted(renamed):
    """Multipart forms are renamed like JSON; a field that is not in the path any more is in the form."""
    dataset_id = renamed.dataset()
    upload_id = renamed.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    form = {"set": dataset_id, "datasetUploadId": upload_id}
    assert renamed.post("/Images", data=form, files={"picture": ("a.png", png())}).status_code == 200
    assert renamed.ok("GET", f"/Datasets/{dataset_id}")["size"] == 1
