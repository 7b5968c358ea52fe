"""Who uses the champion asks by the same rule as the gate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import osai_model, standing_model
from tests.accessors import ByAsset

CHAMPION = osai_model("defects")


def context(*extras):
    events = ByAsset(list)
    events[CHAMPION] = [SimpleNamespace(extra=extra) for extra in extras]
    return {"inlet_events": events}


def test_it_is_the_last_promotion_that_counts():
    """One that was decided against another champion does not."""
    log = [{"model_id": "a", "replaces": None}, {"model_id": "b", "replaces": "a"}, {"model_id": "c", "replaces": "a"}]
    assert standing_model(CHAMPION, context(*log)) == "b"


def test_without_a_promotion_there_is_none():
    """The message says of which asset."""
    with pytest.raises(OsaiArgumentError, match="osai://eu/models/defects: no model was promoted yet"):
        standing_model(CHAMPION, context())
