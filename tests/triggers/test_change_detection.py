"""Change detection of datasets and models against the last reported state."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.models import Dataset, Model
from airflow_provider_osai.triggers.change_detection import MAX_UNLISTED_MODELS, dataset_changes, model_changes


def dataset(updated_at=None, image_count=None, locked=False) -> Dataset:
    return Dataset(id="7", name="defects", locked=locked, image_count=image_count, updated_at=updated_at)


def model(model_id: str, name: str = "m", created_at: str | None = None, **metrics) -> Model:
    return Model(id=model_id, name=name, metrics=metrics, created_at=created_at)


def changes_of(*polls) -> list[tuple]:
    """Return the times and counts of the events of successive polls."""
    reported = None
    changes = []
    for current in polls:
        events, reported = dataset_changes(reported, current)
        changes += [(event["updated_at"], event["image_count"]) for event in events]
    return changes


def test_a_dataset_event_contains_the_previous_state():
    _, reported = dataset_changes(None, dataset("t1", 3))
    (event,), reported = dataset_changes(reported, dataset("t2", 5))
    assert event == {
        "kind": "dataset_changed",
        "dataset_id": "7",
        "name": "defects",
        "updated_at": "t2",
        "image_count": 5,
        "previous": {"updated_at": "t1", "image_count": 3},
    }
    assert reported == {"updated_at": "t2", "image_count": 5}


@pytest.mark.parametrize(
    ("polls", "changes"),
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
def test_a_dataset_fires_once_for_each_visible_change(polls, changes):
    """The time decides, else the count; a dataset that is locked, missing or without both fires nothing."""
    assert changes_of(*polls) == changes


def test_new_models_fire_once_in_the_order_of_their_creation():
    """Models of the first poll and models with other names do not fire."""
    events, reported = model_changes(None, [model("1"), model("x", "other")], "m")
    assert (events, reported) == ([], {"model_ids": ["1"]})
    current = [model("3", created_at="t3", f1=0.9), model("1"), model("2", created_at="t2"), model("y", "other")]
    events, reported = model_changes(reported, current, "m")
    assert [event["model_id"] for event in events] == ["2", "3"]
    assert events[1] == {
        "kind": "model_trained",
        "model_id": "3",
        "name": "m",
        "metrics": {"f1": 0.9},
        "created_at": "t3",
    }
    assert model_changes(reported, current, "m") == ([], reported)
    events, _ = model_changes(reported, [*current, model("z", "any")])
    assert [event["model_id"] for event in events] == ["y", "z"]


def test_a_model_that_was_missing_for_a_while_is_not_new_again():
    """An incomplete list must not retrain everything, nor may the state grow endlessly."""
    _, reported = model_changes(None, [model("1"), model("2")])
    _, reported = model_changes(reported, [model("3")])
    assert model_changes(reported, [model(model_id) for model_id in "123"])[0] == []
    many = [str(number) for number in range(3 * MAX_UNLISTED_MODELS)]
    _, reported = model_changes({"model_ids": many}, [model("new")])
    assert len(reported["model_ids"]) == MAX_UNLISTED_MODELS + 1


def test_metrics_are_json_that_every_database_accepts():
    """Python parses NaN in a response; PostgreSQL would reject it, which would stop the triggerer."""
    (event,), _ = model_changes({"model_ids": []}, [model("1", loss=float("nan"), deep={"a": [float("inf"), 1.5]})])
    assert event["metrics"] == {"loss": None, "deep": {"a": [None, 1.5]}}
    json.dumps(event, allow_nan=False)
