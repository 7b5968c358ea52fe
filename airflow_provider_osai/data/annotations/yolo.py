"""YOLO's labels: one text file by image, one object by line, in fractions of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from airflow_provider_osai.data.annotations.box import Box, Edges, Unfit, fit, refuse, shown

__all__ = ["looks_like_labels", "parse"]

SLACK: Final = 1e-3
"""Fractions of the image by which rounded numbers may stick out."""


def parse(data: bytes, classes: Mapping[int, str], problems: list[str]) -> tuple[Box, ...]:
    """Return the boxes of one file of labels: class, centre's x and y, width, height.

    :param classes: the classes' names by number.
    :param problems: gets what is wrong, by line.
    :raises Unfit: if it is no text.
    """
    boxes: dict[Box, int] = {}
    for number, fields in _lines(data):
        try:
            box = _box(fields, classes)
            if box in boxes:
                refuse(f"{shown(' '.join(fields))} is the same box as line {boxes[box]}")
        except Unfit as error:
            problems.append(f"line {number}: {error}")
        else:
            boxes[box] = number
    return tuple(boxes)


def looks_like_labels(data: bytes) -> bool:
    """Whether a text is surely one of labels, also where no image tells."""
    try:
        lines = list(_lines(data))
        return bool(lines) and all(len(fields) == 5 and [_number(field) for field in fields] for _, fields in lines)
    except Unfit:
        return False


def _lines(data: bytes) -> Iterator[tuple[int, list[str]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unfit(f"it is no UTF-8 text: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def _box(fields: list[str], classes: Mapping[int, str]) -> Box:
    if len(fields) != 5:
        more = "; outlines (segmentation), key points (pose) and predictions are no boxes" if len(fields) > 5 else ""
        raise Unfit(f"{shown(' '.join(fields))} has {len(fields)} numbers, not 5{more}")
    kind, x, y, width, height = map(_number, fields)
    if not kind.is_integer() or int(kind) not in classes:
        raise Unfit(f"class {fields[0]} is not in the list of {len(classes)} classes")
    if width <= 0 or height <= 0:
        raise Unfit(f"width {width:g} and height {height:g} must be more than 0")
    edges = Edges(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return fit(classes[int(kind)], edges, (1.0, 1.0), SLACK)


def _number(field: str) -> float:
    with contextlib.suppress(ValueError):
        if "_" not in field:  # Python's own way to write numbers
            return float(field)
    raise Unfit(f"{shown(field)} is no number")
