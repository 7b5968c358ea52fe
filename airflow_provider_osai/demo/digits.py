"""Real images without a download: the handwritten digits that scikit-learn brings along."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main", "write_digits"]

BRIGHTEST = 16
"""The digits' pixels go from 0 to 16."""


def write_digits(folder: Path, limit: int | None = None) -> int:
    """Write the digits as grey PNG files of 8 x 8 pixels into sub-folders ``0`` to ``9``, and return how many.

    :param folder: made if it is missing.
    :param limit: the first so many only; ``None``: all 1,797. The digits take turns, so a few hold all ten.
    """
    # Here, because both are of the extra "sandbox" and take a second to import.
    from PIL import Image  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    pixels = (digits.images * (255 / BRIGHTEST)).round().astype("uint8")
    written = 0
    for number, (image, digit) in enumerate(zip(pixels[:limit], digits.target[:limit], strict=True)):
        category = folder / str(digit)
        category.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(category / f"digit-{number:04}.png")
        written += 1
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write digits into a folder, and say how many."""
    parser = argparse.ArgumentParser(prog="osai-airflow digits", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets a sub-folder for each digit; made if it is missing")
    parser.add_argument("--limit", type=int, help="so many images only; without it, all 1,797")
    given = parser.parse_args(arguments)
    sys.stdout.write(f"{write_digits(given.folder, given.limit)} images in {given.folder}\n")
    return 0
