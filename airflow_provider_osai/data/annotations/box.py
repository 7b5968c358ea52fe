"""The one form of an annotation, and the problems that are found on the way to it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, NoReturn

__all__ = ["Box", "Edges", "Problems", "Unfit", "category_name", "fit", "refuse", "shown"]

TOLD: Final = 5
"""Problems of one file that are told; of more, the number."""


class Unfit(ValueError):
    """Something that cannot be read; the message names the value and the rule."""


@dataclass(frozen=True, slots=True)
class Box:
    """An object in an image: its category, and the rectangle around it as fractions of the image, 0 to 1.

    ``x`` and ``y`` are its left upper corner.
    """

    category: str
    x: float
    y: float
    width: float
    height: float

    def wire(self) -> dict[str, str | float]:
        """Return the box as JSON has it."""
        return asdict(self)


class Edges(NamedTuple):
    """A rectangle in whatever unit its file has."""

    left: float
    top: float
    right: float
    bottom: float


def fit(category: str, edges: Edges, size: tuple[float, float], slack: float) -> Box:
    """Return a rectangle as a box, clipped to the image if it sticks out by no more than *slack*.

    :param size: the image's width and height, in the unit of *edges*.
    :param slack: what rounding may have done, in the same unit.
    :raises Unfit: if it is no rectangle, has no area, or lies outside the image.
    """
    left, top, right, bottom = edges
    if not all(map(math.isfinite, edges)):
        raise Unfit("not all its numbers are finite")
    if right <= left or bottom <= top:
        raise Unfit(f"width {right - left:g} and height {bottom - top:g} must be more than 0")
    width, height = size
    if min(left, top) < -slack or right > width + slack or bottom > height + slack:
        raise Unfit(f"it reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside {width:g} x {height:g}")
    x, y = max(left, 0.0) / width, max(top, 0.0) / height
    across, down = min(min(right, width) / width - x, 1 - x), min(min(bottom, height) / height - y, 1 - y)
    if across <= 0 or down <= 0:
        raise Unfit("nothing of it lies in the image")
    return Box(category, x, y, across, down)


def refuse(reason: str) -> NoReturn:
    """Say what cannot be read.

    :raises Unfit: always.
    """
    raise Unfit(reason)


def category_name(value: object) -> str:
    """Return the name of a class, without spaces around it.

    :raises Unfit: if it is none.
    """
    if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
        raise Unfit(f"{shown(value)} is no name of a class")
    return value.strip()


def shown(value: object) -> str:
    """Return a value as messages quote it: short."""
    text = repr(value[:100] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class Problems:
    """What is wrong, by the file or image that it is about; a bounded number of each is kept."""

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}
        self._more: dict[str, int] = {}

    def add(self, name: str, reason: str) -> None:
        """Keep what is wrong with the file or image *name*."""
        told = self._told.setdefault(name, [])
        if len(told) < TOLD:
            told.append(reason)
        else:
            self._more[name] = self._more.get(name, 0) + 1

    def sentences(self) -> dict[str, str]:
        """Return one text for each file or image, sorted by name."""
        return {
            name: "; ".join(told) + (f"; and {self._more[name]:,} more" if name in self._more else "")
            for name, told in sorted(self._told.items())
        }
