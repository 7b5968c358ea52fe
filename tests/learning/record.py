"""Record a person's work in the portal with a browser: ``python -m tests.learning.record STYLE|all``.

Needs Chromium. Writes ``recordings/STYLE/{success,failure,cancel}.har``, and in ``secrets.json`` the secrets in them.
Playwright leaves out the bodies of requests with files; they are added from the browser, as its developer tools do.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import importlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect, sync_playwright

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.models import JobFailed
from tests.browser.chromium import launch
from tests.learning.styles import CANARIES, STYLES, Style, load

__all__ = ["drive", "main", "portal"]

EPOCHS = 5
ENDLESS = 1000
"""Epochs of a training that is cancelled."""
EPOCH_SECONDS = 0.5
"""Seconds that an epoch of a training takes, so that the page sees some of them."""
POLL = 400
"""Milliseconds between the page's polls."""
FAILS_AT = 3
"""The epoch in which a training of the story ``failure`` fails."""
MAX_PLAIN = 400_000
"""Maximum bytes of a recording that is not compressed."""


def main() -> None:
    """Record the given styles."""
    parser = argparse.ArgumentParser(description="Record the portal with a browser")
    parser.add_argument("style", choices=[*STYLES, "all"])
    name = parser.parse_args().style
    for module in ("sklearn.neural_network", "skl2onnx"):  # slow imports of the first training and conversion
        importlib.import_module(module)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for style in STYLES.values() if name == "all" else (STYLES[name],):
            record(browser, style)
        browser.close()


def record(browser: Browser, style: Style) -> None:
    """Record all stories of a style."""
    shutil.rmtree(style.folder, ignore_errors=True)
    style.folder.mkdir(parents=True)
    secrets: dict[str, set[str]] = {name: {value} for name, value in CANARIES.items()}
    for story in style.stories:
        path = style.folder / f"{story}.har"
        with portal(style, fails=story == "failure") as sandbox:
            context = browser.new_context(record_har_path=path, record_har_content="embed")
            page = context.new_page()
            collect(page, secrets)
            bodies = FormBodies(context.new_cdp_session(page))
            drive(page, sandbox, style, story)
            for cookie in context.cookies():
                secrets.setdefault(f"cookie {cookie['name']}", set()).add(cookie["value"])
            found = bodies.read()
            context.close()
        add_bodies(path, found)
        compress(path)
    texts = [json.dumps(load(style.folder / f"{story}.har")) for story in style.stories]
    recorded = {
        name: sorted(value for value in values if any(value in text for text in texts))
        for name, values in sorted(secrets.items())
    }
    (style.folder / "secrets.json").write_text(json.dumps({k: v for k, v in recorded.items() if v}, indent=1) + "\n")


@contextmanager
def portal(style: Style, *, fails: bool = False) -> Iterator[Sandbox]:
    """Run a sandbox of a style, whose trainings take their time.

    :param fails: whether they fail.
    """
    contract = apply_overrides(Contract(), str(style.contract)) if style.contract else None
    with Sandbox(contract=contract, access_token=CANARIES["access_token"]) as sandbox:
        sandbox.state.accounts.user.update(name=CANARIES["user_name"], email=CANARIES["email"])
        runner = sandbox.state.jobs._runner
        on_epoch = runner._on_epoch

        def slowly(job: Any, epoch: dict[str, Any], progress: float) -> None:
            on_epoch(job, epoch, progress)
            if fails and epoch.get("epoch") == FAILS_AT:
                raise JobFailed("The worker ran out of memory")
            time.sleep(EPOCH_SECONDS if epoch else 0)

        runner._on_epoch = slowly
        yield sandbox


def collect(page: Page, secrets: dict[str, set[str]]) -> None:
    """Collect the secrets that the sandbox makes and requests carry, but for cookies."""

    def add(name: str, value: str | None) -> None:
        if value:
            secrets.setdefault(name, set()).add(value)

    def on_request(request: Any) -> None:
        add("jwt", request.headers.get("authorization", "").removeprefix("Bearer "))
        add("anti_forgery_token", request.headers.get("x-xsrf-token"))

    def on_socket(socket: Any) -> None:
        query = parse_qs(urlsplit(socket.url).query)
        add("connection_token", query["id"][0])
        add("token_in_query", query["access_token"][0])

    page.on("request", on_request)
    page.on("websocket", on_socket)


