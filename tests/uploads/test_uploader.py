"""Images against the sandbox: many at once, none twice, and the dataset is never left locked."""

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
from airflow_provider_osai.data.sources import source_of
from airflow_provider_osai.data.survey import Picture, Survey, survey
from airflow_provider_osai.sandbox.datasets import Datasets
from airflow_provider_osai.uploads.memory import Past
from airflow_provider_osai.uploads.uploader import Stopped, Uploader
from tests.conftest import ROOT, settings_for
from tests.sandbox.client import png

NO_LIST = {"image.list": None}


class Memory:
    """A dict where Airflow has its state store."""

    def __init__(self):
        self.keys, self.upload_id, self.figures = set(), None, {}

    def recall(self, dataset_id):
        return Past(set(self.keys), self.upload_id)

    def opened(self, upload_id):
        self.upload_id = upload_id

    def sent(self, keys):
        self.keys.update(keys)

    def progress(self, figures):
        self.figures = figures


@pytest.fixture
def client(sandbox):
    with OsaiClient(settings_for(sandbox.base_url), patience=0) as made:
        yield made


@pytest.fixture
def dataset(client):
    return client.send(client.calls.create_dataset("digits")).id


def uploader(client, dataset, source, found, *, at_once=8, skips_bad=False, **options):
    rule = "skip" if skips_bad else "fail"
    wish = UploadRequest(dataset_id=dataset, max_concurrency=at_once, on_bad_file=rule)
    return Uploader(client, wish, source, found, **options)


def upload(client, dataset, folder, **options):
    source = source_of(folder)
    return uploader(client, dataset, source, survey(source, min_images_per_category=0), **options).run()


def locked(client, dataset):
    return client.send(client.calls.get_dataset(dataset)).locked


def there(client, dataset):
    return Counter(image.file_name for image in client.send(client.calls.list_images(dataset)))


def sends(sandbox):
    return sandbox.control.record()["counts"].get("upload.image", 0)


