"""Image augmentation for manipulation jobs, with Pillow (imported when first needed).

Assumed, since the vendor does not describe it: the original image stays in the dataset beside its variants, and a
rotated image keeps its size and has black corners unless it is cropped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from airflow_provider_osai.api.manipulation import BrightnessContrastStep, ResizeStep, RotationStep
from airflow_provider_osai.sandbox.models import JobFailed

__all__ = ["Step", "Variant", "inner_fraction", "variants"]

MAX_SIDE: Final = 4096
"""Maximum pixels per side after a resize, to limit memory use."""
LEVELS: Final = 256
TOLERANCE: Final = 1e-9
"""Rounding error of floats."""

Step: TypeAlias = RotationStep | BrightnessContrastStep | ResizeStep


@dataclass(frozen=True, slots=True)
class Variant:
    """One generated image.

    :param is_turned: whether the annotations of the source image, which are fractions of its sides, no longer fit.
    """

    image: Any
    is_turned: bool = False


def variants(
    variant: Variant, steps: Sequence[Step], rng: random.Random, on_skipped: Callable[[], None] = lambda: None
) -> Iterator[Variant]:
    """Apply the steps in order to one image, and yield the image itself and the generated variants.

    :param on_skipped: called for each rotated image that is skipped because cropping would remove too much of it.
    :raises JobFailed: if an image would be too large for the sandbox.
    """
    if not steps:
        yield variant
        return
    first, rest = steps[0], steps[1:]
    if isinstance(first, RotationStep):
        results = _rotate(variant, first, rng, on_skipped)
    elif isinstance(first, BrightnessContrastStep):
        results = _adjust_brightness(variant, first, rng)
    else:
        results = _resize(variant, first)
    for result in results:
        yield from variants(result, rest, rng, on_skipped)


def inner_fraction(width: int, height: int, angle: float) -> float:
    """Return the size of the largest upright rectangle without black corners, as a fraction of the image's sides.

    The rectangle has the proportions of the image.

    :param angle: degrees by which the image was rotated around its centre.
    """
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))


def _rotate(
    variant: Variant, step: RotationStep, rng: random.Random, on_skipped: Callable[[], None]
) -> Iterator[Variant]:
    yield variant
    for _ in range(step.generate):
        angle = rng.uniform(-step.angle, step.angle)
        fraction = inner_fraction(variant.image.width, variant.image.height, angle)
        if step.crop_threshold is None:
            yield Variant(variant.image.rotate(angle), is_turned=True)
        elif (1 - fraction**2) * 100 <= step.crop_threshold + TOLERANCE:
            yield Variant(_crop_centre(variant.image.rotate(angle), fraction), is_turned=True)
        else:
            on_skipped()


def _crop_centre(image: Any, fraction: float) -> Any:
    """Return the centre of an image, *fraction* of each side but at least one pixel."""
    left, right = _centre_span(image.width, fraction)
    upper, lower = _centre_span(image.height, fraction)
    return image.crop((left, upper, right, lower))


def _centre_span(side: int, fraction: float) -> tuple[int, int]:
    start = min(math.ceil((1 - fraction) / 2 * side - TOLERANCE), (side - 1) // 2)
    return start, max(math.floor((1 + fraction) / 2 * side + TOLERANCE), start + 1)


def _adjust_brightness(variant: Variant, step: BrightnessContrastStep, rng: random.Random) -> Iterator[Variant]:
    from PIL import ImageEnhance  # heavy

    yield variant
    for _ in range(step.generate):
        shift = rng.uniform(-step.brightness, step.brightness)
        levels = [min(LEVELS - 1, max(0, round(level + shift))) for level in range(LEVELS)]
        brightened = variant.image.point(levels * len(variant.image.getbands()))
        yield Variant(ImageEnhance.Contrast(brightened).enhance(step.contrast), variant.is_turned)


def _resize(variant: Variant, step: ResizeStep) -> Iterator[Variant]:
    if max(step.width, step.height) > MAX_SIDE:
        msg = f"resize: {step.width} x {step.height} exceeds the sandbox's limit of {MAX_SIDE} pixels per side"
        raise JobFailed(msg)
    yield Variant(variant.image.resize((step.width, step.height)), variant.is_turned)
