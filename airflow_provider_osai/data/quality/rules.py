"""The rules of the data quality check: code, severity, message and remedy of each finding, the worst first."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["RULES", "SETTINGS", "SKIPPED_FILE_CODES", "Rule", "Severity"]


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """The upload or the training would fail, or the model would learn or be measured wrongly."""
    WARNING = "warning"
    """It may be intended, but often is not."""


class Rule(NamedTuple):
    """What a finding of one code says.

    :param severity: the severity.
    :param message: what is wrong, as a sentence about all its files.
    :param remedy: what to do, as a sentence; a setting is a placeholder, see :data:`SETTINGS`.
    """

    severity: Severity
    message: str
    remedy: str


SETTINGS: Final[dict[str, str]] = {
    "categories": "the argument categories",
    "holdout": "holdout",
    "max_pixels": "max_pixels",
    "min_box_side": "min_box_side",
    "min_images": "min_images",
    "min_side": "min_side",
    "near_duplicates": "near_duplicates=False",
}
"""How a user sets what remedies name, by placeholder: here in Python. The command and the operator have other words."""


def _error(message: str, remedy: str) -> Rule:
    return Rule(Severity.ERROR, message, remedy)


def _warning(message: str, remedy: str) -> Rule:
    return Rule(Severity.WARNING, message, remedy)


RULES: Final[dict[str, Rule]] = {
    "no-images": _error("The source contains no image.", "Check the path or the pattern."),
    "unreadable-source": _error("The source cannot be read to its end.", "Create the archive again."),
    "unreadable-image": _error(
        "Images cannot be decoded: they are truncated or corrupt.", "Export or copy them again, or remove them."
    ),
    "empty-file": _error("Image files are empty.", "Export or copy them again, or remove them."),
    "unsupported-format": _error(
        "Images are in a format that is not supported.", "Convert them to PNG or JPEG; renaming is not enough."
    ),
    "image-too-large": _error(
        "Images have more pixels than allowed, and were not decoded.",
        "Scale or crop them; raise {max_pixels} if they are intended.",
    ),
    "invalid-file": _error(
        "Files are neither images nor annotations, or cannot be read.",
        "Remove them, or upload with on_invalid_file='skip'.",
    ),
    "label-conflict": _error(
        "Identical images have different categories or boxes.", "Decide which one is right, and remove the others."
    ),
    "holdout-overlap": _error(
        "Images of the training data are also in the holdout, so metrics on it are too good.",
        "Remove them from the training data.",
    ),
    "few-images": _error(
        "Categories have fewer images than a training needs.",
        "Add images, or merge or remove the category. If the dataset already contains more, lower {min_images}.",
    ),
    "box-outside": _error("Boxes extend beyond their image.", "Correct them, or export the annotations again."),
    "degenerate-box": _error("Boxes have no area, or coordinates that are not finite.", "Correct or remove them."),
    "duplicate-box": _error("Boxes occur twice in the same image.", "Remove one of them."),
    "unknown-class": _error(
        "Boxes have a class that the class list does not contain.", "Complete the class list, or correct the boxes."
    ),
    "annotation-without-image": _error(
        "Annotations refer to images that are missing.", "Add the images, or remove their annotations."
    ),
    "several-annotations": _error(
        "An image has several annotation files, or an annotation fits several images.", "Keep one of them."
    ),
    "invalid-annotation": _error("Annotation files are invalid.", "Correct them, or export the annotations again."),
    "size-mismatch": _error(
        "The annotations state another size than the image has, so their boxes are misplaced.",
        "Use the images that were annotated, or export the annotations again.",
    ),
    "near-label-conflict": _warning(
        "Images that look almost the same have different categories.",
        "Look at them: one label may be wrong, or the categories differ only in a detail.",
    ),
    "near-holdout-overlap": _warning(
        "Images of the training data look almost the same as images of the holdout.",
        "Split by product, day or scene instead of by image, so that metrics hold for new images.",
    ),
    "holdout-category": _warning(
        "Categories of the holdout are missing in the training data, so the model cannot predict them.",
        "Add images of them to the training data, or remove them from the holdout.",
    ),
    "duplicate-image": _warning(
        "Images have identical pixels.", "Keep one of each: duplicates weigh more in the training and leak into splits."
    ),
    "near-duplicate": _warning(
        "Images look almost the same.", "Keep one of each group if they come from one scene, such as a video."
    ),
    "exif-rotation": _warning(
        "Annotated images have an EXIF rotation; software differs in whether boxes refer to the rotated image.",
        "Rotate the pixels, remove the EXIF tag, and check the boxes.",
    ),
    "image-without-annotation": _warning(
        "Images have no annotation although others do; an upload gives them the category of their folder.",
        "Annotate or remove them.",
    ),
    "image-without-boxes": _warning(
        "Images are annotated as having no objects; an upload gives them the category of their folder.",
        "Check that background images are intended. To give them another category, use {categories}.",
    ),
    "tiny-box": _warning(
        "Boxes have a side of a few pixels.",
        "Check them; often they are clicks made by mistake. The limit is {min_box_side}.",
    ),
    "unused-class": _warning(
        "Classes of the class list have no box.", "Add examples, or remove them from the class list."
    ),
    "imbalance": _warning(
        "The largest category has many times the images of the smallest ones.",
        "Add images to the small ones, augment them, or judge the model by the metrics of each category.",
    ),
    "one-category": _warning(
        "All images have the same category, so there is nothing to distinguish.",
        "Use one folder for each category, or {categories}.",
    ),
    "similar-categories": _warning(
        "Categories differ only in case, spaces or punctuation.", "Use one spelling, or {categories}."
    ),
    "nested-folders": _warning(
        "The innermost of nested folders is the category.", "If that is not intended, use {categories}."
    ),
    "category-shortcut": _warning(
        "Categories can be distinguished by the format, size or colour mode of the files alone.",
        "Take or convert the images of all categories in the same way; otherwise the model may learn the difference.",
    ),
    "image-too-small": _warning(
        "Images have a side with few pixels.", "Check that they are no thumbnails. The limit is {min_side}."
    ),
    "blank-image": _warning("Images have a single colour.", "Remove them: the camera or the export failed."),
    "unusual-mode": _warning(
        "Images have a colour mode that software often converts differently: CMYK, 16 bits, 1 bit, or another.",
        "Convert them to 8-bit greyscale or RGB.",
    ),
    "transparent-image": _warning(
        "Images have transparent pixels; what colour a training sees there is unknown.",
        "Flatten them onto a background.",
    ),
    "animated-image": _warning(
        "Files have several frames; only the first was checked, and which ones a training uses is unknown.",
        "Save the frames as single images.",
    ),
    "format-mismatch": _warning(
        "The suffix of the file name is not that of the format.", "Rename the files, or save them in that format."
    ),
    "check-skipped": _warning("Some checks were skipped.", "Install the packages, or switch these checks off."),
}
"""The rules by code, the worst first."""

SKIPPED_FILE_CODES: Final = frozenset(
    {"annotation-without-image", "empty-file", "invalid-file", "several-annotations", "unsupported-format"}
)
"""Codes of files that an upload leaves out with ``on_invalid_file="skip"``; it uploads images with other problems."""
