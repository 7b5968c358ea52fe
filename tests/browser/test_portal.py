"""The sandbox's portal in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.chromium import launch
from tests.conftest import SECRET
from tests.learning.record import drive, portal
from tests.learning.styles import CANARIES, STYLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.mark.parametrize(
    ("style", "story"),
    [
        ("nested_parents", "success"),
        ("nested_parents", "failure"),
        ("aspnet_envelope-cookies", "cancel"),
        ("aspnet_envelope-push", "success"),
    ],
)
def test_person_trains_in_the_portal(browser, style, story):
    page = browser.new_page()
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    with portal(STYLES[style], fails=story == "failure") as sandbox:
        drive(page, sandbox, STYLES[style], story)
        assert addresses
        assert not [url for url in addresses if CANARIES["access_token"] in url or SECRET.search(url)]
        assert CANARIES["access_token"] not in page.content()
        page.close()
