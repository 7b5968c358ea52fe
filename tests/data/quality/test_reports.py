"""The report of the data quality check as text, log line, JSON and HTML."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from airflow_provider_osai.data.quality import check_source
from airflow_provider_osai.data.quality.html_report import MAX_THUMBNAILS, html_report, thumbnails
from airflow_provider_osai.data.quality.text_report import finding_line, text_lines
from airflow_provider_osai.data.sources import open_source
from tests.data.quality.making import fill, photo
from tests.data.quality.test_images import check, data

__all__ = ["data"]
EVIL = "<script>alert(1)</script>\n\x1b[31m'\".png"


@pytest.fixture
def bad(data):
    """An error and two warnings, among them a name that is markup."""
    folder = data / "dog"
    photo(0).save(folder / EVIL.replace("/", "_"))
    photo(1).save(data / "cat" / "near.jpg", quality=70)
    (data / "cat" / "empty.png").write_bytes(b"")
    return data


def page_of(source, holdout=None):
    opened, other = open_source(source), None if holdout is None else open_source(holdout)
    report = check_source(opened, holdout=other)
    return html_report(report, opened, other, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


def test_the_text_begins_with_errors_and_ends_with_the_verdict(bad):
    lines = [line.text for line in text_lines(check(bad))]
    assert lines[0].startswith(f"{bad}: 8 images")
    assert lines.index("ERRORS") < lines.index("WARNINGS")
    assert "    cat/empty.png" in lines
    assert lines[-1] == "Not ready for training: 2 kinds of errors and 1 kind of warning in 5 of 9 image files"
    assert all(line.isprintable() for line in lines)


def test_without_findings_the_text_is_short(data):
    lines = list(text_lines(check(data)))
    assert lines[-1] == ("No problem found: 6 images in 2 categories checked", "passed")
    assert len(lines) == 3


def test_the_size_of_few_images_is_not_rounded_to_nothing(data):
    """Neither in the text nor on the page."""
    size = sum(path.stat().st_size for path in data.rglob("*.png"))
    assert 0 < size < 1e6
    head, *_ = text_lines(check(data))
    assert f"({size / 1e3:.1f} kB)" in head.text
    assert f"images, {size / 1e3:.1f} kB." in page_of(data)


def test_a_log_line_is_limited_and_printable(data):
    for number in range(30):
        (data / "cat" / f"{number} \n::endgroup::.png").write_bytes(b"")
    (finding,) = check(data).findings
    line = finding_line(finding)
    assert line.isprintable()
    assert line.startswith("error empty-file (30): Image files are empty")
    assert line.endswith("; and 25 more")


def test_the_report_is_json(bad):
    document = json.loads(json.dumps(check(bad).as_dict()))
    assert (document["version"], document["verdict"], document["errors"], document["warnings"]) == (1, "errors", 2, 1)
    by_code = {finding["code"]: finding for finding in document["findings"]}
    assert by_code["empty-file"]["items"][0]["files"] == ["cat/empty.png"]
    assert by_code["label-conflict"]["count"] == 1


def test_the_images_with_errors_are_listed(tmp_path):
    """All of a group, those that annotations describe wrongly, and those that are none; not other files or warnings."""
    folder = fill(tmp_path / "data", 5)
    (folder / "classes.txt").write_text("cat\n")
    for number in range(5):
        (folder / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "1.txt").write_text("7 0.5 0.5 0.4 0.4\n")
    photo(4).save(folder / "copy.jpg", quality=70)
    for number in range(15):
        photo(3).save(folder / f"same{number:02}.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.doc").write_bytes(b"")
    report = check(folder)
    assert report.as_dict()["affected"] == ["1.png", "3.png", "empty.png", *(f"same{n:02}.png" for n in range(15))]
    assert report.verdict_line().endswith("in 20 of 22 image files")  # with the near-duplicates 4.png and copy.jpg
    assert "1.png" not in check(folder, ignore="unknown-class").affected


def test_all_images_without_a_class_list_are_listed(tmp_path):
    folder = fill(tmp_path / "data", 3)
    for number in range(3):
        (folder / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    assert check(folder).affected == ["0.png", "1.png", "2.png"]


def test_findings_about_categories_name_no_images(data):
    report = check(data, min_images=4)
    assert report.verdict_line() == "Not ready for training: 1 kind of error"
    assert report.affected == []


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_escapes_names_and_loads_nothing(bad):
    text = page_of(bad)
    page = _Page(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in sources)
    assert not re.search(r"url\(|@import|http", text.replace("http-equiv", ""))


def test_the_page_shows_the_duplicates(bad, tmp_path):
    holdout = tmp_path / "holdout" / "cat"
    holdout.mkdir(parents=True)
    shutil.copy(bad / "cat" / "2.png", holdout / "2.png")
    page = _Page(page_of(bad, holdout.parent))
    assert page.tags.count("img") == 6  # two of each pair
    assert page.tags.count("h1") == 1
    texts = {value for name, value in page.attributes if name == "alt"}
    assert {"Thumbnail of cat/0.png", "Thumbnail of cat/2.png"} <= texts
    assert ("lang", "en") in page.attributes
    assert all(len(value) < 10_000 for name, value in page.attributes if name == "src")


def test_the_page_without_findings_names_the_categories(data):
    text = page_of(data)
    assert "No problem found" in text
    assert "<td>cat</td>" in text


def test_the_number_of_thumbnails_is_limited(tmp_path):
    folder = fill(tmp_path / "data", 5)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = sorted(path.name for path in folder.iterdir())
    assert len(thumbnails(open_source(folder), names)) == 5
    assert list(thumbnails(open_source(folder), names, 2)) == ["0.png", "1.png"]
    assert thumbnails(open_source(folder), names, 0) == {}
    assert MAX_THUMBNAILS < 1_000
