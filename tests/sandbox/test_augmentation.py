"""Image augmentation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_osai.api.manipulation import BrightnessContrast, ManipulationRequest, Resize, Rotation
from airflow_provider_osai.sandbox.augmentation import Variant, inner_fraction, variants
from airflow_provider_osai.sandbox.models import JobFailed


def augment(image: Image.Image, *operations: dict, seed: int = 0, skipped: list | None = None) -> list[Image.Image]:
    steps = ManipulationRequest(dataset_id="d", name="n", operations=operations).operations
    on_skipped = (lambda: skipped.append(1)) if skipped is not None else (lambda: None)
    return [variant.image for variant in variants(Variant(image), steps, random.Random(seed), on_skipped)]


@pytest.fixture
def half() -> Image.Image:
    """Return an image that is dark on the left and light on the right."""
    image = Image.new("L", (10, 10), 40)
    image.paste(160, (5, 0, 10, 10))
    return image


def test_rotation_adds_rotated_images_to_the_original(half):
    original, *rotated = augment(half, Rotation(angle=90, generate=3))
    assert original.tobytes() == half.tobytes()
    assert len(rotated) == 3
    assert all(image.tobytes() != half.tobytes() and image.size == half.size for image in rotated)


def test_rotation_angle_is_bounded_in_both_directions():
    """The ends of a horizontal bar show the angle."""
    bar = Image.new("L", (101, 101), 0)
    bar.paste(255, (0, 48, 101, 53))
    _, *rotated = augment(bar, Rotation(angle=30, generate=35))
    columns = [[image.getpixel((90, y)) for y in range(101)] for image in rotated]
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
def test_cropped_image_has_no_black_corners_and_respects_the_threshold(width, height, angle, threshold, seed):
    """A rotated image is cropped, or skipped."""
    white, skipped = Image.new("L", (width, height), 255), []
    steps = {"angle": angle, "generate": 4, "crop_threshold": threshold}
    original, *rotated = augment(white, Rotation(**steps), seed=seed, skipped=skipped)
    assert original.size == (width, height)
    assert len(rotated) + len(skipped) == 4
    for image in rotated:
        assert image.getextrema() == (255, 255)
        # A pixel may be lost at each side by rounding, beyond what the threshold allows.
        assert (image.width + 2) * (image.height + 2) >= width * height * (1 - threshold / 100)


def test_rotation_without_crop_threshold_keeps_black_corners():
    """Proves that the test above can fail."""
    _, *rotated = augment(Image.new("L", (30, 30), 255), Rotation(angle=45, generate=9))
    assert any(image.getextrema()[0] == 0 for image in rotated)


@pytest.mark.parametrize(
    ("size", "angle", "fraction"), [((8, 8), 45, 0.5**0.5), ((8, 8), 90, 1), ((8, 4), 90, 0.5), ((8, 4), 180, 1)]
)
def test_inner_fraction_for_simple_angles(size, angle, fraction):
    assert inner_fraction(*size, angle) == pytest.approx(fraction)


def test_brightness_shift_is_bounded_in_both_directions(half):
    _, *adjusted = augment(half, BrightnessContrast(contrast=1, brightness=30, generate=35))
    shifts = {(image.getpixel((0, 0)) - 40, image.getpixel((9, 9)) - 160) for image in adjusted}
    assert all(left == right and -30 <= left <= 30 for left, right in shifts)
    assert len(shifts) > 10
    assert min(shifts)[0] < 0 < max(shifts)[0]


def test_contrast_scales_the_difference_of_levels(half):
    for contrast in (0.5, 1, 1.3):
        _, changed = augment(half, BrightnessContrast(contrast=contrast, brightness=0))
        low, high = changed.getextrema()
        assert high - low == pytest.approx(contrast * 120, abs=2)


def test_brightness_shifts_all_channels_alike():
    _, adjusted = augment(Image.new("RGB", (4, 4), (10, 100, 200)), BrightnessContrast(contrast=1, brightness=50))
    assert len({after - before for after, before in zip(adjusted.getpixel((0, 0)), (10, 100, 200), strict=True)}) == 1


def test_resize_replaces_the_image_with_the_requested_size(half):
    assert [image.size for image in augment(half, Resize(width=3, height=7))] == [(3, 7)]


def test_operations_multiply_the_images(half):
    rotation, light = Rotation(angle=9, generate=2), BrightnessContrast(contrast=1, brightness=9)
    images = augment(half, rotation, light, Resize(width=4, height=6))
    assert [image.size for image in images] == [(4, 6)] * 6


def test_operations_apply_in_order():
    """Resized to a square first, an image loses nothing when it is cropped after a right-angle rotation."""
    oblong = Image.new("L", (40, 10), 255)
    rotation, resize = Rotation(angle=360, generate=5, crop_threshold=50), Resize(width=10, height=10)
    assert len(augment(oblong, resize, rotation)) == 6
    assert len(augment(oblong, rotation, resize)) < 6


def test_resize_beyond_the_limit_fails_the_job(half):
    """The vendor documents no limit; this one protects memory."""
    with pytest.raises(JobFailed, match="4096"):
        augment(half, Resize(width=5000, height=4))
