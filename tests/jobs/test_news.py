"""What is told of datasets and models, by what was told before."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.models import Dataset, Model
from airflow_provider_osai.jobs.news import GONE, dataset_news, model_news


def dataset(updated_at=None, image_count=None, locked=False) -> Dataset:
    return Dataset(id="7", name="defects", locked=locked, image_count=image_count, updated_at=updated_at)


def model(model_id: str, name: str = "m", created_at: str | None = None, **metrics) -> Model:
    return Model(id=model_id, name=name, metrics=metrics, created_at=created_at)


def story(*looks) -> list[tuple]:
    """The times and counts that are told, look after look."""
    told, said = None, []
    for look in looks:
        events, told = dataset_news(told, look)
        said += [(event["updated_at"], event["image_count"]) for event in events]
    return said


def test_a_dataset_is_told_with_what_it_was_before():
    """All that a Dag needs, as plain JSON."""
    _, told = dataset_news(None, dataset("t1", 3))
    (event,), told = dataset_news(told, dataset("t2", 5))
    assert event == {
        "kind": "dataset_changed",
        "dataset_id": "7",
        "name": "defects",
        "updated_at": "t2",
        "image_count": 5,
        "previous": {"updated_at": "t1", "image_count": 3},
    }
    assert told == {"updated_at": "t2", "image_count": 5}


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([dataset("t1")], []),
        ([dataset("t1"), dataset("t1"), dataset("t2"), dataset("t2"), dataset("t1")], [("t2", None), ("t1", None)]),
        ([dataset(None, 1), dataset(None, 1), dataset(None, 2)], [(None, 2)]),
        ([dataset("t1", 1), dataset("t1", 2)], []),
        ([dataset("t1", 1), dataset("t2", 2, locked=True), dataset("t3", 3, locked=True)], []),
        ([dataset("t1", 1), dataset("t2", 2, locked=True), dataset("t3", 3)], [("t3", 3)]),
        ([dataset("t1", 1, locked=True), dataset("t2", 2)], [("t2", 2)]),
        ([dataset("t1"), None, dataset("t1")], []),
        ([None, dataset("t1"), dataset("t2")], [("t2", None)]),
        ([dataset(None, 1), dataset("t1", 1), dataset("t2", 1)], [("t2", 1)]),
        ([dataset("t1", 1), dataset(None, 1), dataset("t1", 1)], []),
        ([dataset(), dataset(), dataset("t1"), dataset("t2")], [("t2", None)]),
    ],
)
def test_a_dataset_is_told_once_for_each_change_that_is_seen(looks, said):
    """The time decides, else the count; a dataset that is locked, out of sight or unmarked tells nothing."""
    assert story(*looks) == said


def test_models_are_told_once_in_the_order_of_their_making():
    """Those of the first look are not new; other names are not told."""
    events, told = model_news(None, [model("1"), model("x", "other")], "m")
    assert (events, told) == ([], {"model_ids": ["1"]})
    there = [model("3", created_at="t3", f1=0.9), model("1"), model("2", created_at="t2"), model("y", "other")]
    events, told = model_news(told, there, "m")
    assert [event["model_id"] for event in events] == ["2", "3"]
    assert events[1] == {
        "kind": "model_trained",
        "model_id": "3",
        "name": "m",
        "metrics": {"f1": 0.9},
        "created_at": "t3",
    }
    assert model_news(told, there, "m") == ([], told)
    assert [event["model_id"] for event in model_news(told, [*there, model("z", "any")])[0]] == ["x", "y", "z"][1:]


def test_a_model_that_is_out_of_sight_for_a_while_is_not_new_again():
    """A short list must not retrain everything; nor may the memory grow for ever."""
    _, told = model_news(None, [model("1"), model("2")])
    _, told = model_news(told, [model("3")])
    assert model_news(told, [model(one) for one in "123"])[0] == []
    _, told = model_news({"model_ids": [str(one) for one in range(3 * GONE)]}, [model("new")])
    assert len(told["model_ids"]) == GONE + 1


def test_metrics_are_json_that_a_database_takes():
    """Python reads NaN from an answer; PostgreSQL would refuse it, and the triggerer with it."""
    (event,), _ = model_news({"model_ids": []}, [model("1", loss=float("nan"), deep={"a": [float("inf"), 1.5]})])
    assert event["metrics"] == {"loss": None, "deep": {"a": [None, 1.5]}}
    json.dumps(event, allow_nan=False)
