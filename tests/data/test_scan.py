"""Scanning a source: categories, formats, links, and what is rejected before anything is uploaded."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from upath import UPath

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.scan import scan_source
from airflow_provider_osai.data.sources import open_source


def fill(folder, n=3, form="PNG"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("L", (2, 2)).save(folder / f"{i}.{form.lower()}", form)
    return folder


def scan(source, **options):
    return scan_source(open_source(source), **options)


def categories(source, **options):
    return {name: image.category for name, image in scan(source, **options).images.items()}


def test_folders_are_categories_with_underscores_instead_of_spaces(tmp_path):
    """Images outside of folders are in "Other", as in the portal."""
    fill(tmp_path / "big cat")
    fill(tmp_path / "train" / "dog")
    fill(tmp_path)
    assert Counter(categories(tmp_path).values()) == {"Other": 3, "big_cat": 3, "dog": 3}


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    fill(tmp_path / "b")
    fill(tmp_path / "a")
    assert list(scan(tmp_path).images) == [f"{c}/{i}.png" for c in "ab" for i in range(3)]


def test_a_pattern_selects_files(tmp_path):
    """Also in nested folders; files that it does not match are ignored."""
    fill(tmp_path / "x" / "cat")
    fill(tmp_path / "x" / "cat", form="JPEG")
    fill(tmp_path / "dog")
    assert set(categories(f"{tmp_path}/**/*.png").values()) == {"cat", "dog"}
    assert set(scan(f"{tmp_path}/x/*/*.jpeg").images) == {f"cat/{i}.jpeg" for i in range(3)}


def test_names_of_listed_files_begin_after_their_common_folder(tmp_path):
    """So their folders are their categories."""
    fill(tmp_path / "x" / "cat")
    fill(tmp_path / "x" / "dog")
    paths = [str(path) for path in tmp_path.glob("x/*/*")]
    assert set(scan(paths).images) == {f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)}
    assert set(categories(list((tmp_path / "x" / "cat").iterdir())).values()) == {"Other"}


@pytest.mark.parametrize(("paths", "reason"), [([], "the list is empty"), (["gone.png"], "not files: gone.png")])
def test_an_empty_list_or_a_missing_file_is_rejected(paths, reason):
    with pytest.raises(OsaiArgumentError, match=reason):
        scan(paths)


def test_object_storage_is_scanned_and_read(tmp_path):
    storage = fsspec.filesystem("memory")
    for n in range(3):
        fill(tmp_path / "cat")
        storage.pipe(f"/bucket/data/cat/{n}.png", (tmp_path / "cat" / f"{n}.png").read_bytes())
    try:
        for source in ("memory://bucket/data", "memory://bucket/data/*/*.png", "memory://bucket/**/*.png"):
            opened = open_source(source, UPath)
            assert set(scan_source(opened).images) <= {f"{top}cat/{n}.png" for n in range(3) for top in ("", "data/")}
            for name, opener in opened.walk(set(scan_source(opened).images)):
                with opener() as file:
                    assert file.read().startswith(b"\x89PNG"), name
    finally:
        storage.rm("/bucket", recursive=True)


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another user, with images, an annotation and a secret."""
    folder = fill(tmp_path / "elsewhere" / "theirs")
    (folder / "0.txt").write_text("0 0.5 0.5 0.2 0.2")
    (folder / "classes.txt").write_text("theirs")
    (folder / "secret").write_text("secret")
    return folder


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def read_images(source, result):
    """Return the content of the readable images, and the errors of the others."""
    contents = {}
    errors = {}
    for name, opener in source.walk(set(result.images)):
        try:
            with opener() as file:
                contents[name] = file.read()
        except OSError as error:
            errors[name] = str(error)
    return contents, errors


