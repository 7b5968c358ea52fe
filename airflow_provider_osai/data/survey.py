"""What a source holds: its images with categories and annotations, and all that is wrong, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.annotations import Annotations, Box, read_annotations
from airflow_provider_osai.data.images import OTHER, is_companion, is_image, looks_like_image
from airflow_provider_osai.data.sources import File, PathSource, Source

__all__ = ["Picture", "Survey", "survey"]

SHOWN: Final = 5
"""Bad files that an error names."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to upload.

    :param name: within its source.
    :param size: in bytes.
    :param category: ``None`` for one whose annotations say what is on it.
    :param boxes: its annotations.
    """

    name: str
    size: int
    category: str | None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source holds.

    :param pictures: the images, by name.
    :param bad: what cannot be uploaded, and why, by the file's name.
    """

    pictures: Mapping[str, Picture]
    bad: Mapping[str, str]

    @property
    def categories(self) -> list[str]:
        """All categories that must exist before the images are sent."""
        images = {picture.category for picture in self.pictures.values() if picture.category}
        return sorted(images | {box.category for picture in self.pictures.values() for box in picture.boxes})

    def must_be_good(self, label: str) -> None:
        """Refuse bad files; raise OsaiArgumentError that names a few."""
        if self.bad:
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(self.bad.items())[:SHOWN])
            more = f" and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
            hint = "Mend them, or set on_bad_file='skip'"
            raise OsaiArgumentError(f"source = {label!r}: bad files: {shown}{more}. {hint}")


def survey(
    source: Source,
    categories: Mapping[str, str] | None = None,
    min_images_per_category: int = 3,
    *,
    annotations: bool = True,
) -> Survey:
    """Look through *source* and return its images.

    As in the portal (docs.onestepai.com/datasets/bulk_upload), the folder that an image lies in is its category, with
    spaces as underscores, and images beside the folders are in "Other". An image with annotations has no such category.

    :param categories: categories by pattern, for instance ``{"ok/*": "good"}``; matched with the file's name within the
        source and with the name of its folder, the first that fits counts, before the folders' names.
    :param min_images_per_category: refuse a category with fewer; OSAI trains on at least 3. 0 takes any number.
    :param annotations: whether to look for COCO, YOLO and Pascal VOC files beside the images.
    :raises OsaiArgumentError: if there is no image, or too few of a category; the message names them all.
    """
    files = source.files()
    bad: dict[str, str] = {}
    images, others = _sorted_out(source, files, bad)
    notes = Annotations({}, (), frozenset(), {})
    if annotations and others:
        sizes = {file.name: file.size for file in others}
        notes = read_annotations(sizes, {file.name for file in images}, source.read)
    bad |= notes.problems
    strange = [file.name for file in others if file.name not in notes.files and not is_companion(file.name)]
    bad |= {name: "it is no image" for name in strange if name not in bad}
    pictures = {
        file.name: Picture(file.name, file.size, *_meaning(file.name, categories or {}, notes))
        for file in images
        if file.name not in bad
    }
    if not pictures and not bad:
        raise OsaiArgumentError(f"source = {source.label!r}: there is no image in it or in its folders")
    _must_be_enough(source.label, pictures.values(), min_images_per_category)
    return Survey(pictures, bad)


def _sorted_out(source: Source, files: Iterable[File], bad: dict[str, str]) -> tuple[list[File], list[File]]:
    """Tell images from other files: by their content where that costs nothing, else by their names."""
    images, others = [], []
    heads = source.heads() if isinstance(source, PathSource) else {}
    for file in files:
        known = heads.get(file.name)
        if looks_like_image(file.name) if known is None else is_image(known):
            images.append(file)
        elif looks_like_image(file.name):
            bad[file.name] = "it is no image (PNG, JPEG, GIF, BMP, TIFF, WebP), whatever its name says"
        else:
            others.append(file)
    return images, others


def _meaning(name: str, categories: Mapping[str, str], notes: Annotations) -> tuple[str | None, tuple[Box, ...]]:
    boxes = notes.boxes.get(name, ())
    folder = PurePosixPath(name).parent
    for pattern, category in categories.items():
        if fnmatchcase(name, pattern) or pattern in (folder.name, folder.as_posix()):
            return category, boxes
    if boxes:
        return None, boxes
    return folder.name.strip().replace(" ", "_") or OTHER, ()


def _must_be_enough(label: str, pictures: Iterable[Picture], least: int) -> None:
    counts: Counter[str] = Counter()
    for picture in pictures:
        counts.update({picture.category} if picture.category else {box.category for box in picture.boxes})
    if few := {name: count for name, count in sorted(counts.items()) if count < least}:
        told = ", ".join(f"{name!r} has {count}" for name, count in few.items())
        msg = (
            f"source = {label!r}: each category needs at least {least} images, but {told}; "
            "add images, or lower min_images_per_category if the dataset already holds more"
        )
        raise OsaiArgumentError(msg)
