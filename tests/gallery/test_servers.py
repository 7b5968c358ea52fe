"""Each server of the gallery by itself: one story by hand-written requests, as its vendor's page describes them."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from string import Template
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.gallery.servers import STYLES, create_app
from tests.gallery.world import World

KINDS = ("train", "retrain", "predict", "manipulate", "convert", "rent")
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
ROTATE = {"angle": 90, "copies": 2}
LIGHT = {"contrast": 1.2, "brightness": 10, "copies": 1}
SIZE = {"width": 4, "height": 4}
OPERATIONS = {"rotate": ROTATE, "brightness": LIGHT, "resize": SIZE}
OPS = json.dumps([{"op": name, **values} for name, values in OPERATIONS.items()])


class R:
    """A request: ``$name`` stands for a value; *out* is the path of the wanted value in the answer, or a function."""

    def __init__(self, address: str, out: str | Callable[[Any], Any] = "", *, header: str = "", **more: Any) -> None:
        self.method, self.path = address.split()
        self.out = out
        self.header = header
        self.more = more


@dataclass
class Style:
    """The requests of a style, each by its operation or by operation and kind.

    ``made`` has the paths in the answer of a poll (``$job`` is the job's id), ``words`` the state's words in the order
    of STATES, ``kinds`` the ``$kind`` of addresses. ``failures`` are the status or, with *failure*, the code of answers
    for: an unknown dataset, a locked one, a duplicate, an invalid value, a busy service, an ended job.
    """

    calls: dict[str, R]
    made: dict[str, Any]
    words: tuple[Any, ...] | dict[str, tuple[Any, ...]]
    kinds: tuple[str, ...] = KINDS
    failure: str | Callable[[Any], Any] = ""
    failures: tuple[Any, ...] = (404, 423, 409, 400, 503, 409)
    unknown: Any = 9999
    headers: dict[str, str] = field(default_factory=dict)
    next_page: Callable[[Any, Any], str | None] = lambda response, answer: None


def fill(template: Any, values: dict[str, Any]) -> Any:
    """Replace ``$name`` in a template; one that is nothing else takes the value as it is."""
    if isinstance(template, dict):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(value, values) for value in template]
    if isinstance(template, str) and template[:1] == "$" and template[1:].isidentifier():
        return values[template[1:]]
    return Template(template).substitute(values) if isinstance(template, str) else template


def pick(content: Any, path: Any) -> Any:
    """Return the value at a path such as ``data.items.*.id``; None if there is none."""
    if callable(path):
        return path(content)
    name, _, rest = path.partition(".")
    if not name or content is None:
        return content
    if name == "*":
        return [pick(row, rest) for row in content]
    return pick(content.get(name), rest)


class Api:
    """The client of one server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.world = World()
        self.style = SPECS[name]
        self.client = TestClient(create_app(name, self.world))
        self.client.headers.update(self.style.headers)

    def sign_in(self) -> None:
        if not self.style.headers:
            answer = self.client.post("/api/Users/SignIn", json=self.world.access_token)
            token = answer.json()["data"]["accessToken"] if self.name == "aspnet_envelope" else answer.text
            self.client.headers["Authorization"] = f"Bearer {token}"

    def has(self, operation: str) -> bool:
        return any(call.split()[0] == operation for call in self.style.calls)

    def call(self, operation: str, kind: str = "") -> R:
        return self.style.calls.get(f"{operation} {kind}") or self.style.calls[operation]

    def send(self, operation: str, kind: str = "", **values: Any) -> Any:
        call = self.call(operation, kind)
        if kind:
            values = {"kind": self.style.kinds[KINDS.index(kind)], "key": f"key-{kind}", **values}
        return self.client.request(call.method, fill(call.path, values), **fill(call.more, values))

    def __call__(self, operation: str, kind: str = "", **values: Any) -> Any:
        """Send a request, which must succeed, follow its pages, and return what is wanted of the answer."""
        response = self.send(operation, kind, **values)
        call = self.call(operation, kind)
        answer = content(response)
        found = response.headers[call.header] if call.header else answer
        found = pick(found, call.out)
        while isinstance(found, list) and (url := self.style.next_page(response, answer)):
            response = self.client.get(url)
            answer = content(response)
            found += pick(answer, call.out)
        return found

    def submit(self, kind: str, **values: Any) -> dict[str, Any]:
        """Submit a job; return what a poll needs."""
        values = {"dataset": None, "model": None, "name": "m", **values}
        return {**values, "kind": kind, "job": self(kind, kind, **values)}

    def poll(self, job: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the state of a job in the world's word, and what it made."""
        answer = self("poll", **job)
        words = self.style.words
        words = words[job["kind"]] if isinstance(words, dict) else words
        state = STATES[words.index(pick(answer, self.style.made["state"]))]
        paths = {name: path for name, path in self.style.made.items() if name != "state"}
        return state, {name: job["job"] if path == "$job" else pick(answer, path) for name, path in paths.items()}

    def finish(self, job: dict[str, Any]) -> dict[str, Any]:
        """Poll a job to its success and return what it made."""
        assert [self.poll(job)[0] for _ in range(3)] == ["queued", "running", "succeeded"]
        return self.poll(job)[1]

    def failure(self, response: Any) -> Any:
        """Return the status or the code of a failure."""
        if not self.style.failure:
            return response.status_code
        return pick(response.json(), self.style.failure)


def content(response: Any) -> Any:
    """Return the content of a success."""
    assert response.status_code < 300, response.text
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        return response.content if "Content-Disposition" in response.headers else response.text
    answer = response.json()
    assert not (isinstance(answer, dict) and answer.get("success") is False), answer
    return answer


def png(number: int) -> bytes:
    """Return an image that differs from those of other numbers."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number, 10, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def with_images(api: Api) -> Any:
    """Create a dataset with six images in two of its three categories."""
    dataset = api("create", name="fruit")
    categories = {name: api("category", dataset=dataset, name=name) for name in ("apple", "pear", "plum")}
    upload = api("begin", dataset=dataset) if api.has("begin") else None
    for number in range(6):
        name = ("apple", "pear")[number % 2]
        file = (f"{number}.png", png(number))
        api("image", dataset=dataset, upload=upload, file=file, category=categories[name], name=name)
    if api.has("end"):
        api("end", dataset=dataset, upload=upload)
    return dataset


@pytest.fixture(params=STYLES)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """The client of each server, with one event loop for all its requests."""
    api = Api(request.param)
    with api.client:
        api.sign_in()
        yield api


def download(api: Api, model: Any) -> bytes:
    """Return the file of a model; signed_downloads has a link to it, which takes no token."""
    found = api("download", model=model)
    if api.name != "signed_downloads":
        return found
    url = api("link", conversion=found[0])
    assert api.client.get(url).status_code == 400
    del api.client.headers["Authorization"]
    assert api.client.get(url[:-1]).status_code == 403
    return content(api.client.get(url))


class TestServer:
    def test_data_goes_in_and_comes_out(self, api):
        dataset = with_images(api)
        for other in ("cars", "fish"):
            api("create", name=other)
        assert api("names") == ["fruit", "cars", "fish"]
        assert sorted(api("categories", dataset=dataset)) == ["apple", "pear", "plum"]
        digests = [digest.lower().removeprefix("sha256:") for digest in api("digests", dataset=dataset)]
        assert digests == [hashlib.sha256(png(number)).hexdigest() for number in range(6)]
        api("delete", dataset=dataset)
        assert api("names") == ["cars", "fish"]

    def test_jobs_make_models_datasets_and_files(self, api):
        dataset = with_images(api)
        first = api.finish(api.submit("train", dataset=dataset, name="first"))
        second = api.finish(api.submit("retrain", dataset=dataset, model=first["model"], name="second"))
        assert api("models") == [first["model"], second["model"]]
        fractions = [api("model", model=made["model"]) for made in (first, second)]
        assert fractions in ([0.84, 0.92], [84, 92])
        accuracies = [made.get("accuracy") for made in (first, second)]
        assert accuracies in ([0.84, 0.92], [84, 92], [840, 920]) or api.name == "text_answers"
        copy = api.finish(api.submit("manipulate", dataset=dataset, name="copy"))["dataset"]
        assert len(api("digests", dataset=copy)) == 12
        copies = api.world.images_of(list(api.world.datasets)[-1])
        assert {Image.open(io.BytesIO(image.data)).size for image in copies} == {(4, 4)}
        for image in copies:
            image.category_id = None
        assert set(api("categories", dataset=copy)) == {"apple", "pear", "plum"}
        api.finish(api.submit("predict", dataset=copy, model=second["model"]))
        assert all(image.category_id for image in copies)
        api.finish(api.submit("convert", model=second["model"]))
        assert api("conversions", model=second["model"]) == ["openvino"]
        assert download(api, second["model"]) == b"model second for openvino\n" * 100
        assert [kind for kind, _ in api.world.submits] == ["train", "retrain", "manipulate", "predict", "convert"]

    def test_a_device_is_rented_and_given_back(self, api):
        job = api.submit("rent")
        states = [api.poll(job) for _ in range(3)]
        assert [state for state, _ in states] == ["queued", "running", "running"]
        assert states[-1][1]["device"]
        content(api.send("cancel", **job))
        assert api.poll(job)[0] == "cancelled"
        other = api.submit("rent")
        assert [api.poll(other)[0] for _ in range(2)] == ["queued", "running"]
        api.world.pass_time(timedelta(minutes=31))
        assert api.poll(other)[0] == "succeeded"
        assert len(api.world.cancels) == 1

    def test_jobs_fail_are_cancelled_and_are_listed(self, api):
        dataset = with_images(api)
        api.world.fail_next("Out of memory.")
        job = api.submit("train", dataset=dataset)
        assert [api.poll(job)[0] for _ in range(3)] == ["queued", "running", "failed"]
        assert api.poll(job)[1]["message"] == "Out of memory." if "message" in api.style.made else True
        if {"cancel", "cancel train"} & set(api.style.calls):
            job = api.submit("train", dataset=dataset)
            content(api.send("cancel", **job))
            assert api.poll(job)[0] == "cancelled"
            assert api.world.cancels == [("train", api.world.submits[-1][1])]
        if api.has("keys"):
            api.submit("train", dataset=dataset)
            assert api("keys", **job) == ["key-train"] * 3

    def test_failures_have_the_shape_of_the_style(self, api):
        dataset = with_images(api)
        rental = api.submit("rent")
        api.poll(rental)
        content(api.send("cancel", **rental))
        values = {"dataset": dataset, "model": None, "name": "m"}
        found = [
            api.send("get", dataset=api.style.unknown),
            api.send("category", dataset=dataset, name="apple"),
            api.send("create", name=" "),
            api.send("cancel", **rental),
        ]
        api.world.busy_submits = 1
        found.insert(3, api.send("train", "train", **values))
        if api.has("begin"):
            api("begin", dataset=dataset)
            found.insert(1, api.send("train", "train", **values))
        expected = [code for code in api.style.failures if code is not None]
        assert [api.failure(response) for response in found] == expected
        api.world.end_sessions()
        api.world.api_key = "another"
        assert api.send("names").status_code == 401


def test_a_failure_in_an_envelope_has_the_status_200_instead_of_bytes():
    api = Api("aspnet_envelope")
    api.sign_in()
    response = api.send("download", model=9999)
    assert response.status_code == 200
    assert response.json()["success"] is False


def test_a_job_does_not_exist_below_other_parents():
    api = Api("nested_parents")
    api.sign_in()
    job = api.submit("train", dataset=with_images(api))
    other = api("create", name="other")
    assert api.send("poll", **{**job, "dataset": other}).status_code == 404
    assert api.poll(job)[0] == "queued"


def test_a_submit_is_accepted_without_a_body():
    api = Api("accepted_location")
    api.sign_in()
    job = api.submit("rent")
    response = api.send("cancel", **job)
    assert (response.status_code, response.content) == (202, b"")
    assert job["job"].startswith("/api/operations/5eed0000-")
    problem = api.send("cancel", **job)
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert problem.json()["status"] == 409


def test_each_picture_is_accepted_or_rejected():
    api = Api("multipart_parts")
    api.sign_in()
    dataset = api("create", name="fruit")
    files = [("files", ("a.png", png(1))), ("files", ("b.png", b"no image"))]
    path = f"/api/v1/datasets/{dataset}/pictures"
    results = content(api.client.post(path, data={"meta": "{}"}, files=files))["results"]
    assert [row["status"] for row in results] == ["ACCEPTED", "REJECTED"]
    assert results[1]["reason"] == "The file is not an image."


def test_an_unknown_address_is_a_plain_400():
    api = Api("plain_statuses")
    api.sign_in()
    response = api.client.get("/api/dataset.rename")
    assert (response.status_code, response.json()["code"]) == (400, "NOT_FOUND")


def test_a_quoted_number_is_refused():
    api = Api("two_flags")
    api.sign_in()
    dataset = with_images(api)
    assert api.send("train", "train", dataset=str(dataset), name="m").status_code == 400
    assert api.world.submits == []


def test_a_submit_answers_a_bare_number():
    api = Api("text_answers")
    api.sign_in()
    response = api.send("rent", "rent")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.text == str(api.world.submits[0][1])


def test_coco_categories_are_those_of_the_dataset():
    api = Api("graph_objects")
    api.sign_in()
    dataset = api("create", name="fruit")
    values = {"upload": api("begin", dataset=dataset), "file": ("a.png", png(1)), "name": ""}
    refused = api.send("image", **values)
    assert (refused.status_code, refused.json()["problem"]["text"]) == (400, "The dataset has no category 'apple'.")
    api("category", dataset=dataset, name="apple")
    assert api("image", **values)["photo"]["coco"] == COCO


@pytest.mark.parametrize(
    ("operation", "sizes"), [("names", [2, 1]), ("categories", [2, 1]), ("digests", [2, 2, 2]), ("models", [2, 1])]
)
@pytest.mark.parametrize("name", ["paged_cursors", "paged_numbers"])
def test_lists_come_in_pages(name, operation, sizes):
    api = Api(name)
    api.sign_in()
    dataset = with_images(api)
    for other in ("cars", "fish"):
        api("create", name=other)
    for _ in range(3):
        api.finish(api.submit("train", dataset=dataset))
    path = api.call(operation).out
    response = api.send(operation, dataset=dataset)
    found = [len(pick(content(response), path))]
    while url := api.style.next_page(response, content(response)):
        response = api.client.get(url)
        found.append(len(pick(content(response), path)))
    assert found == sizes


def state_of_flags(task: dict[str, Any]) -> str:
    """Return the state of a task of two_flags."""
    if task["finished"]:
        return "failed" if task["failed"] else "cancelled" if task["cancelled"] else "succeeded"
    return "running" if task["startedAt"] else "queued"


def score(scores: list[dict[str, Any]]) -> float | None:
    """Return the accuracy of a list of scores."""
    return next((row["value"] for row in scores if row["name"] == "accuracy"), None)


def next_of_cursors(response: Any, answer: Any) -> str | None:
    """Return the address of the next page of paged_cursors, whichever way it is paged."""
    if isinstance(answer, list):
        link = re.fullmatch('<(.*)>; rel="next"', response.headers.get("Link", ""))
        return link and link[1]
    if "links" in answer:
        return answer["links"].get("next")
    if "jobs" in answer:
        return answer["next_cursor"] and str(response.url.copy_merge_params({"cursor": answer["next_cursor"]}))
    offset = int(response.url.params.get("offset", 0)) + len(answer["results"])
    return str(response.url.copy_merge_params({"offset": offset})) if offset < answer["count"] else None


NESTED = "/api/projects/7"
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "0.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 4, 5]}],
        "categories": [{"id": 3, "name": "apple"}],
    }
)
SPECS = {
    "aspnet_envelope": Style(
        calls={
            "create": R("POST /api/Dataset/Create", "data.id", json={"name": "$name"}),
            "get": R("GET /api/Dataset/Get?id=$dataset", "data"),
            "names": R("GET /api/Dataset/GetAll", "data.items.*.name"),
            "delete": R("DELETE /api/Dataset/Delete?id=$dataset"),
            "category": R("POST /api/Category/Create", "data.id", json={"datasetId": "$dataset", "name": "$name"}),
            "categories": R("GET /api/Category/GetAll?datasetId=$dataset", "data.items.*.name"),
            "begin": R("POST /api/Dataset/BeginUpload?datasetId=$dataset", "data.uploadId"),
            "image": R(
                "POST /api/Image/Upload",
                data={"uploadId": "$upload", "categoryId": "$category", "regions": "[]"},
                files={"image": "$file"},
            ),
            "end": R("POST /api/Dataset/EndUpload", json={"uploadId": "$upload"}),
            "digests": R("GET /api/Image/GetAll?datasetId=$dataset", "data.items.*.sha256"),
            "train": R(
                "POST /api/Training/Start",
                "data.id",
                json={"datasetIds": ["$dataset"], "name": "$name", "modelType": 0, "tag": "$key"},
            ),
            "retrain": R(
                "POST /api/Retraining/Start",
                "data.id",
                json={"modelId": "$model", "datasetIds": ["$dataset"], "name": "$name"},
            ),
            "predict": R(
                "POST /api/Prediction/Start",
                "data.id",
                json={"modelId": "$model", "datasetId": "$dataset", "confidence": 0.5, "scope": 0},
            ),
            "manipulate": R(
                "POST /api/Augmentation/Start",
                "data.id",
                json={
                    "datasetId": "$dataset",
                    "name": "$name",
                    "operations": [
                        {"kind": "Rotate", "angle": 90, "count": 2},
                        {"kind": "Brightness", "contrast": 1.2, "delta": 10, "count": 1},
                        {"kind": "Resize", "width": 4, "height": 4},
                    ],
                },
            ),
            "convert": R("POST /api/Export/Start", "data.id", json={"modelId": "$model", "platform": "openvino"}),
            "rent": R(
                "POST /api/DeviceLease/Start", "data.id", json={"deviceType": "jetson-nano", "period": "00:30:00"}
            ),
            "poll": R("GET /api/$kind/Get?id=$job", "data"),
            "cancel": R("POST /api/$kind/Abort?id=$job"),
            "keys": R("GET /api/$kind/GetAll?tag=key-train", "data.items.*.tag"),
            "models": R("GET /api/Model/GetAll", "data.items.*.id"),
            "model": R("GET /api/Model/Get?id=$model", "data.quality.accuracy"),
            "conversions": R("GET /api/Model/GetConversions?modelId=$model", "data.items.*.platform"),
            "download": R("GET /api/Model/Download?id=$model&platform=openvino"),
        },
        made={
            "state": "state",
            "model": "outcome.modelId",
            "dataset": "outcome.datasetId",
            "device": "outcome.deviceId",
            "accuracy": "outcome.quality.accuracy",
            "message": "error",
        },
        words=(0, 1, 2, 3, 4),
        kinds=("Training", "Retraining", "Prediction", "Augmentation", "Export", "DeviceLease"),
        failure=lambda answer: answer["errors"][0]["code"],
        failures=(
            *("EntityNotFound", "EntityLocked", "DuplicateName"),
            *("ValidationError", "ServerBusy", "InvalidState"),
        ),
    ),
    "nested_parents": Style(
        calls={
            "create": R(f"POST {NESTED}/datasets", "id", json={"title": "$name"}),
            "get": R(f"GET {NESTED}/datasets/$dataset"),
            "names": R(f"GET {NESTED}/datasets", "*.title"),
            "delete": R(f"DELETE {NESTED}/datasets/$dataset"),
            "category": R(f"POST {NESTED}/datasets/$dataset/labels", "id", json={"title": "$name"}),
            "categories": R(f"GET {NESTED}/datasets/$dataset/labels", "*.title"),
            "begin": R(f"POST {NESTED}/datasets/$dataset/uploads", "id"),
            "image": R(
                f"POST {NESTED}/datasets/$dataset/uploads/$upload/images",
                data={"labelId": "$category"},
                files={"content": "$file"},
            ),
            "end": R(f"POST {NESTED}/datasets/$dataset/uploads/$upload/close"),
            "digests": R(f"GET {NESTED}/datasets/$dataset/images", "*.hash"),
            "train": R(
                f"POST {NESTED}/datasets/$dataset/trainings",
                "id",
                json={"modelTitle": "$name", "task": "classify", "key": "$key"},
            ),
            "retrain": R(
                f"POST {NESTED}/models/$model/trainings", "id", json={"modelTitle": "$name", "datasets": ["$dataset"]}
            ),
            "predict": R(
                f"POST {NESTED}/models/$model/datasets/$dataset/predictions",
                "id",
                json={"certainty": 0.5, "images": "every"},
            ),
            "manipulate": R(
                f"POST {NESTED}/datasets/$dataset/variants",
                "id",
                json={
                    "title": "$name",
                    "steps": [
                        {"rotate": {"degrees": 90, "copies": 2}},
                        {"light": {"contrast": 1.2, "shift": 10, "copies": 1}},
                        {"scale": {"width": 4, "height": 4}},
                    ],
                },
            ),
            "convert": R(f"POST {NESTED}/models/$model/exports", "id", json={"hardware": "openvino"}),
            "rent": R(f"POST {NESTED}/devices/jetson-nano/reservations", "id", json={"seconds": 1800}),
            "poll train": R(f"GET {NESTED}/datasets/$dataset/trainings/$job"),
            "poll retrain": R(f"GET {NESTED}/models/$model/trainings/$job"),
            "poll predict": R(f"GET {NESTED}/models/$model/datasets/$dataset/predictions/$job"),
            "poll manipulate": R(f"GET {NESTED}/datasets/$dataset/variants/$job"),
            "poll convert": R(f"GET {NESTED}/models/$model/exports/$job"),
            "poll rent": R(f"GET {NESTED}/devices/jetson-nano/reservations/$job"),
            "cancel train": R(f"POST {NESTED}/datasets/$dataset/trainings/$job/stop"),
            "cancel rent": R(f"POST {NESTED}/devices/jetson-nano/reservations/$job/stop"),
            "keys": R(f"GET {NESTED}/datasets/$dataset/trainings?key=key-train", "*.key"),
            "models": R(f"GET {NESTED}/models", "*.id"),
            "model": R(f"GET {NESTED}/models/$model", "scores.accuracy"),
            "conversions": R(f"GET {NESTED}/models/$model/exports", "*.hardware"),
            "download": R(f"GET {NESTED}/models/$model/files/openvino"),
        },
        made={
            "state": "phase",
            "model": "made.model",
            "dataset": "made.dataset",
            "device": "made.device",
            "accuracy": "made.scores.accuracy",
            "message": "reason",
        },
        words=("PENDING", "ACTIVE", "DONE", "ERROR", "STOPPED"),
        failures=(404, 423, 409, 422, 503, 409),
    ),
    "put_patch_verbs": Style(
        calls={
            "create": R("PUT /api/v2/datasets", "id", json={"name": "$name"}),
            "get": R("GET /api/v2/datasets/$dataset"),
            "names": R("GET /api/v2/datasets", "datasets.*.name"),
            "delete": R("DELETE /api/v2/datasets/$dataset"),
            "category": R("PUT /api/v2/datasets/$dataset/classes", "id", json={"name": "$name"}),
            "categories": R("GET /api/v2/datasets/$dataset/classes", "classes.*.name"),
            "begin": R("PUT /api/v2/datasets/$dataset/upload_sessions", "session_id"),
            "image": R(
                "PUT /api/v2/upload_sessions/$upload/images",
                data={"class_id": "$category"},
                files={"image_file": "$file"},
            ),
            "end": R("PATCH /api/v2/upload_sessions/$upload", json={"status": "finished"}),
            "digests": R("GET /api/v2/datasets/$dataset/images", "images.*.sha256"),
            "train": R(
                "PUT /api/v2/trainings",
                "id",
                json={"dataset_ids": ["$dataset"], "model_name": "$name", "task": "classify", "external_id": "$key"},
            ),
            "retrain": R(
                "PUT /api/v2/retrainings",
                "id",
                json={"model_id": "$model", "dataset_ids": ["$dataset"], "model_name": "$name"},
            ),
            "predict": R(
                "PUT /api/v2/predictions",
                "id",
                json={"model_id": "$model", "dataset_id": "$dataset", "threshold_percent": 50, "overwrite": "add"},
            ),
            "manipulate": R(
                "PUT /api/v2/manipulations",
                "id",
                json={
                    "dataset_id": "$dataset",
                    "new_name": "$name",
                    "operations": [
                        {"name": "rotate", "degrees": 90, "copies": 2},
                        {"name": "brightness", "contrast": 1.2, "brightness": 10, "copies": 1},
                        {"name": "resize", "width": 4, "height": 4},
                    ],
                },
            ),
            "convert": R("PUT /api/v2/conversions", "id", json={"model_id": "$model", "hardware": "openvino"}),
            "rent": R("PUT /api/v2/device_rentals", "id", json={"device_type": "jetson-nano", "minutes": 30}),
            "poll": R("GET /api/v2/$kind/$job"),
            "cancel": R("PATCH /api/v2/$kind/$job", json={"status": "cancelled"}),
            "keys": R("GET /api/v2/$kind?external_id=key-train", "jobs.*.external_id"),
            "models": R("GET /api/v2/models", "models.*.id"),
            "model": R("GET /api/v2/models/$model", "metrics.accuracy"),
            "conversions": R("GET /api/v2/models/$model/conversions", "conversions.*.hardware"),
            "download": R("GET /api/v2/models/$model/file?hardware=openvino"),
        },
        made={
            "state": "status",
            "model": "result.model_id",
            "dataset": "result.dataset_id",
            "device": "result.device_id",
            "accuracy": "result.metrics.accuracy",
            "message": "error",
        },
        words=("waiting", "working", "done", "failed", "cancelled"),
        kinds=("trainings", "retrainings", "predictions", "manipulations", "conversions", "device_rentals"),
        failure="error.type",
        failures=("not_found", "locked", "duplicate", "invalid", "overloaded", "already_ended"),
        unknown="ds-9999",
    ),
    "accepted_location": Style(
        calls={
            "create": R("POST /api/collections", "id", json={"displayName": "$name"}),
            "get": R("GET /api/collections/$dataset"),
            "names": R("GET /api/collections", "value.*.displayName"),
            "delete": R("DELETE /api/collections/$dataset"),
            "category": R("POST /api/collections/$dataset/classes", "id", json={"displayName": "$name"}),
            "categories": R("GET /api/collections/$dataset/classes", "value.*.displayName"),
            "begin": R("POST /api/collections/$dataset/ingestions", "ingestionId"),
            "image": R("POST /api/ingestions/$upload/items", data={"classId": "$category"}, files={"item": "$file"}),
            "end": R("POST /api/ingestions/$upload:complete"),
            "digests": R("GET /api/collections/$dataset/items", "value.*.sha256"),
            "train": R(
                "POST /api/models:train",
                header="Location",
                headers={"Client-Request-Id": "$key"},
                json={"collectionIds": ["$dataset"], "displayName": "$name", "modelKind": "ImageClassification"},
            ),
            "retrain": R(
                "POST /api/models/$model:refine",
                header="Location",
                json={"collectionIds": ["$dataset"], "displayName": "$name"},
            ),
            "predict": R(
                "POST /api/models/$model:classify",
                header="Location",
                json={"collectionId": "$dataset", "confidenceThreshold": 0.5, "selection": "All"},
            ),
            "manipulate": R(
                "POST /api/collections/$dataset:augment",
                header="Location",
                json={
                    "displayName": "$name",
                    "augmentations": [
                        {"rotation": {"maxDegrees": 90, "copies": 2}},
                        {"brightness": {"contrast": 1.2, "level": 10, "copies": 1}},
                        {"size": SIZE},
                    ],
                },
            ),
            "convert": R("POST /api/models/$model:export", header="Location", json={"platform": "openvino"}),
            "rent": R(
                "POST /api/devices:lease", header="Location", json={"deviceKind": "jetson-nano", "duration": "PT1800S"}
            ),
            "poll": R("GET $job"),
            "cancel": R("DELETE $job"),
            "keys": R("GET /api/operations?type=Train&clientRequestId=key-train", "value.*.clientRequestId"),
            "models": R("GET /api/models", "value.*.id"),
            "model": R("GET /api/models/$model", "evaluation.accuracy"),
            "conversions": R("GET /api/models/$model/exports", "value.*.platform"),
            "download": R("GET /api/models/$model/content?platform=openvino"),
        },
        made={
            "state": "status",
            "model": "output.modelId",
            "dataset": "output.collectionId",
            "device": "output.deviceId",
            "accuracy": "output.evaluation.accuracy",
            "message": "error.message",
        },
        words=("NotStarted", "Running", "Succeeded", "Failed", "Canceled"),
        failure=lambda answer: answer["type"].rpartition("/")[2],
        failures=("not-found", "locked", "duplicate", "invalid", "too-busy", "already-ended"),
        unknown="5eed0000-4000-8000-0000-000000009999",
    ),
    "paged_numbers": Style(
        calls={
            "create": R("POST /api/albums", "id", json={"label": "$name"}),
            "get": R("GET /api/albums/$dataset"),
            "names": R("GET /api/albums", "items.*.label"),
            "delete": R("DELETE /api/albums/$dataset"),
            "category": R("POST /api/albums/$dataset/tags", "id", json={"label": "$name"}),
            "categories": R("GET /api/albums/$dataset/tags", "items.*.label"),
            "begin": R("POST /api/albums/$dataset/open", "ticket"),
            "image": R(
                "POST /api/albums/$dataset/photos",
                data={"ticket": "$upload", "tagId": "$category"},
                files={"photo": "$file"},
            ),
            "end": R("POST /api/albums/$dataset/close?ticket=$upload"),
            "digests": R("GET /api/albums/$dataset/photos", "items.*.sha256"),
            "train": R(
                "POST /api/runs/learn",
                "id",
                json={"albumIds": ["$dataset"], "label": "$name", "purpose": "CLASSIFY", "externalRef": "$key"},
            ),
            "retrain": R(
                "POST /api/runs/relearn",
                "id",
                json={"networkId": "$model", "albumIds": ["$dataset"], "label": "$name"},
            ),
            "predict": R(
                "POST /api/runs/guess",
                "id",
                json={"networkId": "$model", "albumId": "$dataset", "atLeast": 0.5, "which": "ALL"},
            ),
            "manipulate": R(
                "POST /api/runs/remix",
                "id",
                json={
                    "albumId": "$dataset",
                    "label": "$name",
                    "effects": [
                        {"effect": "TURN", "angle": 90, "times": 2},
                        {"effect": "LIGHT", "contrast": 1.2, "brightness": 10, "times": 1},
                        {"effect": "SCALE", "width": 4, "height": 4},
                    ],
                },
            ),
            "convert": R("POST /api/runs/build", "id", json={"networkId": "$model", "chip": "openvino"}),
            "rent": R("POST /api/runs/borrow", "id", json={"board": "jetson-nano", "hours": 0.5}),
            "poll": R("GET /api/runs/$kind/$job"),
            "cancel": R("POST /api/runs/$kind/$job/halt"),
            "keys": R("GET /api/runs/learn", "items.*.externalRef"),
            "models": R("GET /api/networks", "items.*.id"),
            "model": R("GET /api/networks/$model", "marks.accuracy"),
            "conversions": R("GET /api/networks/$model/builds", "items.*.chip"),
            "download": R("GET /api/networks/$model/weights?chip=openvino"),
        },
        made={
            "state": "phase",
            "model": "networkId",
            "dataset": "albumId",
            "device": "boardId",
            "accuracy": "marks.accuracy",
            "message": "complaint",
        },
        words=("Waiting", "InProgress", "Finished", "Broken", "Halted"),
        kinds=("learn", "relearn", "guess", "remix", "build", "borrow"),
        failure="errorCode",
        next_page=lambda response, answer: (
            f"{response.url.path}?page={answer['page'] + 1}" if answer["page"] * 2 < answer["total"] else None
        ),
    ),
    "paged_cursors": Style(
        calls={
            "create": R("POST /api/datasets", "dataset_id", json={"dataset_name": "$name"}),
            "get": R("GET /api/datasets/$dataset"),
            "names": R("GET /api/datasets", "results.*.dataset_name"),
            "delete": R("DELETE /api/datasets/$dataset"),
            "category": R("POST /api/datasets/$dataset/categories", "category_id", json={"category_name": "$name"}),
            "categories": R("GET /api/datasets/$dataset/categories", "*.category_name"),
            "begin": R("POST /api/datasets/$dataset/batches", "batch_id"),
            "image": R(
                "POST /api/datasets/$dataset/images",
                data={"batch_id": "$upload", "category_id": "$category"},
                files={"upload": "$file"},
            ),
            "end": R("POST /api/datasets/$dataset/batches/$upload/commit"),
            "digests": R("GET /api/datasets/$dataset/images", "results.*.checksum"),
            "train": R(
                "POST /api/jobs",
                "job_id",
                json={
                    "job_type": "TRAIN",
                    "dataset_ids": ["$dataset"],
                    "model_name": "$name",
                    "model_type": "classifier",
                    "label": "$key",
                },
            ),
            "retrain": R(
                "POST /api/jobs",
                "job_id",
                json={
                    "job_type": "FINE_TUNE",
                    "base_model_id": "$model",
                    "dataset_ids": ["$dataset"],
                    "model_name": "$name",
                },
            ),
            "predict": R(
                "POST /api/jobs",
                "job_id",
                json={
                    "job_type": "PREDICT",
                    "model_id": "$model",
                    "dataset_id": "$dataset",
                    "min_score": 0.5,
                    "policy": "label_all",
                },
            ),
            "manipulate": R(
                "POST /api/jobs",
                "job_id",
                json={
                    "job_type": "TRANSFORM",
                    "dataset_id": "$dataset",
                    "output_name": "$name",
                    "pipeline": [
                        {"fn": "rotate", "args": ROTATE},
                        {"fn": "brightness", "args": LIGHT},
                        {"fn": "resize", "args": SIZE},
                    ],
                },
            ),
            "convert": R(
                "POST /api/jobs", "job_id", json={"job_type": "CONVERT", "model_id": "$model", "hardware": "openvino"}
            ),
            "rent": R(
                "POST /api/jobs", "job_id", json={"job_type": "RESERVE", "hardware": "jetson-nano", "seconds": 1800}
            ),
            "poll": R("GET /api/jobs/$job"),
            "cancel": R("POST /api/jobs/$job/cancel"),
            "keys": R("GET /api/jobs?job_type=TRAIN", "jobs.*.label"),
            "models": R("GET /api/models", "data.*.model_id"),
            "model": R("GET /api/models/$model", "metrics.accuracy"),
            "conversions": R("GET /api/models/$model/conversions", "data.*.hardware"),
            "download": R("GET /api/models/$model/artifact?hardware=openvino"),
        },
        made={
            "state": "status",
            "model": "outputs.model_id",
            "dataset": "outputs.dataset_id",
            "device": "outputs.device_id",
            "accuracy": "outputs.metrics.accuracy",
            "message": "failure_reason",
        },
        words=("SUBMITTED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"),
        failure=lambda answer: int(answer["errors"][0]["status"]),
        failures=(404, 423, 409, 400, 429, 409),
        unknown="dst_9999",
        next_page=next_of_cursors,
    ),
    "two_flags": Style(
        calls={
            "create": R("POST /api/dataset/new", "id", json={"name": "$name"}),
            "get": R("GET /api/dataset/one/$dataset"),
            "names": R("GET /api/dataset/all", "*.name"),
            "delete": R("POST /api/dataset/drop/$dataset"),
            "category": R("POST /api/category/new", "id", json={"name": "$name", "dataset": "$dataset"}),
            "categories": R("GET /api/category/all?dataset=$dataset", "*.name"),
            "begin": R("POST /api/upload/begin/$dataset", "upload"),
            "image": R("POST /api/upload/put/$upload", data={"category": "$category"}, files={"data": "$file"}),
            "end": R("POST /api/upload/end/$upload"),
            "digests": R("GET /api/image/all?dataset=$dataset", "*.sum"),
            "train": R(
                "POST /api/task/train",
                "taskId",
                json={"datasets": ["$dataset"], "name": "$name", "boxes": False, "mark": "$key"},
            ),
            "retrain": R(
                "POST /api/task/retrain", "taskId", json={"model": "$model", "datasets": ["$dataset"], "name": "$name"}
            ),
            "predict": R(
                "POST /api/task/predict", "taskId", json={"model": "$model", "dataset": "$dataset", "floor": 0.5}
            ),
            "manipulate": R(
                "POST /api/task/augment",
                "taskId",
                json={"dataset": "$dataset", "name": "$name", "ops": [{"rotate": 90, "copies": 2}, LIGHT, SIZE]},
            ),
            "convert": R("POST /api/task/port", "taskId", json={"model": "$model", "board": "openvino"}),
            "rent": R("POST /api/task/rent", "taskId", json={"board": "jetson-nano", "millis": 1_800_000}),
            "poll": R("GET /api/task/$kind/one/$job"),
            "cancel": R("POST /api/task/$kind/kill/$job"),
            "keys": R("GET /api/task/train/all?mark=key-train", "*.mark"),
            "models": R("GET /api/model/all", "*.id"),
            "model": R("GET /api/model/one/$model", lambda answer: score(answer["scores"])),
            "conversions": R("GET /api/model/ports/$model", "*.board"),
            "download": R("GET /api/model/blob/$model?board=openvino"),
        },
        made={
            "state": state_of_flags,
            "model": "modelRef",
            "dataset": "datasetRef",
            "device": "deviceRef",
            "accuracy": lambda task: score(task["scores"]),
            "message": "note",
        },
        words=STATES,
        kinds=("train", "retrain", "predict", "augment", "port", "rent"),
    ),
    "multipart_parts": Style(
        calls={
            "create": R("POST /api/v1/datasets", "dataset.id", json={"dataset": {"name": "$name"}}),
            "get": R("GET /api/v1/datasets/$dataset"),
            "names": R("GET /api/v1/datasets", "datasets.*.name"),
            "delete": R("DELETE /api/v1/datasets/$dataset"),
            "category": R(
                "POST /api/v1/datasets/$dataset/categories", "category.id", json={"category": {"name": "$name"}}
            ),
            "categories": R("GET /api/v1/datasets/$dataset/categories", "categories.*.name"),
            "image": R(
                "POST /api/v1/datasets/$dataset/pictures",
                "results.*.status",
                data={"meta": '{"category": $category}'},
                files={"files": "$file"},
            ),
            "digests": R("GET /api/v1/datasets/$dataset/pictures", "pictures.*.checksum"),
            "train": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={
                    "kind": "Training",
                    "clientKey": "$key",
                    "spec": {"datasets": ["$dataset"], "modelName": "$name", "modelType": "Classifier"},
                },
            ),
            "retrain": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={
                    "kind": "Retraining",
                    "spec": {"model": "$model", "datasets": ["$dataset"], "modelName": "$name"},
                },
            ),
            "predict": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={
                    "kind": "Prediction",
                    "spec": {"model": "$model", "dataset": "$dataset", "minConfidence": 0.5, "mode": "Everything"},
                },
            ),
            "manipulate": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={
                    "kind": "Manipulation",
                    "spec": {
                        "dataset": "$dataset",
                        "name": "$name",
                        "operations": [
                            {"type": "Rotate", "spec": ROTATE},
                            {"type": "Brighten", "spec": LIGHT},
                            {"type": "Resize", "spec": SIZE},
                        ],
                    },
                },
            ),
            "convert": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={"kind": "Conversion", "spec": {"model": "$model", "accelerator": "openvino"}},
            ),
            "rent": R(
                "POST /api/v1/jobs",
                "job.metadata.id",
                json={"kind": "Rental", "spec": {"accelerator": "jetson-nano", "durationSeconds": 1800}},
            ),
            "poll": R("GET /api/v1/jobs/$job", "job.status"),
            "cancel": R("POST /api/v1/jobs/$job/stop"),
            "keys": R("GET /api/v1/jobs?kind=Training&clientKey=key-train", "jobs.*.metadata.clientKey"),
            "models": R("GET /api/v1/models", "models.*.id"),
            "model": R("GET /api/v1/models/$model", "model.metrics.accuracy"),
            "conversions": R("GET /api/v1/models/$model/conversions", "conversions.*.accelerator"),
            "download": R("GET /api/v1/models/$model/binary?accelerator=openvino"),
        },
        made={
            "state": "phase",
            "model": "output.model",
            "dataset": "output.dataset",
            "device": "output.device",
            "accuracy": "output.metrics.accuracy",
            "message": "message",
        },
        words=("Pending", "Running", "Succeeded", "Failed", "Stopped"),
        failure="reason",
        failures=("NotFound", None, "AlreadyExists", "Invalid", "TooManyRequests", "Conflict"),
    ),
    "signed_downloads": Style(
        calls={
            "create": R("POST /api/datasets", "datasetId", json={"datasetName": "$name"}),
            "get": R("GET /api/datasets/$dataset"),
            "names": R("GET /api/datasets", "*.datasetName"),
            "delete": R("DELETE /api/datasets/$dataset"),
            "category": R("POST /api/datasets/$dataset/categories", "categoryId", json={"categoryName": "$name"}),
            "categories": R("GET /api/datasets/$dataset/categories", "*.categoryName"),
            "begin": R("POST /api/datasets/$dataset/lock", "lockToken"),
            "image": R(
                "POST /api/datasets/$dataset/images",
                headers={"X-Lock-Token": "$upload"},
                data={"categoryId": "$category"},
                files={"imageFile": "$file"},
            ),
            "end": R("DELETE /api/datasets/$dataset/lock", headers={"X-Lock-Token": "$upload"}),
            "digests": R("GET /api/datasets/$dataset/images", "*.sha256"),
            "train": R(
                "POST /api/train",
                "processId",
                headers={"X-Correlation-Id": "$key"},
                json={"datasetIds": ["$dataset"], "modelName": "$name", "modelType": "CLS"},
            ),
            "retrain": R(
                "POST /api/models/$model/retrain", "processId", json={"datasetIds": ["$dataset"], "modelName": "$name"}
            ),
            "predict": R(
                "POST /api/models/$model/predict",
                "processId",
                json={"datasetId": "$dataset", "confidence": 0.5, "mode": "A"},
            ),
            "manipulate": R(
                "POST /api/datasets/$dataset/derive",
                "processId",
                json={"datasetName": "$name", "recipe": OPERATIONS},
            ),
            "convert": R("POST /api/conversions", "processId", json={"modelId": "$model", "platform": "openvino"}),
            "rent": R("POST /api/devices/jetson-nano/rent?seconds=1800", "processId"),
            "poll": R("GET /api/processes/$job"),
            "cancel": R("POST /api/processes/$job/abort"),
            "keys": R("GET /api/processes?kind=TRAIN&correlationId=key-train", "*.correlationId"),
            "models": R("GET /api/models", "*.modelId"),
            "model": R("GET /api/models/$model", "metrics.accuracy"),
            "conversions": R("GET /api/conversions?modelId=$model", "*.platform"),
            "download": R("GET /api/conversions?modelId=$model", "*.conversionId"),
            "link": R("GET /api/conversions/$conversion/link", "link.url"),
        },
        made={
            "state": "statusCode",
            "model": "modelId",
            "dataset": "datasetId",
            "device": "device.deviceId",
            "accuracy": "metrics.accuracy",
            "message": "failure",
        },
        words=("IN_QUEUE", "IN_WORK", "OK", "NOK", "ABORTED"),
        failure="fault.faultCode",
        failures=("F404", "F423", "F409", "F400", "F503", "F409"),
    ),
    "plain_statuses": Style(
        calls={
            "create": R("POST /api/dataset.create", "dataset.id", json={"name": "$name"}),
            "get": R("GET /api/dataset.get?id=$dataset"),
            "names": R("GET /api/dataset.find", "datasets.*.name"),
            "delete": R("POST /api/dataset.remove", json={"id": "$dataset"}),
            "category": R("POST /api/category.create", "category.id", json={"dataset": "$dataset", "name": "$name"}),
            "categories": R("GET /api/category.list?dataset=$dataset", "categories.*.name"),
            "begin": R("POST /api/upload.start", "upload", json={"dataset": "$dataset"}),
            "image": R(
                "POST /api/upload.image", data={"upload": "$upload", "category": "$category"}, files={"bytes": "$file"}
            ),
            "end": R("POST /api/upload.finish", json={"upload": "$upload"}),
            "digests": R("GET /api/image.list?dataset=$dataset", "images.*.digest"),
            "train": R(
                "POST /api/job.train",
                "job.id",
                json={
                    "datasets": ["$dataset"],
                    "model_name": "$name",
                    "model_type": "CLASSIFICATION",
                    "ref": "$key",
                },
            ),
            "retrain": R(
                "POST /api/job.retrain",
                "job.id",
                json={"model": "$model", "datasets": ["$dataset"], "model_name": "$name"},
            ),
            "predict": R(
                "POST /api/job.predict",
                "job.id",
                json={"model": "$model", "dataset": "$dataset", "min_confidence_permille": 500, "scope": "ALL"},
            ),
            "manipulate": R(
                "POST /api/job.manipulate", "job.id", json={"dataset": "$dataset", "name": "$name", **OPERATIONS}
            ),
            "convert": R("POST /api/job.convert", "job.id", json={"model": "$model", "target": "openvino"}),
            "rent": R("POST /api/job.rent", "job.id", json={"device": "jetson-nano", "duration_s": 1800}),
            "poll": R("GET /api/job.get?id=$job", "job"),
            "cancel": R("POST /api/job.cancel", json={"id": "$job"}),
            "keys": R("GET /api/job.list?kind=train&ref=key-train", "jobs.*.ref"),
            "models": R("GET /api/model.list", "models.*.id"),
            "model": R("GET /api/model.get?id=$model", "model.metrics.accuracy"),
            "conversions": R("GET /api/model.conversions?id=$model", "conversions.*.target"),
            "download": R("GET /api/model.download?id=$model&target=openvino"),
        },
        made={
            "state": "state",
            "model": "model",
            "dataset": "dataset",
            "device": "device",
            "accuracy": "metrics_permille.accuracy",
            "message": "detail",
        },
        words=("new", "active", "ok", "error", "cancelled"),
        failure="code",
        failures=("NOT_FOUND", "LOCKED", "DUPLICATE", "BAD_REQUEST", "BUSY", "ALREADY_ENDED"),
        unknown="D9999",
    ),
    "no_list_no_cancel": Style(
        headers={"X-Api-Key": "gallery-api-key"},
        calls={
            "create": R("POST /api/lab/datasets", "id", json={"name": "$name"}),
            "get": R("GET /api/lab/datasets/$dataset"),
            "names": R("GET /api/lab/datasets", "*.name"),
            "delete": R("POST /api/lab/datasets/$dataset/delete"),
            "category": R("POST /api/lab/datasets/$dataset/categories", "id", json={"name": "$name"}),
            "categories": R("GET /api/lab/datasets/$dataset/categories", "*.name"),
            "begin": R("POST /api/lab/datasets/$dataset/upload", "upload_id"),
            "image": R(
                "POST /api/lab/uploads/$upload/image", data={"category_id": "$category"}, files={"image": "$file"}
            ),
            "end": R("POST /api/lab/uploads/$upload/done"),
            "digests": R("GET /api/lab/datasets/$dataset/images", "*.sha256"),
            "train": R(
                "POST /api/lab/train", "id", json={"dataset_ids": ["$dataset"], "name": "$name", "detector": False}
            ),
            "retrain": R(
                "POST /api/lab/retrain", "id", json={"model_id": "$model", "dataset_ids": ["$dataset"], "name": "$name"}
            ),
            "predict": R(
                "POST /api/lab/predict",
                "id",
                json={"model_id": "$model", "dataset_id": "$dataset", "confidence": 0.5, "mode": 0},
            ),
            "manipulate": R(
                "POST /api/lab/manipulate",
                "id",
                json={"dataset_id": "$dataset", "name": "$name", "operations": [*OPERATIONS.items()]},
            ),
            "convert": R("POST /api/lab/convert", "id", json={"model_id": "$model", "hardware": "openvino"}),
            "rent": R("POST /api/lab/devices/rent", "id", json={"hardware": "jetson-nano", "seconds": 1800}),
            "poll": R("GET /api/lab/jobs/$job"),
            "cancel rent": R("POST /api/lab/devices/return", json={"rental": "$job"}),
            "models": R("GET /api/lab/models", "*.id"),
            "model": R("GET /api/lab/models/$model", "metrics.accuracy"),
            "conversions": R("GET /api/lab/models/$model/conversions", "*.hardware"),
            "download": R("GET /api/lab/models/$model/files/openvino"),
        },
        made={
            "state": "status",
            "model": "result.model_id",
            "dataset": "result.dataset_id",
            "device": "result.device_id",
            "accuracy": "result.metrics.accuracy",
            "message": "error",
        },
        words=("created", "processing", "complete", "error", "returned"),
        failures=(404, 423, 409, 422, 503, 409),
    ),
    "text_answers": Style(
        calls={
            "create": R("POST /api/sets", data={"name": "$name"}),
            "get": R("GET /api/sets/$dataset"),
            "names": R("GET /api/sets", "*.name"),
            "delete": R("POST /api/sets/$dataset/drop"),
            "category": R("POST /api/sets/$dataset/classes", data={"name": "$name"}),
            "categories": R("GET /api/sets/$dataset/classes", "*.name"),
            "begin": R("POST /api/sets/$dataset/begin"),
            "image": R("POST /api/uploads/$upload/add", data={"class": "$category"}, files={"picture": "$file"}),
            "end": R("POST /api/uploads/$upload/end"),
            "digests": R("GET /api/sets/$dataset/images", "*.sha256"),
            "train": R("POST /api/tasks/train", data={"set": "$dataset", "name": "$name", "type": "C", "memo": "$key"}),
            "retrain": R("POST /api/tasks/retrain", data={"model": "$model", "set": "$dataset", "name": "$name"}),
            "predict": R("POST /api/tasks/predict", data={"model": "$model", "set": "$dataset", "confidence": "0.5"}),
            "manipulate": R(
                "POST /api/tasks/manipulate",
                data={
                    "set": "$dataset",
                    "name": "$name",
                    "ops": OPS,
                },
            ),
            "convert": R("POST /api/tasks/convert", data={"model": "$model", "board": "openvino"}),
            "rent": R("POST /api/tasks/rent", data={"board": "jetson-nano", "time": "30m"}),
            "poll": R("GET /api/tasks/$kind/$job", lambda word: {"word": word}),
            "cancel": R("POST /api/tasks/$kind/$job/abort"),
            "models": R("GET /api/models", lambda rows: [str(row["number"]) for row in rows]),
            "model": R("GET /api/models/$model", "quality.accuracy"),
            "conversions": R("GET /api/models/$model/builds", "*.board"),
            "download": R("GET /api/models/$model/load?board=openvino"),
        },
        made={"state": "word", "model": "$job", "dataset": "$job", "device": "$job"},
        words=("Waiting", "Working", "Completed", "Faulted", "Aborted"),
    ),
    "graph_objects": Style(
        calls={
            "create": R("POST /api/datasets", "dataset.id", json={"dataset": {"name": "$name"}}),
            "get": R("GET /api/datasets/$dataset"),
            "names": R("GET /api/datasets", "datasets.nodes.*.name"),
            "delete": R("DELETE /api/datasets/$dataset"),
            "category": R(
                "POST /api/datasets/$dataset/categories", "category.id", json={"category": {"name": "$name"}}
            ),
            "categories": R("GET /api/datasets/$dataset/categories", lambda answer: list(answer["categories"])),
            "begin": R("POST /api/datasets/$dataset/sessions", "session.id"),
            "image": R(
                "POST /api/sessions/$upload/photos", data={"category": "$name", "coco": COCO}, files={"photo": "$file"}
            ),
            "end": R("POST /api/sessions/$upload/actions", json={"action": {"name": "close"}}),
            "digests": R("GET /api/datasets/$dataset/photos", "photos.nodes.*.file.sha256"),
            "train": R(
                "POST /api/trainings",
                "training.id",
                json={
                    "training": {
                        "datasets": [{"id": "$dataset"}],
                        "model": {"name": "$name", "type": {"name": "classification"}},
                        "client": {"key": "$key"},
                    }
                },
            ),
            "retrain": R(
                "POST /api/retrainings",
                "retraining.id",
                json={
                    "retraining": {
                        "base": {"id": "$model"},
                        "datasets": [{"id": "$dataset"}],
                        "model": {"name": "$name"},
                    }
                },
            ),
            "predict": R(
                "POST /api/predictions",
                "prediction.id",
                json={
                    "prediction": {
                        "model": {"id": "$model"},
                        "dataset": {"id": "$dataset"},
                        "filter": {"confidence": {"min": 0.5}, "photos": {"name": "all"}},
                    }
                },
            ),
            "manipulate": R(
                "POST /api/manipulations",
                "manipulation.id",
                json={
                    "manipulation": {
                        "dataset": {"id": "$dataset"},
                        "result": {"name": "$name"},
                        "operations": {
                            "rotation": {"angle": {"degrees": 90}, "copies": 2},
                            "light": LIGHT,
                            "size": SIZE,
                        },
                    }
                },
            ),
            "convert": R(
                "POST /api/conversions",
                "conversion.id",
                json={"conversion": {"model": {"id": "$model"}, "hardware": {"name": "openvino"}}},
            ),
            "rent": R(
                "POST /api/rentals",
                "rental.id",
                json={"rental": {"device": {"name": "jetson-nano"}, "duration": {"seconds": 1800}}},
            ),
            "poll": R("GET /api/${kind}s/$job", lambda answer: next(iter(answer.values()))),
            "cancel": R("POST /api/${kind}s/$job/actions", json={"action": {"name": "stop"}}),
            "keys": R("GET /api/trainings?client.key=key-train", "trainings.nodes.*.client.key"),
            "models": R("GET /api/models", "models.nodes.*.id"),
            "model": R("GET /api/models/$model", "model.evaluation.validation.scores.accuracy.value"),
            "conversions": R("GET /api/models/$model/conversions", "conversions.nodes.*.hardware.name"),
            "download": R("GET /api/models/$model/files?hardware=openvino"),
        },
        made={
            "state": "status.text",
            "model": "model.id",
            "dataset": "dataset.id",
            "device": "device.id",
            "accuracy": "evaluation.validation.scores.accuracy.value",
            "message": "problem.text",
        },
        words={
            "train": ("Accepted", "Learning", "Completed", "Crashed", "Stopped"),
            "retrain": ("Accepted", "Learning", "Completed", "Crashed", "Stopped"),
            "predict": ("Accepted", "Labelling", "Labelled", "Crashed", "Stopped"),
            "manipulate": ("Accepted", "Generating", "Generated", "Crashed", "Stopped"),
            "convert": ("Accepted", "Compiling", "Compiled", "Crashed", "Stopped"),
            "rent": ("Preparing", "Completed", "Expired", "Crashed", "Returned"),
        },
        kinds=("training", "retraining", "prediction", "manipulation", "conversion", "rental"),
        failure="problem.status",
    ),
}
