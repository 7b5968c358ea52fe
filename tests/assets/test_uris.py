"""The scheme ``osai`` is Airflow's as ours: one form for each address, and a clear no to what is none."""

from __future__ import annotations

import warnings

import pytest
from airflow.sdk import Asset

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.assets.uris import is_osai, make


def manager_of_providers():
    """What Airflow asks for schemes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests' own Airflow is asked, whichever it is
        try:
            from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as Manager
        except ImportError:  # Airflow 3.1
            from airflow.providers_manager import ProvidersManager as Manager
        return Manager()


def test_an_asset_says_where_it_is():
    """By region, what it is, and its id or alias."""
    model, data = osai_model("defects"), osai_dataset("4711", region="US")
    assert (model.uri, model.group) == ("osai://eu/models/defects", "model")
    assert (data.uri, data.group) == ("osai://us/datasets/4711", "dataset")
    assert is_osai(model)
    assert not is_osai(Asset("s3://bucket/key"))
    assert not is_osai("osai://eu/models/defects")


def test_arguments_of_airflows_assets_pass():
    """A name of one's own, for instance."""
    assert osai_model("defects", name="champion", extra={"team": "vision"}).name == "champion"


def test_airflow_knows_the_scheme():
    """Its handler brings an address into its one form, its factory makes an asset by parts."""
    manager = manager_of_providers()
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
def test_what_is_no_address_is_refused_by_airflow(uri):
    """When the Dag is parsed."""
    with pytest.raises(ValueError, match="osai://"):
        Asset(uri)


@pytest.mark.parametrize(
    ("name", "region"), [("", "eu"), ("a b", "eu"), ("../x", "eu"), ("x", ""), ("x", "e u"), ("x", "eu/")]
)
def test_what_makes_no_address_is_refused_by_us(name, region):
    """Before Airflow sees it."""
    for made in (osai_model, osai_dataset):
        with pytest.raises(OsaiArgumentError, match="no asset"):
            made(name, region=region)
