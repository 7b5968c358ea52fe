"""COCO: one JSON file for many images, in pixels from the left upper corner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_provider_osai.data.annotations.box import Box, Edges, Unfit, category_name, fit, refuse, shown

__all__ = ["boxes", "categories", "parse"]

SLACK: Final = 1.0
"""Pixels by which rounded numbers may stick out."""
LISTS: Final = ("images", "annotations", "categories")
KEPT: Final = frozenset({*LISTS, "id", "image_id", "category_id", "file_name", "width", "height", "bbox", "name"})
"""What is kept while a file is read: outlines are most of its bytes, and are not used."""


def parse(data: bytes) -> dict[str, list[Any]] | None:
    """Return a file's three lists, or ``None`` if it is JSON of another kind.

    :raises Unfit: if it is no JSON.
    """
    try:
        document = json.loads(data, object_pairs_hook=_kept)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"it is no JSON: {str(error)[:200] or 'nested too deep'}") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in LISTS):
        return None
    return document


def categories(document: Mapping[str, list[Any]], problems: Callable[[str], None]) -> dict[int | str, str]:
    """Return the names of the categories by id. Several ids may mean one name."""
    names: dict[int | str, str] = {}
    for number, category in enumerate(document["categories"]):
        try:
            identity = _id(category, "id")
            if identity in names:
                refuse(f"id {shown(identity)} is there twice")
            names[identity] = category_name(category.get("name"))
        except Unfit as error:
            problems(f"categories[{number}]: {error}")
    return names


def boxes(
    document: Mapping[str, list[Any]], find: Callable[[str], str], problems: Callable[[str], None]
) -> dict[str, tuple[Box, ...]]:
    """Return the boxes of each image that the file lists, also of those that have none.

    :param find: returns the image that a ``file_name`` means, or raises :class:`Unfit`.
    :param problems: is told what is wrong, with the list and the number in it.
    """
    names = categories(document, problems)
    images = _images(document, find, problems)
    found: dict[str, dict[Box, int]] = {image: {} for image, _ in images.values() if image}
    ids: set[int | str] = set()
    for number, annotation in enumerate(document["annotations"]):
        try:
            image, box = _box(annotation, images, names, ids)
            if not image:
                continue
            if box in found[image]:
                refuse(f"it is the same box of {shown(image)} as annotations[{found[image][box]}]")
            found[image][box] = number
        except Unfit as error:
            problems(f"annotations[{number}]: {error}")
    return {image: tuple(those) for image, those in found.items()}


def _images(
    document: Mapping[str, list[Any]], find: Callable[[str], str], problems: Callable[[str], None]
) -> dict[int | str, tuple[str, dict[str, Any]]]:
    """Return each image's name here and what the file says of it, by id; the name is empty if something was wrong."""
    images: dict[int | str, tuple[str, dict[str, Any]]] = {}
    taken: dict[str, int] = {}
    for number, image in enumerate(document["images"]):
        try:
            identity = _id(image, "id")
            if identity in images:
                refuse(f"id {shown(identity)} is there twice")
            images[identity] = "", image
            name = image.get("file_name")
            if not isinstance(name, str) or not name:
                refuse(f"file_name = {shown(name)} is no name")
            here = find(name)
            if here in taken:
                refuse(f"{shown(name)} is the same image as images[{taken[here]}]")
            taken[here] = number
            images[identity] = here, image
        except Unfit as error:
            problems(f"images[{number}]: {error}")
    return images


def _box(
    annotation: Any,
    images: Mapping[int | str, tuple[str, dict[str, Any]]],
    names: Mapping[int | str, str],
    ids: set[int | str],
) -> tuple[str, Box]:
    image_id, category_id = _id(annotation, "image_id"), _id(annotation, "category_id")
    if "id" in annotation:
        identity = _id(annotation, "id")
        if identity in ids:
            refuse(f"id {shown(identity)} is there twice")
        ids.add(identity)
    if image_id not in images:
        raise Unfit(f"image_id {shown(image_id)} is not in images")
    if category_id not in names:
        raise Unfit(f"category_id {shown(category_id)} is not in categories")
    name, image = images[image_id]
    size = []
    for side in ("width", "height"):
        if not _is_number(image.get(side)) or not 0 < image[side] < 1e9:
            raise Unfit(f"its image {shown(image.get('file_name'))} has {side} = {shown(image.get(side))}")
        size.append(float(image[side]))
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise Unfit(f"bbox = {shown(bbox)} is not four numbers: x, y, width, height")
    try:
        x, y, width, height = map(float, bbox)
        if width <= 0 or height <= 0:
            refuse(f"width {width:g} and height {height:g} must be more than 0")
        box = fit(names[category_id], Edges(x, y, x + width, y + height), (size[0], size[1]), SLACK)
    except (Unfit, OverflowError) as error:
        raise Unfit(f"bbox = {shown(bbox)} of {shown(image.get('file_name'))}: {error}") from error
    return name, box


def _id(thing: Any, key: str) -> int | str:
    if not isinstance(thing, dict):
        raise Unfit(f"{shown(thing)} is no object")
    value = thing.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unfit(f"{key} = {shown(value)} is no id")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in KEPT}
