"""The data quality check: single images, odd files and sources."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from PIL import Image
from upath import UPath

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.quality import CheckStopped, QualityOptions, Severity, check_source
from airflow_provider_osai.data.quality.decoding import PixelBudget
from airflow_provider_osai.data.sources import open_source
from tests.data.quality.making import code_files, fill, photo


def check(source, holdout=None, **options):
    return check_source(
        open_source(source), QualityOptions(**options), holdout=None if holdout is None else open_source(holdout)
    )


@pytest.fixture
def data(tmp_path):
    """Two categories of three images, with nothing to find."""
    fill(tmp_path / "data" / "cat")
    fill(tmp_path / "data" / "dog", first=10)
    return tmp_path / "data"


def bomb(width, height):
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_good_images_pass(data):
    report = check(data)
    assert (report.findings, report.verdict, report.images) == ((), "passed", 6)
    assert report.categories == {"cat": 3, "dog": 3}
    assert report.is_ok(strict=True)


def test_two_checks_of_the_same_folder_are_equal(data):
    """Whatever the number of threads."""
    photo(0).save(data / "dog" / "copy.png")
    assert check(data, workers=1) == check(data, workers=8)


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"", "empty-file", ""),
        (saved(photo(99), "PNG")[:300], "unreadable-image", "truncated"),
        (saved(photo(99), "JPEG")[:900], "unreadable-image", "truncated"),
        (saved(photo(99), "BMP")[:500], "unreadable-image", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "unreadable-image", "not a valid image"),
        (b"\xff\xd8\xff" + b"x" * 100, "unreadable-image", "not a valid image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported-format", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-format", "despite its name"),
        (bomb(20_000, 20_000), "image-too-large", "more than 89,478,485 pixels"),
        (bomb(10_000, 9_000), "image-too-large", "10,000 x 9,000"),
    ],
    ids=["empty", "png", "jpeg", "bmp", "header", "garbage", "postscript", "svg", "bomb", "large"],
)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_file_that_cannot_be_decoded_is_an_error(data, tmp_path, form, content, code, reason):
    """Also in an archive, where the suffix alone says that it is an image."""
    (data / "dog" / "bad.png").write_bytes(content)
    report = check(data if form == "folder" else packed(data, tmp_path))
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.items[0].files) == (code, Severity.ERROR, ("dog/bad.png",))
    assert reason in finding.items[0].detail
    assert report.verdict == "errors"


def packed(folder, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_object_storage_is_read_like_a_folder(data):
    storage = fsspec.filesystem("memory")
    try:
        storage.put(str(data), "/bucket", recursive=True)
        storage.pipe("/bucket/dog/bad.png", saved(photo(99), "PNG")[:300])
        assert code_files(check(UPath("memory://bucket"))) == {"unreadable-image": ["dog/bad.png"]}
    finally:
        storage.rm("/bucket", recursive=True)


def test_an_empty_folder_has_no_images(tmp_path):
    report = check(tmp_path)
    assert (list(code_files(report)), report.verdict) == (["no-images"], "errors")


def test_one_image_is_too_few(tmp_path):
    report = check(fill(tmp_path / "data" / "cat", 1).parent)
    assert list(code_files(report)) == ["few-images", "one-category"]
    assert report.findings[0].items[0].detail == "'cat' has 1 image, fewer than 3"


@pytest.mark.parametrize("damage", ["truncated", "name"])
def test_a_corrupt_archive_is_an_error(data, tmp_path, damage):
    path = packed(data, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-40] if damage == "truncated" else content.replace(b"cat/0", b"../00"))
    assert list(code_files(check(path))) == ["unreadable-source"]


def test_a_source_that_does_not_exist_is_an_argument_error(tmp_path):
    with pytest.raises(OsaiArgumentError, match="does not exist"):
        check(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("image", "name", "options", "code"),
    [
        (photo(99).convert("CMYK"), "x.jpg", {}, "unusual-mode"),
        (photo(99).convert("1"), "x.png", {}, "unusual-mode"),
        (
            photo(99).convert("L").convert("I").point(lambda value: value * 200).convert("I;16"),
            "x.png",
            {},
            "unusual-mode",
        ),
        (photo(99).convert("F"), "x.tif", {}, "unusual-mode"),
        (photo(99, (31, 400)), "x.png", {}, "image-too-small"),
        (Image.new("RGB", (64, 64), "navy"), "x.png", {}, "blank-image"),
        (Image.new("P", (64, 64), 3), "x.gif", {}, "blank-image"),
        (photo(99), "x.gif", {"save_all": True, "append_images": [photo(98)]}, "animated-image"),
        (photo(99), "x.webp", {"save_all": True, "append_images": [photo(98)]}, "animated-image"),
        (photo(99), "x.png", {"save_all": True, "append_images": [photo(98)]}, "animated-image"),
        (photo(99), "x.jpg", {"format": "PNG"}, "format-mismatch"),
        (photo(99), "without suffix", {"format": "PNG"}, "format-mismatch"),
    ],
)
def test_an_odd_image_is_a_warning(data, image, name, options, code):
    image.save(data / "cat" / name, **options)
    report = check(data)
    assert code_files(report) == {code: [f"cat/{name}"]}
    assert report.verdict == "warnings"
    assert report.is_ok()
    assert not report.is_ok(strict=True)


def test_transparency_is_found_by_pixel(data):
    """An alpha channel of opaque pixels is no finding; neither is a phone's second picture in a JPEG."""
    opaque = photo(98).convert("RGBA")
    opaque.save(data / "cat" / "opaque.png")
    clear = photo(99).convert("RGBA")
    clear.putpixel((5, 5), (1, 2, 3, 254))
    clear.save(data / "cat" / "clear.png")
    palette = photo(97).quantize(16)
    palette.save(data / "cat" / "palette.gif", transparency=3)
    photo(96).save(data / "cat" / "phone.jpg", "MPO", save_all=True, append_images=[photo(95)])
    assert code_files(check(data)) == {"transparent-image": ["cat/clear.png", "cat/palette.gif"]}


