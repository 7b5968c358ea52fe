"""The Chromium of the machine."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

__all__ = ["launch"]


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium of the machine; Playwright's own is not installed."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "these tests need Chromium: apt-get install chromium"
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
