"""Datasets against the sandbox: made once, with their categories."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.data.datasets import delete_dataset, ensure_categories, ensure_dataset
from tests.conftest import settings_for


@pytest.fixture
def client(sandbox):
    with OsaiClient(settings_for(sandbox.base_url), retry_budget=0) as made:
        made.sleep = lambda _: None
        yield made


def test_a_dataset_is_made_once_and_then_reused_with_its_categories(client):
    """What is missing is added."""
    first = ensure_dataset(client, "digits", ["0", "1"])
    again = ensure_dataset(client, "digits", ["1", "2"])
    assert (first["created"], again["created"]) == (True, False)
    assert first["dataset_id"] == again["dataset_id"]
    assert first["categories"]["1"] == again["categories"]["1"]
    assert set(again["categories"]) == {"1", "2"}


def test_a_dataset_that_must_not_exist_is_refused(client):
    """With its id."""
    made = ensure_dataset(client, "digits")
    with pytest.raises(OsaiArgumentError, match=f"id {made['dataset_id']}.*'fail'"):
        ensure_dataset(client, "digits", if_exists="fail")


@pytest.mark.parametrize(("name", "rule"), [("", "reuse"), (" ", "fail"), ("d", "overwrite")])
def test_a_bad_name_or_rule_is_refused_before_anything_is_sent(client, sandbox, name, rule):
    """No request reaches OSAI."""
    with pytest.raises(OsaiArgumentError, match="name|if_exists"):
        ensure_dataset(client, name, if_exists=rule)
    assert sandbox.control.record()["requests"] == []


@pytest.mark.parametrize("categories", ["cat", ["cat", ""], ["cat", None]])
def test_bad_categories_are_refused_before_anything_is_sent(client, sandbox, categories):
    """A single text would be taken letter by letter."""
    with pytest.raises(OsaiArgumentError, match="categories = "):
        ensure_dataset(client, "d", categories)
    assert sandbox.control.record()["requests"] == []


def test_of_two_datasets_with_one_name_none_is_chosen(client):
    """The ids are named instead."""
    for _ in range(2):
        client.create_dataset("twin")
    with pytest.raises(OsaiArgumentError, match="2 datasets with this name"):
        ensure_dataset(client, "twin")


def test_a_dataset_whose_making_broke_after_it_was_accepted_is_found(client, sandbox):
    """And no second one is made."""
    sandbox.control.fault("reset", "dataset.create")
    made = ensure_dataset(client, "digits")
    assert [d.id for d in client.list_datasets("digits")] == [made["dataset_id"]]


def test_a_dataset_whose_making_broke_before_is_an_error(client, sandbox):
    """A retry of the task makes it."""
    sandbox.control.fault("reset_before", "dataset.create")
    with pytest.raises(OsaiUnreachable):
        ensure_dataset(client, "digits")
    assert client.list_datasets("digits") == []


def test_categories_are_made_where_they_cannot_be_listed(sandbox):
    """The list is assumed; making them is documented."""
    with OsaiClient(settings_for(sandbox.base_url, contract={"category.list": None})) as client:
        dataset = ensure_dataset(client, "digits")["dataset_id"]
        assert set(ensure_categories(client, dataset, ["a", "b", "a"])) == {"a", "b"}


class TestDeletion:
    """A dataset in use is waited for, with growing pauses."""

    def sleeps(self, client, dataset_id, timeout, slept, wake=lambda _: None):

        def sleep(seconds):
            slept.append(seconds)
            wake(len(slept))

        client.sleep = sleep
        delete_dataset(client, dataset_id, timeout=timeout)
        return slept

    def test_the_pauses_double_up_to_half_a_minute_and_end_at_the_patience(self, client):
        """Then the task fails, and its retries go on."""
        dataset_id = ensure_dataset(client, "d")["dataset_id"]
        client.start_upload(dataset_id)
        slept = []
        with pytest.raises(OsaiUnreachable, match="still in use"):
            self.sleeps(client, dataset_id, 100, slept)
        assert slept == [1, 2, 4, 8, 16, 30, 30, 9]

    def test_it_goes_as_soon_as_nobody_uses_it(self, client):
        """Here after the second pause."""
        dataset_id = ensure_dataset(client, "d")["dataset_id"]
        upload = client.start_upload(dataset_id)

        def wake(times):
            if times == 2:
                client.finish_upload(dataset_id, upload.id)

        assert self.sleeps(client, dataset_id, 600, [], wake) == [1, 2]
