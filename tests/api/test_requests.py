"""Bad values are refused before anything is sent, by name, value and rule."""

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
def test_a_model_name_by_the_documented_rule_is_taken(name):
    """1 to 50 characters: Latin letters, digits, hyphens."""
    assert TrainingRequest(dataset_ids=["1"], model_name=name).wire()["modelName"] == name


@pytest.mark.parametrize("name", ["", "X" * 51, "a b", "ü", "a_b", "٣", "a\n", "None!"])
def test_a_model_name_against_the_rule_is_refused(name):
    """The message names the value and the rule."""
    with pytest.raises(OsaiArgumentError, match="model_name = .*Latin letters, digits and hyphens"):
        TrainingRequest(dataset_ids=["1"], model_name=name)


@pytest.mark.parametrize("ids", [[], [""], ["None"], None, "", "None"])
def test_what_a_template_leaves_of_a_missing_id_is_refused(ids):
    """Jinja renders a missing XCom as "None"; that is no id."""
    with pytest.raises(OsaiArgumentError, match="dataset_ids"):
        TrainingRequest(dataset_ids=ids, model_name="m")


def test_ids_may_be_numbers_text_or_one_alone():
    """OSAI's ids are not described: numbers and text are both kept as text."""
    assert TrainingRequest(dataset_ids=[1, "b"], model_name="m").dataset_ids == ["1", "b"]
    assert TrainingRequest(dataset_ids=7, model_name="m").dataset_ids == ["7"]


def test_rendered_text_is_taken_as_the_number_it_says():
    """A template field arrives as text."""
    request = PredictionRequest(model_id="m", dataset_id="d", min_confidence="0.7", mode="Replace")
    assert (request.min_confidence, request.mode) == (0.7, PredictionMode.REPLACE)


@pytest.mark.parametrize("value", [-0.1, 1.1, "nan", "much"])
def test_a_confidence_outside_0_to_1_is_refused(value):
    """So is one that is no number."""
    with pytest.raises(OsaiArgumentError, match="min_confidence"):
        PredictionRequest(model_id="m", dataset_id="d", min_confidence=value)


def test_all_that_is_wrong_is_said_at_once():
    """A user mends everything in one go."""
    with pytest.raises(OsaiArgumentError, match=r"framework = 'caffe'.*") as caught:
        TrainingRequest(dataset_ids=[], model_name="m", framework="caffe", model_type="segmentation")
    assert all(field in str(caught.value) for field in ("dataset_ids", "framework", "model_type"))


def test_an_unknown_mode_and_an_unknown_argument_are_refused():
    """The choices are listed."""
    with pytest.raises(OsaiArgumentError, match="mode = 'some'.*'all', 'replace' or 'unannotated'"):
        PredictionRequest(model_id="m", dataset_id="d", mode="some")
    with pytest.raises(OsaiArgumentError, match="traget"):
        ConversionRequest(model_id="m", target="onnx", traget="x")


def test_the_wire_form_is_camel_case_without_what_is_unset():
    """What the user does not say is left to OSAI."""
    assert ConversionRequest(model_id="m", target="onnx").wire() == {"modelId": "m", "target": "onnx"}
    assert DatasetRequest(name=" digits ").wire() == {"name": "digits"}


def test_an_unknown_kind_is_refused_with_the_list_of_kinds():
    """As a sensor's user would need it."""
    assert JobKind.parse(" Training ") is JobKind.TRAINING
    with pytest.raises(OsaiArgumentError, match="kind = 'train'.*device_rental"):
        JobKind.parse("train")
