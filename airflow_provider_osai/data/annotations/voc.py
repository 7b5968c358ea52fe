"""Pascal VOC: one XML file by image, in pixels that are counted from 1 and belong to the box on both sides."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from airflow_provider_osai.data.annotations.box import Box, Edges, Unfit, category_name, fit, refuse, shown

__all__ = ["Document", "boxes", "parse"]

SLACK: Final = 1.0
"""Pixels by which numbers may stick out: some tools count from 0, and some round."""
DEEPEST: Final = 32
ENCODING: Final = re.compile(rb"""\A\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
SIDES: Final = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class Document:
    """The texts of one file by path, those of each object apart."""

    root: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    objects: list[dict[str, list[str]]] = field(default_factory=list)

    def one(self, path: str) -> str | None:
        """Return the text at *path*, ``None`` if there is none or several."""
        return _one(self.texts, path)


def parse(data: bytes) -> Document:
    """Return what one file holds. A DOCTYPE is refused: without one there are no entities to expand or to fetch.

    :raises Unfit: if it is no XML, or none that is safe.
    """
    text = _decoded(data)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Unfit("it has a DOCTYPE or an entity, which no annotation needs")
    document = Document()
    path: list[str] = []
    words: list[str] = []

    def start(name: str, _attributes: object) -> None:
        path.append(name)
        words.clear()
        if len(path) > DEEPEST:
            raise Unfit(f"it is nested more than {DEEPEST} deep")
        if len(path) == 1:
            document.root = name
        elif path[1:] == ["object"]:
            document.objects.append({})

    def end(_name: str) -> None:
        inner = path[1:]
        if inner[:1] == ["object"]:
            document.objects[-1].setdefault("/".join(inner[1:]), []).append("".join(words).strip())
        else:
            document.texts.setdefault("/".join(inner), []).append("".join(words).strip())
        words.clear()
        path.pop()

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, words.append
    try:
        parser.ParseFile(io.BytesIO(text.encode()))
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise Unfit(f"it is no XML: {error}") from error
    return document


def boxes(document: Document, problems: list[str]) -> tuple[Box, ...]:
    """Return the boxes of one file.

    The box of pixels ``xmin`` to ``xmax`` begins at ``xmin - 1`` and ends at ``xmax``, as the format's makers count.

    :param problems: gets what is wrong, by object.
    """
    if not document.objects:
        return ()
    size = []
    for side in ("width", "height"):
        stated = document.one(f"size/{side}")
        if stated is None or not re.fullmatch(r"[0-9]{1,9}", stated) or not int(stated):
            problems.append(f"size: {side} = {shown(stated)}; without the image's size its boxes cannot be read")
            return ()
        size.append(int(stated))
    found: dict[Box, int] = {}
    for number, said in enumerate(document.objects, start=1):
        try:
            box = _box(said, (size[0], size[1]))
            if box in found:
                refuse(f"it is the same box as object {found[box]}")
        except Unfit as error:
            problems.append(f"object {number}: {error}")
        else:
            found[box] = number
    return tuple(found)


def _box(said: dict[str, list[str]], size: tuple[int, int]) -> Box:
    category = category_name(_one(said, "name"))
    sides = []
    for side in SIDES:
        text = _one(said, f"bndbox/{side}")
        try:
            sides.append(float(text or ""))
        except ValueError:
            raise Unfit(f"{side} = {shown(text)} is no number") from None
    left, top, right, bottom = sides
    if right < left or bottom < top:
        raise Unfit(f"width {right - left:g} and height {bottom - top:g} must not be less than 0")
    return fit(category, Edges(left - 1, top - 1, right, bottom), size, SLACK)


def _one(texts: dict[str, list[str]], path: str) -> str | None:
    found = texts.get(path, ())
    return found[0] if len(found) == 1 else None


def _decoded(data: bytes) -> str:
    """Return the text as its mark or its declaration says it is encoded, so that what is searched is what is parsed."""
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
        raise Unfit(f"it is no text in {encoding}: {error}") from error
