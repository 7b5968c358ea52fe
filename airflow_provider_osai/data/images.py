"""Finds the images to upload and refuses what OSAI would refuse, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = ["ImageFile", "scan_folder"]

OTHER: Final = "Other"
"""Where OSAI puts images without a category (docs.onestepai.com/datasets/bulk_upload)."""
SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
"""How PNG, JPEG, GIF, BMP and TIFF files begin. Which formats OSAI takes is not described."""
NOT_DATA: Final = frozenset({"Thumbs.db", "desktop.ini"})
SHOWN: Final = 5


@dataclass(frozen=True, slots=True, order=True)
class ImageFile:
    """One image and the category that its folder stands for."""

    path: Path
    category: str


def scan_folder(source: str | Path, *, min_images_per_category: int = 3) -> list[ImageFile]:
    """Return the images of a folder whose sub-folders are categories, in a stable order.

    As in the portal (docs.onestepai.com/datasets/bulk_upload), a sub-folder's name becomes the category, with spaces as
    underscores, and images beside the sub-folders are in "Other". Hidden files and folders are passed over.

    :param source: the folder; images lie in it or one level below.
    :param min_images_per_category: refuse a category with fewer; OSAI trains on at least 3. 0 takes any number.
    :raises OsaiArgumentError: if the folder is missing or empty, holds a file that is no image, or too few images of a
        category; the message names them all.
    """
    folder = Path(source)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise OsaiArgumentError(
            f"source = {str(source)!r}: it {what}; a folder whose sub-folders are categories is needed"
        )
    images = sorted(_images(folder))
    if not images:
        msg = f"source = {str(source)!r}: there is no image in it or in its sub-folders"
        raise OsaiArgumentError(msg)
    strangers = [image.path for image in images if not _is_image(image.path)]
    if strangers:
        names = _listed(strangers, folder)
        msg = f"source = {str(source)!r}: these files are no images (PNG, JPEG, GIF, BMP, TIFF, WebP): {names}"
        raise OsaiArgumentError(msg)
    few = {name: n for name, n in Counter(i.category for i in images).items() if n < min_images_per_category}
    if few:
        counts = ", ".join(f"{name!r} has {n}" for name, n in sorted(few.items()))
        msg = (
            f"source = {str(source)!r}: each category needs at least {min_images_per_category} images, but {counts}; "
            "add images, or lower min_images_per_category if the dataset already holds more"
        )
        raise OsaiArgumentError(msg)
    return images


def _images(folder: Path) -> Iterable[ImageFile]:
    for entry in folder.iterdir():
        if _is_hidden(entry):
            continue
        if entry.is_dir():
            category = entry.name.strip().replace(" ", "_")
            yield from (
                ImageFile(path, category) for path in entry.iterdir() if path.is_file() and not _is_hidden(path)
            )
        elif entry.is_file():
            yield ImageFile(entry, OTHER)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in NOT_DATA


def _is_image(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(SIGNATURES) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def _listed(paths: list[Path], folder: Path) -> str:
    shown = ", ".join(str(path.relative_to(folder)) for path in paths[:SHOWN])
    return shown + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
