"""Write an image's boxes in the form that an API expects: a JSON list, or the text of a COCO, YOLO or VOC file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from airflow_provider_osai.api.errors import OsaiArgumentError

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract_rules import AnnotationsRule

__all__ = ["write_annotations"]


def write_annotations(
    boxes: Sequence[Mapping[str, Any]],
    category_ids: Mapping[str, str],
    rule: AnnotationsRule | None,
    name: str,
    file: IO[bytes],
) -> str:
    """Return the text of an image's boxes.

    :param boxes: in fractions of the image, as :meth:`.Box.wire` returns them.
    :param category_ids: the ids of the dataset's categories, by name.
    :param rule: the contract's form; ``None``: JSON with fractions, and both name and id of the category (assumed).
    :param name: the image's file name.
    :param file: the image, read for its size if the form has pixels.
    :raises OsaiArgumentError: if the form has pixels, and Pillow is missing or cannot read the image.
    """
    form = "json" if rule is None else rule.format
    if form == "yolo":
        numbers = {category: number for number, category in enumerate(category_ids)}
        return "".join(_yolo_line(numbers[box["category"]], box) for box in boxes)
    category = "both" if rule is None else rule.category
    if form == "json" and (rule is None or rule.units == "fraction"):
        return json.dumps([_json_box(box, category_ids, category) for box in boxes])
    size = _size(file, name)
    in_pixels = _in_pixels(boxes, size)
    if form == "json":
        return json.dumps([_json_box(box, category_ids, category) for box in in_pixels])
    return json.dumps(_coco(in_pixels, name, size)) if form == "coco" else _voc(in_pixels, name, size)


def _size(file: IO[bytes], name: str) -> tuple[int, int]:
    try:
        from PIL import Image  # only forms with pixels need it
    except ImportError:
        msg = "The contract's annotations are in pixels, which needs Pillow: pip install pillow"
        raise OsaiArgumentError(msg) from None
    position = file.tell()
    try:
        file.seek(0)
        with Image.open(file) as image:
            width, height = image.size
    except Exception as error:  # Pillow raises many types for broken images
        raise OsaiArgumentError(f"{name}: its size cannot be read: {type(error).__name__}") from None
    finally:
        file.seek(position)
    return width, height


def _in_pixels(boxes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[dict[str, Any]]:
    width, height = size
    return [
        {
            "category": box["category"],
            "x": round(box["x"] * width, 2),
            "y": round(box["y"] * height, 2),
            "width": round(box["width"] * width, 2),
            "height": round(box["height"] * height, 2),
        }
        for box in boxes
    ]


def _json_box(box: Mapping[str, Any], category_ids: Mapping[str, str], category: str) -> dict[str, Any]:
    category_id = category_ids[box["category"]]
    if category == "both":
        return {**box, "categoryId": category_id}
    if category == "name":
        return dict(box)
    return {**{key: value for key, value in box.items() if key != "category"}, "categoryId": category_id}


def _yolo_line(number: int, box: Mapping[str, Any]) -> str:
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return f"{number} {x:.6f} {y:.6f} {box['width']:.6f} {box['height']:.6f}\n"


def _coco(boxes: Sequence[Mapping[str, Any]], name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return a document with the categories of the boxes only, so that those of other images do not change it."""
    names = dict.fromkeys(box["category"] for box in boxes)
    numbers = {category: number for number, category in enumerate(names, start=1)}
    return {
        "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
        "categories": [{"id": number, "name": category} for category, number in numbers.items()],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": numbers[box["category"]],
                "bbox": [box["x"], box["y"], box["width"], box["height"]],
                "area": round(box["width"] * box["height"], 2),
                "iscrowd": 0,
            }
            for number, box in enumerate(boxes, start=1)
        ],
    }


def _voc(boxes: Sequence[Mapping[str, Any]], name: str, size: tuple[int, int]) -> str:
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = name
    element = ET.SubElement(root, "size")
    for side, value in zip(("width", "height"), size, strict=True):
        ET.SubElement(element, side).text = str(value)
    for box in boxes:
        thing = ET.SubElement(root, "object")
        ET.SubElement(thing, "name").text = box["category"]
        corners = ET.SubElement(thing, "bndbox")
        edges = {
            "xmin": box["x"],
            "ymin": box["y"],
            "xmax": box["x"] + box["width"],
            "ymax": box["y"] + box["height"],
        }
        for edge, value in edges.items():
            ET.SubElement(corners, edge).text = f"{value:g}"
    return ET.tostring(root, encoding="unicode")
