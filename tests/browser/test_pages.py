"""The pages in Chromium: running, finished, failed, simulated, empty, forbidden, hostile, narrow and dark.

With ``OSAI_PICTURES=1``, the screenshots of the docs are recreated (docs/pictures).
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from sqlalchemy import delete, func, insert, select, update

from airflow_provider_osai.api.models import Job
from airflow_provider_osai.plugins.pages.app import create_pages
from airflow_provider_osai.plugins.pages.job_cache import JobUnavailable, JobView
from tests.airflow.pages import token, two_weeks
from tests.browser.chromium import launch
from tests.browser.pictures import trim
from tests.conftest import ROOT

pytestmark = pytest.mark.e2e
DAG = "example_osai_weekly"
PICTURES = ROOT / "docs" / "pictures"
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
WIDTHS = (360, 1024, 1920)


class Osai:
    """What the pages read instead of OSAI: the job of the sandbox with some fields changed, or an error."""

    def __init__(self):
        self.fields = None
        self.error = None
        self.reads = 0
        self.first = self.latest = 0.0

    async def read(self, conn_id, kind, job_id):
        from airflow_provider_osai.plugins.pages.job_cache import read_job

        self.reads += 1
        self.latest = time.monotonic()
        self.first = self.first or self.latest
        if self.error:
            raise self.error
        if self.fields is None:
            return await read_job(conn_id, kind, job_id)
        return JobView(Job(**{"kind": kind, "id": job_id, **self.fields}), "https://portal.test/trainings/1")


@pytest.fixture(scope="module")
def runs(dagbag, images, tmp_path_factory):
    with two_weeks(dagbag, images, tmp_path_factory.mktemp("weeks")) as runs, pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_osai.plugins.pages.app.FIRST_WAIT", 30.0)
        yield runs


@pytest.fixture(scope="module")
def asset_id(runs):
    with create_session() as session:
        return session.execute(select(AssetModel.id).where(AssetModel.uri == "osai://eu/models/digits")).scalar_one()


@pytest.fixture
def osai():
    return Osai()


@contextmanager
def served(app):
    """Serve an ASGI app on a free port; return its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", loop="asyncio"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def address(osai, runs):
    with served(create_pages(read=osai.read)) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(runs):
    """Started after the runs: Playwright occupies the event loop of this thread, which they need."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address, auth_manager):
    """Open a page as a user; fail if the browser reports an error in it."""
    contexts = []
    errors = []

    def open_page(path, name="viewer", role="VIEWER", width=1280, scheme="light", zone="Europe/Warsaw"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, timezone_id="America/Lima", locale="en-US"
        )
        contexts.append(context)
        context.set_extra_http_headers({"Authorization": f"Bearer {token(auth_manager, name, role)}"})
        context.add_init_script(f"localStorage.setItem('timezone', {json.dumps(json.dumps(zone))})")
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: errors.append(f"{request.url} failed"))
        page.on("request", lambda request: request.url.startswith((address, "data:")) or errors.append(request.url))
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [error for error in errors if "status of 40" not in error] == []


def task(ran, task_id="train_model"):
    return f"/task/{DAG}/{ran.run.run_id}/{task_id}/-1"


def picture(page, name):
    """Save a screenshot for the docs if ``OSAI_PICTURES`` is set."""
    if os.environ.get("OSAI_PICTURES"):
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
        trim(PICTURES / f"{name}.png", bottom_only=True)


def assert_accessible(page):
    """axe-core finds nothing serious, and the page is as wide as its window."""
    results = Axe().run(page).response
    serious = [each for each in results["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def fits(chart):
    """Wait until the chart is as wide as its box."""
    for _ in range(100):
        gap = chart.evaluate("chart => chart.clientWidth - chart.querySelector('.uplot').offsetWidth")
        if 0 <= gap < 24:
            return
        chart.page.wait_for_timeout(100)
    pytest.fail(f"the chart is {gap} px narrower than its box")


def pages(runs, asset_id):
    return {
        "run": task(runs[1]),
        "gate": task(runs[1], "gate"),
        "upload": task(runs[1], "upload_images"),
        "jobs": "/",
        "models": "/models",
        "model": f"/models/{asset_id}",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "gate", "upload", "jobs", "models", "model"])
def test_every_page_is_accessible_and_fits_at_all_widths(visit, runs, asset_id, name, scheme):
    """For an administrator, who sees the most."""
    page = visit(pages(runs, asset_id)[name], "examples", "ADMIN", scheme=scheme)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for chart in page.locator(".chart").all():
            expect(chart.locator(".uplot")).to_be_visible()
            fits(chart)
        assert_accessible(page)
    assert page.evaluate("document.documentElement.classList.contains('dark')") is (scheme == "dark")
    page.set_viewport_size({"width": 1280, "height": 700})
    picture(page, f"page-{name}-{scheme}")
    if scheme == "light":
        page.set_viewport_size({"width": 360, "height": 700})
        picture(page, f"page-{name}-narrow")


def test_finished_training_shows_metrics_beside_champion_and_previous_run(visit, runs):
    page = visit(task(runs[1]))
    card = page.locator(".card").filter(has=page.get_by_role("heading", name="accuracy", exact=True))
    expect(card.locator(".worse")).to_contain_text("to previous run")
    expect(card.locator(".unknown")).to_contain_text("to champion, measured on other data")
    expect(page.locator(".chart canvas")).to_have_count(2)
    expect(page.get_by_role("table").first).to_be_visible()
    expect(page.locator("h1")).to_contain_text("digits")


def test_times_are_in_the_timezone_selected_in_airflow(visit, runs, osai):
    osai.fields = {"state": "succeeded", "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-07-02T03:04:05Z"}
    for zone, times in (
        ("Europe/Warsaw", ("2026-01-02 04:04:05", "2026-07-02 05:04:05")),
        ("UTC", ("2026-01-02 03:04:05", "2026-07-02 03:04:05")),
        ("no zone", ("2026-01-01 22:04:05", "2026-07-01 22:04:05")),
    ):
        page = visit(task(runs[1]), zone=zone)
        for text in times:
            expect(page.get_by_text(text)).to_be_visible()


def running(progress, epochs):
    started = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()
    history = [
        {"epoch": n, "loss": 2 / n, "val_loss": 2.2 / n, "accuracy": 1 - 0.9 / n, "val_accuracy": 1 - 1 / n}
        for n in range(1, epochs + 1)
    ]
    return {
        "state": "running",
        "status": "IN_PROGRESS",
        "progress": progress,
        "started_at": started,
        "history": history,
    }


@contextmanager
def task_state(ran, state):
    """Give the task of the training another state in Airflow's database."""
    where = (TaskInstance.run_id == ran.run.run_id, TaskInstance.task_id == "train_model")

    def change(state):
        with create_session() as session:
            session.execute(update(TaskInstance).where(*where).values(state=state))

    change(state)
    yield
    change("success")