class FormBodies:
    """The bodies of requests with files, in their order.

    :param session: of the page's browser.
    """

    def __init__(self, session: CDPSession) -> None:
        self._session = session
        self._sent: list[dict[str, Any]] = []
        session.on("Network.requestWillBeSent", lambda event: self._sent.append(event))  # noqa: PLW0108 - needs attributes
        session.send("Network.enable")

    def read(self) -> list[tuple[str, str]]:
        """Return the address and the body of each, as text: bytes that are no text are replaced."""
        found = []
        for event in self._sent:
            request = event["request"]
            if request.get("hasPostData") and "postData" not in request:
                body = self._session.send("Network.getRequestPostData", {"requestId": event["requestId"]})
                text = body["postData"]
                if body["base64Encoded"]:
                    text = base64.b64decode(text).decode(errors="replace")
                found.append((request["url"], text))
        return found


def add_bodies(path: Path, bodies: list[tuple[str, str]]) -> None:
    """Add the bodies of requests with files to a recording."""
    recording = json.loads(path.read_text())
    rest = list(bodies)
    for entry in recording["log"]["entries"]:
        request = entry["request"]
        if rest and rest[0][0] == request["url"] and request["method"] != "GET" and "postData" not in request:
            headers = {header["name"].lower(): header["value"] for header in request["headers"]}
            request["postData"] = {"mimeType": headers.get("content-type", ""), "text": rest.pop(0)[1], "params": []}
    assert not rest, "a body belongs to no entry"
    path.write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n")


def drive(page: Page, sandbox: Sandbox, style: Style, story: str) -> None:
    """Do in the portal what a person does."""
    page.set_default_timeout(60_000)
    page.goto(f"{sandbox.portal_url}/portal?poll={POLL}{style.query}")
    page.fill("#sign-in [name=email]", CANARIES["email"])
    page.fill("#sign-in [name=token]", CANARIES["access_token"])
    submit(page, "sign-in", "Signed in as")
    submit(page, "dataset", "2 categories")
    for number, category in enumerate(("apple", "pear")):
        page.select_option("#upload select", category)
        page.set_input_files("#upload [type=file]", pictures(category, number))
        submit(page, "upload", f"{3 * (number + 1)} images")
    page.fill("#training [name=epochs]", str(ENDLESS if story == "cancel" else EPOCHS))
    {"success": success, "failure": failure, "cancel": cancel}[story](page)
    expect(page.locator("#error")).to_be_empty()


def success(page: Page) -> None:
    """Train, convert, predict, and download the model."""
    submit(page, "training", "succeeded: model")
    submit(page, "conversion", "succeeded")
    submit(page, "prediction", "succeeded")
    with page.expect_download():
        submit(page, "download", "bytes")


def failure(page: Page) -> None:
    """Start a training that fails."""
    submit(page, "training", "failed")
    page.wait_for_timeout(POLL)


def cancel(page: Page) -> None:
    """Cancel a training that runs, then rent a device and release it."""
    page.click("#training button:text('Train')")
    shows(page, "training", "running")
    page.wait_for_timeout(2 * POLL)
    page.click("#training [name=cancel]")
    shows(page, "training", "cancelled")
    page.click("#device_rental button:text('Rent')")
    shows(page, "device_rental", "running")
    page.click("#device_rental [name=cancel]")
    shows(page, "device_rental", "cancelled")


def submit(page: Page, form: str, expected: str) -> None:
    """Submit a form, and wait for what it says in the end."""
    page.click(f"#{form} button:not([type=button])")
    shows(page, form, expected)


def shows(page: Page, form: str, expected: str) -> None:
    """Wait for what a form says."""
    expect(page.locator(f"#{form} output")).to_contain_text(expected, timeout=60_000)


def pictures(category: str, number: int) -> list[Any]:
    """Return three images, as files for a form."""
    files = []
    for index in range(3):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (200 * number, 40 * index, 60)).save(buffer, "PNG")
        files.append({"name": f"{category}-{index}.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    return files


def compress(path: Path) -> None:
    """Compress a recording that is too large."""
    if path.stat().st_size > MAX_PLAIN:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


if __name__ == "__main__":
    main()
