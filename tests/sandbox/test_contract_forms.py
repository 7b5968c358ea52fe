"""What a contract document says of answers and forms, as the sandbox sends and reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from tests.sandbox.client import png

KEY = "key-of-the-sandbox"
LIST = "/models/{id}/files"
DOCUMENT = {
    "auth": {"header": "X-Key", "prefix": ""},
    "auth.sign_in": None,
    "states": {"Busy": "running", "Done": "succeeded"},
    "dataset.create": {"path": "/sets", "success": 201},
    "dataset.delete": {"path": "/sets/{id}", "success": 204, "answer": "none"},
    "category.list": {"path": "/sets/{datasetId}/labels", "answer": "text", "success": 203},
    "upload.start": None,
    "upload.finish": None,
    "upload.image": {"path": "/sets/{datasetId}/images", "request": {"file": "picture"}},
    "training.submit": {"request": {"modelName": None}, "response": {"result.metrics": None}},
    "training.get": {"response": {"result.metrics": None}},
    "model.conversions": {"path": LIST, "response": {"target": "platform"}},
    "model.download": {
        "path": LIST,
        "request": {"target": None},
        "pick": True,
        "response": {"target": "platform"},
        "url": "link.href",
    },
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(contract=apply_overrides(Contract(), DOCUMENT), base_path="", access_token=KEY) as running:
        running.control.script(timing="immediate")
        yield running


@pytest.fixture
def client(sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.base_url, headers={"X-Key": KEY}) as client:
        yield client


@pytest.fixture
def dataset(client) -> str:
    return client.post("/sets", json={"name": "fruit"}).json()["id"]


def test_the_api_can_be_at_the_root(sandbox, client):
    assert sandbox.base_url == sandbox.portal_url
    assert client.get("/Users").status_code == 200
    assert client.get("/sandbox/record").status_code == 200


def test_a_success_has_the_contracts_status(client, dataset):
    assert client.post("/sets", json={"name": "more"}).status_code == 201
    assert client.get(f"/sets/{dataset}/labels").status_code == 203
    deleted = client.delete(f"/sets/{dataset}")
    assert (deleted.status_code, deleted.content) == (204, b"")


@pytest.mark.parametrize("name", [None, "a.png"])
def test_an_image_may_lack_a_file_name_and_an_upload(sandbox, client, dataset, name):
    disposition = 'form-data; name="picture"' + (f'; filename="{name}"' if name else "")
    body = b"--x\r\nContent-Disposition: %b\r\n\r\n%b\r\n--x--\r\n" % (disposition.encode(), png())
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post(f"/sets/{dataset}/images", content=body, headers=headers)
    assert answer.status_code == 200
    (image,) = sandbox.control.images(dataset)
    assert image["fileName"] == (name or answer.json()["id"])


def test_a_broken_form_is_a_bad_request(client, dataset):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(f"/sets/{dataset}/images", content=b"--x\r\n\r\n", headers=headers).status_code == 400


def test_a_model_without_a_name_and_its_metrics_stay_out_of_the_answer(sandbox, client, dataset):
    sandbox.control.script("training", "immediate", metrics={"accuracy": 0.5})
    job = client.post("/Trainings", json={"datasetIds": [dataset]}).json()
    assert set(job["result"]) == {"modelId"}
    assert sandbox.state.models[job["result"]["modelId"]].name == "model"


def test_a_queued_job_has_the_word_of_a_running_one(sandbox, client, dataset):
    sandbox.control.script("training", "reads", reads=5)
    assert client.post("/Trainings", json={"datasetIds": [dataset]}).json()["status"] == "Busy"


def test_the_items_of_a_list_have_the_addresses_of_their_files(sandbox, client, dataset):
    model = client.post("/Trainings", json={"datasetIds": [dataset]}).json()["result"]["modelId"]
    for target in ("jetson", "openvino"):
        client.post("/Conversions", json={"modelId": model, "target": target})
    sandbox.control.script("conversion", "reads", reads=9)
    client.post("/Conversions", json={"modelId": model, "target": "late"})
    items = {item["platform"]: item["link"]["href"] for item in client.get(f"/models/{model}/files").json()}
    assert items["late"] is None
    assert items["jetson"] != items["openvino"]
    assert httpx.get(items["jetson"]).content == b"simulated conversion\n"
    assert httpx.get(f"{items['jetson']}x").status_code == 404


WITHOUT_CATEGORIES = {
    "*": {"constants": {"success": True}},
    "auth": DOCUMENT["auth"],
    "auth.sign_in": None,
    "category.create": None,
    "upload.start": None,
    "upload.finish": None,
    "upload.image": {
        "path": "/images",
        "request": {"datasetId": None, "categoryId": {"name": "X-Label", "in": "header"}},
        "response": {"id": {"type": "number"}},
    },
    "training.submit": {
        "path": "/sets/{datasetIds}/train",
        "request": {"datasetIds": {"in": "path", "shape": "one"}, "modelName": None},
        "response": {
            "id": {"name": ["$datasetIds", "job"], "type": "number"},
            "result.modelId": ["$datasetIds", "job"],
        },
    },
    "training.get": {
        "path": "/sets/{id.1}/jobs/{id.2}",
        "response": {
            "id": {"name": ["$id.1", "job"], "type": "number"},
            "status": {"name": "done && 'succeeded' || 'running'", "writes": {"succeeded": {"done": True}}},
        },
    },
    "model.get": {"path": "/sets/{id.1}/newest", "response": {"id": None}},
}


@pytest.fixture
def numbered() -> Iterator[httpx.Client]:
    """A client of a sandbox whose categories are only names, and whose ids are numbers."""
    numbers = map(str, itertools.count(1))
    contract = apply_overrides(Contract(), WITHOUT_CATEGORIES)
    with (
        Sandbox(contract=contract, access_token=KEY, new_id=lambda: next(numbers)) as sandbox,
        httpx.Client(base_url=sandbox.base_url, headers={"X-Key": KEY}) as client,
    ):
        client.sandbox = sandbox
        yield client


def test_a_category_can_be_only_a_name_and_the_dataset_be_left_out(numbered):
    send = partial(numbered.post, "/images", files={"file": png()}, headers={"X-Label": "cat"})
    assert "names no dataset, and there are 0" in send().json()["message"]
    dataset = numbered.post("/Datasets", json={"name": "a"}).json()["id"]
    assert [send().json() for _ in range(2)] == [{"id": 2, "success": True}, {"id": 3, "success": True}]
    assert [image["category"] for image in numbered.sandbox.control.images(dataset)] == ["cat", "cat"]
    numbered.post("/Datasets", json={"name": "b"})
    assert send().status_code == 400


def test_a_status_of_flags_a_joined_number_and_the_newest_model(numbered):
    dataset = numbered.post("/Datasets", json={"name": "a"}).json()["id"]
    numbered.sandbox.control.script("training", "reads", reads=1)
    jobs = [numbered.post(f"/sets/{dataset}/train").json()["job"] for _ in range(2)]
    assert jobs == [2, 3]
    flags = [numbered.get(f"/sets/{dataset}/jobs/{job}").json().get("done") for _ in range(2) for job in jobs]
    assert flags == [None, None, True, True]
    first, second = numbered.sandbox.state.models
    numbered.sandbox.state.models[first].name, numbered.sandbox.state.models[second].name = "first", "second"
    assert numbered.get(f"/sets/{dataset}/newest").json()["name"] == "second"
