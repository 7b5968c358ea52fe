"""Write the handwritten digits of scikit-learn as image files: sample data without a download."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["add_options", "main", "run", "write_digits"]

MAX_LEVEL = 16
"""Pixels of the digits have levels from 0 to 16."""


def write_digits(folder: Path, limit: int | None = None) -> int:
    """Write the digits as grey PNG files of 8 x 8 pixels into subfolders ``0`` to ``9``; return the number of files.

    :param folder: created if it does not exist.
    :param limit: maximum number of images; ``None``: all 1,797. The digits alternate, so a few images have all ten.
    """
    # Not at the top: both belong to the extra "sandbox" and take a second to import.
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / MAX_LEVEL)).round().astype("uint8")
    written = 0
    for number, (image, digit) in enumerate(zip(pixels[:limit], digits.target[:limit], strict=True)):
        category = folder / str(digit)
        category.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(category / f"digit-{number:04}.png")
        written += 1
    return written


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("folder", type=_folder, help="folder for one subfolder per digit; created if it does not exist")
    parser.add_argument("--limit", type=_count, help="maximum number of images, default: all 1,797")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write digits into a folder with *arguments*, see :func:`run`."""
    parser = argparse.ArgumentParser(prog="osai-airflow digits", description=__doc__)
    add_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Write digits into a folder, and print the number of images."""
    sys.stdout.write(f"{write_digits(options.folder, options.limit)} images in {options.folder}\n")
    return 0


def _folder(text: str) -> Path:
    if not text.strip():  # as a path it would be the current directory
        raise argparse.ArgumentTypeError(f"{text!r}: is empty. Does the variable have a value?")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 1 or more")
    return int(text)
