"""What a manipulation makes of one image: for real, with Pillow, which is imported when it is first needed.

What the vendor does not describe is chosen so: the image itself stays beside what is generated of it; a turned image
keeps its size and has black corners, unless it is cropped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from airflow_provider_osai.api.manipulation import BrightnessContrastStep, ResizeStep, RotationStep
from airflow_provider_osai.sandbox.records import JobProblem

__all__ = ["Step", "Variant", "inner_share", "variants"]

MAX_SIDE: Final = 4096
"""Pixels to which the sandbox resizes at the most; a guard for the memory."""
LEVELS: Final = 256
NEARLY: Final = 1e-9
"""What a float may be off."""

Step: TypeAlias = RotationStep | BrightnessContrastStep | ResizeStep


@dataclass(frozen=True, slots=True)
class Variant:
    """One image that was made.

    :param is_turned: whether what was marked in the source image lies elsewhere now, as a fraction of its size.
    """

    image: Any
    is_turned: bool = False


def variants(
    variant: Variant, steps: Sequence[Step], chance: random.Random, left_out: Callable[[], None] = lambda: None
) -> Iterator[Variant]:
    """Yield what the steps, in their order, make of one image: itself first, then what they generate.

    :param left_out: is called for each turned image that is not made, since too much of it would be cut off.
    :raises JobProblem: if an image would be too large for the sandbox.
    """
    if not steps:
        yield variant
        return
    first, rest = steps[0], steps[1:]
    if isinstance(first, RotationStep):
        changed = _rotated(variant, first, chance, left_out)
    elif isinstance(first, BrightnessContrastStep):
        changed = _lit(variant, first, chance)
    else:
        changed = _resized(variant, first)
    for one in changed:
        yield from variants(one, rest, chance, left_out)


def inner_share(width: int, height: int, angle: float) -> float:
    """Return which share of each side has the largest upright rectangle, of the image's proportions, without corners.

    :param angle: degrees by which the image was turned around its middle.
    """
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))


def _rotated(
    variant: Variant, step: RotationStep, chance: random.Random, left_out: Callable[[], None]
) -> Iterator[Variant]:
    yield variant
    for _ in range(step.generate):
        angle = chance.uniform(-step.angle, step.angle)
        share = inner_share(variant.image.width, variant.image.height, angle)
        if step.crop_threshold is None:
            yield Variant(variant.image.rotate(angle), is_turned=True)
        elif (1 - share**2) * 100 <= step.crop_threshold + NEARLY:
            yield Variant(_middle(variant.image.rotate(angle), share), is_turned=True)
        else:
            left_out()


def _middle(image: Any, share: float) -> Any:
    """Return the middle of an image, *share* of each side; at least a pixel."""
    left, right = _span(image.width, share)
    upper, lower = _span(image.height, share)
    return image.crop((left, upper, right, lower))


def _span(side: int, share: float) -> tuple[int, int]:
    start = min(math.ceil((1 - share) / 2 * side - NEARLY), (side - 1) // 2)
    return start, max(math.floor((1 + share) / 2 * side + NEARLY), start + 1)


def _lit(variant: Variant, step: BrightnessContrastStep, chance: random.Random) -> Iterator[Variant]:
    from PIL import ImageEnhance  # noqa: PLC0415 - heavy

    yield variant
    for _ in range(step.generate):
        shift = chance.uniform(-step.brightness, step.brightness)
        levels = [min(LEVELS - 1, max(0, round(level + shift))) for level in range(LEVELS)]
        lit = variant.image.point(levels * len(variant.image.getbands()))
        yield Variant(ImageEnhance.Contrast(lit).enhance(step.contrast), variant.is_turned)


def _resized(variant: Variant, step: ResizeStep) -> Iterator[Variant]:
    if max(step.width, step.height) > MAX_SIDE:
        msg = f"resize: the sandbox makes images of up to {MAX_SIDE} pixels a side, not {step.width} x {step.height}"
        raise JobProblem(msg)
    yield Variant(variant.image.resize((step.width, step.height)), variant.is_turned)
