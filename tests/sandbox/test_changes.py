"""What manipulations make of an image."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_osai.api.manipulation import BrightnessContrast, ManipulationRequest, Resize, Rotation
from airflow_provider_osai.sandbox.changes import Variant, inner_share, variants
from airflow_provider_osai.sandbox.records import JobProblem


def made(image: Image.Image, *operations: dict, seed: int = 0, left_out: list | None = None) -> list[Image.Image]:
    steps = ManipulationRequest(dataset_id="d", name="n", operations=operations).operations
    told = (lambda: left_out.append(1)) if left_out is not None else (lambda: None)
    return [one.image for one in variants(Variant(image), steps, random.Random(seed), told)]


@pytest.fixture
def half() -> Image.Image:
    """Dark on the left, light on the right."""
    image = Image.new("L", (10, 10), 40)
    image.paste(160, (5, 0, 10, 10))
    return image


def test_rotation_adds_turned_images_to_the_original(half):
    """The dataset grows by what is generated."""
    original, *turned = made(half, Rotation(angle=90, generate=3))
    assert original.tobytes() == half.tobytes()
    assert len(turned) == 3
    assert all(one.tobytes() != half.tobytes() and one.size == half.size for one in turned)


def test_an_image_is_turned_by_the_angle_at_the_most_and_to_both_sides():
    """A bar that lies across says by how much."""
    bar = Image.new("L", (101, 101), 0)
    bar.paste(255, (0, 48, 101, 53))
    _, *turned = made(bar, Rotation(angle=30, generate=35))
    columns = [[one.getpixel((90, y)) for y in range(101)] for one in turned]
    heights = [column.index(255) - 48 for column in columns]  # 40 pixels off the middle, 23 at 30 degrees
    assert min(heights) < -8
    assert max(heights) > 8
    assert all(abs(height) <= 25 for height in heights)


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    angle=st.floats(0.01, 360),
    threshold=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_a_cropped_image_has_no_corners_and_has_lost_no_more_than_allowed(width, height, angle, threshold, seed):
    """The turned image is cropped to where there is something, or left out."""
    white, gone = Image.new("L", (width, height), 255), []
    steps = {"angle": angle, "generate": 4, "crop_threshold": threshold}
    original, *turned = made(white, Rotation(**steps), seed=seed, left_out=gone)
    assert original.size == (width, height)
    assert len(turned) + len(gone) == 4
    for one in turned:
        assert one.getextrema() == (255, 255)
        # A pixel may be lost at each side by rounding, beyond what the threshold allows.
        assert (one.width + 2) * (one.height + 2) >= width * height * (1 - threshold / 100)


def test_without_a_crop_threshold_the_corners_stay():
    """The check above can fail."""
    _, *turned = made(Image.new("L", (30, 30), 255), Rotation(angle=45, generate=9))
    assert any(one.getextrema()[0] == 0 for one in turned)


@pytest.mark.parametrize(
    ("size", "angle", "share"), [((8, 8), 45, 0.5**0.5), ((8, 8), 90, 1), ((8, 4), 90, 0.5), ((8, 4), 180, 1)]
)
def test_the_inner_rectangle_is_known_for_plain_angles(size, angle, share):
    """Of a square that stands on its corner, half the area is left."""
    assert inner_share(*size, angle) == pytest.approx(share)


def test_brightness_shifts_all_levels_by_the_variation_at_the_most(half):
    """Some images get lighter, some darker."""
    _, *lit = made(half, BrightnessContrast(contrast=1, brightness=30, generate=35))
    shifts = {(one.getpixel((0, 0)) - 40, one.getpixel((9, 9)) - 160) for one in lit}
    assert all(left == right and -30 <= left <= 30 for left, right in shifts)
    assert len(shifts) > 10
    assert min(shifts)[0] < 0 < max(shifts)[0]


def test_contrast_moves_dark_and_light_apart_or_together(half):
    """By the factor."""
    for contrast in (0.5, 1, 1.3):
        _, changed = made(half, BrightnessContrast(contrast=contrast, brightness=0))
        low, high = changed.getextrema()
        assert high - low == pytest.approx(contrast * 120, abs=2)


def test_colours_are_lit_like_greys():
    """All three channels."""
    _, lit = made(Image.new("RGB", (4, 4), (10, 100, 200)), BrightnessContrast(contrast=1, brightness=50))
    assert len({after - before for after, before in zip(lit.getpixel((0, 0)), (10, 100, 200), strict=True)}) == 1


def test_resize_gives_the_size_that_was_asked_for(half):
    """In place of the image's own."""
    assert [one.size for one in made(half, Resize(width=3, height=7))] == [(3, 7)]


def test_operations_apply_in_their_order_and_multiply(half):
    """Each works on what the one before has made."""
    rotation, light = Rotation(angle=9, generate=2), BrightnessContrast(contrast=1, brightness=9)
    images = made(half, rotation, light, Resize(width=4, height=6))
    assert [image.size for image in images] == [(4, 6)] * 6


def test_the_order_makes_a_difference():
    """Resized first, an oblong is a square when it is turned, and loses nothing at a right angle."""
    oblong = Image.new("L", (40, 10), 255)
    rotation, resize = Rotation(angle=360, generate=5, crop_threshold=50), Resize(width=10, height=10)
    assert len(made(oblong, resize, rotation)) == 6
    assert len(made(oblong, rotation, resize)) < 6


def test_a_size_beyond_the_sandboxs_own_limit_is_a_problem(half):
    """The vendor names no limit; memory has one."""
    with pytest.raises(JobProblem, match="4096"):
        made(half, Resize(width=5000, height=4))
