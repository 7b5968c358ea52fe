"""What the six kinds of job do, seen from the API."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import httpx
import pytest
from PIL import Image

from airflow_provider_osai.api.manipulation import ManipulationRequest, Resize
from airflow_provider_osai.api.requests import ConversionRequest, PredictionRequest, RetrainingRequest
from airflow_provider_osai.sandbox.records import JobRecord
from airflow_provider_osai.sandbox.scripts import Script
from airflow_provider_osai.sandbox.work import Work
from tests.sandbox.client import png, shades


def test_training_reports_model_metrics_and_history(trained):
    """A training's end has all that a gate or a chart needs."""
    job = trained.training
    model = trained.ok("GET", f"/Models/{trained.model_id}")
    assert job["status"] == "succeeded"
    assert job["progress"] == 1.0
    assert len(job["history"]) == 20
    assert job["result"]["metrics"]["accuracy"] == 1.0
    assert model["metrics"] == job["result"]["metrics"]
    assert (model["name"], model["modelType"]) == ("m", "classification")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "nothing to train on"),
        ({"dark": [png()] * 3}, "at least 2"),
        ({"a": [png()] * 3, "b": [png(1)]}, "b has 1"),
    ],
    ids=["no images", "one category", "one image"],
)
def test_training_on_too_little_fails_and_says_why(api, images, message):
    """The job fails, not the request: the API only sees it when it works."""
    job = api.train(api.dataset(images))
    assert job["status"] == "failed"
    assert message in job["message"]
    assert job["result"] is None


def test_training_on_several_datasets_learns_their_categories_by_name(api):
    """The same name is the same category."""
    images = shades(4)
    ids = [api.dataset(images), api.dataset(images), api.dataset({"mid": [png(120 + i) for i in range(4)]})]
    job = api.run("Trainings", datasetIds=ids, modelName="m", parameters={"epochs": 1})
    assert job["result"]["metrics"] | {"images": 20, "categories": 3} == job["result"]["metrics"]


def test_training_names_the_parameters_that_it_ignored(api):
    """Nobody is left to believe that they had an effect."""
    job = api.train(api.dataset(shades(3)), epochs=1, momentum=0.9)
    assert job["status"] == "succeeded"
    assert "momentum" in job["message"]


def test_detection_models_are_simulated_and_say_so(api):
    """So is everything that is made of them."""
    dataset_id = api.dataset(shades(3))
    training = api.run("Trainings", datasetIds=[dataset_id], modelName="m", modelType="detection")
    model_id = training["result"]["modelId"]
    converted = api.run("Conversions", modelId=model_id, target="onnx")
    predicted = api.run("Predictions", modelId=model_id, datasetId=dataset_id)
    assert all("simulated" in job["message"] for job in (training, converted, predicted))


def test_running_training_is_cancelled_at_its_next_epoch(api):
    """The history ends where it was stopped, and there is no model."""
    dataset_id = api.dataset(shades(3))
    job_id = api.ok("POST", "/Trainings", json={
        "datasetIds": [dataset_id], "modelName": "m", "parameters": {"epochs": 10_000},
    })["id"]  # fmt: skip
    while not api.ok("GET", f"/Trainings/{job_id}")["history"]:
        pass
    api.ok("POST", f"/Trainings/{job_id}/Cancel")
    job = api.ended("Trainings", job_id)
    assert job["status"] == "cancelled"
    assert 0 < job["progress"] < 1
    assert job["result"] is None


def test_retraining_makes_a_new_model_of_the_old(trained):
    """The old one stays."""
    body = {"modelId": trained.model_id, "datasetIds": [trained.dataset_id], "modelName": "m2"}
    job = trained.run("Retrainings", **body, parameters={"epochs": 2})
    assert len(job["history"]) == 2
    assert job["result"]["modelId"] != trained.model_id
    assert job["result"]["metrics"]["accuracy"] == 1.0
    assert trained.ok("GET", f"/Models/{job['result']['modelId']}")["name"] == "m2"


def test_conversion_to_an_unsupported_target_fails_with_the_vendors_word(trained):
    """OSAI marks impossible conversions UNSUPPORTED."""
    job = trained.run("Conversions", modelId=trained.model_id, target="unsupported")
    assert job["status"] == "failed"
    assert "UNSUPPORTED" in job["message"]


def test_conversion_to_other_targets_is_simulated_and_can_be_downloaded(trained):
    """The file says what it is."""
    job = trained.run("Conversions", modelId=trained.model_id, target="Jetson")
    answer = trained.get(f"/Models/{trained.model_id}/Download", params={"target": "jetson"})
    assert "simulated" in job["message"]
    assert b"simulated" in answer.content
    assert job["result"]["metrics"]["bytes"] == len(answer.content)


def test_download_of_what_was_not_converted_is_not_found(trained):
    """The message says what there is."""
    answer = trained.get(f"/Models/{trained.model_id}/Download", params={"target": "coral"})
    assert answer.status_code == 404
    assert "coral" in answer.json()["message"]


