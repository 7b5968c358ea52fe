"""Images that look like photographs: each seed another one."""

from __future__ import annotations

import random

from PIL import Image

__all__ = ["code_files", "fill", "photo"]


def photo(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Return a picture of soft blobs in all colours."""
    source = random.Random(seed)
    small = Image.frombytes("RGB", (12, 12), source.randbytes(12 * 12 * 3))
    return small.resize(size, Image.Resampling.BICUBIC)


def fill(folder, count=3, first=0, suffix=".png"):
    """Save *count* distinct images in a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        photo(number).save(folder / f"{number}{suffix}")
    return folder


def code_files(report):
    """Return the names of the files of each finding, by code."""
    return {
        finding.code: [name for item in finding.items for name in (*item.files, *item.holdout_files)]
        for finding in report.findings
    }
