"""The six kinds of job, tested over the API."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import httpx
import pytest
from PIL import Image

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.manipulation import ManipulationRequest, Resize
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import ConversionRequest, PredictionRequest, RetrainingRequest
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.job_runner import JobRunner
from airflow_provider_osai.sandbox.models import JobRecord
from airflow_provider_osai.sandbox.scenarios import Script
from tests.sandbox.client import Api, png, shades


def test_training_reports_model_metrics_and_history(trained):
    job = trained.training
    model = trained.ok("GET", f"/Models/{trained.model_id}")
    assert job["status"] == "succeeded"
    assert job["progress"] == 1.0
    assert len(job["history"]) == 20
    assert job["result"]["metrics"]["accuracy"] == 1.0
    assert model["metrics"] == job["result"]["metrics"]
    assert (model["name"], model["modelType"]) == ("m", "classification")


def diagonal(matrix):
    return sum(row[index] for index, row in enumerate(matrix["rows"]))


def test_training_has_a_confusion_matrix_of_the_held_out_images(trained):
    result = trained.training["result"]
    matrix = result["confusionMatrix"]
    assert matrix["labels"] == ["dark", "light"]
    assert sum(map(sum, matrix["rows"])) == result["metrics"]["held_out"]
    assert diagonal(matrix) / result["metrics"]["held_out"] == result["metrics"]["accuracy"]
    assert "samples" not in result


def test_retraining_has_a_confusion_matrix(trained):
    body = {"modelId": trained.model_id, "datasetIds": [trained.dataset_id], "modelName": "m2"}
    result = trained.run("Retrainings", **body, parameters={"epochs": 1})["result"]
    assert sum(map(sum, result["confusionMatrix"]["rows"])) == result["metrics"]["held_out"]


def test_lists_of_jobs_have_neither_confusion_matrix_nor_samples(trained):
    """A list of a hundred jobs with them would be too large to be read."""
    prediction = trained.run("Predictions", modelId=trained.model_id, datasetId=trained.dataset_id)
    for resource, job in (("Trainings", trained.training), ("Predictions", prediction)):
        (listed,) = trained.ok("GET", f"/{resource}", params={"ids": job["id"]})
        assert listed["result"] == {
            name: value for name, value in job["result"].items() if name not in ("confusionMatrix", "samples")
        }
        assert trained.ok("GET", f"/{resource}/{job['id']}")["result"] == job["result"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "No images to train on"),
        ({"dark": [png()] * 3}, "at least 2"),
        ({"a": [png()] * 3, "b": [png(1)]}, "b has 1"),
    ],
    ids=["no images", "one category", "one image"],
)
def test_training_without_enough_images_fails_with_the_reason(api, images, message):
    """The job fails, not the request."""
    job = api.train(api.dataset(images))
    assert job["status"] == "failed"
    assert message in job["message"]
    assert job["result"] is None


def test_training_merges_categories_of_several_datasets_by_name(api):
    images = shades(4)
    ids = [api.dataset(images), api.dataset(images), api.dataset({"mid": [png(120 + i) for i in range(4)]})]
    job = api.run("Trainings", datasetIds=ids, modelName="m", parameters={"epochs": 1})
    assert job["result"]["metrics"] | {"images": 20, "categories": 3} == job["result"]["metrics"]


def test_a_training_that_is_stopped_keeps_the_model_of_its_epochs(trained):
    """Where the contract has the operation; by default there is no such path."""
    epochs = 10_000
    assert trained.post(f"/Trainings/{trained.training['id']}/Stop").status_code == 404
    with Sandbox(contract=apply_overrides(Contract(), {"training.stop": {}})) as sandbox, Api(sandbox) as api:
        body = {"datasetIds": [api.dataset(shades(8))], "modelName": "m", "parameters": {"epochs": epochs}}
        job_id = api.ok("POST", "/Trainings", json=body)["id"]
        for _ in range(2):  # a repeated request is no error
            assert api.post(f"/Trainings/{job_id}/Stop").is_success
        job = api.ended("Trainings", job_id)
        assert job["status"] == "succeeded"
        metrics = job["result"]["metrics"]
        assert len(job["history"]) == metrics["epochs"] < epochs
        assert api.ok("GET", f"/Models/{job['result']['modelId']}")["metrics"] == metrics


def test_training_lists_ignored_parameters(api):
    job = api.train(api.dataset(shades(3)), epochs=1, momentum=0.9)
    assert job["status"] == "succeeded"
    assert "momentum" in job["message"]
    assert job["simulated"] is False


def test_training_lists_ignored_framework_pretrained_model_and_template(api):
    ignored = {"framework": "PyTorch", "pretrainedModel": "resnet", "template": "fast"}
    job = api.run("Trainings", datasetIds=[api.dataset(shades(3))], modelName="m", parameters={"epochs": 1}, **ignored)
    assert job["message"] == "ignored by the sandbox: framework, pretrained_model, template"
    assert api.train(api.dataset(shades(3)), epochs=1)["message"] is None


def test_detection_models_and_their_jobs_are_simulated_without_metrics(api):
    dataset_id = api.dataset(shades(3))
    training = api.run("Trainings", datasetIds=[dataset_id], modelName="m", modelType="detection")
    model_id = training["result"]["modelId"]
    made = [
        training,
        api.run("Conversions", modelId=model_id, target="onnx"),
        api.run("Predictions", modelId=model_id, datasetId=dataset_id),
        api.run("Retrainings", modelId=model_id, datasetIds=[dataset_id], modelName="m2"),
    ]
    assert all("simulated" in job["message"] for job in made)
    assert [job["simulated"] for job in made] == [True] * 4
    measured = {"metrics", "confusionMatrix", "samples"}
    assert [measured & set(job["result"]) for job in made] == [set()] * 4
    assert not api.ok("GET", f"/Models/{model_id}")["metrics"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"timing": "work"}, False),
        ({"timing": "work", "message": "well done"}, False),
        ({"timing": "work", "end": "succeeded"}, False),
        ({"timing": "work", "metrics": {"accuracy": 0.99}}, True),
        ({"timing": "work", "end": "failed"}, True),
        ({"timing": "immediate"}, True),
        ({"timing": "immediate", "metrics": {"accuracy": 0.99}, "message": "trained at night"}, True),
        ({"timing": "reads", "reads": 1}, True),
        ({"timing": "seconds", "seconds": 0.01}, True),
    ],
)
def test_scripted_outcome_is_marked_as_simulated(api, script, expected):
    """Whatever the script's message; metrics are measured or the script's, and there are no others."""
    dataset_id = api.dataset(shades(3))
    api.sandbox.control.script("training", **script)
    job = api.train(dataset_id, epochs=1)
    assert job["simulated"] is expected
    assert api.ok("GET", "/Trainings", params={"ids": job["id"]})[0]["simulated"] is expected
    measured = {"f1", "loss", "images"} if script["timing"] == "work" and script.get("end") != "failed" else set()
    metrics = (job["result"] or {}).get("metrics") or {}
    assert measured <= set(metrics)
    if not measured:
        assert metrics == script.get("metrics", {})
    assert ("confusionMatrix" in (job["result"] or {})) is not expected


def test_simulated_job_is_marked_from_its_submission_on(api):
    """Also on the portal's page."""
    body = {"datasetIds": [api.dataset(shades(3))], "modelName": "m"}
    api.sandbox.control.script("training", "reads", reads=9)
    job = api.ok("POST", "/Trainings", json=body)
    assert (job["status"], job["simulated"]) == ("queued", True)
    page = httpx.get(f"{api.sandbox.portal_url}/trainings/{job['id']}").text
    assert "<td>simulated</td><td>True</td>" in page


