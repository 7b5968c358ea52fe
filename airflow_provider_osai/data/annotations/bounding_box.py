"""Bounding boxes in fractions of the image, and the errors and problems of reading them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, NoReturn

__all__ = ["Box", "InvalidAnnotation", "Problems", "Rect", "category_name", "reject", "shown", "to_box"]

MAX_PROBLEMS: Final = 5
"""Maximum number of problems reported for one file; the others are counted."""


class InvalidAnnotation(ValueError):
    """An annotation is invalid; the message contains the value and the rule."""


@dataclass(frozen=True, slots=True)
class Box:
    """The category and bounding box of an object in an image, in fractions of the image, 0 to 1.

    ``x`` and ``y`` are the upper left corner.
    """

    category: str
    x: float
    y: float
    width: float
    height: float

    def wire(self) -> dict[str, str | float]:
        """Return the box as a JSON object."""
        return asdict(self)


class Rect(NamedTuple):
    """A rectangle in the unit of its annotation file."""

    left: float
    top: float
    right: float
    bottom: float


def to_box(category: str, rect: Rect, size: tuple[float, float], tolerance: float) -> Box:
    """Convert a rectangle to a box, clipped to the image if it exceeds it by at most *tolerance*.

    :param size: the image's width and height, in the unit of *rect*.
    :param tolerance: the maximum rounding error, in the same unit.
    :raises InvalidAnnotation: if a number is not finite, the area is empty, or the rectangle lies outside the image.
    """
    left, top, right, bottom = rect
    if not all(map(math.isfinite, rect)):
        raise InvalidAnnotation("all four numbers must be finite")
    if right <= left or bottom <= top:
        raise InvalidAnnotation(f"width {right - left:g} and height {bottom - top:g} must be more than 0")
    width, height = size
    if min(left, top) < -tolerance or right > width + tolerance or bottom > height + tolerance:
        raise InvalidAnnotation(
            f"it extends from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside {width:g} x {height:g}"
        )
    x, y = max(left, 0.0) / width, max(top, 0.0) / height
    across, down = min(min(right, width) / width - x, 1 - x), min(min(bottom, height) / height - y, 1 - y)
    if across <= 0 or down <= 0:
        raise InvalidAnnotation("no part of it lies inside the image")
    return Box(category, x, y, across, down)


def reject(reason: str) -> NoReturn:
    """Raise the error for an invalid annotation.

    :raises InvalidAnnotation: always.
    """
    raise InvalidAnnotation(reason)


def category_name(value: object) -> str:
    """Return a category name without surrounding whitespace.

    :raises InvalidAnnotation: if it is not text, empty, or not printable.
    """
    if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
        raise InvalidAnnotation(f"invalid category name: {shown(value)}")
    return value.strip()


def shown(value: object) -> str:
    """Return the ``repr`` of a value, shortened to 100 characters, for messages."""
    text = repr(value[:100] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class Problems:
    """Collects problems by file or image, and keeps the first few of each."""

    def __init__(self) -> None:
        self._reasons: dict[str, list[str]] = {}
        self._omitted: dict[str, int] = {}

    def add(self, name: str, reason: str) -> None:
        """Add a problem of the file or image *name*."""
        reasons = self._reasons.setdefault(name, [])
        if len(reasons) < MAX_PROBLEMS:
            reasons.append(reason)
        else:
            self._omitted[name] = self._omitted.get(name, 0) + 1

    def messages(self) -> dict[str, str]:
        """Return one message for each file or image, sorted by name."""
        return {
            name: "; ".join(reasons) + (f"; and {self._omitted[name]:,} more" if name in self._omitted else "")
            for name, reasons in sorted(self._reasons.items())
        }
