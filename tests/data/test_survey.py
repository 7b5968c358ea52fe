"""What a source holds, and what is refused before anything is sent."""

from __future__ import annotations

import zipfile
from collections import Counter

import fsspec
import pytest
from PIL import Image
from upath import UPath

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.sources import source_of
from airflow_provider_osai.data.survey import survey


def fill(folder, n=3, form="PNG"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("L", (2, 2)).save(folder / f"{i}.{form.lower()}", form)
    return folder


def look(source, **options):
    return survey(source_of(source), **options)


def categories_of(source, **options):
    return {name: picture.category for name, picture in look(source, **options).pictures.items()}


def test_sub_folders_are_categories_with_spaces_as_underscores(tmp_path):
    """And images beside them are in "Other", as in the portal."""
    fill(tmp_path / "big cat")
    fill(tmp_path / "train" / "dog")
    fill(tmp_path)
    assert Counter(categories_of(tmp_path).values()) == {"Other": 3, "big_cat": 3, "dog": 3}


def test_the_order_is_always_the_same(tmp_path):
    """Whatever the file system says."""
    fill(tmp_path / "b")
    fill(tmp_path / "a")
    assert list(look(tmp_path).pictures) == [f"{c}/{i}.png" for c in "ab" for i in range(3)]


def test_a_pattern_chooses_files(tmp_path):
    """In folders below too, and what it does not match is none of its business."""
    fill(tmp_path / "x" / "cat")
    fill(tmp_path / "x" / "cat", form="JPEG")
    fill(tmp_path / "dog")
    assert set(categories_of(f"{tmp_path}/**/*.png").values()) == {"cat", "dog"}
    assert set(look(f"{tmp_path}/x/*/*.jpeg").pictures) == {f"cat/{i}.jpeg" for i in range(3)}


def test_a_list_of_files_is_named_from_where_they_part(tmp_path):
    """So their folders are their categories."""
    fill(tmp_path / "x" / "cat")
    fill(tmp_path / "x" / "dog")
    listed = [str(path) for path in tmp_path.glob("x/*/*")]
    assert set(look(listed).pictures) == {f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)}
    assert set(categories_of(list((tmp_path / "x" / "cat").iterdir())).values()) == {"Other"}


@pytest.mark.parametrize(("paths", "reason"), [([], "the list is empty"), (["gone.png"], "no files: gone.png")])
def test_a_bad_list_is_refused(paths, reason):
    """By name."""
    with pytest.raises(OsaiArgumentError, match=reason):
        look(paths)


def test_object_storage_is_listed_once_and_read_once(tmp_path):
    """Here a file system in memory that counts."""
    storage = fsspec.filesystem("memory")
    for n in range(3):
        fill(tmp_path / "cat")
        storage.pipe(f"/bucket/data/cat/{n}.png", (tmp_path / "cat" / f"{n}.png").read_bytes())
    try:
        for source in ("memory://bucket/data", "memory://bucket/data/*/*.png", "memory://bucket/**/*.png"):
            found = source_of(source, UPath)
            assert set(survey(found).pictures) <= {f"{top}cat/{n}.png" for n in range(3) for top in ("", "data/")}
            for name, opener in found.walk(set(survey(found).pictures)):
                with opener() as file:
                    assert file.read().startswith(b"\x89PNG"), name
    finally:
        storage.rm("/bucket", recursive=True)


def test_a_linked_folder_is_followed_and_a_circle_is_not(tmp_path):
    """Categories are often links to other disks."""
    fill(tmp_path / "far" / "cats")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "far" / "cats")
    (tmp_path / "far" / "cats" / "back").symlink_to(tmp_path / "data")
    assert set(look(tmp_path / "data").pictures) == {f"cat/{i}.png" for i in range(3)}


