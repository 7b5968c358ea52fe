"""Asset URIs of the scheme ``osai``: creation, normalization by Airflow, and validation."""

from __future__ import annotations

import warnings

import pytest
from airflow.sdk import Asset

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.uris import is_osai, make


def providers_manager():
    """Return Airflow's registry of URI schemes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the installed Airflow version are not tested here
        try:
            from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as Manager
        except ImportError:  # Airflow 3.1
            from airflow.providers_manager import ProvidersManager as Manager
        return Manager()


def test_asset_uri_has_region_group_and_id_or_alias():
    model, data = osai_model("defects"), osai_dataset("4711", region="US")
    assert (model.uri, model.group) == ("osai://eu/models/defects", "model")
    assert (data.uri, data.group) == ("osai://us/datasets/4711", "dataset")
    assert is_osai(model)
    assert not is_osai(Asset("s3://bucket/key"))
    assert not is_osai("osai://eu/models/defects")


def test_further_arguments_are_passed_to_the_asset():
    assert osai_model("defects", name="champion", extra={"team": "vision"}).name == "champion"


def test_airflow_uses_the_handler_and_factory_of_the_scheme():
    """The handler normalizes a URI; the factory creates an asset from its parts."""
    manager = providers_manager()
    assert "osai" in manager.asset_uri_handlers
    assert manager.asset_factories["osai"] is make
    assert Asset("OSAI://EU/Models/defects/").uri == osai_model("defects").uri
    assert make(kind="model", id="defects") == osai_model("defects")


@pytest.mark.parametrize(
    "uri",
    [
        "osai://eu",
        "osai://eu/models",
        "osai:///models/x",
        "osai://eu/jobs/x",
        "osai://eu/models/a/b",
        "osai://eu/models/a%20b",
    ],
)
def test_invalid_uri_is_rejected_by_airflow(uri):
    """When the Dag is parsed."""
    with pytest.raises(ValueError, match="Invalid asset URI 'osai:"):
        Asset(uri)


@pytest.mark.parametrize(
    ("name", "region"), [("", "eu"), ("a b", "eu"), ("../x", "eu"), ("x", ""), ("x", "e u"), ("x", "eu/")]
)
def test_invalid_id_or_region_is_rejected(name, region):
    for create_asset in (osai_model, osai_dataset):
        with pytest.raises(OsaiArgumentError, match="Invalid asset"):
            create_asset(name, region=region)