class TestLinks:
    """Links are followed if their target is below the source's folder; others are invalid files."""

    @pytest.mark.parametrize(
        "target", ["0.png", "secret", "", "missing", "/etc/passwd", "../../elsewhere/theirs/0.png"]
    )
    @pytest.mark.parametrize("kind", ["folder", "pattern", "url"])
    def test_a_link_to_a_path_outside_the_source_is_an_invalid_file(self, tmp_path, elsewhere, target, kind):
        """To an image, another file, a folder, or a path that does not exist; absolute or relative."""
        folder = fill(tmp_path / "data" / "cat")
        link(folder / "x.png", elsewhere / target if target[:1] not in ("/", ".") else target)
        source = {"folder": str(folder), "pattern": f"{folder}/**/*.png", "url": UPath(f"file://{folder}")}
        result = scan(source[kind])
        assert set(result.images) == {f"{i}.png" for i in range(3)}
        if kind == "pattern" and target == "":
            assert result.invalid_files == {}  # a pattern selects files, never folders
            return
        assert list(result.invalid_files) == ["x.png"]
        assert "points outside" in result.invalid_files["x.png"]
        with pytest.raises(OsaiArgumentError, match=r"x\.png.*points outside.*on_invalid_file='skip'"):
            result.raise_for_invalid_files("x")

    @pytest.mark.parametrize("kind", ["folder", "pattern"])
    def test_a_link_to_a_folder_outside_the_source_is_reported_once(self, tmp_path, elsewhere, kind):
        """The files in it are neither reported nor read."""
        fill(tmp_path / "data" / "dog")
        link(tmp_path / "data" / "cat", elsewhere)
        result = scan(str(tmp_path / "data") + {"folder": "", "pattern": "/*/*.png"}[kind])
        assert (set(categories(str(tmp_path / "data")).values()), list(result.invalid_files)) == ({"dog"}, ["cat"])

    @pytest.mark.parametrize("name", ["0.txt", "classes.txt", "all.json", "0.xml", "data.yaml", "README.md"])
    def test_a_link_to_an_annotation_outside_the_source_is_not_read(self, tmp_path, elsewhere, name):
        """Nor is a link to any other file that is not an image."""
        folder = fill(tmp_path / "data" / "cat")
        (elsewhere / name).write_text("theirs")
        link(folder / name, elsewhere / name)
        result = scan(tmp_path / "data")
        assert list(result.invalid_files) == [f"cat/{name}"]
        assert "points outside" in result.invalid_files[f"cat/{name}"]

    def test_a_listed_link_may_point_only_to_its_own_folder(self, tmp_path, elsewhere):
        """A list of files has no common folder to check against."""
        folder = fill(tmp_path / "cat")
        link(folder / "same.png", "0.png")
        link(folder / "other.png", elsewhere / "0.png")
        result = scan(sorted(folder.iterdir()))
        assert set(result.images) == {"0.png", "1.png", "2.png", "same.png"}
        assert list(result.invalid_files) == ["other.png"]

    def test_the_source_itself_may_be_a_link(self, tmp_path, elsewhere):
        """The user chose it."""
        link(tmp_path / "data", elsewhere.parent)
        (elsewhere / "secret").unlink()
        assert len(scan(tmp_path / "data", annotations=False).images) == 3
        assert len(scan(f"{tmp_path}/data/*/*.png", annotations=False).images) == 3

    def test_links_to_paths_in_the_source_are_followed(self, tmp_path):
        """To files and folders, also hidden ones as version tools create them; the link's name counts."""
        fill(tmp_path / "data" / ".version1" / "cat")
        link(tmp_path / "data" / "cat", ".version1/cat")
        link(tmp_path / "data" / "dog" / "0.png", tmp_path / "data" / "cat" / "0.png")
        source = open_source(tmp_path / "data")
        result = scan_source(source, min_images_per_category=0)
        assert {name: image.category for name, image in result.images.items()} == {
            **{f"cat/{i}.png": "cat" for i in range(3)},
            "dog/0.png": "dog",
        }
        contents, errors = read_images(source, result)
        assert (len(contents), errors, result.invalid_files) == (4, {}, {})
        assert contents["dog/0.png"] == contents["cat/0.png"]

    def test_a_circular_link_is_skipped(self, tmp_path):
        fill(tmp_path / "data" / "cat")
        link(tmp_path / "data" / "cat" / "back", "..")
        link(tmp_path / "data" / "self", "self")
        result = scan(tmp_path / "data")
        assert set(result.images) == {f"cat/{i}.png" for i in range(3)}

    def test_a_broken_link_is_an_invalid_file(self, tmp_path):
        """The user expects an image there."""
        fill(tmp_path / "cat")
        link(tmp_path / "cat" / "3.png", "gone.png")
        assert scan(tmp_path).invalid_files == {"cat/3.png": "broken link"}

    @pytest.mark.slow
    def test_links_that_create_very_many_paths_are_rejected(self, tmp_path):
        """Nine folders with links to each other have a million paths."""
        for number in range(9):
            fill(tmp_path / str(number), 1)
            for other in set(range(9)) - {number}:
                link(tmp_path / str(number) / f"to{other}", f"../{other}")
        with pytest.raises(OsaiArgumentError, match="more than 10,000 folders"):
            scan(tmp_path)

    @pytest.mark.parametrize("kind", ["file", "folder"])
    @pytest.mark.parametrize("after", ["listing", "scan"])
    def test_a_path_replaced_by_a_link_is_not_followed(self, tmp_path, elsewhere, kind, after):
        """Each part of a file's path is opened from the source's folder down."""
        folder = fill(tmp_path / "data" / "cat")
        source = open_source(tmp_path / "data")
        result = scan_source(source) if after == "scan" else None
        if kind == "file":
            (folder / "0.png").unlink()
            (folder / "0.png").symlink_to(elsewhere / "0.png")
        else:
            folder.rename(tmp_path / "moved")
            folder.symlink_to(elsewhere)
        result = result or scan_source(source, min_images_per_category=0)
        contents, errors = read_images(source, result)
        reasons = {**result.invalid_files, **errors}
        names = ["cat/0.png"] if kind == "file" else [f"cat/{i}.png" for i in range(3)]
        assert sorted(reasons) == names
        assert all("points outside" in reason for reason in reasons.values())
        assert not set(contents) & set(names)

    def test_an_annotation_that_changes_after_listing_is_an_invalid_file(self, tmp_path, elsewhere):
        """Replaced by a link or by a pipe, on which nothing blocks, or grown."""
        folder = fill(tmp_path / "data" / "cat")
        for name in ("0.txt", "1.txt", "2.txt"):
            (folder / name).write_text("0 0.5 0.5 0.2 0.2")
        source = open_source(tmp_path / "data")
        for name in ("0.txt", "1.txt"):
            (folder / name).unlink()
        (folder / "0.txt").symlink_to(elsewhere / "0.txt")
        os.mkfifo(folder / "1.txt")
        (folder / "2.txt").write_text("0 0.5 0.5 0.2 0.2\n" * 2)
        invalid_files = scan_source(source).invalid_files
        assert "points outside" in invalid_files["cat/0.txt"]
        assert "not a regular file" in invalid_files["cat/1.txt"]
        assert "has grown" in invalid_files["cat/2.txt"]


