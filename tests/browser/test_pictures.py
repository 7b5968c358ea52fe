"""The pictures of the docs have no empty margins, and the code that makes them cuts those off."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.browser.pictures import trim
from tests.conftest import ROOT

PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.png"))


def size(path):
    with Image.open(path) as opened:
        return opened.size


@pytest.fixture
def picture(tmp_path):
    """A grey picture with a black box."""
    path = tmp_path / "picture.png"
    image = Image.new("RGB", (400, 300), "#eee")
    image.paste("black", (100, 80, 200, 120))
    image.save(path)
    return path


def test_margins_are_cut_off_on_all_sides(picture):
    trim(picture, margin=10)
    assert size(picture) == (120, 60)


def test_a_picture_of_a_page_keeps_its_width(picture):
    trim(picture, margin=10, bottom_only=True)
    assert size(picture) == (400, 130)


def test_a_picture_without_a_margin_stays_as_it_is(picture):
    trim(picture, margin=1000)
    assert size(picture) == (400, 300)


def test_an_empty_picture_is_an_error(tmp_path):
    Image.new("RGB", (10, 10), "white").save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"empty\.png is empty"):
        trim(tmp_path / "empty.png")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_no_picture_of_the_docs_has_an_empty_margin(path, tmp_path):
    """All sides of a graph, the lower one of a page."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    trim(copy, bottom_only=not path.name.startswith("graph-"))
    before, after = size(path), size(copy)
    assert max(before[0] - after[0], before[1] - after[1]) <= 16
