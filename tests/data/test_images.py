"""What a folder holds, and what is refused before anything is sent."""

from __future__ import annotations

import pytest
from PIL import Image

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.images import scan_folder


def fill(folder, n=3, form="PNG"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("L", (2, 2)).save(folder / f"{i}.{form.lower()}", form)
    return folder


def test_sub_folders_are_categories_with_spaces_as_underscores(tmp_path):
    """And images beside them are in "Other", as in the portal."""
    fill(tmp_path / "big cat")
    fill(tmp_path / "dog")
    fill(tmp_path)
    categories = [image.category for image in scan_folder(tmp_path)]
    assert {c: categories.count(c) for c in categories} == {"Other": 3, "big_cat": 3, "dog": 3}


def test_the_order_is_always_the_same(tmp_path):
    """Whatever the file system says."""
    fill(tmp_path / "a")
    fill(tmp_path / "b")
    assert scan_folder(tmp_path) == sorted(scan_folder(str(tmp_path)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_each_image_format_is_known_by_its_content(tmp_path, form):
    """Written by Pillow; the name does not matter."""
    fill(tmp_path, form=form)
    for path in tmp_path.iterdir():
        path.rename(path.with_suffix(".dat"))
    assert len(scan_folder(tmp_path)) == 3


def test_hidden_files_and_those_of_file_managers_are_passed_over(tmp_path):
    """They come with any copied folder."""
    fill(tmp_path / "a")
    fill(tmp_path / ".thumbnails", 1)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("x")
        (tmp_path / "a" / name).write_text("x")
    assert len(scan_folder(tmp_path)) == 3


@pytest.mark.parametrize("source", ["missing", "file"])
def test_a_source_that_is_no_folder_is_refused(tmp_path, source):
    """By name."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OsaiArgumentError, match=rf"source = '.*{source}'.*(does not exist|is a file)"):
        scan_folder(tmp_path / source)


def test_an_empty_folder_is_refused(tmp_path):
    """Also one with empty sub-folders."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OsaiArgumentError, match="no image in it"):
        scan_folder(tmp_path)


def test_files_that_are_no_images_are_refused_by_name(tmp_path):
    """A few of them, and how many more."""
    fill(tmp_path / "a")
    for i in range(7):
        (tmp_path / "a" / f"notes{i}.png").write_text("this is text")
    with pytest.raises(OsaiArgumentError, match=r"no images .*a/notes0\.png.* and 2 more"):
        scan_folder(tmp_path)


def test_categories_with_too_few_images_are_all_named(tmp_path):
    """OSAI trains on at least three of each; more images may already be there."""
    fill(tmp_path / "cat", 2)
    fill(tmp_path / "dog", 3)
    fill(tmp_path / "owl", 1)
    with pytest.raises(OsaiArgumentError, match="at least 3 images, but 'cat' has 2, 'owl' has 1"):
        scan_folder(tmp_path)
    assert len(scan_folder(tmp_path, min_images_per_category=0)) == 6
