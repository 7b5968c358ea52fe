"""The upload operator: its arguments, retries, kills, and log lines."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath

from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.uploads.uploader import Stopped
from tests.airflow.conftest import group, messages
from tests.sandbox.client import png


def operator(dataset, source, **options):
    return OsaiUploadImagesOperator(task_id="task", dataset_id=dataset, source=source, **options)


def upload_count(sandbox):
    return sandbox.control.record()["counts"].get("upload.image", 0)


@pytest.mark.parametrize("form", ["text", "url", "object storage", "list"])
def test_each_form_of_source_uploads_the_same_images(client, dataset, images, context, form):
    sources = {
        "text": str(images),
        "url": f"file://{images}",
        "object storage": ObjectStoragePath(f"file://{images}"),
        "list": sorted(str(path) for path in images.glob("*/*.png")),
    }
    result = operator(dataset, sources[form]).execute(context)
    assert (result["images"], result["categories"]) == (60, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"source": "nowhere://x"}, "nowhere"),
        ({"source": "/does/not/exist"}, "does not exist"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": "many"}, "max_concurrency"),
        ({"on_invalid_file": "weep"}, "on_invalid_file"),
        ({"dataset_id": "None"}, "dataset_id"),
    ],
)
def test_an_invalid_argument_fails_without_retry_before_any_request(
    sandbox, connection, images, context, options, reason
):
    task = OsaiUploadImagesOperator(task_id="task", **{"dataset_id": "1", "source": str(images), **options})
    with pytest.raises(AirflowFailException, match=reason):
        task.execute(context)
    assert sandbox.control.record()["requests"] == []


@pytest.mark.parametrize("conn_id", [None, "aws_default"])
@pytest.mark.parametrize("source", ["", "None", "file://", ObjectStoragePath("")])
def test_an_empty_template_does_not_upload_the_workers_directory(
    sandbox, connection, images, context, monkeypatch, source, conn_id
):
    monkeypatch.chdir(images)
    with pytest.raises(AirflowFailException, match="source = .*: is empty"):
        operator("1", source, source_conn_id=conn_id).execute(context)
    assert sandbox.control.record()["requests"] == []


def test_invalid_files_fail_the_task_or_are_skipped(client, dataset, images, context, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    (folder / "0" / "notes.doc").write_text("remember the milk")
    with pytest.raises(AirflowFailException, match=r"0/notes\.doc.*on_invalid_file='skip'"):
        operator(dataset, str(folder)).execute(context)
    result = operator(dataset, str(folder), on_invalid_file="skip").execute(context)
    assert (result["images"], list(result["invalid_files"])) == (60, ["0/notes.doc"])


@pytest.mark.parametrize("form", ["text", "pattern", "url", "object storage", "list"])
def test_a_link_to_a_path_outside_the_folder_is_an_invalid_file(
    client, dataset, images, context, tmp_path, logged, form
):
    """Another tenant's image fails the task, or is skipped and logged; it is never uploaded."""
    folder = shutil.copytree(images, tmp_path / "images")
    (tmp_path / "theirs.png").write_bytes(png())
    (folder / "0" / "stolen.png").symlink_to(tmp_path / "theirs.png")
    source = {
        "text": str(folder),
        "pattern": f"{folder}/*/*.png",
        "url": f"file://{folder}",
        "object storage": ObjectStoragePath(f"file://{folder}"),
        "list": sorted(str(path) for path in folder.glob("*/*.png")),
    }[form]
    with pytest.raises(AirflowFailException, match=r"0/stolen\.png: the link points outside"):
        operator(dataset, source).execute(context)
    result = operator(dataset, source, on_invalid_file="skip").execute(context)
    assert (result["images"], list(result["invalid_files"])) == (60, ["0/stolen.png"])
    assert "Skipped 0/stolen.png: the link points outside" in logged()
    digests = {image.digest for image in client.send(client.calls.list_images(dataset))}
    assert hashlib.sha256(png()).hexdigest() not in digests


def test_an_image_replaced_by_a_link_after_the_scan_is_skipped_as_invalid(
    client, dataset, sandbox, images, context, tmp_path, logged
):
    folder = shutil.copytree(images, tmp_path / "images")
    (tmp_path / "theirs.png").write_bytes(png())
    task = operator(dataset, str(folder), on_invalid_file="skip")
    uploader = task.build_uploader(client, context)
    (folder / "0" / "0.png").unlink()
    (folder / "0" / "0.png").symlink_to(tmp_path / "theirs.png")
    result = uploader.run()
    assert (result["images"], list(result["invalid_files"]), upload_count(sandbox)) == (59, ["0/0.png"], 59)
    assert "Skipped 0/0.png: 0/0.png: the link points outside" in logged()