def test_categories_may_be_given_by_pattern(tmp_path):
    """Matched with the name and with the folder; what matches none keeps its folder's."""
    for name in ("ok", "scratch 1", "dent", "new"):
        fill(tmp_path / name)
    wanted = {"ok": "good", "scratch*/*": "bad", "d?nt/0.png": "special", "dent/*": "bad"}
    found = categories_of(tmp_path, categories=wanted, min_images_per_category=0)
    assert Counter(found.values()) == {"good": 3, "bad": 5, "special": 1, "new": 3}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_each_image_format_is_known_by_its_content(tmp_path, form):
    """Written by Pillow; the name does not matter."""
    fill(tmp_path, form=form)
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(".dat"))
    assert len(look(tmp_path).pictures) == 3


def test_hidden_files_and_those_of_file_managers_are_passed_over(tmp_path):
    """They come with any copied folder."""
    fill(tmp_path / "a")
    fill(tmp_path / ".thumbnails", 1)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("x")
        (tmp_path / "a" / name).write_text("x")
    assert len(look(tmp_path).pictures) == 3


@pytest.mark.parametrize("source", ["missing", "file"])
def test_a_source_that_is_no_folder_is_refused(tmp_path, source):
    """By name."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OsaiArgumentError, match=rf"source = '.*{source}'.*(does not exist|is a file)"):
        look(tmp_path / source)


def test_an_empty_folder_is_refused(tmp_path):
    """Also one with empty sub-folders."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OsaiArgumentError, match="no image in it"):
        look(tmp_path)


def test_files_that_are_no_images_are_refused_by_name(tmp_path):
    """A few of them, and how many more."""
    fill(tmp_path / "a")
    for i in range(7):
        (tmp_path / "a" / f"notes{i}.png").write_text("this is text")
    (tmp_path / "a" / "talk.mp3").write_text("this too")
    found = look(tmp_path)
    assert (len(found.pictures), len(found.bad)) == (3, 8)
    with pytest.raises(OsaiArgumentError, match=r"a/notes0\.png: it is no image .* and 3 more"):
        found.must_be_good("x")


def test_categories_with_too_few_images_are_all_named(tmp_path):
    """OSAI trains on at least three of each; more images may already be there."""
    fill(tmp_path / "cat", 2)
    fill(tmp_path / "dog", 3)
    fill(tmp_path / "owl", 1)
    with pytest.raises(OsaiArgumentError, match="at least 3 images, but 'cat' has 2, 'owl' has 1"):
        look(tmp_path)
    assert len(look(tmp_path, min_images_per_category=0).pictures) == 6


@pytest.mark.parametrize(
    "name",
    ["README", "README.md", "readme.roboflow.txt", "LICENSE", "cat/notes.md", "train.txt", "obj.data", "data.yaml"],
)
def test_what_labelling_tools_write_beside_images_is_left_alone(tmp_path, name):
    """It is neither sent nor bad."""
    fill(tmp_path / "cat")
    (tmp_path / name).write_text("Made with care.")
    found = look(tmp_path)
    assert (len(found.pictures), found.bad) == (3, {})


@pytest.mark.parametrize("name", ["README.png", "film.mp4", "table.csv"])
def test_what_is_no_companion_is_a_bad_file(tmp_path, name):
    """Above all what calls itself an image."""
    fill(tmp_path / "cat")
    (tmp_path / name).write_text("Made with care.")
    assert list(look(tmp_path).bad) == [name]


def test_an_annotation_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    """In a folder as in an archive: its size is known before."""
    fill(tmp_path / "cat")
    (tmp_path / "cat" / "0.xml").write_text("<annotation>" + " " * (4 << 20) + "</annotation>")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (tmp_path / "cat").iterdir():
            archive.write(path, f"cat/{path.name}")
    for source in (source_of(tmp_path / "cat"), source_of(tmp_path / "all.zip")):
        monkeypatch.setattr(source, "read", None)
        (told,) = survey(source).bad.values()
        assert "larger than 4,194,304 bytes" in told
