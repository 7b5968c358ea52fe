"""What the demo's three weeks bring: few images, many with wrong labels, and many that are right."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from airflow_provider_osai.demo.digits import write_digits

__all__ = ["EXPECTED", "Weeks", "write_weeks"]

EXPECTED: Final = ("promoted", "rejected", "promoted")
"""What a gate that works says of the three models."""
HELD_OUT: Final = 30
"""Images of each digit that no week brings: models are compared on them."""
FEW: Final = 40
"""Images of each digit that the first week brings."""
WRONG: Final = 2
"""Of the second week's images every so many-th is put to another digit."""


class Weeks(NamedTuple):
    """Folders with a sub-folder for each digit."""

    holdout: Path
    weeks: tuple[Path, Path, Path]


def write_weeks(folder: Path) -> Weeks:
    """Write the handwritten digits into *folder*, dealt out to the weeks and to the images to compare on."""
    everything = folder / "all"
    write_digits(everything)
    made = Weeks(folder / "holdout", (folder / "week 1", folder / "week 2", folder / "week 3"))
    few, wrong, many = made.weeks
    for digit in range(10):
        images = sorted((everything / str(digit)).iterdir())
        held_out, seen = images[:HELD_OUT], images[HELD_OUT:]
        _put(held_out, made.holdout / str(digit))
        _put(seen[:FEW], few / str(digit))
        _put(seen[::WRONG], wrong / str((digit + 1) % 10))
        _put(seen[1::WRONG], wrong / str(digit))
        _put(seen, many / str(digit))
    return made


def _put(images: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copy(image, folder)
