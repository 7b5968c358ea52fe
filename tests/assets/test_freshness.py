"""What was trained on already is no reason to train again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import is_new, osai_model, skip_unless_new
from tests.accessors import ByAsset

TRAINED = osai_model("defects-candidate")


def context(*extras):
    events = ByAsset(list)
    events[TRAINED] = [SimpleNamespace(extra=extra) for extra in extras]
    return {"inlet_events": events}


def test_only_the_last_training_counts():
    """One on these data before it was of another state of things: train again."""
    assert is_new("b", TRAINED, context())
    assert is_new("b", TRAINED, context({"data_digest": "b"}, {"data_digest": "a"}))
    assert is_new("b", TRAINED, context({"model_id": "1"}))
    assert not is_new("b", TRAINED, context({"data_digest": "a"}, {"data_digest": "b"}))


def test_the_same_data_skip_what_follows():
    """With a word on which data, and which training."""
    skip_unless_new("b", TRAINED, context({"data_digest": "a"}))
    with pytest.raises(AirflowSkipException, match=r"osai://eu/models/defects-candidate .* digest b"):
        skip_unless_new("b", TRAINED, context({"data_digest": "b"}))


@pytest.mark.parametrize("missing", ["", "None", None])
def test_a_digest_that_is_missing_is_not_new_data(missing):
    """It is what a template leaves of an XCom that is not there."""
    with pytest.raises(OsaiArgumentError):
        is_new(missing, TRAINED, context())
