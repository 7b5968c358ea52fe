"""Datasets: their lock, their categories, their images."""

from __future__ import annotations

import io

import pytest

from airflow_provider_osai.sandbox.records import Refused
from tests.sandbox.client import png


def test_dataset_names_may_be_used_twice_and_are_found_by_name(api):
    """The API knows datasets by id; names are only names."""
    first, second = api.dataset(name="cats"), api.dataset(name="cats")
    api.dataset(name="dogs")
    found = api.ok("GET", "/Datasets", params={"name": "cats"})
    assert [one["id"] for one in found] == [first, second]
    assert len(api.ok("GET", "/Datasets")) == 3


def test_dataset_shows_its_lock_and_how_many_images_it_has(api):
    """Between start and finish of an upload a dataset is locked."""
    dataset_id = api.dataset({"dark": [png()]})
    upload = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")
    shown = api.ok("GET", f"/Datasets/{dataset_id}")
    assert shown.pop("updatedAt").endswith("Z")
    assert shown == {"id": dataset_id, "name": "data", "locked": True, "imageCount": 1}
    api.ok("POST", f"/Datasets/{dataset_id}/FinishUploading", params={"datasetUploadId": upload["id"]})
    assert api.ok("GET", f"/Datasets/{dataset_id}")["locked"] is False


def test_dataset_says_when_its_images_or_categories_last_changed(state, clock):
    """A category, an image, and the end of an upload that brought one; not the end of one that brought nothing."""
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
    assert [round(one - seen[0]) for one in seen] == [0, 1, 1, 1, 1, 5, 6]


def test_locked_dataset_takes_no_second_upload_no_job_and_no_delete(api):
    """What the lock forbids is a conflict."""
    dataset_id = api.dataset({"dark": [png()]})
    api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")
    training = {"datasetIds": [dataset_id], "modelName": "m"}
    assert api.post(f"/Datasets/{dataset_id}/StartUploading").status_code == 409
    assert api.post("/Trainings", json=training).status_code == 409
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 409


def test_finishing_an_upload_twice_is_harmless_and_another_one_is_unknown(api):
    """Finishing may be repeated, as the contract says."""
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    finish = f"/Datasets/{dataset_id}/FinishUploading"
    answers = [api.post(finish, params={"datasetUploadId": one}) for one in (upload_id, upload_id, "other")]
    assert [answer.status_code for answer in answers] == [200, 200, 404]


def test_an_old_upload_finished_again_leaves_the_next_one_open(state):
    """Only the upload that locks a dataset unlocks it."""
    dataset = state.datasets.create("d")
    first = state.datasets.start_upload(dataset.id)
    state.datasets.finish_upload(dataset.id, first)
    second = state.datasets.start_upload(dataset.id)
    state.datasets.finish_upload(dataset.id, first)
    assert state.datasets.get(dataset.id).upload == second


def test_forgotten_upload_unlocks_its_dataset_after_the_idle_time(state, clock):
    """Each image counts as a sign of life."""
    dataset = state.datasets.create("d")
    upload_id = state.datasets.start_upload(dataset.id)
    clock.now += 899
    state.datasets.add_image(dataset.id, upload_id, io.BytesIO(png()))
    clock.now += 899
    assert state.datasets.get(dataset.id).upload == upload_id
    clock.now += 1
    assert state.datasets.get(dataset.id).upload is None
    with pytest.raises(Refused, match="not open"):
        state.datasets.add_image(dataset.id, upload_id, io.BytesIO(png()))


def test_category_name_is_used_once_in_a_dataset(api):
    """A second one of the same name is a bad request; another dataset may have it."""
    one, two = api.dataset(), api.dataset()
    created = [api.post("/Categories", json={"datasetId": i, "name": "cat"}).status_code for i in (one, one, two)]
    assert created == [200, 400, 200]
    (listed,) = api.ok("GET", "/Categories", params={"datasetId": one})
    assert (listed["name"], listed["datasetId"]) == ("cat", one)


@pytest.mark.parametrize(
    ("fields", "content", "status"),
    [
        ({"categoryId": "nobody"}, png(), 400),
        ({}, b"this is no image", 400),
        ({"annotations": "{no json"}, png(), 400),
        ({"datasetUploadId": "other"}, png(), 409),
        ({"datasetUploadId": ""}, png(), 400),
        ({"annotations": '[{"x": 1}]'}, png(), 200),
    ],
    ids=["no such category", "no image", "no annotations", "another upload", "no upload", "all right"],
)
def test_image_is_taken_only_if_all_of_it_is_right(api, fields, content, status):
    """Category, annotations and upload must exist, and Pillow must be able to read the file."""
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    assert api.image(dataset_id, upload_id, content, **fields).status_code == status
    assert api.ok("GET", f"/Datasets/{dataset_id}")["imageCount"] == (status == 200)


def test_image_without_a_file_part_is_a_bad_request(api):
    """A form without the file says so."""
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    answer = api.post(f"/Datasets/{dataset_id}/Images", data={"datasetUploadId": upload_id})
    assert (answer.status_code, "file" in answer.json()["message"]) == (400, True)


def test_deleting_a_dataset_removes_its_images_from_the_disk(api):
    """Images lie in the state's folder, and only while they are needed."""
    state = api.sandbox.state
    dataset_id = api.dataset({"dark": [png(), png()]})
    assert len(list((state.folder / dataset_id).iterdir())) == 2
    api.ok("DELETE", f"/Datasets/{dataset_id}")
    assert not (state.folder / dataset_id).exists()
    assert api.get(f"/Datasets/{dataset_id}").status_code == 404


def test_dataset_that_a_job_works_on_cannot_be_deleted(api):
    """Deleting waits for the job, or for its cancelling."""
    api.sandbox.control.script("training", "reads", reads=1_000)
    dataset_id = api.dataset()
    job = api.ok("POST", "/Trainings", json={"datasetIds": [dataset_id], "modelName": "m"})
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 409
    api.ok("POST", f"/Trainings/{job['id']}/Cancel")
    assert api.delete(f"/Datasets/{dataset_id}").status_code == 200