def test_running_training_is_cancelled_at_its_next_epoch(api):
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


def test_retraining_creates_a_new_model(trained):
    body = {"modelId": trained.model_id, "datasetIds": [trained.dataset_id], "modelName": "m2"}
    job = trained.run("Retrainings", **body, parameters={"epochs": 2})
    assert len(job["history"]) == 2
    assert job["result"]["modelId"] != trained.model_id
    assert job["result"]["metrics"]["accuracy"] == 1.0
    assert trained.ok("GET", f"/Models/{job['result']['modelId']}")["name"] == "m2"


def test_conversion_to_an_unsupported_target_fails_with_unsupported(trained):
    job = trained.run("Conversions", modelId=trained.model_id, target="unsupported")
    assert job["status"] == "failed"
    assert "UNSUPPORTED" in job["message"]


def test_conversion_to_other_targets_is_simulated_and_can_be_downloaded(trained):
    job = trained.run("Conversions", modelId=trained.model_id, target="Jetson")
    response = trained.get(f"/Models/{trained.model_id}/Download", params={"target": "jetson"})
    assert "simulated" in job["message"]
    assert job["simulated"] is True
    assert b"simulated" in response.content
    assert "metrics" not in job["result"]


@pytest.mark.parametrize("scripted", [True, False])
def test_simulated_conversion_is_not_named_onnx(trained, scripted):
    model_id = trained.model_id
    if scripted:
        trained.sandbox.control.script("conversion", "immediate")
    else:
        body = {"datasetIds": [trained.dataset_id], "modelName": "m", "modelType": "detection"}
        model_id = trained.run("Trainings", **body)["result"]["modelId"]
    try:
        trained.run("Conversions", modelId=model_id, target="ONNX")
    finally:
        trained.sandbox.control.script("conversion")
    response = trained.get(f"/Models/{model_id}/Download", params={"target": "onnx"})
    assert ".onnx" not in response.headers["content-disposition"]
    assert ".simulated.txt" in response.headers["content-disposition"]
    listed = trained.ok("GET", f"/Models/{model_id}/Conversions")
    assert [conversion["simulated"] for conversion in listed if conversion["target"] == "ONNX"] == [True]


