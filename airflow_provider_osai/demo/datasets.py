"""The images of the demo's three weeks: few, many with wrong labels, and many with right labels."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from airflow_provider_osai.demo.digits import write_digits

__all__ = ["EXPECTED_DECISIONS", "Weeks", "write_weeks"]

EXPECTED_DECISIONS: Final = ("promoted", "rejected", "promoted")
"""The gate's expected decisions about the three models."""
HELD_OUT: Final = 30
"""Held-out images per digit, on which models are evaluated."""
FIRST_WEEK: Final = 40
"""Images per digit in the first week."""
MISLABEL_EVERY: Final = 2
"""Every n-th image of the second week gets a wrong label."""


class Weeks(NamedTuple):
    """Folders of images, each with one subfolder per digit."""

    holdout: Path
    weeks: tuple[Path, Path, Path]


def write_weeks(folder: Path) -> Weeks:
    """Write the handwritten digits into *folder*, split into the three weeks and the held-out images."""
    source = folder / "all"
    write_digits(source)
    result = Weeks(folder / "holdout", (folder / "week 1", folder / "week 2", folder / "week 3"))
    first, second, third = result.weeks
    for digit in range(10):
        images = sorted((source / str(digit)).iterdir())
        held_out, training = images[:HELD_OUT], images[HELD_OUT:]
        _copy(held_out, result.holdout / str(digit))
        _copy(training[:FIRST_WEEK], first / str(digit))
        _copy(training[::MISLABEL_EVERY], second / str((digit + 1) % 10))
        _copy(training[1::MISLABEL_EVERY], second / str(digit))
        _copy(training, third / str(digit))
    return result


def _copy(images: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copy(image, folder)
