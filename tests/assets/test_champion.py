"""Looking up the current champion of a model asset."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import champion_model_id, osai_model
from tests.asset_event_fakes import ByAsset

CHAMPION = osai_model("defects")


def context(*extras):
    events = ByAsset(list)
    events[CHAMPION] = [SimpleNamespace(extra=extra) for extra in extras]
    return {"inlet_events": events}


def test_champion_is_the_model_of_the_last_valid_promotion():
    """A promotion that was decided against a champion that had been replaced is not valid."""
    log = [{"model_id": "a", "replaces": None}, {"model_id": "b", "replaces": "a"}, {"model_id": "c", "replaces": "a"}]
    assert champion_model_id(CHAMPION, context(*log)) == "b"


def test_missing_promotion_raises_an_error_that_names_the_asset():
    with pytest.raises(OsaiArgumentError, match="osai://eu/models/defects: no model has been promoted yet"):
        champion_model_id(CHAMPION, context())
