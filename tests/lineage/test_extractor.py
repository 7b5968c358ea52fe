"""OpenLineage inputs, outputs and facets of each kind of job."""

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
from airflow_provider_osai.lineage.extractor import extract_lineage
from airflow_provider_osai.lineage.naming import from_asset, namespace_from
from tests.conftest import CANARY, settings_for

SETTINGS = OsaiSettings.from_connection(CANARY, {"region": "us"})


def job_result(**ids):
    return {"kind": "x", "job_id": "7", "state": "succeeded", "metrics": {"accuracy": 0.9}, **ids}


@pytest.mark.parametrize(
    ("request_", "ids", "inputs", "outputs"),
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
def test_inputs_come_from_the_request_and_outputs_from_the_result(request_, ids, inputs, outputs):
    """All are in the namespace of the region, like assets."""
    lineage = extract_lineage(request_, SETTINGS, "7", job_result(**ids))
    assert [dataset.name for dataset in lineage.inputs] == inputs
    assert [dataset.name for dataset in lineage.outputs] == outputs
    assert {dataset.namespace for dataset in [*lineage.inputs, *lineage.outputs]} <= {"osai://us"}
    facet = lineage.run_facets["osai_job"]
    assert (facet.kind, facet.job_id, facet.state) == (request_.kind.value, "7", "succeeded")
    assert facet.portal_url.startswith("https://app-us.onestepai.com/")


def test_every_kind_of_job_is_tested_above():
    assert len(JobKind) == 6


def test_failed_job_has_inputs_but_no_outputs():
    lineage = extract_lineage(TrainingRequest(dataset_ids="1", model_name="m"), SETTINGS, None, None)
    assert ([dataset.name for dataset in lineage.inputs], lineage.outputs) == (["datasets/1"], [])
    assert lineage.run_facets["osai_job"].state is None


def test_facets_have_the_metrics_and_the_data_digest():
    """The digest is the version of the input dataset if there is exactly one."""
    lineage = extract_lineage(
        TrainingRequest(dataset_ids="1", model_name="m"), SETTINGS, "7", job_result(model_id="3", data_digest="abc")
    )
    assert lineage.inputs[0].facets["version"].datasetVersion == "abc"
    assert lineage.outputs[0].facets["osai_metrics"].metrics == {"accuracy": 0.9}


def test_assets_have_the_same_names_as_inputs_and_outputs_of_jobs():
    """They are one node in a lineage graph."""
    for asset, name in ((osai_model("3", region="us"), "models/3"), (osai_dataset("1", region="us"), "datasets/1")):
        dataset = from_asset(asset, None)
        assert (dataset.namespace, dataset.name) == (namespace_from(SETTINGS), name)


def test_namespace_is_the_host_if_the_connection_has_a_base_url():
    """There is no region then."""
    assert namespace_from(settings_for("http://127.0.0.1:8080/api")) == "osai://127.0.0.1:8080"