def many(folder, count):
    """Make images that are all different."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        (folder / f"{n}.png").write_bytes(png(n, size=(8 + n // 256, 8)))
    return folder


def test_images_arrive_with_their_categories_and_the_dataset_is_unlocked(client, dataset, images):
    """The whole documented sequence."""
    lines = []
    done = upload(client, dataset, images, tell=lines.append)
    assert {k: done[k] for k in ("images", "sent", "known", "bad_count")} == {
        "images": 60,
        "sent": 60,
        "known": 0,
        "bad_count": 0,
    }
    assert done["categories"] == ["0", "1", "2"]
    assert "60 of 60 images are there" in lines[-1]
    seen = client.send(client.calls.get_dataset(dataset))
    assert (seen.image_count, seen.locked) == (60, False)


def test_what_the_dataset_has_is_not_sent_again(client, dataset, images, sandbox):
    """Nor is the dataset locked then; and the same data has the same digest."""
    first = upload(client, dataset, images)
    before = sandbox.control.record()["counts"]
    again = upload(client, dataset, images)
    after = sandbox.control.record()["counts"]
    assert (again["sent"], again["known"], again["digest"]) == (0, 60, first["digest"])
    assert {name: after[name] for name in ("upload.image", "upload.start")} == {
        name: before[name] for name in ("upload.image", "upload.start")
    }


def test_the_same_image_under_another_category_is_another_image(client, dataset, tmp_path):
    """A label that was corrected must arrive."""
    for category in ("cat", "dog"):
        (tmp_path / category).mkdir()
        (tmp_path / category / "1.png").write_bytes(png())
    assert upload(client, dataset, tmp_path)["sent"] == 2


def test_annotations_arrive_in_one_form(client, dataset, tmp_path):
    """With the id of their category, and are known again."""
    (tmp_path / "1.png").write_bytes(png())
    source = source_of(tmp_path)
    box = Box("scratch", 0.1, 0.2, 0.3, 0.4)
    found = Survey({"1.png": Picture("1.png", 10, None, (box,))}, {})
    for sent in (1, 0):
        assert uploader(client, dataset, source, found).run()["sent"] == sent
    (image,) = client.send(client.calls.list_images(dataset))
    (category,) = client.send(client.calls.list_categories(dataset))
    assert image.annotations == [{**box.wire(), "categoryId": category.id}]
    assert (category.name, image.category_id) == ("scratch", None)


def test_images_are_sent_side_by_side(sandbox, images, monkeypatch):
    """As many as was asked for, no more."""
    now, most, lock, take = 0, 0, threading.Lock(), Datasets.add_image

    def counted(*arguments, **details):
        nonlocal now, most
        with lock:
            now += 1
            most = max(now, most)
        time.sleep(0.1)
        try:
            return take(*arguments, **details)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(Datasets, "add_image", counted)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d")).id
        assert upload(client, dataset, images, at_once=6)["sent"] == 60
    assert most == 6


@pytest.mark.parametrize("fault", ["status", "reset", "malformed", "html"])
def test_an_image_without_an_answer_is_looked_for_and_sent_again_only_if_it_is_missing(
    client, dataset, sandbox, images, fault
):
    """Whether OSAI took it or not: each image is there once."""
    sandbox.control.fault(fault, "upload.image", after=10, times=5)
    done = upload(client, dataset, images)
    assert (done["images"], locked(client, dataset)) == (60, False)
    assert there(client, dataset).total() == 60


def test_without_a_list_of_images_one_in_doubt_is_an_error_at_the_end(sandbox, images):
    """Sent again blindly it might be there twice; all others have arrived."""
    with OsaiClient(settings_for(sandbox.base_url, contract=NO_LIST), patience=0) as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
        sandbox.control.fault("status", "upload.image", after=10)
        memory = Memory()
        with pytest.raises(OsaiUnreachable, match="1 images got no answer.*cannot list"):
            upload(client, dataset, images, memory=memory)
        assert len(memory.keys) == 59
        assert not locked(client, dataset)
        assert upload(client, dataset, images, memory=memory)["sent"] == 1


def test_an_osai_that_is_gone_ends_the_upload_soon(client, dataset, sandbox, images):
    """Not after each of a hundred thousand images."""
    sandbox.control.fault("status", "upload.image", times=1000)
    with pytest.raises(OsaiUnreachable, match="503"):
        upload(client, dataset, images)
    assert sends(sandbox) < 40
    assert not locked(client, dataset)


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_a_refusal_that_is_not_the_images_fault_ends_the_upload(client, dataset, sandbox, images, status):
    """Also when bad files are skipped."""
    sandbox.control.fault("status", "upload.image", status=status, times=1000)
    with pytest.raises(OsaiError, match=str(status)):
        upload(client, dataset, images, skips_bad=True)
    assert not locked(client, dataset)


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_is_sent_like_the_folder_it_was_made_of(client, dataset, images, tmp_path, form):
    """Made by Python's own library, with a folder around all of it; nothing of it is sent a second time."""
    archive = shutil.make_archive(str(tmp_path / "images"), form, images.parent, images.name)
    first = upload(client, dataset, archive)
    again = upload(client, dataset, images)
    assert (first["sent"], again["known"]) == (60, 60)
    assert first["digest"] == again["digest"]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_annotations_beside_the_images_are_sent_with_them(client, dataset, tmp_path, packed):
    """Here YOLO's; the images have no category of their folder then."""
    folder = tmp_path / "images"
    many(folder, 4)
    (folder / "classes.txt").write_text("scratch\ndent\n")
    for n in range(3):
        (folder / f"{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.25 0.5\n")
    source = shutil.make_archive(str(folder), "zip", folder) if packed else folder
    assert upload(client, dataset, source)["categories"] == ["Other", "dent", "scratch"]
    there = {image.file_name: image for image in client.send(client.calls.list_images(dataset))}
    assert there["0.png"].category_id is None
    assert there["3.png"].category_id
    (box,) = there["1.png"].annotations
    assert {name: box[name] for name in ("category", "x", "width", "height")} == {
        "category": "dent",
        "x": 0.375,
        "width": 0.25,
        "height": 0.5,
    }


