"""Uploads to the sandbox: concurrent, without duplicates, and the dataset is always unlocked."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.requests import UploadRequest
from airflow_provider_osai.data.annotations import Box
from airflow_provider_osai.data.scan import ImageFile, ScanResult, scan_source
from airflow_provider_osai.data.sources import open_source
from airflow_provider_osai.sandbox.datasets import Datasets
from airflow_provider_osai.uploads.checkpoint import UploadCheckpoint
from airflow_provider_osai.uploads.uploader import Stopped, Uploader
from tests.conftest import ROOT, settings_for
from tests.sandbox.client import png
from tests.waiting import PATIENCE, until

NO_LIST = {"image.list": None}


class InMemoryStore:
    """A checkpoint store without Airflow."""

    def __init__(self):
        self.keys = set()
        self.upload_id = None

    def load(self, dataset_id):
        return UploadCheckpoint(set(self.keys), self.upload_id)

    def save_upload_id(self, upload_id):
        self.upload_id = upload_id

    def save_keys(self, keys):
        self.keys.update(keys)

    def progress(self, figures):
        pass


@pytest.fixture
def client(sandbox):
    with OsaiClient(settings_for(sandbox.base_url), retry_budget=0) as client:
        yield client


@pytest.fixture
def dataset(client):
    return client.send(client.calls.create_dataset("digits")).id


def uploader(client, dataset, source, scan, *, max_concurrency=8, on_invalid_file="fail", **options):
    request = UploadRequest(dataset_id=dataset, max_concurrency=max_concurrency, on_invalid_file=on_invalid_file)
    return Uploader(client, request, source, scan, **options)


def upload(client, dataset, folder, **options):
    source = open_source(folder)
    return uploader(client, dataset, source, scan_source(source, min_images_per_category=0), **options).run()


def is_locked(client, dataset):
    return client.send(client.calls.get_dataset(dataset)).locked


def stored_images(client, dataset):
    return Counter(image.file_name for image in client.send(client.calls.list_images(dataset)))


def upload_count(sandbox):
    return sandbox.control.record()["counts"].get("upload.image", 0)


def make_images(folder, count):
    """Create distinct images."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        (folder / f"{n}.png").write_bytes(png(n, size=(8 + n // 256, 8)))
    return folder


def test_images_arrive_with_their_categories_and_the_dataset_is_unlocked(client, dataset, images):
    """The complete documented sequence."""
    lines = []
    summary = upload(client, dataset, images, log=lines.append)
    assert {k: summary[k] for k in ("images", "uploaded", "skipped", "invalid_count")} == {
        "images": 60,
        "uploaded": 60,
        "skipped": 0,
        "invalid_count": 0,
    }
    assert summary["categories"] == ["0", "1", "2"]
    assert "Uploaded 60 of 60 images (0 skipped" in lines[-1]
    uploaded = client.send(client.calls.get_dataset(dataset))
    assert (uploaded.image_count, uploaded.locked) == (60, False)


def test_images_in_the_dataset_are_skipped(client, dataset, images, sandbox):
    """Then the dataset is not locked. The same data has the same digest."""
    first = upload(client, dataset, images)
    before = sandbox.control.record()["counts"]
    again = upload(client, dataset, images)
    after = sandbox.control.record()["counts"]
    assert (again["uploaded"], again["skipped"], again["data_digest"]) == (0, 60, first["data_digest"])
    assert {name: after[name] for name in ("upload.image", "upload.start")} == {
        name: before[name] for name in ("upload.image", "upload.start")
    }


def test_the_same_image_under_another_category_is_another_image(client, dataset, tmp_path):
    """A corrected label must be uploaded."""
    for category in ("cat", "dog"):
        (tmp_path / category).mkdir()
        (tmp_path / category / "1.png").write_bytes(png())
    assert upload(client, dataset, tmp_path)["uploaded"] == 2


