"""The data quality check: categories and annotations."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.cli import datasets_check as command
from airflow_provider_osai.data.annotations.bounding_box import ProblemKind
from airflow_provider_osai.data.quality import Severity, check_source
from airflow_provider_osai.data.quality.label_rules import CODES
from airflow_provider_osai.data.quality.rules import RULES, SETTINGS, SKIPPED_FILE_CODES
from airflow_provider_osai.data.scan import scan_source
from airflow_provider_osai.data.sources import open_source
from airflow_provider_osai.uploads import validation as operator
from tests.data.quality.making import code_files, fill, photo
from tests.data.quality.test_images import check, data

__all__ = ["data"]


def details(report):
    return {finding.code: [item.detail for item in finding.items] for finding in report.findings}


@pytest.fixture
def yolo(tmp_path):
    """Four images of 96 x 80 pixels with one box each."""
    folder = fill(tmp_path / "yolo", 4)
    (folder / "classes.txt").write_text("cat\n")
    for number in range(4):
        (folder / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    return folder


def coco(folder, boxes, size=(96, 80), categories=("cat",), **changed):
    """Write a COCO file: *boxes* are (image number, category id, bbox)."""
    numbers = sorted({number for number, _, _ in boxes})
    document = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]} for number in numbers
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": bbox}
            for number, (image, category, bbox) in enumerate(boxes)
        ],
        **changed,
    }
    (folder / "coco.json").write_text(json.dumps(document))
    return folder


BOX = [10, 10, 40, 40]


def voc(width=96, height=80, box=(11, 11, 50, 50)):
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"<object><name>cat</name><bndbox>{sides}</bndbox></object></annotation>"
    )


def test_good_annotations_pass(yolo, tmp_path):
    assert check(yolo).findings == ()
    assert check(coco(fill(tmp_path / "coco"), [(number, 0, BOX) for number in range(3)])).findings == ()
    folder = fill(tmp_path / "voc")
    for number in range(3):
        (folder / f"{number}.xml").write_text(voc())
    assert check(folder).findings == ()


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("3 0.5 0.5 0.4 0.4", "unknown-class", "class 3 is not in the list of 1 classes"),
        ("-1 0.5 0.5 0.4 0.4", "unknown-class", "class -1"),
        ("0 0.9 0.5 0.4 0.4", "box-outside", "outside 1 x 1"),
        ("0 0.5 0.5 0 0.4", "degenerate-box", "must be more than 0"),
        ("0 nan 0.5 0.4 0.4", "degenerate-box", "must be finite"),
        ("0 0.5 0.5 0.4 0.4", "duplicate-box", "duplicate of line 1"),
        ("0 0.5 0.5 0.4", "invalid-annotation", "4 numbers instead of 5"),
    ],
)
def test_a_bad_line_of_yolo_is_an_error_by_its_kind(yolo, line, code, reason):
    (yolo / "1.txt").write_text(f"0 0.5 0.5 0.4 0.4\n{line}\n")
    report = check(yolo)
    assert code_files(report) == {code: ["1.txt"]}
    assert reason in details(report)[code][0]
    assert report.findings[0].severity is Severity.ERROR


def test_two_kinds_of_faults_in_one_file_are_two_findings(yolo):
    """And the number of each is stated."""
    (yolo / "1.txt").write_text("7 0.5 0.5 0.4 0.4\n" * 30 + "0 0.5 0.5 0 0\n")
    found = details(check(yolo))
    assert list(found) == ["degenerate-box", "unknown-class"]
    assert found["unknown-class"] == ["line 1: class 7 is not in the list of 1 classes (and 29 more)"]


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        ([(0, 5, BOX)], "unknown-class"),
        ([(0, 0, [90, 10, 40, 40])], "box-outside"),
        ([(0, 0, [10, 10, -4, 40])], "degenerate-box"),
        ([(0, 0, BOX), (0, 0, BOX)], "duplicate-box"),
        ([(9, 0, BOX)], "annotation-without-image"),
    ],
)
def test_a_bad_entry_of_coco_is_an_error_by_its_kind(tmp_path, boxes, code):
    folder = coco(fill(tmp_path / "coco", 4), [*((number, 0, BOX) for number in (1, 2, 3)), *boxes])
    assert code_files(check(folder))[code] == ["coco.json"]


def test_annotations_without_a_class_list_or_without_an_image_are_errors(yolo):
    (yolo / "classes.txt").unlink()
    (yolo / "9.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    found = code_files(check(yolo))
    assert found["invalid-annotation"] == ["0.txt"]
    assert found["annotation-without-image"] == ["9.txt"]


def test_an_image_with_two_annotation_files_is_an_error(yolo):
    (yolo / "1.xml").write_text(voc())
    assert code_files(check(yolo))["several-annotations"] == ["1.png"]


def test_images_without_annotation_and_without_boxes_are_told_apart(yolo):
    """An upload would give both the name of their folder as category."""
    (yolo / "0.txt").write_text("")
    photo(8).save(yolo / "8.png")
    found = check(yolo, min_images=0)
    assert code_files(found) == {"image-without-annotation": ["8.png"], "image-without-boxes": ["0.png"]}
    assert details(found)["image-without-annotation"] == ["category 'Other'"]


def test_background_images_and_the_folders_of_annotated_images_are_no_categories(tmp_path):
    """The usual layout of YOLO: images/train beside labels/train, an empty file for an image without objects."""
    fill(tmp_path / "images" / "train", 4)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("cat\n")
    for number in range(4):
        (tmp_path / "labels" / "train" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n" if number else "")
    photo(1).save(tmp_path / "images" / "train" / "0.png")
    report = check(tmp_path)
    assert list(code_files(report)) == ["label-conflict", "image-without-boxes"]
    assert details(report)["label-conflict"] == ["no boxes, 'cat'"]
    assert details(report)["image-without-boxes"] == ["category 'train'"]
    assert report.categories == {"cat": 3}


def test_a_background_image_has_the_category_of_a_pattern(yolo):
    (yolo / "0.txt").write_text("")
    report = check_source(open_source(yolo), categories={"0.png": "empty"})
    assert details(report)["few-images"] == ["'empty' has 1 image, fewer than 3"]


def test_an_empty_text_file_beside_an_image_does_not_end_the_check_of_folders(data):
    (data / "cat" / "0.txt").write_text("")
    (data / "cat" / "1.png").unlink()
    assert details(check(data))["few-images"] == ["'cat' has 2 images, fewer than 3"]


def test_categories_whose_annotations_are_invalid_are_not_too_small(tmp_path):
    """The annotations are to be corrected first; nor are their images without objects."""
    folder = fill(tmp_path / "images", 8)
    boxes = [(number, number // 4, BOX) for number in range(8)]
    document = json.loads((coco(folder, boxes, categories=("a", "b")) / "coco.json").read_text())
    for number, changed in {0: {"image_id": 99}, 1: {"category_id": 9}, 4: {"bbox": [0, 0, 0, 5]}}.items():
        document["annotations"][number] |= changed
    document["annotations"][5]["bbox"] = [90, 10, 40, 40]
    (folder / "coco.json").write_text(json.dumps(document))
    report = check(folder)
    assert list(code_files(report)) == ["box-outside", "degenerate-box", "unknown-class", "annotation-without-image"]
    document["annotations"] = document["annotations"][2:4] + document["annotations"][6:]
    (folder / "coco.json").write_text(json.dumps(document))
    assert details(check(folder))["few-images"] == [f"'{name}' has 2 images, fewer than 3" for name in "ab"]


def test_classes_without_boxes_and_tiny_boxes_are_warnings(yolo):
    (yolo / "classes.txt").write_text("cat\ndog\n")
    (yolo / "2.txt").write_text("0 0.5 0.5 0.4 0.02\n0 0.5 0.5 0.02 0.4\n")
    found = check(yolo)
    assert code_files(found) == {"tiny-box": ["2.png"], "unused-class": []}
    assert details(found) == {"tiny-box": ["38.4 x 1.6 pixels (and 1 more)"], "unused-class": ["'dog'"]}


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_a_stated_size_that_is_not_that_of_the_image_is_an_error(tmp_path, form):
    """The boxes are relative to it: they were drawn in an image that was scaled since."""
    folder = fill(tmp_path / "data")
    coco(folder, [(number, 0, BOX) for number in range(3)], size=(192, 160))
    if form == "voc":
        (folder / "coco.json").unlink()
        for number in range(3):
            (folder / f"{number}.xml").write_text(voc(192, 160))
    report = check(folder)
    assert code_files(report) == {"size-mismatch": ["0.png", "1.png", "2.png"]}
    assert details(report)["size-mismatch"][0] == "stated 192 x 160, but it is 96 x 80"


@pytest.mark.parametrize(
    ("size", "detail"),
    [
        ((96, 80), "orientation 6; the stated size is that of the stored image"),
        ((80, 96), "orientation 6; the stated size is that of the rotated image"),
        (None, "orientation 6"),
    ],
)
def test_a_rotation_by_exif_is_a_warning_if_there_are_boxes(tmp_path, size, detail):
    folder = fill(tmp_path / "data", suffix=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(0).save(folder / "0.jpg", exif=exif)
    assert code_files(check(folder)) == {"one-category": []}
    for number in range(3):
        if size is None:
            (folder / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
            (folder / "classes.txt").write_text("cat\n")
        else:
            (folder / f"{number}.xml").write_text(voc(*(size if number == 0 else (96, 80))))
    found = check(folder)
    assert code_files(found) == {"exif-rotation": ["0.jpg"]}
    assert details(found)["exif-rotation"] == [detail]


def test_identical_images_with_other_boxes_are_in_conflict(yolo):
    """Equal boxes are not, also if a tool has rounded them."""
    (yolo / "copy.png").write_bytes((yolo / "0.png").read_bytes())
    (yolo / "copy.txt").write_text("0 0.50001 0.5 0.4 0.4\n")
    assert code_files(check(yolo)) == {"duplicate-image": ["0.png", "copy.png"]}
    (yolo / "copy.txt").write_text("0 0.4 0.5 0.4 0.4\n")
    found = check(yolo)
    assert code_files(found) == {"label-conflict": ["0.png", "copy.png"]}
    assert details(found)["label-conflict"] == ["different boxes of 'cat'"]


def test_annotations_can_be_left_out(yolo):
    (yolo / "1.txt").write_text("nonsense")
    report = check_source(open_source(yolo), annotations=False)
    assert list(code_files(report)) == ["one-category"]


def test_invalid_files_are_warnings_if_the_upload_skips_them(yolo):
    """But not what is uploaded nevertheless: a broken image, and an image without the boxes that were rejected."""
    (yolo / "notes.doc").write_text("text")
    (yolo / "empty.png").write_bytes(b"")
    (yolo / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (yolo / "1.txt").write_text("0 0.9 0.5 0.4 0.4\n")
    report = check_source(open_source(yolo), skips_invalid_files=True)
    assert {finding.code: finding.severity.value for finding in report.findings} == {
        "unreadable-image": "error",
        "box-outside": "error",
        "image-without-annotation": "warning",
        "empty-file": "warning",
        "invalid-file": "warning",
    }


def test_imbalance_is_measured_against_the_largest_category(data):
    fill(data / "owl", 31, first=100)
    report = check(data)
    assert details(report)["imbalance"] == [
        "'cat' has 3, 'owl' has 31: 10.3 times as many, more than 10",
        "'dog' has 3, 'owl' has 31: 10.3 times as many, more than 10",
    ]
    assert check(data, max_imbalance=10.5).findings == ()


def test_images_that_cannot_be_decoded_do_not_count(data):
    (data / "cat" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    fill(data / "dog", 30, first=10)
    found = details(check(data))
    assert found["few-images"] == ["'cat' has 2 images that can be decoded, fewer than 3"]
    assert found["imbalance"][0].startswith("'cat' has 2 that can be decoded, 'dog' has 30: 15.0 times")


def test_similar_names_and_nested_folders_are_warnings(tmp_path):
    for number, name in enumerate(("Cat A", "cat-a", "deep/dog", "ÄÖ", "!", "?")):
        fill(tmp_path / "data" / name, first=10 * number)
    found = details(check(tmp_path / "data"))
    assert found == {"similar-categories": ["'Cat_A', 'cat-a'"], "nested-folders": ["'deep/dog' is 'dog'"]}


def test_a_category_that_the_file_alone_gives_away_is_a_warning(tmp_path):
    fill(tmp_path / "data" / "good")
    for number in range(3):
        (tmp_path / "data" / "bad").mkdir(exist_ok=True)
        photo(20 + number, (120, 80)).convert("L").save(tmp_path / "data" / "bad" / f"{number}.jpg")
    found = details(check(tmp_path / "data"))
    assert found == {
        "category-shortcut": [
            "format: 'bad' is JPEG, 'good' is PNG",
            "colour mode: 'bad' is L, 'good' is RGB",
            "size: 'bad' is 120 x 80, 'good' is 96 x 80",
        ]
    }
    photo(40, (120, 80)).convert("L").save(tmp_path / "data" / "good" / "too.jpg")
    assert "category-shortcut" not in details(check(tmp_path / "data"))


def test_each_kind_of_problem_has_a_code():
    """So that none is lost."""
    assert set(CODES) == set(ProblemKind)
    assert {*CODES.values(), *SKIPPED_FILE_CODES} <= set(RULES)


@pytest.mark.parametrize("settings", [SETTINGS, command.SETTINGS, operator.SETTINGS], ids=["python", "cli", "airflow"])
def test_each_remedy_can_be_written_with_each_kind_of_settings(settings):
    assert settings.keys() >= SETTINGS.keys()
    assert all("{" not in rule.remedy.format_map(settings).replace("{'", "") for rule in RULES.values())


def test_an_archive_has_the_findings_of_its_folder(yolo, tmp_path):
    (yolo / "1.txt").write_text("3 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.4 0.4\n")
    (yolo / "2.txt").unlink()
    photo(0).save(yolo / "copy.png")
    (yolo / "copy.txt").write_text("0 0.2 0.2 0.1 0.1\n")
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", yolo)
    found = check(yolo, min_images=0)
    assert list(code_files(found)) == ["label-conflict", "unknown-class", "image-without-annotation"]
    assert check(archive, min_images=0).findings == found.findings


def test_an_upload_says_why_a_background_image_has_a_category_of_its_own(yolo):
    (yolo / "0.txt").write_text("")
    with pytest.raises(OsaiArgumentError, match="'Other' has 1; an image without boxes gets the category"):
        scan_source(open_source(yolo))
