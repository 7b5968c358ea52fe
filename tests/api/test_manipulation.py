"""Operations have the documented ranges, are checked when they are made, and travel in their order."""

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
def test_a_value_out_of_its_range_is_refused_when_the_operation_is_made(operation, values):
    """Where the Dag's author sees it: at parse time."""
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
def test_the_ends_of_the_ranges_are_inside(operation, values):
    """As documented."""
    assert {"type", *values} <= set(request(operation(**values)).operations[0].model_dump())


def test_what_a_template_fills_in_is_checked_when_it_is_known():
    """The operation takes the template, the request takes no bad value."""
    later = Rotation(angle="{{ params.angle }}")
    assert request([{**later, "angle": "20"}]).wire()["operations"][0]["angle"] == 20
    with pytest.raises(OsaiArgumentError, match="angle"):
        request([{**later, "angle": "400"}])


def test_the_order_is_the_users():
    """On the wire too."""
    for order in ([ROTATION, LIGHT, SIZE], [SIZE, LIGHT, ROTATION]):
        assert [step["type"] for step in request(order).wire()["operations"]] == [step["type"] for step in order]


@pytest.mark.parametrize("given", [ROTATION, [ROTATION], json.dumps([ROTATION]), json.dumps(ROTATION)])
def test_one_operation_may_be_given_in_many_forms(given):
    """Also as the JSON that a template makes."""
    assert request(given).wire()["operations"] == [{"type": "rotation", "angle": 15.0, "generate": 2}]


@pytest.mark.parametrize("bad", [[], [ROTATION, Rotation(angle=90)], [{"type": "blur"}], "rotate it", [{"angle": 5}]])
def test_what_is_no_list_of_different_operations_is_refused(bad):
    """Each may be there once."""
    with pytest.raises(OsaiArgumentError, match="operations"):
        request(bad)