def test_download_without_a_conversion_returns_404(trained):
    response = trained.get(f"/Models/{trained.model_id}/Download", params={"target": "coral"})
    assert response.status_code == 404
    assert "coral" in response.json()["message"]


@pytest.mark.parametrize("resource", ["Conversions", "Retrainings", "Predictions"])
def test_job_on_an_unknown_model_returns_404(trained, resource):
    bodies = {
        "Conversions": {"target": "onnx"},
        "Retrainings": {"datasetIds": [trained.dataset_id], "modelName": "m"},
        "Predictions": {"datasetId": trained.dataset_id},
    }
    assert trained.post(f"/{resource}", json={"modelId": "unknown", **bodies[resource]}).status_code == 404


def test_prediction_of_unannotated_images_skips_the_others(trained):
    dataset_id = trained.dataset({"light": [png(20)], "": [png(15), png(200)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="unannotated")
    images = trained.sandbox.control.images(dataset_id)
    assert job["result"]["metrics"] | {"images": 3, "labelled": 2, "skipped": 1} == job["result"]["metrics"]
    assert [[label["name"] for label in image["labels"]] for image in images] == [[], ["dark"], ["light"]]


def test_prediction_of_all_images_adds_labels_and_is_measured_on_the_users_categories(trained):
    dataset_id = trained.dataset({"light": [png(20), png(210)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="all")
    images = trained.sandbox.control.images(dataset_id)
    assert job["result"]["metrics"]["accuracy"] == 0.5
    assert [image["category"] for image in images] == ["light", "light"]
    assert [image["labels"][0]["name"] for image in images] == ["dark", "light"]


def macro_f1(truth, predicted):
    """Return the macro F1 by its definition: the mean over all true or predicted categories."""
    scores = []
    for name in {*truth, *predicted}:
        right = sum(a == b == name for a, b in zip(truth, predicted, strict=True))
        scores.append(2 * right / (truth.count(name) + predicted.count(name)))
    return sum(scores) / len(scores)


def test_prediction_has_the_metrics_of_a_training(trained):
    """So that a gate's guardrail on f1 or loss works with a holdout; two of six are wrong here."""
    images = {"dark": [png(20), png(30), png(40), png(210)], "light": [png(220), png(25)]}
    dataset_id = trained.dataset(images)
    body = {"modelId": trained.model_id, "datasetId": dataset_id, "minConfidence": 1.0}
    metrics = trained.run("Predictions", **body)["result"]["metrics"]
    truth = ["dark"] * 4 + ["light"] * 2
    predicted = ["dark"] * 3 + ["light"] * 2 + ["dark"]
    assert metrics["f1"] == pytest.approx(macro_f1(truth, predicted), abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(4 / 6, abs=1e-5)
    assert metrics["loss"] > 0
    assert {"accuracy", "f1", "loss"} <= set(trained.training["result"]["metrics"])


def test_prediction_has_a_confusion_matrix_of_the_images_with_known_categories(trained):
    """Its accuracy is the metric; images without a category are not in it."""
    images = {"dark": [png(20), png(30), png(40), png(210)], "light": [png(220), png(25)], "": [png(10)]}
    result = trained.run("Predictions", modelId=trained.model_id, datasetId=trained.dataset(images))["result"]
    assert result["confusionMatrix"] == {"labels": ["dark", "light"], "rows": [[3, 1], [1, 1]]}
    assert diagonal(result["confusionMatrix"]) / 6 == pytest.approx(result["metrics"]["accuracy"], abs=1e-5)


def test_prediction_without_known_categories_has_samples_and_no_confusion_matrix(trained):
    """Labels of earlier predictions are no known categories."""
    dataset_id = trained.dataset({"": [png(20), png(210)]})
    for _ in range(2):
        result = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id)["result"]
        assert "confusionMatrix" not in result
        assert [(sample["predicted"], sample["actual"]) for sample in result["samples"]] == [
            (name, None) for name in sorted(["dark", "light"], key=lambda name: digest_of(name, dark=20, light=210))
        ]


def digest_of(name, **shades):
    """Images of one name are in the order of their digests."""
    return hashlib.sha256(png(shades[name])).hexdigest()


def test_samples_are_the_first_twenty_images_by_name(trained):
    """With the predicted and the user's category, whatever the minimum confidence, and before labels replace these."""
    dataset_id = trained.dataset({"dark": [], "light": []})
    ids = {each["name"]: each["id"] for each in trained.ok("GET", "/Categories", params={"datasetId": dataset_id})}
    upload_id = trained.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    for number in reversed(range(30)):
        name, shade = ("dark", 20 + number) if number % 2 else ("light", 190 + number)
        data = {"datasetUploadId": upload_id, "categoryId": ids[name if number else "dark"]}
        file = (f"{number:02}.png", png(shade))
        trained.post(f"/Datasets/{dataset_id}/Images", data=data, files={"file": file}).raise_for_status()
    trained.ok("POST", f"/Datasets/{dataset_id}/FinishUploading", params={"datasetUploadId": upload_id})
    body = {"modelId": trained.model_id, "datasetId": dataset_id, "mode": "replace", "minConfidence": 1.0}
    samples = trained.run("Predictions", **body)["result"]["samples"]
    assert [sample["fileName"] for sample in samples] == [f"{number:02}.png" for number in range(20)]
    assert [sample["predicted"] for sample in samples] == ["light", "dark"] * 10
    assert [sample["actual"] for sample in samples] == ["dark", "dark", *["light", "dark"] * 9]
    assert all(0.5 <= sample["confidence"] <= 1 for sample in samples)


def test_prediction_is_measured_on_categories_the_model_does_not_have(trained):
    """They count as wrong; only the loss is undefined then."""
    dataset_id = trained.dataset({"dark": [png(20)], "zebra": [png(21), png(22)]})
    metrics = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id)["result"]["metrics"]
    assert metrics["f1"] == pytest.approx(macro_f1(["dark", "zebra", "zebra"], ["dark"] * 3), abs=1e-5)
    assert "loss" not in metrics


def test_prediction_is_not_measured_on_labels_of_earlier_predictions(trained):
    """It would always be right."""
    dataset_id = trained.dataset({"": [png(20), png(210)]})
    for _ in range(2):
        job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id)
        assert not {"accuracy", "f1", "loss"} & set(job["result"]["metrics"])


def test_prediction_of_an_empty_dataset_has_counts_only(trained):
    """And numpy warns of nothing."""
    metrics = trained.run("Predictions", modelId=trained.model_id, datasetId=trained.dataset())["result"]["metrics"]
    assert metrics == {"images": 0, "labelled": 0, "skipped": 0}


def test_replacing_prediction_keeps_only_its_own_labels(trained):
    dataset_id = trained.dataset({"light": [png(20)]})
    for _ in range(2):
        trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, mode="replace")
    (image,) = trained.sandbox.control.images(dataset_id)
    assert image["category"] == "dark"
    assert len(image["labels"]) == 1


def test_prediction_below_the_minimum_confidence_writes_no_label(trained):
    dataset_id = trained.dataset({"": [png(20), png(128)]})
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=dataset_id, minConfidence=1.0)
    assert job["result"]["metrics"]["labelled"] == 0
    assert not any(image["labels"] for image in trained.sandbox.control.images(dataset_id))