@contextmanager
def hostile_rows(ran, asset_id):
    """Fill all texts of XComs, and an event of the champion, with markup."""
    score = {"model_id": HOSTILE, "metrics": {HOSTILE: HOSTILE, "accuracy": 0.5}, "measured_on": HOSTILE}
    values = {
        "gate": {"decision": "rejected", "reasons": [HOSTILE], "rule": {}, "candidate": score, "champion": score},
        "upload_images": dict.fromkeys(("dataset_id", "uploaded", "skipped", "data_digest"), HOSTILE)
        | {"categories": [HOSTILE], "invalid_files": {HOSTILE: HOSTILE}, "images_by_category": {HOSTILE: HOSTILE}},
        "train_model": {"state": HOSTILE, "model_id": HOSTILE, "metrics": {HOSTILE: HOSTILE, "accuracy": 0.5}},
    }

    def write(values):
        with create_session() as session:
            for task_id, value in values.items():
                where = (XComModel.run_id == ran.run.run_id, XComModel.task_id == task_id)
                session.execute(update(XComModel).where(*where, XComModel.key == "return_value").values(value=value))

    originals = {task_id: ran.xcom(task_id) for task_id in values}
    write(values)
    with create_session() as session:
        last = session.execute(select(func.max(AssetEvent.id))).scalar_one()
        at = datetime.now(UTC) + timedelta(minutes=1)
        session.execute(insert(AssetEvent), [{"asset_id": asset_id, "extra": score, "timestamp": at}])
    yield
    write(originals)
    with create_session() as session:
        session.execute(delete(AssetEvent).where(AssetEvent.id > last))


@pytest.mark.parametrize("name", ["gate", "upload", "jobs", "models", "model", "run"])
def test_hostile_rows_are_text_on_every_page(visit, runs, osai, asset_id, name):
    """Who may write XComs or asset events may not run scripts in a viewer's browser."""
    osai.error = JobUnavailable("OSAI is unreachable at the moment.", is_final=True)
    with hostile_rows(runs[1], asset_id):
        page = visit(pages(runs, asset_id)[name], "examples", "ADMIN")
        expect(page.get_by_text("<script>").first).to_be_visible()
        assert page.title() != "hacked"
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_running_training_refreshes_without_moving_what_is_hovered(visit, runs, osai):
    """State, curves and progress; the hovered chart stays in its place."""
    with task_state(runs[1], "deferred"):
        watch_a_training(visit, runs, osai)


