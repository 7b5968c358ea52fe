"""The operator that uploads images: what it makes of its arguments, and of a task's tries and kills."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.uploads.uploader import Stopped
from tests.conftest import settings_for


@pytest.fixture
def client(sandbox, connection):
    with OsaiClient(settings_for(sandbox.base_url), patience=0) as made:
        yield made


@pytest.fixture
def dataset(client):
    return client.send(client.calls.create_dataset("d")).id


def operator(dataset, source, **options):
    return OsaiUploadImagesOperator(task_id="task", dataset_id=dataset, source=source, **options)


def sends(sandbox):
    return sandbox.control.record()["counts"].get("upload.image", 0)


@pytest.mark.parametrize("form", ["text", "url", "object storage", "list"])
def test_a_source_may_be_said_in_many_ways(client, dataset, images, context, form):
    """All of them mean the same folder."""
    sources = {
        "text": str(images),
        "url": f"file://{images}",
        "object storage": ObjectStoragePath(f"file://{images}"),
        "list": sorted(str(path) for path in images.glob("*/*.png")),
    }
    done = operator(dataset, sources[form]).execute(context)
    assert (done["images"], done["categories"]) == (60, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"source": "nowhere://x"}, "nowhere"),
        ({"source": "/does/not/exist"}, "does not exist"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": "many"}, "max_concurrency"),
        ({"on_bad_file": "weep"}, "on_bad_file"),
        ({"dataset_id": "None"}, "dataset_id"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_sent(sandbox, connection, images, context, options, reason):
    """And no retry is tried."""
    task = OsaiUploadImagesOperator(task_id="task", **{"dataset_id": "1", "source": str(images), **options})
    with pytest.raises(AirflowFailException, match=reason):
        task.execute(context)
    assert sandbox.control.record()["requests"] == []


def test_bad_files_fail_the_task_or_are_skipped(client, dataset, images, context, tmp_path):
    """As the user wants."""
    folder = shutil.copytree(images, tmp_path / "images")
    (folder / "0" / "notes.doc").write_text("remember the milk")
    with pytest.raises(AirflowFailException, match=r"0/notes\.doc.*on_bad_file='skip'"):
        operator(dataset, str(folder)).execute(context)
    done = operator(dataset, str(folder), on_bad_file="skip").execute(context)
    assert (done["images"], list(done["bad"])) == (60, ["0/notes.doc"])


def test_a_killed_task_unlocks_the_dataset_and_its_retry_goes_on(client, dataset, sandbox, images, context):
    """Each image is sent once; where Airflow remembers, also if OSAI cannot list its images."""
    sandbox.control.fault("delay", "upload.image", seconds=0.1, times=1000)
    task = operator(dataset, str(images), max_concurrency=2)

    def kill_amid():
        while sends(sandbox) < 5:
            time.sleep(0.01)
        task.on_kill()

    killer = threading.Thread(target=kill_amid, daemon=True)
    killer.start()
    with pytest.raises(Stopped):
        task.execute(context)
    killer.join()
    assert 0 < sends(sandbox) < 60
    assert not client.send(client.calls.get_dataset(dataset)).locked
    assert operator(dataset, str(images)).execute(context)["images"] == 60
    assert sends(sandbox) == 60


def test_a_kill_before_the_upload_begins_is_not_forgotten(client, dataset, sandbox, images, context, monkeypatch):
    """It may come while the images are looked through."""
    task = operator(dataset, str(images))
    task.on_kill()
    with pytest.raises(Stopped):
        task.execute(context)
    assert sends(sandbox) == 0


def test_what_was_sent_is_remembered_without_a_list(sandbox, connection, images, monkeypatch):
    """In the state store of Airflow 3.3, many under one key; another dataset starts anew."""
    from airflow_provider_osai.operators import ledger
    from tests.airflow.conftest import FakeStateStore

    monkeypatch.setattr(ledger, "TOGETHER", 7)
    store = FakeStateStore()
    first = ledger.StateStoreUploads(store)
    first.recall("1")
    keys = [f"{n:024x}" for n in range(50)]
    for n in range(0, 50, 5):
        first.sent(keys[n : n + 5])
    first.opened("9")
    past = ledger.StateStoreUploads(store).recall("1")
    assert (set(past.keys), past.upload_id) == (set(keys), "9")
    again = ledger.StateStoreUploads(store)
    again.recall("1")
    again.sent([f"{99:024x}"])
    assert len(ledger.StateStoreUploads(store).recall("1").keys) == 51
    assert max(len(text) for text in store.kept.values()) < 7 * 24 + 10
    assert not ledger.StateStoreUploads(store).recall("2").keys


def test_progress_is_told_and_shown(client, dataset, images, context, logged, monkeypatch):
    """In the log, and in the state store where there is one."""
    monkeypatch.setattr("airflow_provider_osai.uploads.uploader.TOLD", 0.0)
    operator(dataset, str(images)).execute(context)
    assert "60 of 60 images are there" in logged()
    if store := context.get("task_state_store"):
        assert store.get("osai_progress")["sent"] == 60


def test_a_dataset_in_use_is_a_matter_of_time(client, dataset, images, context):
    """Not an end: the retry may find it unlocked."""
    from airflow_provider_osai.api.errors import OsaiUnreachable

    other = client.send(client.calls.start_upload(dataset))
    with pytest.raises(OsaiUnreachable, match="locked by another upload"):
        operator(dataset, str(images)).execute(context)
    client.send(client.calls.finish_upload(dataset, other.id))
    assert operator(dataset, str(images)).execute(context)["images"] == 60
