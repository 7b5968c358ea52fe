"""Datasets against the sandbox: made once, filled, and never left locked."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.data.datasets import ensure_categories, ensure_dataset, upload_images
from airflow_provider_osai.data.images import scan_folder
from airflow_provider_osai.jobs.flow import run
from tests.conftest import settings_for


@pytest.fixture
def client(sandbox):
    with OsaiClient(settings_for(sandbox.base_url), patience=0) as made:
        yield made


def do(client, flow):
    return run(flow, client.send, lambda _: None)


def locked(client, dataset_id):
    return client.send(client.calls.get_dataset(dataset_id)).locked


def test_a_dataset_is_made_once_and_then_reused_with_its_categories(client):
    """What is missing is added."""
    first = do(client, ensure_dataset(client.calls, "digits", ["0", "1"]))
    again = do(client, ensure_dataset(client.calls, "digits", ["1", "2"]))
    assert (first["created"], again["created"]) == (True, False)
    assert first["dataset_id"] == again["dataset_id"]
    assert first["categories"]["1"] == again["categories"]["1"]
    assert set(again["categories"]) == {"1", "2"}


def test_a_dataset_that_must_not_exist_is_refused(client):
    """With its id."""
    made = do(client, ensure_dataset(client.calls, "digits"))
    with pytest.raises(OsaiArgumentError, match=f"id {made['dataset_id']}.*'fail'"):
        do(client, ensure_dataset(client.calls, "digits", if_exists="fail"))


@pytest.mark.parametrize(("name", "rule"), [("", "reuse"), (" ", "fail"), ("d", "overwrite")])
def test_a_bad_name_or_rule_is_refused_before_anything_is_sent(client, sandbox, name, rule):
    """No request reaches OSAI."""
    with pytest.raises(OsaiArgumentError, match="name|if_exists"):
        do(client, ensure_dataset(client.calls, name, if_exists=rule))
    assert sandbox.control.record()["requests"] == []


@pytest.mark.parametrize("categories", ["cat", ["cat", ""], ["cat", None]])
def test_bad_categories_are_refused_before_anything_is_sent(client, sandbox, categories):
    """A single text would be taken letter by letter."""
    with pytest.raises(OsaiArgumentError, match="categories = "):
        do(client, ensure_dataset(client.calls, "d", categories))
    assert sandbox.control.record()["requests"] == []


def test_of_two_datasets_with_one_name_none_is_chosen(client):
    """The ids are named instead."""
    for _ in range(2):
        client.send(client.calls.create_dataset("twin"))
    with pytest.raises(OsaiArgumentError, match="2 datasets of this name"):
        do(client, ensure_dataset(client.calls, "twin"))


def test_a_dataset_whose_making_broke_after_it_was_accepted_is_found(client, sandbox):
    """And no second one is made."""
    sandbox.control.fault("reset", "dataset.create")
    made = do(client, ensure_dataset(client.calls, "digits"))
    assert [d.id for d in client.send(client.calls.find_datasets("digits"))] == [made["dataset_id"]]


def test_a_dataset_whose_making_broke_before_is_an_error(client, sandbox):
    """A retry of the task makes it."""
    sandbox.control.fault("reset_before", "dataset.create")
    with pytest.raises(OsaiUnreachable):
        do(client, ensure_dataset(client.calls, "digits"))
    assert client.send(client.calls.find_datasets("digits")) == []


def test_images_arrive_with_their_categories_and_the_dataset_is_unlocked(client, images):
    """The whole documented sequence."""
    dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]
    told = []
    done = do(client, upload_images(client.calls, dataset, scan_folder(images), lambda *n: told.append(n)))
    assert done == {"dataset_id": dataset, "images": 60, "categories": ["0", "1", "2"]}
    assert told[-1] == (60, 60)
    seen = client.send(client.calls.get_dataset(dataset))
    assert (seen.image_count, seen.locked) == (60, False)


@pytest.mark.parametrize(
    ("fault", "error"), [("status", OsaiUnreachable), ("reset", OsaiUnreachable), ("malformed", OsaiUnreachable)]
)
def test_an_upload_that_fails_half_way_unlocks_the_dataset(client, sandbox, images, fault, error):
    """Whatever broke."""
    dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]
    sandbox.control.fault(fault, "upload.image", after=10)
    with pytest.raises(error):
        do(client, upload_images(client.calls, dataset, scan_folder(images)))
    assert not locked(client, dataset)
    assert sandbox.control.record()["counts"]["upload.image"] == 11


def test_an_image_that_osai_refuses_ends_the_upload_and_unlocks(client, images, tmp_path):
    """It looks like a PNG and is none."""
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]
    with pytest.raises(OsaiRequestError, match="400"):
        do(client, upload_images(client.calls, dataset, scan_folder(tmp_path)))
    assert not locked(client, dataset)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupted_upload_unlocks_the_dataset(client, images, interrupt):
    """A kill comes in the middle of anything."""
    dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]

    def interrupted(sent, _):
        if sent == 5:
            raise interrupt

    with pytest.raises(interrupt):
        do(client, upload_images(client.calls, dataset, scan_folder(images), interrupted))
    assert not locked(client, dataset)


def test_a_finish_that_meets_an_outage_is_repeated(sandbox, images):
    """It is safe to repeat, and a locked dataset is not."""
    with OsaiClient(settings_for(sandbox.base_url)) as patient:
        dataset = do(patient, ensure_dataset(patient.calls, "digits"))["dataset_id"]
        sandbox.control.fault("status", "upload.finish", status=503)
        do(patient, upload_images(patient.calls, dataset, scan_folder(images)[:3]))
        assert not locked(patient, dataset)


def test_a_locked_dataset_refuses_a_second_upload(client, images):
    """OSAI's own rule, passed on with its words."""
    dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]
    upload = client.send(client.calls.start_upload(dataset))
    with pytest.raises(OsaiError, match="409"):
        do(client, upload_images(client.calls, dataset, scan_folder(images)))
    assert locked(client, dataset)
    client.send(client.calls.finish_upload(dataset, upload.id))


def test_categories_are_made_where_they_cannot_be_listed(sandbox):
    """The list is assumed; making them is documented."""
    with OsaiClient(settings_for(sandbox.base_url, contract={"category.list": None})) as client:
        dataset = do(client, ensure_dataset(client.calls, "digits"))["dataset_id"]
        assert set(do(client, ensure_categories(client.calls, dataset, ["a", "b", "a"]))) == {"a", "b"}
