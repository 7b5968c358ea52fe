"""YOLO labels: one text file per image, one object per line, in fractions of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from airflow_provider_osai.data.annotations.bounding_box import (
    Box,
    InvalidAnnotation,
    ProblemKind,
    Rect,
    reject,
    shown,
    to_box,
)

__all__ = ["looks_like_labels", "parse"]

TOLERANCE: Final = 1e-3
"""Maximum rounding error by which a box may exceed the image, as a fraction of the image."""


def parse(data: bytes, classes: Mapping[int, str], problems: list[InvalidAnnotation]) -> tuple[Box, ...]:
    """Return the boxes of a label file. Each line is: class, x and y of the centre, width, height.

    :param classes: the class names by number.
    :param problems: the list to which the problems are added.
    :raises InvalidAnnotation: if the file is not UTF-8 text.
    """
    boxes: dict[Box, int] = {}
    for number, fields in _lines(data):
        try:
            box = _box(fields, classes)
            if box in boxes:
                message = f"{shown(' '.join(fields))} is a duplicate of line {boxes[box]}"
                reject(message, ProblemKind.DUPLICATE_BOX)
            boxes[box] = number
        except InvalidAnnotation as error:
            problems.append(error.at(f"line {number}"))
    return tuple(boxes)


def looks_like_labels(data: bytes) -> bool:
    """Return whether each line of a file is five numbers; used for a file without a matching image."""
    try:
        lines = list(_lines(data))
        return bool(lines) and all(len(fields) == 5 and [_number(field) for field in fields] for _, fields in lines)
    except InvalidAnnotation:
        return False


def _lines(data: bytes) -> Iterator[tuple[int, list[str]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidAnnotation(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def _box(fields: list[str], classes: Mapping[int, str]) -> Box:
    if len(fields) != 5:
        hint = "; segmentation, pose and predictions are not supported" if len(fields) > 5 else ""
        raise InvalidAnnotation(f"{shown(' '.join(fields))} has {len(fields)} numbers instead of 5{hint}")
    class_number, x, y, width, height = map(_number, fields)
    if not class_number.is_integer() or int(class_number) not in classes:
        message = f"class {fields[0]} is not in the list of {len(classes)} classes"
        raise InvalidAnnotation(message, ProblemKind.UNKNOWN_CLASS)
    if width <= 0 or height <= 0:
        message = f"width {width:g} and height {height:g} must be more than 0"
        raise InvalidAnnotation(message, ProblemKind.DEGENERATE_BOX)
    rect = Rect(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return to_box(classes[int(class_number)], rect, (1.0, 1.0), TOLERANCE)


def _number(field: str) -> float:
    with contextlib.suppress(ValueError):
        if "_" not in field:  # Python accepts 1_000, the format does not
            return float(field)
    raise InvalidAnnotation(f"{shown(field)} is not a number")
