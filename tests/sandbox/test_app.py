"""The API as the contract has it, in its own words and in others."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.contract import ENDPOINTS, JOB_REQUESTS, RESOURCES, Contract
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.sandbox import Sandbox, SandboxState
from airflow_provider_osai.sandbox.control import Control
from airflow_provider_osai.sandbox.operations import Operations
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
    """A client of a sandbox that speaks another contract."""
    with Sandbox(contract=rebind(Contract(), RENAMED)) as sandbox, Api(sandbox) as client:
        yield client


def test_every_endpoint_of_the_contract_is_served():
    """The table and the sandbox cannot drift apart."""
    with SandboxState() as state:
        assert Operations(state, Control(state), Contract()).names() == set(ENDPOINTS)


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_no_endpoint_is_without_a_route(trained, name):
    """Each address answers with one of the API's words, never with a missing route or an accident."""
    row = ENDPOINTS[name]
    root = trained.sandbox.portal_url if name.endswith(".page") else trained.sandbox.base_url
    answer = trained.request(row.method, root + row.path.replace("{id}", "x").replace("{datasetId}", "x"))
    assert answer.status_code in (200, 400, 404)
    assert answer.text not in ('{"message":"Not Found"}', "")


def test_documented_answers_fit_the_models_of_the_contract(api):
    """What the sandbox writes, the client's models read."""
    api.sandbox.control.script(timing="immediate")
    dataset_id = api.dataset({"dark": [png()]})
    paths = {"user.me": "/Users", "dataset.get": f"/Datasets/{dataset_id}", "dataset.find": "/Datasets"}
    for name, path in paths.items():
        row, answer = ENDPOINTS[name], api.ok("GET", path)
        read = row.read(answer)
        for fields in read if row.many else [read]:
            assert row.answer.model_validate(fields).id


def test_models_are_listed_as_they_are_read(trained):
    """With when they were made, in the words of the contract."""
    (listed,) = (one for one in trained.ok("GET", "/Models") if one["id"] == trained.model_id)
    assert listed == trained.ok("GET", f"/Models/{trained.model_id}")
    model = ENDPOINTS["model.list"].answer.model_validate(listed)
    assert (model.id, model.created_at) == (trained.model_id, listed["createdAt"])
    assert model.created_at.endswith("Z")


@pytest.mark.parametrize("kind", list(JobKind))
def test_all_kinds_of_job_are_submitted_read_listed_and_cancelled_alike(trained, kind):
    """Six kinds, one behaviour."""
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
        (b"{", "no JSON"),
        (b"[]", "object"),
        (b'{"device": "jetson"}', "duration"),
        (b'{"device": "jetson", "duration": -1}', "duration"),
        (b'{"device": "jetson", "duration": 60, "colour": "red"}', "colour"),
    ],
)
def test_bad_body_is_400_with_a_message_that_names_what_is_wrong(api, content, message):
    """A client's mistake is answered, never guessed at."""
    answer = api.post("/DeviceRentals", content=content)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_unknown_addresses_and_ids_are_404_with_a_message(api):
    """One form for all refusals."""
    for path in ("/Nothing", "/Datasets/x", "/Trainings/x", "/Models/x", "/Categories?datasetId=x"):
        answer = api.get(path)
        assert (answer.status_code, bool(answer.json()["message"])) == (404, True)


def test_renamed_contract_is_served_under_its_names(renamed):
    """Paths, fields and status words are the other API's; ours are gone."""
    renamed.sandbox.control.script("training", "reads", reads=2)
    body = {"input": {"datasets": [renamed.dataset()]}, "title": "m"}
    job = renamed.ok("POST", "/Models/Train", json=body)
    running = renamed.ok("GET", f"/Models/{job['id']}")
    listed = renamed.ok("GET", "/Train", params={"of": job["id"]})
    ended = renamed.ok("GET", f"/Models/{job['id']}")
    assert (running["modelId"], running["training"], "id" in running) == (job["id"], {"status": "Läuft"}, False)
    assert listed["data"]["rows"][0]["modelId"] == job["id"]
    assert ended["training"]["status"] == "Ausgeführt"


def test_our_own_names_are_refused_where_they_are_renamed(renamed):
    """Otherwise a binding that does nothing would pass its test."""
    body = {"datasetIds": [renamed.dataset()], "modelName": "m"}
    assert renamed.post("/Models/Train", json=body).status_code == 400
    assert renamed.post("/Trainings", json=body).status_code == 404


def test_addresses_that_two_operations_share_answer_for_both(renamed):
    """``GET /Models/{id}`` is a training while it has that id, and a model where it has that one."""
    renamed.sandbox.control.script("training", "immediate")
    body = {"input": {"datasets": [renamed.dataset()]}, "title": "m"}
    job = renamed.ok("POST", "/Models/Train", json=body)
    model_id = job["result"]["modelId"]
    assert renamed.ok("GET", f"/Models/{model_id}")["modelType"] == "classification"
    assert renamed.ok("GET", f"/Models/{job['id']}")["training"]["status"] == "Ausgeführt"
    assert renamed.get("/Models/nobody").status_code == 404


def test_operation_bound_to_null_has_no_route(renamed):
    """The API lacks it, and so does the sandbox."""
    assert renamed.post("/Trainings/x/Cancel").status_code == 404


def test_renamed_form_fields_are_read(renamed):
    """Multipart forms are renamed like JSON, and what leaves the path travels in the form."""
    dataset_id = renamed.dataset()
    upload_id = renamed.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    form = {"set": dataset_id, "datasetUploadId": upload_id}
    assert renamed.post("/Images", data=form, files={"picture": ("a.png", png())}).status_code == 200
    assert renamed.ok("GET", f"/Datasets/{dataset_id}")["size"] == 1
