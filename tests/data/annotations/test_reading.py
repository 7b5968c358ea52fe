"""Matching annotation files to images, parsing each format, and the messages for invalid files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.data.annotations import Box, max_size
from tests.data.annotations.source import problem, read_files

ONE = Box("cat", 0.25, 0.25, 0.5, 0.5)


def coco(bbox=(25, 25, 50, 50), size=(100, 100), name="0.jpg", **other):
    width, height = size
    document = {
        "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": list(bbox) if isinstance(bbox, tuple) else bbox}
        ],
        "categories": [{"id": 7, "name": "cat"}],
        **other,
    }
    return json.dumps(document)


def voc(sides=(26, 26, 75, 75), size=(100, 100), name="cat", more="", filename="0.jpg"):
    x, y, r, b = sides
    return (
        f"<annotation><filename>{filename}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>{name}</name><part><name>eye</name></part><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{r}</xmax><ymax>{b}</ymax></bndbox></object>{more}</annotation>"
    )


YOLO = "0 0.5 0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    "files",
    [
        {"0.jpg": "", "a.json": coco()},
        {"train/0.jpg": "", "valid/0.jpg": "", "train/a.json": coco()},
        {"images/a/0.jpg": "", "annotations/a.json": coco(name="a/0.jpg")},
        {"images/a/0.jpg": "", "annotations/a.json": coco(name="a\\0.jpg")},
        {"images/0.jpg": "", "annotations/a.json": coco(name="../images/0.jpg")},
        {"0.jpg": "", "0.txt": YOLO, "classes.txt": "cat"},
        {"a/images/t/0.jpg": "", "a/labels/t/0.txt": YOLO, "a/data.yaml": "names: [cat]"},
        {"a/0.jpg": "", "a/0.txt": YOLO, "obj.names": "cat\n\n"},
        {"0.jpg": "", "0.txt": YOLO, "d.yml": "path: x\nnames:\n  0: cat\n", "classes.txt": "cat"},
        {"0.jpg": "", "0.xml": voc()},
        {"JPEGImages/0.jpg": "", "Annotations/0.xml": voc()},
        {"x/images/t/0.jpg": "", "x/annotations/t/0.xml": voc()},
        {"0.jpg": "", "0.png": "", "0.xml": voc(filename="0.jpg")},
        {"0.jpg": "", "0.xml": voc().encode("utf-16")},
        {"0.jpg": "", "0.xml": "<?xml version='1.0' encoding='latin-1'?>" + voc()},
    ],
    ids=" ".join,
)
def test_annotations_are_matched_to_their_image(files):
    """Beside the image, or in the folders that the format defines."""
    read = read_files(files)
    assert read.problems == {}
    ((image, boxes),) = read.boxes.items()
    assert (image, boxes, read.categories) == (next(iter(files)), (ONE,), ("cat",))
    assert read.files == {name for name in files if not name.endswith(("jpg", "png"))}


@pytest.mark.parametrize(
    "files",
    [{"a.json": '{"a": 1}'}, {"a.json": "[1]"}, {"a.xml": "<html/>"}, {"README.txt": "hello"}, {"a.yaml": "a: 1"}],
)
def test_other_files_are_neither_annotations_nor_problems(files):
    read = read_files({"0.jpg": "", **files})
    assert (read.files, read.problems, read.boxes) == (frozenset(), {}, {})


@pytest.mark.parametrize(
    "files", [{"a.json": coco(annotations=[])}, {"0.txt": ""}, {"0.xml": "<annotation></annotation>"}]
)
def test_an_image_annotated_without_objects_has_no_boxes(files):
    """Unlike an image that is not annotated."""
    assert read_files({"0.jpg": "", "1.jpg": "", **files}).boxes == {"0.jpg": ()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0.txt": YOLO, "classes.txt": "cat", "0.xml": voc()}, "0.jpg: .*several files, keep one: 0.txt, 0.xml"),
        ({"a.json": coco(), "0.xml": voc()}, "0.jpg: .*several files, keep one: 0.xml, a.json"),
        ({"0.png": "", "0.txt": YOLO, "classes.txt": "cat"}, "0.txt: .*several images: '0.jpg, 0.png'"),
        ({"0.png": "", "0.xml": voc(filename="x")}, "0.xml: .*several images"),
        ({"x/0.jpg": "", "y/a.json": coco()}, "y/a.json: images.0.: '0.jpg' matches several images"),
        ({"0.txt": YOLO}, "0.txt: no class list"),
        (
            {"0.txt": YOLO, "classes.txt": "cat", "a.yaml": "names: [dog]"},
            "0.txt: different class lists .*: a.yaml, classes.txt",
        ),
        ({"9.txt": YOLO, "classes.txt": "cat"}, "9.txt: image not found"),
        ({"9.xml": voc()}, "9.xml: image not found"),
        ({"a.json": coco(name="9.jpg")}, r"a.json: images\[0\]: image '9.jpg' not found"),
        ({"0.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + voc().encode()}, "0.xml: a DOCTYPE"),
        ({"0.xml": ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + voc()).encode("utf-16")}, "0.xml: a DOCTYPE"),
        ({"0.xml": "<annotation>&b;</annotation>"}, "0.xml: not XML: undefined entity"),
        ({"0.xml": "<a>" * 100_000}, "0.xml: more than 32 nested elements"),
        ({"0.xml": "<?xml version='1.0' encoding='zip'?>" + voc()}, "0.xml: not text in zip"),
        ({"a.json": "["}, "a.json: not JSON"),
        ({"a.json": "[" * 100_000}, "a.json: not JSON"),
        ({"a.json": "1" * 10_000}, "a.json: not JSON"),
        ({"a.yaml": "[" * 10_000}, "a.yaml: not YAML"),
        ({"a.yaml": "names: cat"}, "a.yaml: names: must be a list"),
        ({"a.yaml": "names: {0: a, 0: b}"}, "a.yaml: names: duplicate class number 0"),
        ({"classes.txt": "a\n\nb"}, "classes.txt: line 2: invalid category name: ''"),
        ({"classes.txt": b"\xff"}, "classes.txt: not UTF-8"),
        ({"0.txt": b"\xff", "classes.txt": "cat"}, "0.txt: not UTF-8"),
        ({"0.txt": b"0" * (max_size("0.txt") + 1)}, "0.txt: larger than 4,194,304"),
    ],
)
def test_an_invalid_file_is_a_problem_with_its_name_and_reason(files, message):
    import re

    assert re.match(message, problem({"0.jpg": "", **files}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "has 4 numbers instead of 5"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9", "has 7 numbers instead of 5; segmentation"),
        ("1 0.5 0.5 0.5 0.5", "class 1 is not in the list of 1"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 is not"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5 is not"),
        ("nan 0.5 0.5 0.5 0.5", "class nan is not"),
        ("cat 0.5 0.5 0.5 0.5", "'cat' is not a number"),
        ("0 nan 0.5 0.5 0.5", "finite"),
        ("0 0.5 0.5 inf 0.5", "finite"),
        ("0 0.5 0.5 0 0.5", "more than 0"),
        ("0 0.5 0.5 0.5 -0.5", "more than 0"),
        ("0 0.9 0.5 0.5 0.5", "outside"),
        ("0 50 50 20 20", "outside"),
        (YOLO.strip(), "duplicate of line 1"),
    ],
)
def test_an_invalid_yolo_line_is_reported_with_its_number(line, message):
    """The other lines are read."""
    read = read_files({"0.jpg": "", "0.txt": YOLO + line, "classes.txt": "cat"})
    assert read.boxes == {"0.jpg": (ONE,)}
    assert "line 2: " in read.problems["0.txt"]
    assert message in read.problems["0.txt"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bbox": (25, 25, 0, 5)}, "bbox = [25, 25, 0, 5] of '0.jpg': width 0 and height 5 must be more than 0"),
        ({"bbox": (90, 25, 20, 5)}, "outside 100 x 100"),
        ({"bbox": (-2, 25, 20, 5)}, "outside 100 x 100"),
        ({"bbox": (float("nan"), 25, 20, 5)}, "finite"),
        ({"bbox": (10**400, 25, 20, 5)}, "too large"),
        ({"bbox": ("1", 25, 20, 5)}, "must be four numbers"),
        ({"bbox": (True, 25, 20, 5)}, "must be four numbers"),
        ({"bbox": None}, "bbox = None: must be four numbers"),
        ({"size": (0, 100)}, "invalid width 0"),
        ({"size": (None, 100)}, "invalid width None"),
        ({"categories": []}, "category_id 7 is not in categories"),
        ({"categories": [{"id": 7, "name": " "}]}, "categories[0]: invalid category name: ' '"),
        ({"categories": [{"id": 7, "name": "cat"}] * 2}, "categories[1]: duplicate id 7"),
        ({"images": []}, "image_id 1 is not in images"),
        ({"images": [1]}, "images[0]: not an object: 1"),
        ({"images": [{"id": 1}]}, "images[0]: invalid file_name None"),
        ({"annotations": [None]}, "annotations[0]: not an object: None"),
        ({"annotations": [{"image_id": {}, "category_id": 1}]}, "image_id = {}: must be an integer or text"),
    ],
)
def test_an_invalid_coco_object_is_reported_with_its_index_and_value(changed, message):
    assert message in read_files({"0.jpg": "", "a.json": coco(**changed)}).problems["a.json"]


def test_a_duplicate_coco_object_is_reported():
    """By its id, or by its box."""
    for identity, message in (
        (1, "annotations[1]: duplicate id 1"),
        (2, "annotations[1]: duplicate box of '0.jpg', same as annotations[0]"),
    ):
        document = json.loads(coco())
        document["annotations"].append({**document["annotations"][0], "id": identity})
        assert message in problem({"0.jpg": "", "a.json": json.dumps(document)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sides": (75, 26, 26, 75)}, "object 1: width -49 and height 49 must not be negative"),
        ({"sides": ("", 26, 26, 75)}, "object 1: xmin = '': not a number"),
        ({"sides": ("nan", 26, 26, 75)}, "object 1: all four numbers must be finite"),
        ({"sides": (26, 26, 102, 75)}, "object 1: it extends"),
        ({"size": (0, 100)}, "size: width = '0'"),
        ({"size": ("", 100)}, "size: width = ''"),
        ({"name": ""}, "object 1: invalid category name: ''"),
        ({"more": "<object/>"}, "object 2: invalid category name: None"),
        ({"more": "<object><name>a</name><name>b</name></object>"}, "object 2: invalid category name: None"),
        (
            {"more": "<object>" + voc().split("<object>")[1].split("</object>")[0] + "</object>"},
            "duplicate box, same as object 1",
        ),
    ],
)
def test_an_invalid_voc_object_is_reported_with_its_number(changed, message):
    assert message in problem({"0.jpg": "", "0.xml": voc(**changed)})


def test_only_the_first_problems_of_a_file_are_reported_and_the_others_counted():
    message = read_files({"0.jpg": "", "0.txt": "x\n" * 1_000, "classes.txt": "cat"}).problems["0.txt"]
    assert message.endswith("; and 995 more")
    assert len(message) < 500


def test_many_files_without_a_class_list_are_one_problem():
    """One class list fixes all of them."""
    files = {f"{n}.{suffix}": YOLO for n in range(9) for suffix in ("jpg", "txt")}
    assert "8 more files" in problem(files)


def test_rounding_errors_are_clipped():
    """A thousandth of the image, or a pixel; this includes VOC files that count from 0."""
    whole_image = (Box("cat", 0, 0, 1, 1),)
    assert (
        read_files({"0.jpg": "", "0.txt": "0 0.5 0.5 1.001 1.001", "classes.txt": "cat"}).boxes["0.jpg"] == whole_image
    )
    assert read_files({"0.jpg": "", "a.json": coco((-0.6, -0.6, 101.2, 101.2))}).boxes["0.jpg"] == whole_image
    assert read_files({"0.jpg": "", "0.xml": voc((0, 0, 100, 100))}).boxes["0.jpg"] == whole_image


def test_class_names_in_yaml_are_always_text():
    """Also where YAML has a boolean, a number or null."""
    assert read_files({"a.yaml": "names: [no, 1, null, 1.0]"}).categories == ("1", "1.0", "no", "null")


def test_two_coco_ids_may_have_the_same_name():
    """Some exports add the data set itself as a category, named like one of its classes."""
    names = [{"id": 7, "name": "cat"}, {"id": 0, "name": "cat"}]
    assert read_files({"0.jpg": "", "a.json": coco(categories=names)}).problems == {}


def test_a_box_is_serialized_as_json():
    assert json.loads(json.dumps(ONE.wire())) == {"category": "cat", "x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}


@st.composite
def sized_boxes(draw):
    """Draw an image size, and a box in it: left, top, right, bottom in pixels."""
    width, height = draw(st.integers(1, 5_000)), draw(st.integers(1, 5_000))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (width, height), (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))


@given(sized_boxes())
def test_a_box_reads_back_equal_from_each_format(drawn):
    """Up to rounding, and never outside the image."""
    (width, height), (left, top, right, bottom) = drawn
    x, y, w, h = left / width, top / height, (right - left) / width, (bottom - top) / height
    for files in (
        {"a.json": coco((left, top, right - left, bottom - top), (width, height))},
        {"0.xml": voc((left + 1, top + 1, right, bottom), (width, height))},
        {"0.txt": f"0 {x + w / 2:.9f} {y + h / 2:.9f} {w:.9f} {h:.9f}", "classes.txt": "cat"},
    ):
        read = read_files({"0.jpg": "", **files})
        assert read.problems == {}
        (box,) = read.boxes["0.jpg"]
        assert (box.x, box.y, box.width, box.height) == pytest.approx((x, y, w, h), abs=1e-8)
        assert min(box.x, box.y) >= 0 < min(box.width, box.height)
        assert max(box.x + box.width, box.y + box.height) <= 1


@given(
    st.sampled_from(["a.json", "0.txt", "0.xml", "classes.txt", "a.yaml"]),
    st.binary(max_size=200) | st.text().map(str.encode),
)
def test_arbitrary_bytes_never_raise(name, data):
    read_files({"0.jpg": "", "classes.txt": "cat", name: data})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["id", "image_id", "category_id", "bbox", "file_name", "width", "name"]), x
            )
        ),
    )
)
def test_arbitrary_json_in_the_coco_lists_never_raises(value):
    for key in ("images", "annotations", "categories"):
        read_files({"0.jpg": "", "a.json": coco(**{key: [value]})})