def test_annotations_are_uploaded_with_their_category_id(client, dataset, tmp_path):
    """And recognised as already uploaded the second time."""
    (tmp_path / "1.png").write_bytes(png())
    source = open_source(tmp_path)
    box = Box("scratch", 0.1, 0.2, 0.3, 0.4)
    scan = ScanResult({"1.png": ImageFile("1.png", 10, None, (box,))}, {})
    for expected in (1, 0):
        assert uploader(client, dataset, source, scan).run()["uploaded"] == expected
    (image,) = client.send(client.calls.list_images(dataset))
    (category,) = client.send(client.calls.list_categories(dataset))
    assert image.annotations == [{**box.wire(), "categoryId": category.id}]
    assert (category.name, image.category_id) == ("scratch", None)


@pytest.mark.parametrize("form", [{"format": "coco"}, {"units": "pixel", "category": "id"}, {"category": "name"}])
def test_annotations_in_the_form_of_the_contract_are_uploaded_once(sandbox, dataset, tmp_path, form):
    """Also when another category has been added in between."""
    (tmp_path / "1.png").write_bytes(png())
    source = open_source(tmp_path)
    scan = ScanResult({"1.png": ImageFile("1.png", 10, None, (Box("scratch", 0.1, 0.2, 0.3, 0.4),))}, {})
    settings = settings_for(sandbox.base_url, contract={"upload.image": {"annotations": form}})
    with OsaiClient(settings, retry_budget=0) as client:
        assert uploader(client, dataset, source, scan).run()["uploaded"] == 1
        client.create_category(dataset, "dent")
        assert uploader(client, dataset, source, scan).run()["skipped"] == 1


def test_max_concurrency_images_are_uploaded_concurrently(sandbox, images, monkeypatch):
    current = 0
    maximum = 0
    lock = threading.Lock()
    six = threading.Barrier(6)  # the first ones end only together
    add_image = Datasets.add_image

    def counted_add_image(*arguments, **details):
        nonlocal current, maximum
        with lock:
            current += 1
            maximum = max(current, maximum)
        six.wait(PATIENCE)
        try:
            return add_image(*arguments, **details)
        finally:
            with lock:
                current -= 1

    monkeypatch.setattr(Datasets, "add_image", counted_add_image)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d")).id
        assert upload(client, dataset, images, max_concurrency=6)["uploaded"] == 60
    assert maximum == 6


@pytest.mark.parametrize("fault", ["status", "reset", "malformed", "html"])
def test_an_image_without_a_response_is_uploaded_again_only_if_it_is_missing(client, dataset, sandbox, images, fault):
    """Whether OSAI stored it or not, the dataset contains each image once."""
    sandbox.control.fault(fault, "upload.image", after=10, times=5)
    summary = upload(client, dataset, images)
    assert (summary["images"], is_locked(client, dataset)) == (60, False)
    assert stored_images(client, dataset).total() == 60


def test_without_an_image_list_an_uncertain_image_fails_the_upload_at_the_end(sandbox, images):
    """A blind retry could create a duplicate. All other images are uploaded."""
    with OsaiClient(settings_for(sandbox.base_url, contract=NO_LIST), retry_budget=0) as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
        sandbox.control.fault("status", "upload.image", after=10)
        store = InMemoryStore()
        with pytest.raises(OsaiUnreachable, match="1 images got no response.*cannot list"):
            upload(client, dataset, images, store=store)
        assert len(store.keys) == 59
        assert not is_locked(client, dataset)
        assert upload(client, dataset, images, store=store)["uploaded"] == 1


