"""Invalid request values are rejected before anything is sent; the error has the name, the value and the rule."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DatasetRequest,
    PredictionMode,
    PredictionRequest,
    TrainingRequest,
)


@pytest.mark.parametrize("name", ["m", "a-1", "X" * 50])
def test_valid_model_name_is_accepted(name):
    """Documented: 1 to 50 Latin letters, digits and hyphens."""
    assert TrainingRequest(dataset_ids=["1"], model_name=name).wire()["modelName"] == name


@pytest.mark.parametrize("name", ["", "X" * 51, "a b", "ü", "a_b", "٣", "a\n", "None!"])
def test_invalid_model_name_is_rejected(name):
    with pytest.raises(OsaiArgumentError, match="model_name = .*Latin letters, digits and hyphens"):
        TrainingRequest(dataset_ids=["1"], model_name=name)


@pytest.mark.parametrize("ids", [[], [""], ["None"], None, "", "None"])
def test_missing_id_is_rejected(ids):
    """Jinja renders a missing XCom as "None"."""
    with pytest.raises(OsaiArgumentError, match="dataset_ids"):
        TrainingRequest(dataset_ids=ids, model_name="m")


def test_ids_may_be_numbers_strings_or_a_single_one():
    assert TrainingRequest(dataset_ids=[1, "b"], model_name="m").dataset_ids == ["1", "b"]
    assert TrainingRequest(dataset_ids=7, model_name="m").dataset_ids == ["7"]


def test_rendered_strings_are_converted_to_numbers_and_modes():
    request = PredictionRequest(model_id="m", dataset_id="d", min_confidence="0.7", mode="Replace")
    assert (request.min_confidence, request.mode) == (0.7, PredictionMode.REPLACE)


@pytest.mark.parametrize("value", [-0.1, 1.1, "nan", "much"])
def test_invalid_confidence_is_rejected(value):
    with pytest.raises(OsaiArgumentError, match="min_confidence"):
        PredictionRequest(model_id="m", dataset_id="d", min_confidence=value)


def test_error_lists_all_invalid_fields():
    with pytest.raises(OsaiArgumentError, match=r"framework = 'caffe'.*") as caught:
        TrainingRequest(dataset_ids=[], model_name="m", framework="caffe", model_type="segmentation")
    assert all(field in str(caught.value) for field in ("dataset_ids", "framework", "model_type"))


def test_unknown_mode_and_unknown_argument_are_rejected():
    with pytest.raises(OsaiArgumentError, match="mode = 'some'.*'all', 'replace' or 'unannotated'"):
        PredictionRequest(model_id="m", dataset_id="d", mode="some")
    with pytest.raises(OsaiArgumentError, match="traget"):
        ConversionRequest(model_id="m", target="onnx", traget="x")


def test_wire_form_is_camel_case_without_unset_fields():
    assert ConversionRequest(model_id="m", target="onnx").wire() == {"modelId": "m", "target": "onnx"}
    assert DatasetRequest(name=" digits ").wire() == {"name": "digits"}


def test_unknown_kind_is_rejected_with_the_list_of_kinds():
    assert JobKind.parse(" Training ") is JobKind.TRAINING
    with pytest.raises(OsaiArgumentError, match="kind = 'train'.*device_rental"):
        JobKind.parse("train")
