"""Pascal VOC annotations: one XML file per image, in inclusive pixel coordinates from 1."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

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

__all__ = ["Document", "boxes", "parse", "size"]

TOLERANCE: Final = 1.0
"""Maximum pixels by which a box may exceed the image: some tools count from 0, and some round."""
MAX_DEPTH: Final = 32
ENCODING: Final = re.compile(rb"""\A\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
SIDES: Final = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class Document:
    """The texts of a file by element path; those of each object are separate."""

    root: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    objects: list[dict[str, list[str]]] = field(default_factory=list)

    def single(self, path: str) -> str | None:
        """Return the text at *path*; ``None`` if it occurs never or several times."""
        return _single(self.texts, path)


def parse(data: bytes) -> Document:
    """Parse an XML file. A DOCTYPE is rejected: without one there are no entities to expand or to fetch.

    :raises InvalidAnnotation: if the file is not XML or not safe.
    """
    text = _decode(data)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidAnnotation("a DOCTYPE or an entity declaration is not allowed")
    document = Document()
    path: list[str] = []
    text_parts: list[str] = []

    def start(name: str, _attributes: object) -> None:
        path.append(name)
        text_parts.clear()
        if len(path) > MAX_DEPTH:
            raise InvalidAnnotation(f"more than {MAX_DEPTH} nested elements")
        if len(path) == 1:
            document.root = name
        elif path[1:] == ["object"]:
            document.objects.append({})

    def end(_name: str) -> None:
        text = "".join(text_parts).strip()
        below_root = path[1:]
        if below_root[:1] == ["object"]:
            document.objects[-1].setdefault("/".join(below_root[1:]), []).append(text)
        else:
            document.texts.setdefault("/".join(below_root), []).append(text)
        text_parts.clear()
        path.pop()

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text_parts.append
    try:
        parser.ParseFile(io.BytesIO(text.encode()))
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise InvalidAnnotation(f"not XML: {error}") from error
    return document


def size(document: Document) -> tuple[int, int] | None:
    """Return the stated width and height of the image in pixels; ``None`` if one is missing or invalid."""
    (_, width), (_, height) = _sides(document)
    return (int(width), int(height)) if width and height and _is_side(width) and _is_side(height) else None


def _sides(document: Document) -> list[tuple[str, str | None]]:
    return [(side, document.single(f"size/{side}")) for side in ("width", "height")]


def _is_side(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"[0-9]{1,9}", text) is not None and int(text) > 0


def boxes(document: Document, problems: list[InvalidAnnotation]) -> tuple[Box, ...]:
    """Return the boxes of a file.

    The pixels ``xmin`` to ``xmax`` are counted from 1 and inclusive, so a box extends from ``xmin - 1`` to ``xmax``.

    :param problems: the list to which the problems are added.
    """
    if not document.objects:
        return ()
    stated = size(document)
    if stated is None:
        side, text = next((side, text) for side, text in _sides(document) if not _is_side(text))
        message = f"size: {side} = {shown(text)}: must be a positive integer, boxes are relative to it"
        problems.append(InvalidAnnotation(message))
        return ()
    numbers: dict[Box, int] = {}
    for number, texts in enumerate(document.objects, start=1):
        try:
            box = _box(texts, stated)
            if box in numbers:
                reject(f"duplicate box, same as object {numbers[box]}", ProblemKind.DUPLICATE_BOX)
            numbers[box] = number
        except InvalidAnnotation as error:
            problems.append(error.at(f"object {number}"))
    return tuple(numbers)


def _box(texts: dict[str, list[str]], size: tuple[int, int]) -> Box:
    category = category_name(_single(texts, "name"))
    sides = []
    for side in SIDES:
        text = _single(texts, f"bndbox/{side}")
        try:
            sides.append(float(text or ""))
        except ValueError:
            raise InvalidAnnotation(f"{side} = {shown(text)}: not a number") from None
    left, top, right, bottom = sides
    if right < left or bottom < top:
        message = f"width {right - left:g} and height {bottom - top:g} must not be negative"
        raise InvalidAnnotation(message, ProblemKind.DEGENERATE_BOX)
    return to_box(category, Rect(left - 1, top - 1, right, bottom), size, TOLERANCE)


def _single(texts: dict[str, list[str]], path: str) -> str | None:
    values = texts.get(path, ())
    return values[0] if len(values) == 1 else None


def _decode(data: bytes) -> str:
    """Decode by the byte order mark or the XML declaration, so that the searched text is the parsed text."""
    declared = ENCODING.match(data)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif declared is None or data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    else:
        encoding = declared[1].decode()
    try:
        return data.decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise InvalidAnnotation(f"not text in {encoding}: {error}") from error
