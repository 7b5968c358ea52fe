"""Bounding boxes in fractions of the image, and the errors and problems of reading them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

__all__ = [
    "Box",
    "InvalidAnnotation",
    "ProblemCount",
    "ProblemKind",
    "Problems",
    "Rect",
    "category_name",
    "reject",
    "shown",
    "to_box",
]

MAX_PROBLEMS: Final = 5
"""Maximum number of problems reported for one file; the others are counted."""


class ProblemKind(StrEnum):
    """What is wrong with an annotation."""

    BOX_OUTSIDE = "box outside the image"
    DEGENERATE_BOX = "box without area"
    DUPLICATE_BOX = "duplicate box"
    IMAGE_NOT_FOUND = "image not found"
    INVALID = "invalid annotation"
    SEVERAL_FILES = "several annotation files or images"
    UNKNOWN_CLASS = "unknown class"


class ProblemCount(NamedTuple):
    """How many problems of one kind a file or image has, and the first of them."""

    number: int
    first: str


class InvalidAnnotation(ValueError):
    """An annotation is invalid; the message contains the value and the rule.

    :param message: the value and the rule.
    :param kind: what is wrong.
    """

    def __init__(self, message: str, kind: ProblemKind = ProblemKind.INVALID) -> None:
        self.kind = kind
        super().__init__(message)

    def at(self, location: str) -> InvalidAnnotation:
        """Return the same error with its location before the message."""
        return InvalidAnnotation(f"{location}: {self}", self.kind)


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
        raise InvalidAnnotation("all four numbers must be finite", ProblemKind.DEGENERATE_BOX)
    if right <= left or bottom <= top:
        message = f"width {right - left:g} and height {bottom - top:g} must be more than 0"
        raise InvalidAnnotation(message, ProblemKind.DEGENERATE_BOX)
    width, height = size
    if min(left, top) < -tolerance or right > width + tolerance or bottom > height + tolerance:
        raise InvalidAnnotation(
            f"it extends from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside {width:g} x {height:g}",
            ProblemKind.BOX_OUTSIDE,
        )
    x, y = max(left, 0.0) / width, max(top, 0.0) / height
    across, down = min(min(right, width) / width - x, 1 - x), min(min(bottom, height) / height - y, 1 - y)
    if across <= 0 or down <= 0:
        raise InvalidAnnotation("no part of it lies inside the image", ProblemKind.BOX_OUTSIDE)
    return Box(category, x, y, across, down)


def reject(reason: str, kind: ProblemKind = ProblemKind.INVALID) -> NoReturn:
    """Raise the error for an invalid annotation.

    :raises InvalidAnnotation: always.
    """
    raise InvalidAnnotation(reason, kind)


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
        self._kinds: dict[str, dict[ProblemKind, ProblemCount]] = {}

    def add(self, name: str, problem: InvalidAnnotation) -> None:
        """Add a problem of the file or image *name*."""
        reasons = self._reasons.setdefault(name, [])
        kinds = self._kinds.setdefault(name, {})
        earlier = kinds.get(problem.kind, ProblemCount(0, str(problem)))
        kinds[problem.kind] = earlier._replace(number=earlier.number + 1)
        if len(reasons) < MAX_PROBLEMS:
            reasons.append(str(problem))
        else:
            self._omitted[name] = self._omitted.get(name, 0) + 1

    def messages(self) -> dict[str, str]:
        """Return one message for each file or image, sorted by name."""
        return {
            name: "; ".join(reasons) + (f"; and {self._omitted[name]:,} more" if name in self._omitted else "")
            for name, reasons in sorted(self._reasons.items())
        }

    def kinds(self) -> dict[str, Mapping[ProblemKind, ProblemCount]]:
        """Return the problems of each file or image by kind, sorted by name."""
        return dict(sorted(self._kinds.items()))