def test_deep_images_are_compared_by_all_their_bits(data):
    """Pillow's conversion to 8 bits would make these two equal."""
    bright = photo(99).convert("L").convert("I").point(lambda value: value * 20 + 40_000)
    bright.convert("I;16").save(data / "cat" / "a.png")
    bright.transpose(Image.Transpose.ROTATE_180).convert("I;16").save(data / "cat" / "b.png")
    assert code_files(check(data)) == {"unusual-mode": ["cat/a.png", "cat/b.png"]}


def test_names_may_hold_anything_unicode(data, tmp_path):
    names = ["日本語.png", "a b\n\x1b[31m.png", "<b>&.png", "e\u0301.png", "\u202egnp.png"]
    for number, name in enumerate(names):
        photo(90 + number).save(data / "cat" / name)
    (data / "dog" / os.fsdecode(b"\xff.png")).write_bytes(saved(photo(80), "PNG"))
    report = check(data)
    assert code_files(report) == {"invalid-file": ["dog/\\udcff.png"]}


def test_links_are_followed_inside_of_the_source_only(data, tmp_path):
    photo(99).save(tmp_path / "theirs.png")
    (data / "dog" / "outside.png").symlink_to(tmp_path / "theirs.png")
    (data / "dog" / "broken.png").symlink_to(data / "nothing")
    (data / "dog" / "inside.png").symlink_to(data / "cat" / "1.png")
    found = code_files(check(data))
    assert found == {
        "invalid-file": ["dog/broken.png", "dog/outside.png"],
        "label-conflict": ["cat/1.png", "dog/inside.png"],
    }


def test_other_files_are_invalid_and_other_image_formats_are_named_as_such(data):
    for name in ("notes.doc", "photo.heic", "raw.DNG", "README.md"):
        (data / "cat" / name).write_bytes(b"content")
    found = code_files(check(data))
    assert found == {"unsupported-format": ["cat/photo.heic", "cat/raw.DNG"], "invalid-file": ["cat/notes.doc"]}


def test_files_of_a_finding_are_limited_and_counted(tmp_path):
    folder = tmp_path / "data" / "cat"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}.png").write_bytes(b"")
    report = check(folder.parent, max_items=4)
    (finding,) = report.findings
    assert (finding.count, len(finding.items), finding.omitted) == (30, 4, 26)
    assert report.summary()["findings"] == {"empty-file": 30}


def test_a_finding_can_be_ignored(data):
    (data / "cat" / "bad.png").write_bytes(b"")
    assert check(data, ignore="empty-file, few-images").verdict == "passed"
    with pytest.raises(OsaiArgumentError, match=r"unknown codes: unreadable; known are .*unreadable-image"):
        check(data, ignore=["unreadable"])


@pytest.mark.parametrize(
    "options",
    [
        {"min_side": 0},
        {"max_imbalance": "nan"},
        {"max_hash_distance": 33},
        {"workers": 0},
        {"min_sides": 3},
        {"max_pixels": 10**9},
    ],
    ids=str,
)
def test_an_invalid_option_is_an_argument_error(options):
    with pytest.raises(OsaiArgumentError, match=next(iter(options))):
        QualityOptions(**options)


def test_options_may_be_text_as_from_templates():
    options = QualityOptions.of({"min_side": "64", "near_duplicates": "false", "ignore": "imbalance"})
    assert (options.min_side, options.near_duplicates, options.ignore) == (64, False, ("imbalance",))
    with pytest.raises(OsaiArgumentError, match="must be a dict"):
        QualityOptions.of("strict")


def test_a_stopped_check_raises(data):
    asked = []

    def is_stopped():
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(CheckStopped):
        check_source(open_source(data), is_stopped=is_stopped)


def test_nothing_is_written(data):
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    check(data, holdout=data)
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before


def test_images_that_are_decoded_at_the_same_time_have_limited_pixels():
    """An image that alone exceeds the limit is decoded all the same."""
    budget = PixelBudget(10)
    used, seen, lock = [0], [], threading.Lock()

    def decode(pixels):
        with budget.reserve(pixels):
            with lock:
                used[0] += pixels
                seen.append((used[0], pixels))
            with lock:
                used[0] -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [4, 3, 9, 12, 1, 10, 5] * 40))
    assert len(seen) == 280
    assert all(total <= max(10, pixels) for total, pixels in seen)
