"""COCO annotations: one JSON file for many images, in pixels from the upper left corner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_osai.data.annotations.bounding_box import (
    Box,
    InvalidAnnotation,
    ProblemKind,
    Rect,
    category_name,
    reject,
    shown,
    to_box,
)

__all__ = ["ImageBoxes", "boxes", "categories", "parse"]

TOLERANCE: Final = 1.0
"""Maximum rounding error in pixels by which a box may exceed the image."""
LISTS: Final = ("images", "annotations", "categories")
USED_KEYS: Final = frozenset({*LISTS, "id", "image_id", "category_id", "file_name", "width", "height", "bbox", "name"})
"""Keys kept while a file is parsed. Segmentation outlines are most of a file and are not used."""


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """The images of a file.

    :param boxes: the boxes of each image, including images without any.
    :param incomplete: the images with rejected boxes.
    :param sizes: the stated width and height of each image in pixels, if they are valid.
    :param unclear: the images without boxes, if it is unknown which image a rejected box is of.
    """

    boxes: Mapping[str, tuple[Box, ...]]
    incomplete: frozenset[str]
    sizes: Mapping[str, tuple[int, int]]
    unclear: frozenset[str]


def parse(data: bytes) -> dict[str, list[Any]] | None:
    """Return a file's three lists, or ``None`` if it is JSON but not COCO.

    :raises InvalidAnnotation: if the file is not JSON.
    """
    try:
        document = json.loads(data, object_pairs_hook=_used_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidAnnotation(f"not JSON: {str(error)[:200] or 'nested too deeply'}") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in LISTS):
        return None
    return document


def categories(
    document: Mapping[str, list[Any]], problems: Callable[[InvalidAnnotation], None]
) -> dict[int | str, str]:
    """Return the category names by id. Several ids may have the same name."""
    names: dict[int | str, str] = {}
    for number, category in enumerate(document["categories"]):
        try:
            identity = _id(category, "id")
            if identity in names:
                reject(f"duplicate id {shown(identity)}")
            names[identity] = category_name(category.get("name"))
        except InvalidAnnotation as error:
            problems(error.at(f"categories[{number}]"))
    return names


def boxes(
    document: Mapping[str, list[Any]], find: Callable[[str], str], problems: Callable[[InvalidAnnotation], None]
) -> ImageBoxes:
    """Return the boxes and the stated size of each image in the file.

    :param find: returns the image for a ``file_name``, or raises :class:`InvalidAnnotation`.
    :param problems: called with each problem, which begins with its list and index.
    """
    names = categories(document, problems)
    images = _images(document, find, problems)
    numbers: dict[str, dict[Box, int]] = {image: {} for image, _ in images.values() if image}
    ids: set[int | str] = set()
    incomplete: set[str] = set()
    for number, annotation in enumerate(document["annotations"]):
        try:
            image, box = _box(annotation, images, names, ids)
            if not image:
                continue
            if box in numbers[image]:
                earlier = f"annotations[{numbers[image][box]}]"
                reject(f"duplicate box of {shown(image)}, same as {earlier}", ProblemKind.DUPLICATE_BOX)
            numbers[image][box] = number
        except InvalidAnnotation as error:
            problems(error.at(f"annotations[{number}]"))
            incomplete.add(_image_name(annotation, images))
    sizes = {
        image: (int(stated["width"]), int(stated["height"]))
        for image, stated in images.values()
        if image and _is_side(stated.get("width")) and _is_side(stated.get("height"))
    }
    boxes_by_image = {image: tuple(image_boxes) for image, image_boxes in numbers.items()}
    unclear = {image for image, image_boxes in boxes_by_image.items() if not image_boxes and "" in incomplete}
    return ImageBoxes(boxes_by_image, frozenset(incomplete - {""}), sizes, frozenset(unclear))


def _image_name(annotation: Any, images: Mapping[int | str, tuple[str, dict[str, Any]]]) -> str:
    """Return the image of an annotation; empty if it has none."""
    try:
        return images.get(_id(annotation, "image_id"), ("", {}))[0]
    except InvalidAnnotation:
        return ""


def _images(
    document: Mapping[str, list[Any]], find: Callable[[str], str], problems: Callable[[InvalidAnnotation], None]
) -> dict[int | str, tuple[str, dict[str, Any]]]:
    """Return each image's name in the source and its COCO object, by id; the name is empty if there was a problem."""
    images: dict[int | str, tuple[str, dict[str, Any]]] = {}
    numbers: dict[str, int] = {}
    for number, image in enumerate(document["images"]):
        try:
            identity = _id(image, "id")
            if identity in images:
                reject(f"duplicate id {shown(identity)}")
            images[identity] = "", image
            file_name = image.get("file_name")
            if not isinstance(file_name, str) or not file_name:
                reject(f"invalid file_name {shown(file_name)}")
            name = find(file_name)
            if name in numbers:
                reject(f"{shown(file_name)} is the same image as images[{numbers[name]}]", ProblemKind.SEVERAL_FILES)
            numbers[name] = number
            images[identity] = name, image
        except InvalidAnnotation as error:
            problems(error.at(f"images[{number}]"))
    return images


def _box(
    annotation: Any,
    images: Mapping[int | str, tuple[str, dict[str, Any]]],
    names: Mapping[int | str, str],
    ids: set[int | str],
) -> tuple[str, Box]:
    image_id = _id(annotation, "image_id")
    category_id = _id(annotation, "category_id")
    if "id" in annotation:
        identity = _id(annotation, "id")
        if identity in ids:
            raise InvalidAnnotation(f"duplicate id {shown(identity)}")
        ids.add(identity)
    if image_id not in images:
        raise InvalidAnnotation(f"image_id {shown(image_id)} is not in images", ProblemKind.IMAGE_NOT_FOUND)
    if category_id not in names:
        message = f"category_id {shown(category_id)} is not in categories"
        raise InvalidAnnotation(message, ProblemKind.UNKNOWN_CLASS)
    name, image = images[image_id]
    size = []
    for side in ("width", "height"):
        if not _is_side(image.get(side)):
            raise InvalidAnnotation(
                f"the image {shown(image.get('file_name'))} has the invalid {side} {shown(image.get(side))}"
            )
        size.append(float(image[side]))
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise InvalidAnnotation(f"bbox = {shown(bbox)}: must be four numbers: x, y, width, height")
    try:
        x, y, width, height = map(float, bbox)
        if width <= 0 or height <= 0:
            reject(f"width {width:g} and height {height:g} must be more than 0", ProblemKind.DEGENERATE_BOX)
        box = to_box(names[category_id], Rect(x, y, x + width, y + height), (size[0], size[1]), TOLERANCE)
    except (InvalidAnnotation, OverflowError) as error:
        problem = error if isinstance(error, InvalidAnnotation) else InvalidAnnotation(str(error))
        raise problem.at(f"bbox = {shown(bbox)} of {shown(image.get('file_name'))}") from error
    return name, box


def _id(value: Any, key: str) -> int | str:
    if not isinstance(value, dict):
        raise InvalidAnnotation(f"not an object: {shown(value)}")
    identity = value.get(key)
    if isinstance(identity, bool) or not isinstance(identity, int | str):
        raise InvalidAnnotation(f"{key} = {shown(identity)}: must be an integer or text")
    return identity


def _is_side(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1e9


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _used_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in USED_KEYS}
