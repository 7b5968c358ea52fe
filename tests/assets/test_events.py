"""Setting, suppressing and reading asset events."""

from __future__ import annotations

from types import SimpleNamespace

from airflow.sdk import Asset

from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.events import (
    MAX_EVENTS,
    asset_event_extras,
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