def test_an_unreachable_osai_ends_the_upload_early(client, dataset, sandbox, images):
    """Not after trying each of a hundred thousand images."""
    sandbox.control.fault("status", "upload.image", times=1000)
    with pytest.raises(OsaiUnreachable, match="503"):
        upload(client, dataset, images)
    assert upload_count(sandbox) < 40
    assert not is_locked(client, dataset)


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_an_error_not_caused_by_an_image_ends_the_upload(client, dataset, sandbox, images, status):
    """Also if invalid files are skipped."""
    sandbox.control.fault("status", "upload.image", status=status, times=1000)
    with pytest.raises(OsaiError, match=str(status)):
        upload(client, dataset, images, on_invalid_file="skip")
    assert not is_locked(client, dataset)


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_is_uploaded_like_its_folder(client, dataset, images, tmp_path, form):
    """Written by shutil, with a top-level folder; the folder's upload then skips all images."""
    archive = shutil.make_archive(str(tmp_path / "images"), form, images.parent, images.name)
    first = upload(client, dataset, archive)
    again = upload(client, dataset, images)
    assert (first["uploaded"], again["skipped"]) == (60, 60)
    assert first["data_digest"] == again["data_digest"]


@pytest.mark.parametrize("as_archive", [False, True], ids=["folder", "archive"])
def test_annotations_in_the_source_are_uploaded_with_the_images(client, dataset, tmp_path, as_archive):
    """Here YOLO's; annotated images do not get their folder's category."""
    folder = tmp_path / "images"
    make_images(folder, 4)
    (folder / "classes.txt").write_text("scratch\ndent\n")
    for n in range(3):
        (folder / f"{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.25 0.5\n")
    source = shutil.make_archive(str(folder), "zip", folder) if as_archive else folder
    assert upload(client, dataset, source)["categories"] == ["Other", "dent", "scratch"]
    uploaded = {image.file_name: image for image in client.send(client.calls.list_images(dataset))}
    assert uploaded["0.png"].category_id is None
    assert uploaded["3.png"].category_id
    (box,) = uploaded["1.png"].annotations
    assert {name: box[name] for name in ("category", "x", "width", "height")} == {
        "category": "dent",
        "x": 0.375,
        "width": 0.25,
        "height": 0.5,
    }


