"""Annotations of other tools (globox, pascal-voc-writer, pycocotools) are read correctly."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from globox import Annotation, AnnotationSet, BoundingBox, BoxFormat
from pascal_voc_writer import Writer
from PIL import Image
from pycocotools.coco import COCO

from tests.data.annotations.source import read_folder

PIXELS = {"0.jpg": [("cat", 10, 20, 110, 90)], "1.jpg": [("dog", 1, 1, 200, 100), ("cat", 50, 50, 51, 60)], "2.jpg": []}
"""Left, top, right and bottom of each object."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in PIXELS:
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / name)
    return tmp_path


@pytest.fixture
def globox_set():
    return AnnotationSet(
        Annotation(
            name,
            (200, 100),
            [BoundingBox.create(label=c, coords=tuple(edges), box_format=BoxFormat.LTRB) for c, *edges in boxes],
        )
        for name, boxes in PIXELS.items()
    )


def pixels(box):
    """Return a box as category, left, top, right and bottom in pixels."""
    edges = (box.x * 200, box.y * 100, (box.x + box.width) * 200, (box.y + box.height) * 100)
    return (box.category, *(pytest.approx(edge, abs=1e-3) for edge in edges))


def assert_boxes(read, enlarged_by=0):
    assert read.problems == {}
    assert read.categories == ("cat", "dog")
    boxes = {image.removeprefix("images/"): [pixels(box) for box in boxes] for image, boxes in read.boxes.items()}
    assert boxes == {
        name: [(c, x - enlarged_by, y - enlarged_by, r, b) for c, x, y, r, b in objects]
        for name, objects in PIXELS.items()
    }


def test_coco_of_globox_in_a_separate_folder(folder, globox_set):
    (folder / "annotations").mkdir()
    globox_set.save_coco(folder / "annotations" / "all.json", auto_ids=True)
    read = read_folder(folder)
    assert_boxes(read)
    assert read.files == {"annotations/all.json"}


@pytest.mark.parametrize("writer", ["save_yolo_darknet", "save_yolo_v5"])
@pytest.mark.parametrize("subfolder", ["images", "labels"])
def test_yolo_of_globox(folder, globox_set, writer, subfolder):
    getattr(globox_set, writer)(folder / subfolder, label_to_id={"dog": 0, "cat": 1})
    (folder / "classes.txt").write_text("dog\ncat\n")
    read = read_folder(folder)
    assert_boxes(read)
    assert read.files == {"classes.txt", *(f"{subfolder}/{n}.txt" for n in range(3))}


@pytest.mark.parametrize("subfolder", ["images", "Annotations"])
def test_voc_of_globox(folder, globox_set, subfolder):
    """globox counts from 0, the format from 1: boxes are one pixel larger at the left and at the top."""
    globox_set.save_pascal_voc(folder / subfolder)
    assert_boxes(read_folder(folder), enlarged_by=1)


def test_voc_of_pascal_voc_writer(folder):
    """It writes the given coordinates unchanged, here counted from 1."""
    (folder / "Annotations").mkdir()
    for name, boxes in PIXELS.items():
        writer = Writer(str(folder / "images" / name), 200, 100)
        for category, left, top, right, bottom in boxes:
            writer.addObject(category, left + 1, top + 1, right, bottom)
        writer.save(str(folder / "Annotations" / f"{name[0]}.xml"))
    assert_boxes(read_folder(folder))


def test_pycocotools_reads_the_same_boxes(folder, globox_set):
    path = folder / "all.json"
    globox_set.save_coco(path, auto_ids=True)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(path)
    boxes_by_image = read_folder(folder).boxes
    for image in reference.loadImgs(reference.getImgIds()):
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=image["id"]))
        boxes = [
            (box.x * 200, box.y * 100, box.width * 200, box.height * 100)
            for box in boxes_by_image[f"images/{image['file_name']}"]
        ]
        assert boxes == [pytest.approx(annotation["bbox"]) for annotation in annotations]


def test_coco_segmentation_score_and_iscrowd_are_ignored(folder):
    document = {
        "info": {},
        "images": [{"id": 1, "file_name": "0.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
        "annotations": [],
    }
    (folder / "truth.json").write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        result = COCO(folder / "truth.json").loadRes(
            [
                {
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": [[10, 20, 110, 20, 110, 90, 10, 90]],
                    "bbox": [10, 20, 100, 70],
                    "score": 1,
                }
            ]
        )
    result.dataset["annotations"][0]["iscrowd"] = 1
    (folder / "truth.json").write_text(json.dumps(result.dataset))
    read = read_folder(folder)
    assert read.problems == {}
    assert [pixels(box) for box in read.boxes["images/0.jpg"]] == PIXELS["0.jpg"]