def watch_a_training(visit, runs, osai):
    osai.fields = running(0.25, 5)
    page = visit(task(runs[1]))
    expect(page.get_by_text("25 %")).to_be_visible()
    expect(page.get_by_text("left")).to_be_visible()
    chart = page.locator(".chart").first
    before = chart.bounding_box()
    chart.locator(".u-over").hover()
    hovered = [chart.bounding_box(), page.locator(".columns").bounding_box()]
    chart.locator(".u-over").hover(position={"x": 5, "y": 5})
    assert [chart.bounding_box(), page.locator(".columns").bounding_box()] == hovered
    assert chart.bounding_box() == before
    picture(page, "page-run-running")
    canvas = chart.locator("canvas").element_handle()
    osai.fields = running(0.5, 10)
    expect(page.get_by_text("50 %")).to_be_visible()
    assert canvas.evaluate("e => e.isConnected"), "the chart was created again instead of updated"
    expect(chart.locator(".u-series").first).to_be_visible()
    osai.fields = running(1.0, 20) | {"state": "succeeded", "result": {"metrics": {"accuracy": 0.9}, "model_id": "m"}}
    expect(page.locator(".state").first).to_have_text("OSAI succeeded")
    expect(page.locator("body")).to_have_attribute("data-refresh", "3")  # until the task has ended, too


def test_many_viewers_of_a_running_job_cause_one_request_in_three_seconds(visit, runs, osai):
    osai.fields = running(0.25, 5)
    for page in [visit(task(runs[1])) for _ in range(4)]:
        expect(page.locator("body")).to_have_attribute("data-refreshed", re.compile("[2-9]"))
    assert 2 <= osai.reads <= 1 + (osai.latest - osai.first) / 3


def test_failed_job_shows_the_reason(visit, runs, osai):
    osai.fields = {"state": "failed", "status": "FAILED", "message": "out of memory in epoch 7"}
    page = visit(task(runs[1]))
    expect(page.locator(".error")).to_have_text("out of memory in epoch 7")
    expect(page.locator(".warning")).to_contain_text("marked as success")
    picture(page, "page-run-failed")
    assert_accessible(page)


def test_simulated_job_has_a_badge(visit, runs, osai):
    osai.fields = {"state": "succeeded", "simulated": True}
    page = visit(task(runs[1]))
    expect(page.locator(".badge").filter(has_text="simulated")).to_be_visible()
    assert_accessible(page)


def test_unreachable_osai_leaves_what_airflow_has(visit, runs, osai):
    osai.error = JobUnavailable("OSAI is unreachable at the moment.", is_final=False)
    page = visit(task(runs[1]))
    expect(page.get_by_role("status")).to_be_visible()
    expect(page.locator(".card").first).to_be_visible()


def test_forbidden_pages_show_nothing_of_the_job(visit, runs, asset_id):
    for path, name in ((task(runs[1]), "stranger"), (f"/models/{asset_id}", "no_assets")):
        page = visit(path, name)
        expect(page.locator("body")).to_contain_text("Forbidden")
        assert "digits" not in page.content()


def test_empty_pages_say_so(visit, runs):
    expect(visit("/", "stranger").get_by_text("has submitted an OSAI job yet")).to_be_visible()
    expect(visit("/models", "no_assets").get_by_text("No Dag that you may read")).to_be_visible()
    expect(visit(task(runs[1], "create_dataset")).get_by_text("has not submitted an OSAI job yet")).to_be_visible()


def test_hostile_texts_of_osai_are_text(visit, runs, osai):
    """In each field; first loaded, then refreshed."""
    fields = dict.fromkeys(("status", "message", "created_at", "started_at", "finished_at"), HOSTILE)
    result = {"metrics": {HOSTILE: HOSTILE, "accuracy": 0.5}, "model_id": HOSTILE, "dataset_id": HOSTILE}
    history = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]
    osai.fields = running(0.5, 3)
    page = visit(task(runs[1]))
    osai.fields = {"state": "failed", "result": result, "history": history, **fields}
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    page = visit(task(runs[1]))
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert page.title() != "hacked"
    assert page.locator("img").count() == 0


def test_copy_button_copies_an_id_by_keyboard(visit, runs):
    page = visit(task(runs[1]))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("window.setTimeout = () => 0")  # the message does not go away
    button = page.get_by_role("button", name=f"Copy {runs[1].result('train_model', 'job_id')}")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("title", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == runs[1].result("train_model", "job_id")


def test_filter_of_the_jobs_applies_at_once(visit, runs):
    page = visit("/")
    page.get_by_label("Kind").select_option("conversion")
    page.wait_for_url("**kind=conversion**")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("conversion")


def test_history_shows_a_decision_when_it_is_hovered(visit, runs, asset_id):
    page = visit(f"/models/{asset_id}")
    plot = page.locator(".chart .u-over")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] - 4, "y": box["height"] / 2})
    expect(page.locator(".u-legend")).to_contain_text(f"{runs[1].xcom('gate', 'model_id')}: rejected")