@pytest.mark.parametrize("resource", ["Conversions", "Retrainings", "Predictions"])
def test_job_on_an_unknown_model_is_not_found(trained, resource):
    """Such a job is never queued."""
    bodies = {
        "Conversions": {"target": "onnx"},
        "Retrainings": {"datasetIds": [trained.dataset_id], "modelName": "m"},
        "Predictions": {"datasetId": trained.dataset_id},
    }
    assert trained.post(f"/{resource}", json={"modelId": "nobody", **bodies[resource]}).status_code == 404


def test_prediction_of_unannotated_images_leaves_the_others_alone(trained):
    """Only images without any annotation get a label."""
    dataset_id = trained.dataset({"light": [png(20)], "": [png(15), png(200)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="unannotated")
    images = trained.sandbox.control.images(dataset_id)
    assert job["result"]["metrics"] | {"images": 3, "labelled": 2, "skipped": 1} == job["result"]["metrics"]
    assert [[label["name"] for label in image["labels"]] for image in images] == [[], ["dark"], ["light"]]


def test_prediction_of_all_images_adds_labels_and_is_measured_on_what_is_known(trained):
    """What the user said stays, and is what accuracy is measured by."""
    dataset_id = trained.dataset({"light": [png(20), png(210)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="all")
    images = trained.sandbox.control.images(dataset_id)
    assert job["result"]["metrics"]["accuracy"] == 0.5
    assert [image["category"] for image in images] == ["light", "light"]
    assert [image["labels"][0]["name"] for image in images] == ["dark", "light"]


def test_prediction_that_replaces_leaves_only_its_own_labels(trained):
    """Old labels go, the user's too."""
    dataset_id = trained.dataset({"light": [png(20)]})
    for _ in range(2):
        trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="replace")
    (image,) = trained.sandbox.control.images(dataset_id)
    assert image["category"] == "dark"
    assert len(image["labels"]) == 1


def test_prediction_below_the_confidence_asked_for_writes_no_label(trained):
    """No model is ever wholly sure."""
    dataset_id = trained.dataset({"": [png(20), png(128)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, minConfidence=1.0)
    assert job["result"]["metrics"]["labelled"] == 0
    assert not any(image["labels"] for image in trained.sandbox.control.images(dataset_id))


def test_manipulation_makes_a_new_larger_dataset(trained):
    """Categories go with their images; the source stays as it is."""
    body = {
        "datasetId": trained.dataset_id,
        "name": "more",
        "operations": [{"type": "rotation", "angle": 9, "generate": 2}],
    }
    job = trained.run("Manipulations", **body)
    made = trained.ok("GET", f"/Datasets/{job['result']['datasetId']}")
    images = trained.sandbox.control.images(made["id"])
    assert (made["name"], made["imageCount"], made["locked"]) == ("more", 72, False)
    assert {image["category"] for image in images} == {"dark", "light"}
    assert trained.ok("GET", f"/Datasets/{trained.dataset_id}")["imageCount"] == 24


def test_manipulation_writes_real_images(trained):
    """What was resized has its new size on the disk."""
    operations = [{"type": "resize", "width": 5, "height": 3}]
    job = trained.run("Manipulations", datasetId=trained.dataset_id, name="small", operations=operations)
    path = next((trained.sandbox.state.folder / job["result"]["datasetId"]).iterdir())
    assert Image.open(io.BytesIO(path.read_bytes())).size == (5, 3)


def test_manipulation_that_fails_leaves_no_dataset_behind(trained):
    """Half a dataset is of no use."""
    body = {
        "datasetId": trained.dataset_id,
        "name": "broken",
        "operations": [{"type": "resize", "width": 9, "height": 9999}],
    }
    assert trained.run("Manipulations", **body)["status"] == "failed"
    assert trained.ok("GET", "/Datasets", params={"name": "broken"}) == []


@pytest.mark.parametrize("kind", ["predictions", "manipulations", "conversions", "retrainings"])
def test_what_a_job_changes_is_seen_when_it_ends_and_not_before(trained, kind):
    """A job that is worked on and never ends leaves no half of anything."""
    state, ids = trained.sandbox.state, {"dataset_id": trained.dataset_id, "model_id": trained.model_id}
    request = {
        "predictions": PredictionRequest(**ids),
        "manipulations": ManipulationRequest(
            dataset_id=trained.dataset_id, name="unseen", operations=[Resize(width=4, height=4)]
        ),
        "conversions": ConversionRequest(model_id=trained.model_id, target="unseen"),
        "retrainings": RetrainingRequest(
            model_id=trained.model_id, dataset_ids=trained.dataset_id, model_name="unseen", parameters={"epochs": 1}
        ),
    }[kind]
    known = seen(state, trained.dataset_id)
    outcome = Work(state).perform(JobRecord("never-submitted", request.kind, request, Script(), 0.0))
    assert seen(state, trained.dataset_id) == known
    outcome.effect()
    assert seen(state, trained.dataset_id) != known


def seen(state, dataset_id):
    """Return all that jobs change."""
    labels = [len(image.labels) for image, _ in state.datasets.get(dataset_id).snapshot()]
    files = [sorted(model.files) for model in state.models.values()]
    return labels, files, [dataset.name for dataset in state.datasets.find(None)]


def test_device_rental_is_simulated_and_says_so(trained):
    """There are no devices in a sandbox."""
    rental = trained.ok("POST", "/DeviceRentals", json={"device": "jetson-nano", "duration": 60})
    job = trained.ok("GET", f"/DeviceRentals/{rental['id']}")
    assert job["status"] == "running"
    assert job["result"]["deviceId"]
    assert "simulated" in job["message"]


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [{"type": "sepia"}],
        [{"angle": 3}],
        [{"type": "rotation", "angle": 361}],
        [{"type": "rotation", "angle": 3, "generate": 36}],
        [{"type": "brightness_contrast", "contrast": 3.1, "brightness": 0}],
        [{"type": "resize", "width": 3}],
        [{"type": "resize", "width": 3, "height": 3}] * 2,
    ],
)
def test_manipulation_beyond_what_is_documented_is_refused_at_once(trained, operations):
    """As OSAI would refuse it; no job is made."""
    body = {"datasetId": trained.dataset_id, "name": "never", "operations": operations}
    assert trained.post("/Manipulations", json=body).status_code == 400


def test_manipulation_takes_all_categories_along_and_annotations_where_they_still_fit(api):
    """Boxes are fractions of the image, and name a category of the new dataset; turned images have none."""
    dataset_id = api.dataset({"cat": []})
    api.dataset({"dog": [png()]}, name="other")
    (category,) = api.ok("GET", "/Categories", params={"datasetId": dataset_id})
    box = {"categoryId": category["id"], "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    assert api.image(dataset_id, upload_id, png(), annotations=json.dumps([box])).is_success
    api.ok("POST", f"/Datasets/{dataset_id}/FinishUploading", params={"datasetUploadId": upload_id})
    operations = [
        {"type": "resize", "width": 4, "height": 2},
        {"type": "brightness_contrast", "contrast": 1, "brightness": 9},
        {"type": "rotation", "angle": 9, "generate": 2},
    ]
    job = api.run("Manipulations", datasetId=dataset_id, name="more", operations=operations)
    (new,) = api.ok("GET", "/Categories", params={"datasetId": job["result"]["datasetId"]})
    assert (new["name"], new["id"] == category["id"]) == ("cat", False)
    record = api.sandbox.state.datasets.get(job["result"]["datasetId"])
    marked = [image.annotations for image in record.images.values() if image.annotations]
    assert marked == [[{**box, "categoryId": new["id"]}]] * 2
    assert (len(record.images), job["result"]["metrics"]["annotations_left_out"]) == (6, 4)
    assert "4 turned images have no annotations" in job["message"]


def test_manipulation_says_how_many_turned_images_it_left_out(trained):
    """The result may have fewer images than one would think."""
    operations = [{"type": "rotation", "angle": 45, "generate": 3, "cropThreshold": 0}]
    job = trained.run("Manipulations", datasetId=trained.dataset_id, name="same", operations=operations)
    assert job["result"]["metrics"]["images_made"] == 24
    assert job["result"]["metrics"]["images_left_out"] == 72


def test_a_models_conversions_are_listed(trained):
    """Those that succeeded by their own id, the impossible ones with the vendor's word."""
    made = trained.run("Conversions", modelId=trained.model_id, target="myriad")
    failed = trained.run("Conversions", modelId=trained.model_id, target="unsupported")
    listed = {one["jobId"]: one for one in trained.ok("GET", f"/Models/{trained.model_id}/Conversions")}
    assert listed[made["id"]]["id"] == made["result"]["conversionId"]
    assert (listed[made["id"]]["target"], listed[made["id"]]["status"]) == ("myriad", "succeeded")
    assert listed[failed["id"]]["status"] == "UNSUPPORTED"


def test_a_file_can_be_had_in_parts_as_long_as_it_is_the_same(trained):
    """By its strong ETag."""
    trained.run("Conversions", modelId=trained.model_id, target="parts")
    path, params = f"/Models/{trained.model_id}/Download", {"target": "parts"}
    whole = trained.get(path, params=params)
    asked = {"Range": "bytes=5-", "If-Range": whole.headers["etag"]}
    part = trained.get(path, params=params, headers=asked)
    assert (part.status_code, part.content) == (206, whole.content[5:])
    other = trained.get(path, params=params, headers=asked | {"If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)
    digest = base64.b64encode(hashlib.sha256(whole.content).digest()).decode()
    assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize("keep", [0, 7])
def test_a_download_can_be_cut_in_its_middle(trained, keep):
    """What comes before comes for sure."""
    trained.run("Conversions", modelId=trained.model_id, target="cut")
    trained.sandbox.control.fault("cut", "model.download", keep=keep)
    came = []
    with (
        trained.stream("GET", f"/Models/{trained.model_id}/Download", params={"target": "cut"}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        came.extend(answer.iter_bytes(1))
    assert b"".join(came) == b"simulated conversion\n"[:keep]
