"""What each kind of job says of what it read and made, in OpenLineage's words."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.manipulation import ManipulationRequest, Rotation
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DeviceRentalRequest,
    PredictionRequest,
    RetrainingRequest,
    TrainingRequest,
)
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.assets import osai_dataset, osai_model
from airflow_provider_osai.lineage.jobs import lineage_of
from airflow_provider_osai.lineage.naming import from_asset, namespace_of
from tests.conftest import CANARY, settings_for

SETTINGS = OsaiSettings.from_connection(CANARY, {"region": "us"})


def told(**ids):
    return {"kind": "x", "job_id": "7", "state": "succeeded", "metrics": {"accuracy": 0.9}, **ids}


@pytest.mark.parametrize(
    ("request_", "made", "read", "outputs"),
    [
        (
            TrainingRequest(dataset_ids=["1", "2"], model_name="m"),
            {"model_id": "3"},
            ["datasets/1", "datasets/2"],
            ["models/3"],
        ),
        (
            RetrainingRequest(model_id="3", dataset_ids="1", model_name="m"),
            {"model_id": "4"},
            ["models/3", "datasets/1"],
            ["models/4"],
        ),
        (
            ConversionRequest(model_id="3", target="onnx"),
            {"model_id": "3", "conversion_id": "5"},
            ["models/3"],
            ["conversions/5"],
        ),
        (
            PredictionRequest(model_id="3", dataset_id="1"),
            {"dataset_id": "1"},
            ["models/3", "datasets/1"],
            ["datasets/1"],
        ),
        (
            ManipulationRequest(dataset_id="1", name="n", operations=[Rotation(angle=5)]),
            {"dataset_id": "2"},
            ["datasets/1"],
            ["datasets/2"],
        ),
        (DeviceRentalRequest(device="d", duration=1), {"device_id": "9"}, [], []),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_a_job_reads_what_was_asked_for_and_makes_what_its_result_says(request_, made, read, outputs):
    """All in the namespace of the region, as assets are."""
    lineage = lineage_of(request_, SETTINGS, "7", told(**made))
    assert [one.name for one in lineage.inputs] == read
    assert [one.name for one in lineage.outputs] == outputs
    assert {one.namespace for one in [*lineage.inputs, *lineage.outputs]} <= {"osai://us"}
    facet = lineage.run_facets["osai_job"]
    assert (facet.kind, facet.job_id, facet.state) == (request_.kind.value, "7", "succeeded")
    assert facet.portal_url.startswith("https://app-us.onestepai.com/")


def test_every_kind_is_thought_of():
    """By the test above."""
    assert len(JobKind) == 6


def test_a_job_that_failed_made_nothing():
    """What it read is known all the same."""
    lineage = lineage_of(TrainingRequest(dataset_ids="1", model_name="m"), SETTINGS, None, None)
    assert ([one.name for one in lineage.inputs], lineage.outputs) == (["datasets/1"], [])
    assert lineage.run_facets["osai_job"].state is None


def test_metrics_and_the_datas_digest_go_along():
    """The digest is the version of the data, where there is one dataset."""
    lineage = lineage_of(
        TrainingRequest(dataset_ids="1", model_name="m"), SETTINGS, "7", told(model_id="3", data_digest="abc")
    )
    assert lineage.inputs[0].facets["version"].datasetVersion == "abc"
    assert lineage.outputs[0].facets["osai_metrics"].metrics == {"accuracy": 0.9}


def test_assets_have_the_names_that_jobs_say():
    """So that both are one thing in a graph of lineage."""
    for asset, name in ((osai_model("3", region="us"), "models/3"), (osai_dataset("1", region="us"), "datasets/1")):
        dataset = from_asset(asset, None)
        assert (dataset.namespace, dataset.name) == (namespace_of(SETTINGS), name)


def test_an_osai_of_ones_own_is_named_by_its_host():
    """There is no region then."""
    assert namespace_of(settings_for("http://127.0.0.1:8080/api")) == "osai://127.0.0.1:8080"