def test_a_killed_task_unlocks_the_dataset_and_its_retry_continues(client, dataset, sandbox, images, context):
    """Each image is uploaded once."""
    sandbox.control.fault("delay", "upload.image", seconds=0.1, times=1000)
    task = operator(dataset, str(images), max_concurrency=2)

    def kill_during_upload():
        while upload_count(sandbox) < 5:
            time.sleep(0.01)
        task.on_kill()

    killer = threading.Thread(target=kill_during_upload, daemon=True)
    killer.start()
    with pytest.raises(Stopped):
        task.execute(context)
    killer.join()
    assert 0 < upload_count(sandbox) < 60
    assert not client.send(client.calls.get_dataset(dataset)).locked
    assert operator(dataset, str(images)).execute(context)["images"] == 60
    assert upload_count(sandbox) == 60


def test_a_kill_during_the_scan_stops_the_upload(client, dataset, sandbox, images, context):
    task = operator(dataset, str(images))
    task.on_kill()
    with pytest.raises(Stopped):
        task.execute(context)
    assert upload_count(sandbox) == 0


def test_the_state_store_keeps_the_checkpoint_of_one_dataset(monkeypatch):
    """In Airflow 3.3, with many image keys per state-store key; another dataset starts with an empty checkpoint."""
    from airflow_provider_osai.operators import _state_store
    from tests.airflow.conftest import FakeStateStore

    monkeypatch.setattr(_state_store, "IMAGES_PER_VALUE", 7)
    store = FakeStateStore()
    first = _state_store.StateStoreUploadCheckpoints(store)
    first.load("1")
    keys = [f"{n:024x}" for n in range(50)]
    for n in range(0, 50, 5):
        first.save_keys(keys[n : n + 5])
    first.save_upload_id("9")
    checkpoint = _state_store.StateStoreUploadCheckpoints(store).load("1")
    assert (set(checkpoint.keys), checkpoint.upload_id) == (set(keys), "9")
    second = _state_store.StateStoreUploadCheckpoints(store)
    second.load("1")
    second.save_keys([f"{99:024x}"])
    assert len(_state_store.StateStoreUploadCheckpoints(store).load("1").keys) == 51
    assert max(len(text) for text in store.kept.values()) < 7 * 24 + 10
    assert not _state_store.StateStoreUploadCheckpoints(store).load("2").keys


def test_progress_is_logged_and_published(client, dataset, images, context, logged, monkeypatch):
    """In the log, and in the state store if there is one."""
    monkeypatch.setattr("airflow_provider_osai.uploads.uploader.LOG_INTERVAL", 0.0)
    operator(dataset, str(images)).execute(context)
    assert "Uploaded 60 of 60 images" in logged()
    if store := context.get("task_state_store"):
        assert store.get("osai_progress")["uploaded"] == 60


def test_a_locked_dataset_is_a_retryable_error(client, dataset, images, context):
    """The retry may find the dataset unlocked."""
    from airflow_provider_osai.api.errors import OsaiUnreachable

    other = client.send(client.calls.start_upload(dataset))
    with pytest.raises(OsaiUnreachable, match="locked by another upload"):
        operator(dataset, str(images)).execute(context)
    client.send(client.calls.finish_upload(dataset, other.id))
    assert operator(dataset, str(images)).execute(context)["images"] == 60