class TestBadFiles:
    """A file that looks like an image and is none."""

    @pytest.fixture
    def folder(self, tmp_path):
        many(tmp_path, 20)
        (tmp_path / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        return tmp_path

    def test_it_ends_the_upload_and_unlocks(self, client, dataset, folder):
        """With OSAI's words."""
        with pytest.raises(OsaiRequestError, match="400.*no image"):
            upload(client, dataset, folder)
        assert not locked(client, dataset)

    def test_it_is_skipped_and_reported(self, client, dataset, folder):
        """With its name, in the log and in the result."""
        lines = []
        done = upload(client, dataset, folder, skips_bad=True, tell=lines.append)
        assert (done["sent"], done["bad_count"], list(done["bad"])) == (19, 1, ["7.png"])
        assert [line for line in lines if "7.png" in line and "no image" in line]

    def test_one_that_changed_since_it_was_seen_is_bad_too(self, client, dataset, tmp_path):
        """Gone, or replaced by something else."""
        source = source_of(many(tmp_path, 5))
        found = survey(source, min_images_per_category=0)
        (tmp_path / "1.png").unlink()
        (tmp_path / "2.png").write_text("text")
        done = uploader(client, dataset, source, found, skips_bad=True).run()
        assert (done["sent"], set(done["bad"])) == (3, {"1.png", "2.png"})
        with pytest.raises(OsaiArgumentError, match="cannot be read|no image"):
            uploader(client, dataset, source, found).run()


class TestLock:
    """The dataset is unlocked at the end, whatever the end is."""

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
    def test_an_interrupted_upload_unlocks(self, client, dataset, images, interrupt):
        """A time-out comes in the middle of anything."""
        memory = Memory()

        def interrupted(_keys):
            raise interrupt

        memory.sent = interrupted
        with pytest.raises(interrupt):
            upload(client, dataset, images, memory=memory)
        assert not locked(client, dataset)
        assert memory.upload_id is None

    def test_a_stopped_upload_unlocks_and_goes_on_later(self, client, dataset, sandbox, tmp_path):
        """Nothing is sent twice."""
        folder, memory = many(tmp_path, 200), Memory()
        sandbox.control.fault("delay", "upload.image", seconds=0.05, times=1000)
        source = source_of(folder)
        found = survey(source, min_images_per_category=0)
        sending = uploader(client, dataset, source, found, memory=memory)

        def stop_amid():
            while sends(sandbox) < 20:
                time.sleep(0.01)
            sending.stop()

        timer = threading.Thread(target=stop_amid, daemon=True)
        timer.start()
        with pytest.raises(Stopped):
            sending.run()
        timer.join()
        assert not locked(client, dataset)
        assert 0 < len(memory.keys) < 200
        done = upload(client, dataset, folder, memory=memory)
        assert (done["images"], set(there(client, dataset).values())) == (200, {1})

    def test_a_finish_that_meets_an_outage_is_repeated(self, sandbox, images):
        """It is safe to repeat, and a locked dataset is not."""
        with OsaiClient(settings_for(sandbox.base_url)) as patient:
            dataset = patient.send(patient.calls.create_dataset("d")).id
            sandbox.control.fault("status", "upload.finish", status=503)
            upload(patient, dataset, images)
            assert not locked(patient, dataset)

    def test_a_dataset_that_somebody_else_has_locked_is_left_so(self, client, dataset, images):
        """A retry may find it unlocked."""
        other = client.send(client.calls.start_upload(dataset))
        with pytest.raises(OsaiUnreachable, match="locked by another upload.*409"):
            upload(client, dataset, images)
        assert locked(client, dataset)
        client.send(client.calls.finish_upload(dataset, other.id))

    @pytest.mark.parametrize("contract", [{}, NO_LIST], ids=["listed", "remembered"])
    def test_one_that_an_earlier_try_left_locked_is_unlocked_first(self, sandbox, images, contract):
        """It was killed before it could."""
        with OsaiClient(settings_for(sandbox.base_url, contract=contract), patience=0) as client:
            dataset = client.send(client.calls.create_dataset("d")).id
            memory = Memory()
            memory.upload_id = client.send(client.calls.start_upload(dataset)).id
            assert upload(client, dataset, images, memory=memory)["sent"] == 60
            assert not locked(client, dataset)


KILLED = """
import sys
from pathlib import Path
from tests.uploads.test_uploader import FileMemory, upload
from tests.conftest import settings_for
from airflow_provider_osai.api.client import OsaiClient
with OsaiClient(settings_for(sys.argv[1])) as client:
    upload(client, sys.argv[2], sys.argv[3], memory=FileMemory(Path(sys.argv[4])))
"""


class FileMemory(Memory):
    """One that outlives its process."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        if path.exists():
            lines = path.read_text().split("\n")
            self.keys, self.upload_id = set(filter(None, lines[1:])), lines[0] or None

    def write(self):
        self.path.write_text("\n".join([self.upload_id or "", *self.keys]))

    def opened(self, upload_id):
        super().opened(upload_id)
        self.write()

    def sent(self, keys):
        super().sent(keys)
        self.write()


def test_a_killed_upload_sends_no_more_again_than_was_in_flight(client, dataset, sandbox, tmp_path):
    """SIGKILL: no time for anything. Whatever the server has seen arrive is there once, and the lock is taken off."""
    folder, memory = many(tmp_path / "images", 400), tmp_path / "memory"
    sandbox.control.fault("delay", "upload.image", seconds=0.02, times=400)
    arguments = [sys.executable, "-c", KILLED, sandbox.base_url, dataset, str(folder), str(memory)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sends(sandbox) < 100 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert locked(client, dataset)
    assert 100 <= sends(sandbox) < 400
    done = upload(client, dataset, folder, memory=FileMemory(memory))
    assert done["images"] == 400
    assert set(there(client, dataset).values()) == {1}
    assert sends(sandbox) <= 400 + 8
    assert not locked(client, dataset)
