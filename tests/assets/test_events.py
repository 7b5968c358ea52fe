"""What events say, and what is read of them."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

from airflow.sdk import Asset

from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.events import MOST, announce, extras, last_extra


def test_only_our_assets_are_told_and_only_what_is_known():
    """The user's others are the user's to speak of; what is said already stays."""
    model, other = osai_model("defects"), Asset("s3://bucket/key")
    told = defaultdict(lambda: SimpleNamespace(extra={}))
    told[model].extra["by"] = "hand"
    announce(
        {"task": SimpleNamespace(outlets=[model, other]), "outlet_events": told}, {"model_id": "1", "metrics": None}
    )
    assert told[model].extra == {"by": "hand", "model_id": "1"}
    assert other not in told


class Events(list):
    """An accessor of Airflow: a sequence that can be narrowed."""

    def ascending(self, ascending=True):
        return self if ascending else Events(self[::-1])

    def limit(self, limit):
        return Events(self[:limit])


def test_the_last_events_are_read_oldest_first():
    """A hundred at the most; with or without a way to ask for so many only (Airflow 3.1)."""
    asset = osai_dataset("1")
    log = [SimpleNamespace(extra={"number": number}) for number in range(MOST + 20)]
    for accessor in (Events(log), log):
        seen = extras({"inlet_events": {asset: accessor}}, asset)
        assert [extra["number"] for extra in seen] == list(range(20, MOST + 20))
        assert last_extra({"inlet_events": {asset: accessor}}, asset) == {"number": MOST + 19}
    assert last_extra({"inlet_events": {asset: []}}, asset) is None
