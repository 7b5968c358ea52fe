"""The documentation site in Chromium: its search finds the guide first, and its pages are accessible."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.browser.chromium import launch
from tests.site import build_site

QUERIES = {
    "install": "install",
    "first dag": "getting-started",
    "access token": "connection",
    "AIRFLOW_CONN": "connection",
    "secrets backend": "connection",
    "test connection": "connection",
    "recording": "connect",
    "upload images": "uploads",
    "train model": "training",
    "retrain": "training",
    "promote": "gate",
    "champion": "gate",
    "batch": "batch",
    "onnx": "models",
    "onnxruntime": "models",
    "download model": "models",
    "rent device": "devices",
    "webhook": "webhooks",
    "early stopping": "early-stopping",
    "mlflow": "mlflow",
    "lineage": "lineage",
    "pytest": "testing",
    "dataset changes": "events",
    "asset event": "events",
    "worker killed": "failures",
    "retry policy": "retries",
    "pool": "capacity",
    "orphan": "orphans",
    "prometheus": "metrics",
    "OsaiAuthError": "reference/errors",
    "rejected the access token": "troubleshooting",
    "semantic versioning": "stability",
    "webhook_poll_interval": "reference/configuration",
}
"""What users type, and the page that has the answer."""
WIDTHS = (390, 1440)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format, *args):  # noqa: A002 - the name of the base class
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    build_site(folder)
    return folder


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(30)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open a page; fail if it reports an error, or loads something from elsewhere."""
    contexts, errors = [], []

    def open_page(path, width=1440, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",  # no half-faded texts
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: request.url.startswith((address, "data:")) or errors.append(request.url))
        page.goto(f"{address}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def found(page, query):
    """Return the pages that the search lists, best first."""
    page.goto(f"{page.url.partition('?')[0]}?q={quote(query)}")
    links = page.locator(".md-search-result__item > a")
    links.first.wait_for()
    hrefs = links.evaluate_all("links => links.map(link => link.href)")
    return [urlsplit(href).path.strip("/") for href in hrefs]


def test_search_finds_the_guide_first(visit):
    """In the reader's own search, with its ranking."""
    page = visit("")
    ranked = {query: found(page, query)[:4] for query in QUERIES}
    wrong = {query: (QUERIES[query], pages) for query, pages in ranked.items() if pages[0] != QUERIES[query]}
    assert wrong == {}


def violations(page):
    """What axe-core finds that is serious or critical."""
    results = Axe().run(page).response
    serious = [each for each in results["violations"] if each["impact"] in ("serious", "critical")]
    return [(each["id"], [node["html"][:150] for node in each["nodes"]][:3]) for each in serious]


def assert_accessible(page, paths):
    """Nothing serious, and no page is wider than its window."""
    home = page.url
    wrong = {}
    for path in paths:
        page.goto(f"{home}{path}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if faults := violations(page):
                wrong[path, width] = faults
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                wrong[path, width, "too wide"] = page.evaluate("document.documentElement.scrollWidth")
    assert wrong == {}


def test_each_page_is_accessible_and_fits(visit, site):
    """On a phone and on a desktop. One of the example Dags stands for all: they are made by one template."""
    pages = sorted(f"{path.parent.relative_to(site).as_posix()}/" for path in site.rglob("index.html"))
    examples = [path for path in pages if path.startswith("example_dags/")]
    assert len(pages) - len(examples) > 40
    assert_accessible(visit(""), [path for path in pages if path not in examples[1:]])


def test_dark_pages_are_accessible(visit):
    """Those with tables, code of all languages, and generated text."""
    assert_accessible(visit("", scheme="dark"), ["", "connect/", "connection/", "metrics/", "reference/operators/"])


def test_the_check_of_accessibility_notices_a_fault(visit):
    """The test above can fail."""
    page = visit("")
    page.evaluate("document.querySelector('article').innerHTML += '<img src=\"assets/images/favicon.png\">'")
    assert "image-alt" in dict(violations(page))
