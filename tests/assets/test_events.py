"""Setting, suppressing and reading asset events."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import Asset, AssetAlias

from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.events import (
    MAX_EVENTS,
    asset_event_extras,
    create_asset_events,
    last_extra,
    set_asset_event_extra,
    suppress_asset_events,
)
from tests.asset_event_fakes import ByAsset


def test_extra_is_set_only_for_osai_assets():
    """Existing keys of the extra are kept, and ``None`` is a value."""
    model, other = osai_model("defects"), Asset("s3://bucket/key")
    events = ByAsset(lambda: SimpleNamespace(extra={}))
    events[model].extra["by"] = "hand"
    set_asset_event_extra(
        SimpleNamespace(outlets=[model, other]), {"outlet_events": events}, {"model_id": "1", "replaces": None}
    )
    assert events[model].extra == {"by": "hand", "model_id": "1", "replaces": None}
    assert other not in events


class Events(list):
    """A fake of Airflow's accessor of inlet events, which can be sorted and limited."""

    def ascending(self, ascending=True):
        return self if ascending else Events(self[::-1])

    def limit(self, limit):
        return Events(self[:limit])


def test_last_hundred_events_are_read_oldest_first():
    """With and without a limit in the query, which Airflow 3.1 does not support."""
    asset, events = osai_dataset("1"), ByAsset(list)
    log = [SimpleNamespace(extra={"number": number}) for number in range(MAX_EVENTS + 20)]
    for accessor in (Events(log), log):
        events[asset] = accessor
        event_extras = asset_event_extras({"inlet_events": events}, asset)
        assert [extra["number"] for extra in event_extras] == list(range(20, MAX_EVENTS + 20))
        assert last_extra({"inlet_events": events}, asset) == {"number": MAX_EVENTS + 19}
    assert last_extra({"inlet_events": ByAsset(list)}, asset) is None


def test_suppressed_assets_are_removed_from_the_outlets():
    """Airflow reads the outlets when the task has succeeded."""
    model, data, other = osai_model("defects"), osai_dataset("1"), Asset("s3://bucket/key")
    task = SimpleNamespace(outlets=[model, data, other])
    suppress_asset_events(task, model.__eq__)
    assert task.outlets == [data, other]
    suppress_asset_events(task)
    assert task.outlets == [other]


class AliasEvents:
    """A fake of Airflow's accessor of an alias in the outlets."""

    def __init__(self):
        self.extra = {}
        self.added = []

    def add(self, asset, extra):
        self.added.append((asset.uri, extra))


def create(result, *outlets, region="eu"):
    """Return what is added to an alias in the outlets, and the log's lines."""
    alias, lines = AssetAlias("made"), []
    events = ByAsset(AliasEvents)
    log = SimpleNamespace(warning=lambda message, *arguments: lines.append(message % arguments))
    task = SimpleNamespace(outlets=[alias, *outlets], log=log)
    create_asset_events(task, {"outlet_events": events}, result, region)
    return events[alias].added, lines


@pytest.mark.parametrize(
    ("result", "uri"),
    [
        ({"kind": "training", "model_id": "7", "dataset_id": "1"}, "osai://eu/models/7"),
        ({"kind": "retraining", "model_id": 7}, "osai://eu/models/7"),
        ({"kind": "prediction", "model_id": "7", "dataset_id": "1"}, "osai://eu/datasets/1"),
        ({"kind": "manipulation", "dataset_id": "1"}, "osai://eu/datasets/1"),
        ({"dataset_id": "1"}, "osai://eu/datasets/1"),
    ],
)
def test_alias_gets_an_event_of_what_the_task_changed(result, uri):
    assert create(result) == ([(uri, result)], [])


@pytest.mark.parametrize(
    "result",
    [
        {"kind": "conversion", "model_id": "7", "conversion_id": "2"},
        {"kind": "device_rental", "device_id": "d"},
        {"kind": "training", "model_id": None},
        {"kind": "training"},
        {"kind": "mining", "dataset_id": "1"},
        {},
    ],
)
def test_alias_of_a_task_that_changed_nothing_gets_no_event(result):
    assert create(result) == ([], [])


@pytest.mark.parametrize("model_id", ["a/b", "ü", "x y", "?"])
def test_id_that_no_uri_can_have_is_logged_and_gets_no_event(model_id):
    """The task has succeeded nevertheless."""
    added, (line,) = create({"kind": "training", "model_id": model_id})
    assert added == []
    assert repr(model_id) in line


def test_alias_and_assets_in_the_outlets_both_get_their_events():
    model = osai_model("defects", region="localhost:8080")
    events = ByAsset(AliasEvents)
    task = SimpleNamespace(outlets=[model, AssetAlias("made")], log=None)
    result = {"kind": "training", "model_id": "7"}
    create_asset_events(task, {"outlet_events": events}, result, "localhost:8080")
    assert events[model].extra == result
    assert events[AssetAlias("made")].added == [("osai://localhost:8080/models/7", result)]
