"""What manipulations make of an image."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from airflow_provider_osai.sandbox.pictures import variants
from airflow_provider_osai.sandbox.records import JobProblem


def made(image: Image.Image, *operations: dict[str, object]) -> list[Image.Image]:
    return list(variants(image, operations, random.Random(0)))


@pytest.fixture
def half() -> Image.Image:
    """Dark on the left, light on the right."""
    image = Image.new("L", (10, 10), 40)
    image.paste(160, (5, 0, 10, 10))
    return image


def test_rotation_adds_turned_images_to_the_original(half):
    """The dataset grows by what is generated."""
    original, *turned = made(half, {"type": "Rotation", "angle": 90, "generate": 3})
    assert original.tobytes() == half.tobytes()
    assert len(turned) == 3
    assert all(one.tobytes() != half.tobytes() for one in turned)


def test_brightness_and_contrast_change_how_light_an_image_is(half):
    """Contrast moves dark and light apart."""
    _, changed = made(half, {"type": "brightness", "brightness": 0, "contrast": 2})
    low, high = changed.getextrema()
    assert high - low > 160 - 40


def test_operations_apply_in_their_order_and_multiply(half):
    """Each works on what the one before has made."""
    resize = {"type": "resize", "width": 4, "height": 6}
    images = made(half, {"type": "rotate", "generate": 2}, {"type": "brightness"}, resize)
    assert [image.size for image in images] == [(4, 6)] * 6


def test_operation_that_is_not_known_changes_nothing(half):
    """The job says so; the image stays."""
    assert [one.tobytes() for one in made(half, {"type": "sepia"})] == [half.tobytes()]


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "rotation", "angle": 400},
        {"type": "rotation", "generate": 36},
        {"type": "contrast", "contrast": 3.5},
        {"type": "contrast", "brightness": 256},
        {"type": "resize", "width": "wide"},
    ],
)
def test_value_beyond_the_documented_range_is_a_problem(half, operation):
    """The ranges are the vendor's."""
    with pytest.raises(JobProblem, match="is not between"):
        made(half, operation)