def test_a_name_that_is_not_unicode_is_an_invalid_file(tmp_path):
    """It can be neither uploaded nor shown."""
    fill(tmp_path / "cat")
    with open(os.fsencode(tmp_path) + b"/cat/\xff.png", "wb") as file:
        file.write((tmp_path / "cat" / "0.png").read_bytes())
    result = scan(tmp_path)
    assert (len(result.images), result.invalid_files) == (3, {"cat/\\udcff.png": "the name is not valid Unicode"})


def test_categories_may_be_given_by_pattern(tmp_path):
    """Compared with the name and with the folder; images without a match keep their folder's category."""
    for name in ("ok", "scratch 1", "dent", "new"):
        fill(tmp_path / name)
    by_pattern = {"ok": "good", "scratch*/*": "bad", "d?nt/0.png": "special", "dent/*": "bad"}
    result = categories(tmp_path, categories=by_pattern, min_images_per_category=0)
    assert Counter(result.values()) == {"good": 3, "bad": 5, "special": 1, "new": 3}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_each_image_format_is_recognised_by_its_content(tmp_path, form):
    """Written by Pillow, with another suffix."""
    fill(tmp_path, form=form)
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(".dat"))
    assert len(scan(tmp_path).images) == 3


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_hidden_files_and_those_of_file_managers_are_ignored(tmp_path, kind):
    """Any copied folder may contain them, and so may an archive of it."""
    folder = tmp_path / "data"
    fill(folder / "a")
    fill(folder / ".thumbnails", 1)
    fill(folder / "__MACOSX", 1)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("x")
        (folder / "a" / name).write_text("x")
    source = folder if kind == "folder" else shutil.make_archive(str(folder), "zip", folder)
    result = scan(source)
    assert (len(result.images), result.invalid_files) == (3, {})