class TestInvalidFiles:
    """A file that begins like an image but is not one."""

    @pytest.fixture
    def folder(self, tmp_path):
        make_images(tmp_path, 20)
        (tmp_path / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        return tmp_path

    def test_fail_ends_the_upload_with_osais_message(self, client, dataset, folder):
        with pytest.raises(OsaiRequestError, match="400.*cannot be decoded as an image"):
            upload(client, dataset, folder)
        assert not is_locked(client, dataset)

    def test_skip_reports_the_file_in_the_log_and_in_the_summary(self, client, dataset, folder):
        lines = []
        summary = upload(client, dataset, folder, on_invalid_file="skip", log=lines.append)
        assert (summary["uploaded"], summary["invalid_count"], list(summary["invalid_files"])) == (19, 1, ["7.png"])
        assert [line for line in lines if "7.png" in line and "cannot be decoded as an image" in line]

    def test_a_file_that_was_deleted_or_changed_after_the_scan_is_invalid(self, client, dataset, tmp_path):
        source = open_source(make_images(tmp_path, 5))
        scan = scan_source(source, min_images_per_category=0)
        (tmp_path / "1.png").unlink()
        (tmp_path / "2.png").write_text("text")
        summary = uploader(client, dataset, source, scan, on_invalid_file="skip").run()
        assert (summary["uploaded"], set(summary["invalid_files"])) == (3, {"1.png", "2.png"})
        with pytest.raises(OsaiArgumentError, match="cannot be read|not an image"):
            uploader(client, dataset, source, scan).run()


class TestLock:
    """The dataset is always unlocked at the end."""

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
    def test_an_interrupted_upload_unlocks(self, client, dataset, images, interrupt):
        """Airflow's execution timeout can interrupt any statement."""
        store = InMemoryStore()

        def interrupted(_keys):
            raise interrupt

        store.save_keys = interrupted
        with pytest.raises(interrupt):
            upload(client, dataset, images, store=store)
        assert not is_locked(client, dataset)
        assert store.upload_id is None

    def test_a_stopped_upload_unlocks_and_a_retry_continues(self, client, dataset, sandbox, tmp_path):
        """No image is uploaded twice."""
        folder = make_images(tmp_path, 200)
        store = InMemoryStore()
        sandbox.control.fault("delay", "upload.image", seconds=3, after=40, times=1000)
        source = open_source(folder)
        scan = scan_source(source, min_images_per_category=0)
        running = uploader(client, dataset, source, scan, store=store)

        def stop_during_upload():
            while upload_count(sandbox) < 20:
                time.sleep(0.01)
            running.stop()

        stopper = threading.Thread(target=stop_during_upload, daemon=True)
        stopper.start()
        with pytest.raises(Stopped):
            running.run()
        stopper.join()
        assert not is_locked(client, dataset)
        assert 0 < len(store.keys) < 200
        sandbox.control.clear_faults()
        summary = upload(client, dataset, folder, store=store)
        assert (summary["images"], set(stored_images(client, dataset).values())) == (200, {1})

    def test_finishing_an_upload_is_retried(self, sandbox, images):
        """Repeating the call is safe, leaving the dataset locked is not."""
        with OsaiClient(settings_for(sandbox.base_url)) as client:
            dataset = client.send(client.calls.create_dataset("d")).id
            sandbox.control.fault("status", "upload.finish", status=503)
            upload(client, dataset, images)
            assert not is_locked(client, dataset)

    def test_a_lock_of_another_upload_is_kept(self, client, dataset, images):
        """A retry may find the dataset unlocked."""
        other = client.send(client.calls.start_upload(dataset))
        with pytest.raises(OsaiUnreachable, match="locked by another upload.*409"):
            upload(client, dataset, images)
        assert is_locked(client, dataset)
        client.send(client.calls.finish_upload(dataset, other.id))

    @pytest.mark.parametrize("contract", [{}, NO_LIST], ids=["image list", "checkpoint only"])
    def test_a_lock_of_an_earlier_try_is_released_first(self, sandbox, images, contract):
        """That try was killed before it could unlock the dataset."""
        with OsaiClient(settings_for(sandbox.base_url, contract=contract), retry_budget=0) as client:
            dataset = client.send(client.calls.create_dataset("d")).id
            store = InMemoryStore()
            store.upload_id = client.send(client.calls.start_upload(dataset)).id
            assert upload(client, dataset, images, store=store)["uploaded"] == 60
            assert not is_locked(client, dataset)


KILLED = """
import sys
from pathlib import Path
from tests.uploads.test_uploader import FileStore, upload
from tests.conftest import settings_for
from tests.waiting import PATIENCE, until
from airflow_provider_osai.api.client import OsaiClient
with OsaiClient(settings_for(sys.argv[1])) as client:
    upload(client, sys.argv[2], sys.argv[3], store=FileStore(Path(sys.argv[4])))
"""


class FileStore(InMemoryStore):
    """A checkpoint store that outlives its process."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        if path.exists():
            lines = path.read_text().split("\n")
            self.keys, self.upload_id = set(filter(None, lines[1:])), lines[0] or None

    def write(self):
        self.path.write_text("\n".join([self.upload_id or "", *self.keys]))

    def save_upload_id(self, upload_id):
        super().save_upload_id(upload_id)
        self.write()

    def save_keys(self, keys):
        super().save_keys(keys)
        self.write()


def test_a_retry_after_sigkill_repeats_only_the_uploads_in_flight(client, dataset, sandbox, tmp_path):
    """The dataset contains each image once and is unlocked."""
    folder = make_images(tmp_path / "images", 400)
    checkpoint = tmp_path / "checkpoint"
    sandbox.control.fault("delay", "upload.image", seconds=0.1, times=400)
    arguments = [sys.executable, "-c", KILLED, sandbox.base_url, dataset, str(folder), str(checkpoint)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: upload_count(sandbox) >= 100, pause=0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_locked(client, dataset)
    assert 100 <= upload_count(sandbox) < 400
    summary = upload(client, dataset, folder, store=FileStore(checkpoint))
    assert summary["images"] == 400
    assert set(stored_images(client, dataset).values()) == {1}
    assert upload_count(sandbox) <= 400 + 8
    assert not is_locked(client, dataset)
