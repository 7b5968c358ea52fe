"""Scan a source for images with categories and annotations, and for invalid files, before anything is uploaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.annotations import Annotations, Box, read_annotations
from airflow_provider_osai.data.annotations.bounding_box import InvalidAnnotation
from airflow_provider_osai.data.images import OTHER, is_companion, is_image, looks_like_image
from airflow_provider_osai.data.local_files import UnreadableFile
from airflow_provider_osai.data.log_lines import join_counts, join_limited, plural, quoted, size_text
from airflow_provider_osai.data.sources import File, PathSource, Source

__all__ = [
    "EMPTY_FILE",
    "MIN_TRAINING_IMAGES",
    "NOT_AN_IMAGE",
    "ImageFile",
    "NoImagesFound",
    "ScanResult",
    "scan_source",
]

MAX_SHOWN: Final = 5
"""Maximum number of invalid files in an error message."""
EMPTY_FILE: Final = "the file is empty"
NOT_AN_IMAGE: Final = "not an image (PNG, JPEG, GIF, BMP, TIFF or WebP) despite its name"
MIN_TRAINING_IMAGES: Final = 3
"""Minimum images per category (documented: docs.onestepai.com/pl/model-creation-and-training)."""


NO_ANNOTATIONS: Final = Annotations({}, (), frozenset(), {})


class NoImagesFound(OsaiArgumentError):
    """A source has neither images nor invalid files."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image to upload.

    :param name: the path relative to the source.
    :param size: the size in bytes.
    :param category: the category; ``None`` if the annotations have the categories.
    :param boxes: the annotations.
    :param is_folder_category: whether the category is the name of the image's folder.
    """

    name: str
    size: int
    category: str | None
    boxes: tuple[Box, ...] = ()
    is_folder_category: bool = False


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The images and invalid files of a source.

    :param images: the images by name.
    :param invalid_files: the reasons why files cannot be uploaded, by file name.
    :param nested: the categories derived from nested folders, by folder.
    :param annotations: what was read of the annotation files.
    """

    images: Mapping[str, ImageFile]
    invalid_files: Mapping[str, str]
    nested: Mapping[str, str] = field(default_factory=dict)
    annotations: Annotations = NO_ANNOTATIONS

    @property
    def categories(self) -> list[str]:
        """The categories that must exist before the upload, sorted."""
        of_images = {image.category for image in self.images.values() if image.category}
        return sorted(of_images | {box.category for image in self.images.values() for box in image.boxes})

    def without_folder_categories(self) -> ScanResult:
        """Return the scan with the categories of boxes and patterns only; folders of annotated images are no labels."""
        images = {
            name: replace(image, category=None, is_folder_category=False) if image.is_folder_category else image
            for name, image in self.images.items()
        }
        return replace(self, images=images, nested={})

    def counts(self, without: Container[str] = ()) -> dict[str, int]:
        """Return the number of images of each category, sorted by category.

        An image with boxes of several categories counts for each of them.

        :param without: the names of images not to count; their categories are listed even with 0 images.
        """
        counts: Counter[str] = Counter()
        for name, image in self.images.items():
            categories = {image.category} if image.category else {box.category for box in image.boxes}
            counts.update(dict.fromkeys(categories, int(name not in without)))
        return dict(sorted(counts.items()))

    def log_line(self, label: str) -> str:
        """Return the log line with the number of images and the count of each category."""
        counts = self.counts()
        size = sum(image.size for image in self.images.values())
        annotated = sum(bool(image.boxes) for image in self.images.values())
        details = f", {annotated:,} with annotations" if annotated else ""
        details += f", and {plural(len(self.invalid_files), 'invalid file')}" if self.invalid_files else ""
        categories = f", in {plural(len(counts), 'category', 'categories')}: {join_counts(counts)}" if counts else ""
        return f"Found {plural(len(self.images), 'image')} ({size_text(size)}{details}) in {label!r}{categories}"

    def warnings(self) -> list[str]:
        """Return log lines about categories that may not be intended or have too few images."""
        lines = []
        if self.nested:
            pairs = join_limited(f"{quoted(folder)} is {quoted(name)}" for folder, name in sorted(self.nested.items()))
            lines.append(
                f"Nested folders: the innermost folder is the category of its images: {pairs}. To use another one, "
                "set it in categories, for instance {'*/cat/*': 'cat'}"
            )
        return [*lines, *self.too_few()]

    def too_few(self, without: Collection[str] = ()) -> list[str]:
        """Return a log line about the categories with fewer images than OSAI's training needs, or no line.

        :param without: the names of images that were skipped; if given, only the categories that have too few images
            because of them are included.
        """
        before = self.counts() if without else {}
        few = {
            name: count
            for name, count in self.counts(without).items()
            if count < MIN_TRAINING_IMAGES <= before.get(name, MIN_TRAINING_IMAGES)
        }
        line = (
            f"Fewer than {MIN_TRAINING_IMAGES} images: {join_counts(few)}. OSAI's training needs that many of "
            "each category (documented: docs.onestepai.com/pl/model-creation-and-training); add images, unless the "
            "dataset already contains more of them"
        )
        return [line] if few else []

    def raise_for_few_images(self, label: str, minimum: int) -> None:
        """Raise OsaiArgumentError with the categories that have fewer than *minimum* images, if there are any."""
        if few := {name: count for name, count in self.counts().items() if count < minimum}:
            details = ", ".join(f"{name!r} has {count}" for name, count in few.items())
            of_folders = {image.category for image in self.images.values() if image.is_folder_category}
            is_annotated = any(image.boxes for image in self.images.values())
            hint = (
                "; an image without boxes gets the category of its folder"
                if is_annotated and of_folders & few.keys()
                else ""
            )
            msg = (
                f"source = {label!r}: each category needs at least {minimum} images, but {details}{hint}; "
                "add images, or lower min_images_per_category if the dataset already contains more"
            )
            raise OsaiArgumentError(msg)

    def raise_for_invalid_files(self, label: str) -> None:
        """Raise OsaiArgumentError with the first invalid files, if there are any."""
        if self.invalid_files:
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(self.invalid_files.items())[:MAX_SHOWN])
            more = f" and {len(self.invalid_files) - MAX_SHOWN} more" if len(self.invalid_files) > MAX_SHOWN else ""
            hint = "Fix or remove them, or set on_invalid_file='skip'"
            raise OsaiArgumentError(f"source = {label!r}: invalid files: {shown}{more}. {hint}")