def fill(folder, counts):
    """Create distinct images: *counts* is their number by folder."""
    number = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for _ in range(count):
            (folder / name / f"{number}.png").write_bytes(png(number % 256, size=(8 + number // 256, 8)))
            number += 1
    return str(folder)


class TestLog:
    """The log lines about the scan: categories with counts, and warnings."""

    def test_categories_are_logged_with_their_counts(self, client, dataset, context, tmp_path, logged):
        """In one line, with the source."""
        source = fill(tmp_path / "data", {"big cat": 4, "dog": 3})
        operator(dataset, source).execute(context)
        assert f"in {source!r}, in 2 categories: 'big_cat' (4), 'dog' (3)" in logged()
        assert "Found 7 images" in logged()
        assert "Nested folders" not in logged()
        assert "Fewer than" not in logged()

    def test_a_long_list_of_categories_and_a_long_name_are_shortened(self, client, dataset, context, tmp_path, logged):
        """A line break in a name cannot start a new log line."""
        names = {f"c{number:02}": 1 for number in range(25)} | {"b" * 200: 1, "a\nFAKE": 1}
        operator(dataset, fill(tmp_path / "data", names), min_images_per_category=0).execute(context)
        (line,) = [line for line in logged().splitlines() if "Found 27 images" in line]
        assert "in 27 categories: 'a\\nFAKE' (1), 'bbb" in line
        assert line.count("(1)") == 20
        assert "'c17' (1) and 7 more" in line
        assert "b" * 100 not in line

    def test_categories_from_nested_folders_cause_a_warning(self, client, dataset, context, tmp_path, logged):
        """Except those that a pattern maps. Here the days become categories, which is hardly intended."""
        source = fill(tmp_path / "data", {"cat/monday": 3, "cat/tuesday": 3, "dog/monday": 3, "owl": 3})
        operator(dataset, source, categories={"dog/*": "dog"}).execute(context)
        (line,) = [line for line in logged().splitlines() if "Nested folders" in line]
        assert "'cat/monday' is 'monday', 'cat/tuesday' is 'tuesday'. To use another" in line
        assert "dog" not in line
        assert "in 4 categories: 'dog' (3), 'monday' (3), 'owl' (3), 'tuesday' (3)" in logged()

    @pytest.mark.parametrize("minimum", [0, 1])
    def test_categories_with_too_few_images_for_training_cause_a_warning(
        self, client, dataset, context, tmp_path, logged, minimum
    ):
        """With the minimum and its source, if min_images_per_category accepts them."""
        source = fill(tmp_path / "data", {"cat": 1, "dog": 3, "owl": 2})
        operator(dataset, source, min_images_per_category=minimum).execute(context)
        (line,) = [line for line in logged().splitlines() if "Fewer than" in line]
        assert "Fewer than 3 images: 'cat' (1), 'owl' (2)." in line
        assert "documented: docs.onestepai.com/pl/model-creation-and-training" in line

    def test_a_category_with_too_few_images_after_skipping_causes_a_warning(
        self, client, dataset, sandbox, context, tmp_path, logged
    ):
        """Two of its images turn out to be invalid and are skipped."""
        source = fill(tmp_path / "data", {"cat": 3, "dog": 9})
        task = operator(dataset, source, on_invalid_file="skip")
        uploader = task.build_uploader(client, context)
        for number in (0, 1):
            (tmp_path / "data" / "cat" / f"{number}.png").write_text("not an image any more")
        assert "Fewer than" not in logged()
        assert uploader.run()["invalid_count"] == 2
        assert "Fewer than 3 images: 'cat' (1)." in logged()

    def test_the_summary_is_a_group_and_the_number_of_uploaded_images_is_outside_of_it(
        self, client, dataset, context, tmp_path, logged
    ):
        """The reasons of the first ten invalid files are shown. A file's name cannot end the group."""
        source = fill(tmp_path / "data", {"cat": 4, "dog": 3})
        for number in range(12):
            (tmp_path / "data" / "cat" / f"{number}.doc").write_text("no image")
        (tmp_path / "data" / "cat" / "0\n::endgroup::.doc").write_text("no image")
        operator(dataset, source, on_invalid_file="skip").execute(context)
        summary, others = group(messages(logged()), f"Summary of the upload into dataset {dataset}")
        assert [line.split() for line in summary[:3]] == [["category", "images"], ["cat", "4"], ["dog", "3"]]
        assert summary[3] == "Uploaded 7, skipped 0 as already in the dataset, invalid 13"
        assert len([line for line in summary if line.endswith(".doc: not an image")]) == 10
        assert summary[-1] == "and 3 more invalid files"
        assert [line for line in others if line.startswith("Uploaded 7 of 7 images")]

    def test_the_summary_lists_at_most_twenty_categories(self, client, dataset, context, tmp_path, logged):
        source = fill(tmp_path / "data", {f"c{number:02}": 1 for number in range(25)})
        operator(dataset, source, min_images_per_category=0).execute(context)
        summary, _ = group(messages(logged()), "Summary of the upload")
        assert len(summary) == 1 + 20 + 2
        assert summary[-2] == "and 5 more categories"
