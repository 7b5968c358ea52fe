"""Datasets: lock, categories, images."""

from __future__ import annotations

import io

import pytest

from airflow_provider_osai.sandbox.models import ApiError
from tests.sandbox.client import png


def test_datasets_with_the_same_name_are_all_found(api):
    first, second = api.dataset(name="cats"), api.dataset(name="cats")
    api.dataset(name="dogs")
    datasets = api.ok("GET", "/Datasets", params={"name": "cats"})
    assert [dataset["id"] for dataset in datasets] == [first, second]
    assert len(api.ok("GET", "/Datasets")) == 3


def test_dataset_returns_its_lock_and_image_count(api):
    dataset_id = api.dataset({"dark": [png()]})
    upload = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")
    shown = api.ok("GET", f"/Datasets/{dataset_id}")
    assert shown.pop("updatedAt").endswith("Z")
    assert shown == {"id": dataset_id, "name": "data", "locked": True, "imageCount": 1}
    api.ok("POST", f"/Datasets/{dataset_id}/FinishUploading", params={"datasetUploadId": upload["id"]})
    assert api.ok("GET", f"/Datasets/{dataset_id}")["locked"] is False


def test_dataset_is_updated_when_images_or_categories_change(state, clock):
    """By a new category, a new image, and the end of an upload with images, but not of an empty upload."""
    dataset = state.datasets.create("d")
    seen = [dataset.updated]

    def at(seconds: float, act) -> None:
        clock.now = seen[0] + seconds
        act()
        seen.append(dataset.updated)

    at(1, lambda: state.datasets.create_category(dataset.id, "c"))
    at(2, lambda: state.datasets.start_upload(dataset.id))
    at(3, lambda: state.datasets.finish_upload(dataset.id, dataset.upload))
    at(4, lambda: state.datasets.start_upload(dataset.id))
    at(5, lambda: state.datasets.add_image(dataset.id, dataset.upload, io.BytesIO(png())))
    at(6, lambda: state.datasets.finish_upload(dataset.id, dataset.upload))
    assert [round(time - seen[0]) for time in seen] == [0, 1, 1, 1, 1, 5, 6]


def test_locked_dataset_rejects_uploads_jobs_and_deletion(api):
    dataset_id = api.dataset({"dark": [png()]})
    api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")
    training = {"datasetIds": [dataset_id], "modelName": "m"}
    assert api.post(f"/Datasets/{dataset_id}/StartUploading").status_code == 409
    assert api.post("/Trainings", json=training).status_code == 409
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 409


def test_finishing_an_upload_is_idempotent(api):
    """The contract says so; an unknown upload is 404."""
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    finish = f"/Datasets/{dataset_id}/FinishUploading"
    responses = [api.post(finish, params={"datasetUploadId": each}) for each in (upload_id, upload_id, "other")]
    assert [response.status_code for response in responses] == [200, 200, 404]


def test_finishing_an_earlier_upload_again_keeps_the_current_one_open(state):
    dataset = state.datasets.create("d")
    first = state.datasets.start_upload(dataset.id)
    state.datasets.finish_upload(dataset.id, first)
    second = state.datasets.start_upload(dataset.id)
    state.datasets.finish_upload(dataset.id, first)
    assert state.datasets.get(dataset.id).upload == second


def test_idle_upload_unlocks_its_dataset(state, clock):
    """Each image restarts the idle time."""
    dataset = state.datasets.create("d")
    upload_id = state.datasets.start_upload(dataset.id)
    clock.now += 899
    state.datasets.add_image(dataset.id, upload_id, io.BytesIO(png()))
    clock.now += 899
    assert state.datasets.get(dataset.id).upload == upload_id
    clock.now += 1
    assert state.datasets.get(dataset.id).upload is None
    with pytest.raises(ApiError, match="not open"):
        state.datasets.add_image(dataset.id, upload_id, io.BytesIO(png()))


def test_category_name_is_unique_within_a_dataset(api):
    first, second = api.dataset(), api.dataset()
    created = [
        api.post("/Categories", json={"datasetId": i, "name": "cat"}).status_code for i in (first, first, second)
    ]
    assert created == [200, 400, 200]
    (listed,) = api.ok("GET", "/Categories", params={"datasetId": first})
    assert (listed["name"], listed["datasetId"]) == ("cat", first)


@pytest.mark.parametrize(
    ("fields", "content", "status"),
    [
        ({"categoryId": "unknown"}, png(), 400),
        ({}, b"not an image", 400),
        ({"annotations": "{no json"}, png(), 400),
        ({"datasetUploadId": "other"}, png(), 409),
        ({"datasetUploadId": ""}, png(), 400),
        ({"annotations": '[{"x": 1}]'}, png(), 200),
    ],
    ids=["unknown category", "invalid image", "invalid annotations", "another upload", "no upload", "valid"],
)
def test_image_is_stored_only_if_file_and_fields_are_valid(api, fields, content, status):
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    assert api.image(dataset_id, upload_id, content, **fields).status_code == status
    assert api.ok("GET", f"/Datasets/{dataset_id}")["imageCount"] == (status == 200)


def test_image_without_a_file_part_returns_400(api):
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    response = api.post(f"/Datasets/{dataset_id}/Images", data={"datasetUploadId": upload_id})
    assert (response.status_code, "file" in response.json()["message"]) == (400, True)


def test_deleting_a_dataset_deletes_its_image_files(api):
    state = api.sandbox.state
    dataset_id = api.dataset({"dark": [png(), png()]})
    assert len(list((state.folder / dataset_id).iterdir())) == 2
    api.ok("DELETE", f"/Datasets/{dataset_id}")
    assert not (state.folder / dataset_id).exists()
    assert api.get(f"/Datasets/{dataset_id}").status_code == 404


def test_dataset_used_by_a_job_cannot_be_deleted(api):
    api.sandbox.control.script("training", "reads", reads=1_000)
    dataset_id = api.dataset()
    job = api.ok("POST", "/Trainings", json={"datasetIds": [dataset_id], "modelName": "m"})
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 409
    api.ok("POST", f"/Trainings/{job['id']}/Cancel")
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 200
