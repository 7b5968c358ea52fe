"""Manipulation operations: documented ranges, validation on creation, and order."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.manipulation import BrightnessContrast, ManipulationRequest, Resize, Rotation

ROTATION = Rotation(angle=15, generate=2)
LIGHT = BrightnessContrast(contrast=1.5, brightness=20)
SIZE = Resize(width=64, height=48)


def request(operations):
    return ManipulationRequest(dataset_id="1", name="more", operations=operations)


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        (Rotation, {"angle": 0}),
        (Rotation, {"angle": 361}),
        (Rotation, {"angle": 10, "generate": 0}),
        (Rotation, {"angle": 10, "generate": 36}),
        (Rotation, {"angle": 10, "crop_threshold": 101}),
        (BrightnessContrast, {"contrast": 0.09, "brightness": 0}),
        (BrightnessContrast, {"contrast": 3.1, "brightness": 0}),
        (BrightnessContrast, {"contrast": 1, "brightness": 256}),
        (BrightnessContrast, {"contrast": 1, "brightness": -1}),
        (BrightnessContrast, {"contrast": 1, "brightness": 1, "generate": 0}),
        (Resize, {"width": 0, "height": 1}),
        (Resize, {"width": "wide", "height": 1}),
    ],
)
def test_invalid_value_is_rejected_when_the_operation_is_created(operation, values):
    """The error appears when the Dag is parsed."""
    with pytest.raises(OsaiArgumentError):
        operation(**values)


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        (Rotation, {"angle": 360, "generate": 35, "crop_threshold": 0}),
        (BrightnessContrast, {"contrast": 0.1, "brightness": 255}),
        (BrightnessContrast, {"contrast": 3.0, "brightness": 0}),
        (Resize, {"width": 1, "height": "1"}),
    ],
)
def test_limits_of_the_documented_ranges_are_valid(operation, values):
    assert {"type", *values} <= set(request(operation(**values)).operations[0].model_dump())


def test_templated_value_is_validated_after_rendering():
    template = Rotation(angle="{{ params.angle }}")
    assert request([{**template, "angle": "20"}]).wire()["operations"][0]["angle"] == 20
    with pytest.raises(OsaiArgumentError, match="angle"):
        request([{**template, "angle": "400"}])


def test_order_of_the_operations_is_kept():
    for order in ([ROTATION, LIGHT, SIZE], [SIZE, LIGHT, ROTATION]):
        assert [step["type"] for step in request(order).wire()["operations"]] == [step["type"] for step in order]


@pytest.mark.parametrize("given", [ROTATION, [ROTATION], json.dumps([ROTATION]), json.dumps(ROTATION)])
def test_single_operation_is_accepted_alone_in_a_list_or_as_json(given):
    assert request(given).wire()["operations"] == [{"type": "rotation", "angle": 15.0, "generate": 2}]


@pytest.mark.parametrize("bad", [[], [ROTATION, Rotation(angle=90)], [{"type": "blur"}], "rotate it", [{"angle": 5}]])
def test_invalid_or_duplicate_operations_are_rejected(bad):
    with pytest.raises(OsaiArgumentError, match="operations"):
        request(bad)
