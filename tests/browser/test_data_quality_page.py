"""The HTML report of the data quality check in Chromium: hostile names, narrow and wide, light and dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from airflow_provider_osai.cli import main
from tests.browser.chromium import launch
from tests.data.quality.making import fill, photo

pytestmark = pytest.mark.e2e
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">.png"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a folder with several findings, some with images, and its address."""
    folder = tmp_path_factory.mktemp("quality")
    data = fill(folder / "data" / "cat", 3).parent
    photo(0).save(data / "cat" / HOSTILE, "PNG")
    photo(1).save(fill(folder / "holdout" / "dog", 3, first=10) / ("long-" * 40 + ".png"))
    (data / "cat" / "empty.png").write_bytes(b"")
    assert (
        main(
            [
                "datasets",
                "check",
                str(data),
                "--holdout",
                str(folder / "holdout"),
                "--html",
                str(folder / "report.html"),
            ]
        )
        == 1
    )
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_accessible_and_harmless(report, scheme, width):
    """axe-core finds nothing, no name is markup, nothing is loaded, and it is as wide as its window."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_context(
            color_scheme=scheme, bypass_csp=True, viewport={"width": width, "height": 800}
        ).new_page()
        loaded = []
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(report)
        assert [each["id"] for each in Axe().run(page).response["violations"]] == []
        assert page.title().startswith("Data quality of")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("img").count() == 4
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert [url for url in loaded if not url.startswith("data:")] == [report]
        browser.close()