def test_manipulation_creates_a_larger_dataset(trained):
    """Categories are copied; the source is unchanged."""
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


def test_manipulation_writes_resized_image_files(trained):
    operations = [{"type": "resize", "width": 5, "height": 3}]
    job = trained.run("Manipulations", datasetId=trained.dataset_id, name="small", operations=operations)
    path = next((trained.sandbox.state.folder / job["result"]["datasetId"]).iterdir())
    assert Image.open(io.BytesIO(path.read_bytes())).size == (5, 3)


def test_manipulation_applies_exif_and_scales_16_bits(api):
    """As the training does."""
    exif, turned, deep = Image.Exif(), io.BytesIO(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("L", (9, 4), 100).save(turned, "PNG", exif=exif)
    Image.new("I;16", (4, 9), 100 * 257).save(deep, "PNG")
    dataset_id = api.dataset({"": [turned.getvalue(), deep.getvalue()]})
    operations = [{"type": "brightness_contrast", "contrast": 1, "brightness": 0, "generate": 1}]
    job = api.run("Manipulations", datasetId=dataset_id, name="upright", operations=operations)
    made = [Image.open(path) for path in (api.sandbox.state.folder / job["result"]["datasetId"]).iterdir()]
    assert [(image.size, image.mode, image.getextrema()) for image in made] == [((4, 9), "L", (100, 100))] * 4


def test_failed_manipulation_leaves_no_dataset(trained):
    body = {
        "datasetId": trained.dataset_id,
        "name": "broken",
        "operations": [{"type": "resize", "width": 9, "height": 9999}],
    }
    assert trained.run("Manipulations", **body)["status"] == "failed"
    assert trained.ok("GET", "/Datasets", params={"name": "broken"}) == []


@pytest.mark.parametrize("kind", ["predictions", "manipulations", "conversions", "retrainings"])
def test_changes_of_a_job_are_visible_only_when_it_ends(trained, kind):
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
    known = visible_state(state, trained.dataset_id)
    outcome = JobRunner(state).run(JobRecord("never-submitted", request.kind, request, Script(), 0.0))
    assert visible_state(state, trained.dataset_id) == known
    outcome.effect()
    assert visible_state(state, trained.dataset_id) != known


def visible_state(state, dataset_id):
    """Return everything that jobs change."""
    labels = [len(image.labels) for image, _ in state.datasets.get(dataset_id).snapshot()]
    files = [sorted(model.files) for model in state.models.values()]
    return labels, files, [dataset.name for dataset in state.datasets.find(None)]


def test_device_rental_is_simulated(trained):
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
def test_manipulation_beyond_the_documented_limits_is_rejected_at_submission(trained, operations):
    body = {"datasetId": trained.dataset_id, "name": "never", "operations": operations}
    assert trained.post("/Manipulations", json=body).status_code == 400


def test_manipulation_copies_categories_and_annotations_that_still_fit(api):
    """Boxes are fractions of the image and refer to categories of the new dataset; rotated images have none."""
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
    assert "4 rotated images have no annotations" in job["message"]


def test_manipulation_returns_how_many_rotated_images_it_skipped(trained):
    operations = [{"type": "rotation", "angle": 45, "generate": 3, "cropThreshold": 0}]
    job = trained.run("Manipulations", datasetId=trained.dataset_id, name="same", operations=operations)
    assert job["result"]["metrics"]["images_made"] == 24
    assert job["result"]["metrics"]["images_left_out"] == 72


def test_conversions_of_a_model_are_listed(trained):
    """Successful ones with an id of their own, impossible ones as UNSUPPORTED."""
    made = trained.run("Conversions", modelId=trained.model_id, target="myriad")
    failed = trained.run("Conversions", modelId=trained.model_id, target="unsupported")
    listed = {
        conversion["jobId"]: conversion for conversion in trained.ok("GET", f"/Models/{trained.model_id}/Conversions")
    }
    assert listed[made["id"]]["id"] == made["result"]["conversionId"]
    assert (listed[made["id"]]["target"], listed[made["id"]]["status"]) == ("myriad", "succeeded")
    assert listed[failed["id"]]["status"] == "UNSUPPORTED"


def test_range_request_is_served_while_the_etag_matches(trained):
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
def test_cut_fault_truncates_a_download(trained, keep):
    """The bytes before the cut are always delivered."""
    trained.run("Conversions", modelId=trained.model_id, target="cut")
    trained.sandbox.control.fault("cut", "model.download", keep=keep)
    received = []
    with (
        trained.stream("GET", f"/Models/{trained.model_id}/Download", params={"target": "cut"}) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(response.iter_bytes(1))
    assert b"".join(received) == b"simulated conversion\n"[:keep]
