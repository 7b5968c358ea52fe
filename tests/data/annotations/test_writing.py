"""Boxes in each form that a contract can ask for, with the numbers of one image of 200 x 100 pixels."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from airflow_provider_osai.api.contract_rules import AnnotationsRule
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.annotations.writing import write_annotations

BOXES = [
    {"category": "dog", "x": 0.25, "y": 0.1, "width": 0.5, "height": 0.4},
    {"category": "cat", "x": 0.0, "y": 0.0, "width": 0.1, "height": 0.1},
]
IDS = {"cat": "c1", "dog": "d2"}


def picture():
    file = io.BytesIO()
    Image.new("RGB", (200, 100)).save(file, "PNG")
    file.seek(5)
    return file


def written(**rule):
    file = picture()
    text = write_annotations(BOXES, IDS, AnnotationsRule(**rule) if rule else None, "a.png", file)
    assert file.tell() == 5
    return text


def test_by_default_fractions_with_the_name_and_the_id_of_the_category():
    assert json.loads(written()) == [{**BOXES[0], "categoryId": "d2"}, {**BOXES[1], "categoryId": "c1"}]


@pytest.mark.parametrize(
    ("category", "named"), [("id", {"categoryId": "d2"}), ("name", {"category": "dog"})], ids=["id", "name"]
)
def test_pixels_with_one_way_to_name_the_category(category, named):
    first = json.loads(written(units="pixel", category=category))[0]
    assert first == {"x": 50, "y": 10, "width": 100, "height": 40, **named}


def test_yolo_has_the_centre_and_the_number_of_the_category():
    assert written(format="yolo").splitlines() == [
        "1 0.500000 0.300000 0.500000 0.400000",
        "0 0.050000 0.050000 0.100000 0.100000",
    ]


def test_coco_has_one_image_and_the_categories_of_its_boxes():
    document = json.loads(written(format="coco"))
    assert document["images"] == [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}]
    names = {category["id"]: category["name"] for category in document["categories"]}
    found = [(names[each["category_id"]], each["bbox"], each["area"]) for each in document["annotations"]]
    assert found == [("dog", [50, 10, 100, 40], 4000), ("cat", [0, 0, 20, 10], 200)]


def test_voc_has_corners_and_the_size_of_the_image():
    root = ET.fromstring(written(format="voc"))
    assert [root.findtext(f"size/{side}") for side in ("width", "height")] == ["200", "100"]
    corners = [
        [thing.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")] for thing in root.iter("object")
    ]
    assert [thing.findtext("name") for thing in root.iter("object")] == ["dog", "cat"]
    assert corners == [["50", "10", "150", "50"], ["0", "0", "20", "10"]]


@pytest.mark.parametrize("rule", [{"units": "pixel"}, {"format": "coco"}, {"format": "voc"}])
def test_a_file_whose_size_cannot_be_read_is_named(rule):
    with pytest.raises(OsaiArgumentError, match=r"a\.png: its size cannot be read"):
        write_annotations(BOXES, IDS, AnnotationsRule(**rule), "a.png", io.BytesIO(b"no image"))
