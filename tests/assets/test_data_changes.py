"""Skipping a training on data that has not changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import has_new_data, osai_model, skip_if_unchanged
from tests.asset_event_fakes import ByAsset

TRAINED = osai_model("defects-candidate")


def context(*extras):
    events = ByAsset(list)
    events[TRAINED] = [SimpleNamespace(extra=extra) for extra in extras]
    return {"inlet_events": events}


def test_data_is_new_unless_the_last_training_used_it():
    """Data that only an earlier training used counts as new."""
    assert has_new_data("b", TRAINED, context())
    assert has_new_data("b", TRAINED, context({"data_digest": "b"}, {"data_digest": "a"}))
    assert has_new_data("b", TRAINED, context({"model_id": "1"}))
    assert not has_new_data("b", TRAINED, context({"data_digest": "a"}, {"data_digest": "b"}))


def test_unchanged_data_skips_the_task_and_names_training_and_digest():
    skip_if_unchanged("b", TRAINED, context({"data_digest": "a"}))
    with pytest.raises(AirflowSkipException, match=r"osai://eu/models/defects-candidate .* digest b"):
        skip_if_unchanged("b", TRAINED, context({"data_digest": "b"}))


@pytest.mark.parametrize("missing", ["", "None", None])
def test_missing_digest_raises_an_error(missing):
    """A template renders a missing XCom as one of these values."""
    with pytest.raises(OsaiArgumentError):
        has_new_data(missing, TRAINED, context())