@pytest.mark.parametrize("source", ["missing", "file"])
def test_a_missing_source_or_a_single_file_is_rejected(tmp_path, source):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OsaiArgumentError, match=rf"source = '.*{source}'.*(does not exist|is a file)"):
        scan(tmp_path / source)


@pytest.mark.parametrize("source", ["", " ", "None", "null", None, "file://", UPath(""), ["cat/0.png", ""], [None]])
def test_an_empty_template_is_not_the_current_directory(tmp_path, monkeypatch, source):
    fill(tmp_path / "cat")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OsaiArgumentError, match=r"source = .*: is empty\. Does the template"):
        open_source(source, UPath)


@pytest.mark.parametrize("source", [7, 0, True, {"folder": "images"}, ["cat/0.png", 7], [["cat/0.png"]]], ids=repr)
def test_what_is_not_a_path_is_rejected_with_what_is_needed(source):
    with pytest.raises(OsaiArgumentError, match=r"source = .*: a path or a list of files is needed"):
        open_source(source, UPath)


def test_the_current_directory_is_a_source_by_its_name(tmp_path, monkeypatch):
    fill(tmp_path / "cat")
    monkeypatch.chdir(tmp_path)
    for source in (".", "./", "*/*.png", Path()):
        assert len(scan(source).images) == 3


def test_a_folder_without_images_is_rejected(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OsaiArgumentError, match="no images found"):
        scan(tmp_path)


def test_files_that_are_not_images_are_rejected_by_name(tmp_path):
    """The message has the first few, and the number of the others."""
    fill(tmp_path / "a")
    for i in range(7):
        (tmp_path / "a" / f"notes{i}.png").write_text("this is text")
    (tmp_path / "a" / "talk.mp3").write_text("this too")
    result = scan(tmp_path)
    assert (len(result.images), len(result.invalid_files)) == (3, 8)
    with pytest.raises(OsaiArgumentError, match=r"a/notes0\.png: not an image .* and 3 more"):
        result.raise_for_invalid_files("x")


def test_all_categories_with_too_few_images_are_reported(tmp_path):
    """OSAI trains on at least three of each; the dataset may already contain more."""
    fill(tmp_path / "cat", 2)
    fill(tmp_path / "dog", 3)
    fill(tmp_path / "owl", 1)
    with pytest.raises(OsaiArgumentError, match="at least 3 images, but 'cat' has 2, 'owl' has 1"):
        scan(tmp_path)
    assert len(scan(tmp_path, min_images_per_category=0).images) == 6


@pytest.mark.parametrize(
    "name",
    ["README", "README.md", "readme.roboflow.txt", "LICENSE", "cat/notes.md", "train.txt", "obj.data", "data.yaml"],
)
def test_companion_files_of_labelling_tools_are_ignored(tmp_path, name):
    """They are neither uploaded nor invalid."""
    fill(tmp_path / "cat")
    (tmp_path / name).write_text("Made with care.")
    result = scan(tmp_path)
    assert (len(result.images), result.invalid_files) == (3, {})


@pytest.mark.parametrize("name", ["README.png", "film.mp4", "table.csv"])
def test_any_other_file_is_invalid(tmp_path, name):
    """Also one with a companion's name and an image's suffix."""
    fill(tmp_path / "cat")
    (tmp_path / name).write_text("Made with care.")
    assert list(scan(tmp_path).invalid_files) == [name]


def test_an_annotation_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    """In a folder and in an archive, which both list the sizes."""
    fill(tmp_path / "cat")
    (tmp_path / "cat" / "0.xml").write_text("<annotation>" + " " * (4 << 20) + "</annotation>")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (tmp_path / "cat").iterdir():
            archive.write(path, f"cat/{path.name}")
    for source in (open_source(tmp_path / "cat"), open_source(tmp_path / "all.zip")):
        monkeypatch.setattr(source, "read", None)
        (reason,) = scan_source(source).invalid_files.values()
        assert "larger than 4,194,304 bytes" in reason