def scan_source(
    source: Source,
    categories: Mapping[str, str] | None = None,
    min_images_per_category: int = MIN_TRAINING_IMAGES,
    *,
    annotations: bool = True,
) -> ScanResult:
    """Scan *source* and return its images and invalid files.

    As in the portal (documented: docs.onestepai.com/datasets/bulk_upload), an image's category is its folder's name
    with underscores instead of spaces, or "Other" outside of any folder. Annotated images get no category this way.

    :param categories: categories by pattern, for instance ``{"ok/*": "good"}``; compared with the file's path in the
        source and with its folder's name. The first match takes precedence over the folder's name.
    :param min_images_per_category: minimum number of images; OSAI trains on at least 3. 0 accepts any number.
    :param annotations: whether to read COCO, YOLO and Pascal VOC files.
    :raises OsaiArgumentError: if there are no images, or if categories have too few; the message names all of them.
    """
    files = source.files()
    invalid: dict[str, str] = {}
    image_files, other_files = _split_images(source, files, invalid)
    read = NO_ANNOTATIONS
    if annotations and other_files:
        sizes = {file.name: file.size for file in other_files}
        read = read_annotations(sizes, {file.name for file in image_files}, _annotation_reader(source))
    invalid |= {**read.problems, **source.invalid_files}
    unknown = [file.name for file in other_files if file.name not in read.files and not is_companion(file.name)]
    invalid |= {name: "not an image" for name in unknown if name not in invalid}
    images = {}
    nested = {}
    for file in image_files:
        if file.name in invalid:
            continue
        boxes = read.boxes.get(file.name, ())
        category = _by_pattern(file.name, categories or {})
        is_folder_category = category is None and not boxes
        if is_folder_category:
            folder = PurePosixPath(file.name).parent
            category = folder.name.strip().replace(" ", "_") or OTHER
            if len(folder.parts) > 1:
                nested[folder.as_posix()] = category
        images[file.name] = ImageFile(file.name, file.size, category, boxes, is_folder_category)
    if not images and not invalid:
        raise NoImagesFound(f"source = {source.label!r}: no images found")
    result = ScanResult(images, invalid, nested, read)
    result.raise_for_few_images(source.label, min_images_per_category)
    return result


def _annotation_reader(source: Source) -> Callable[[str], bytes]:
    """Return a function that reads a file; an unreadable file raises InvalidAnnotation, as an invalid one does."""

    def read(name: str) -> bytes:
        try:
            return source.read(name)
        except UnreadableFile as error:
            raise InvalidAnnotation(str(error)) from error

    return read


def _split_images(source: Source, files: Iterable[File], invalid: dict[str, str]) -> tuple[list[File], list[File]]:
    """Split images from other files: local files by content, others by suffix.

    :param invalid: local files with an image's suffix but other content are added to it.
    """
    images: list[File] = []
    others: list[File] = []
    heads = source.heads() if isinstance(source, PathSource) else {}
    for file in files:
        head = heads.get(file.name)
        if file.name in source.invalid_files:
            continue
        if looks_like_image(file.name) if head is None else is_image(head):
            images.append(file)
        elif looks_like_image(file.name):
            invalid[file.name] = NOT_AN_IMAGE if file.size else EMPTY_FILE
        else:
            others.append(file)
    return images, others


def _by_pattern(name: str, categories: Mapping[str, str]) -> str | None:
    folder = PurePosixPath(name).parent
    for pattern, category in categories.items():
        if fnmatchcase(name, pattern) or pattern in (folder.name, folder.as_posix()):
            return category
    return None
