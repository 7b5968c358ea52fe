"""What events say, and what is read of them."""

from __future__ import annotations

from types import SimpleNamespace

from airflow.sdk import Asset

from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.events import MOST, announce, extras, keep_silent, last_extra
from tests.accessors import ByAsset


def test_only_our_assets_are_told():
    """The user's others are the user's to speak of; what is said already stays. ``None`` is a word too."""
    model, other = osai_model("defects"), Asset("s3://bucket/key")
    told = ByAsset(lambda: SimpleNamespace(extra={}))
    told[model].extra["by"] = "hand"
    announce(SimpleNamespace(outlets=[model, other]), {"outlet_events": told}, {"model_id": "1", "replaces": None})
    assert told[model].extra == {"by": "hand", "model_id": "1", "replaces": None}
    assert other not in told


class Events(list):
    """An accessor of Airflow: a sequence that can be narrowed."""

    def ascending(self, ascending=True):
        return self if ascending else Events(self[::-1])

    def limit(self, limit):
        return Events(self[:limit])


def test_the_last_events_are_read_oldest_first():
    """A hundred at the most; with or without a way to ask for so many only (Airflow 3.1)."""
    asset, events = osai_dataset("1"), ByAsset(list)
    log = [SimpleNamespace(extra={"number": number}) for number in range(MOST + 20)]
    for accessor in (Events(log), log):
        events[asset] = accessor
        seen = extras({"inlet_events": events}, asset)
        assert [extra["number"] for extra in seen] == list(range(20, MOST + 20))
        assert last_extra({"inlet_events": events}, asset) == {"number": MOST + 19}
    assert last_extra({"inlet_events": ByAsset(list)}, asset) is None


def test_an_event_that_is_not_to_be_made_is_taken_out_of_the_outlets():
    """Of the running task, which Airflow reads when it has succeeded."""
    model, data, other = osai_model("defects"), osai_dataset("1"), Asset("s3://bucket/key")
    task = SimpleNamespace(outlets=[model, data, other])
    keep_silent(task, model.__eq__)
    assert task.outlets == [data, other]
    keep_silent(task)
    assert task.outlets == [other]
