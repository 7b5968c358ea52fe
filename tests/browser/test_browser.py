"""Airflow's UI in a browser: the connection form, the pages, the portal link, and the graphs of the examples.

With ``OSAI_PICTURES=1``, the screenshots of the docs are recreated (docs/pictures).
"""

from __future__ import annotations

import os
import re

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.browser.chromium import launch
from tests.browser.pictures import GRAPH_ONLY, trim
from tests.conftest import AIRFLOW, CANARY, ROOT, SECRET
from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = "example_osai_retraining"
EXAMPLES = sorted(path.stem for path in (ROOT / "example_dags").glob("*.py"))
PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def osai():
    with Sandbox(access_token=CANARY) as running:
        yield running


@pytest.fixture(scope="module")
def airflow(osai, tmp_path_factory):
    connection = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": osai.base_url}}
    home = tmp_path_factory.mktemp("home")
    with WholeAirflow(
        ROOT / "example_dags", home=home, connections={"osai_default": connection}, executable=AIRFLOW
    ) as running:
        for dag in EXAMPLES:
            running.wait_for_dag(dag)
        yield running


@pytest.fixture(scope="module")
def page(airflow):
    """A page of a browser that is signed in to Airflow."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(airflow.url)
        page.fill("input[name=username]", airflow.login.user)
        page.fill("input[name=password]", airflow.login.password)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{airflow.url}/")
        yield page
        browser.close()


def screenshot(page: Page, name: str, **options: object) -> None:
    """Save a screenshot for the docs if ``OSAI_PICTURES`` is set."""
    if os.environ.get("OSAI_PICTURES"):
        page.screenshot(path=PICTURES / f"{name}.png", **options)
        trim(PICTURES / f"{name}.png", bottom_only=True)


def test_connection_form_saves_and_tests_a_connection(page, airflow, osai):
    """It has our labels, and hides the access token while it is typed."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    page.fill("input[name=connection_id]", "osai_by_hand")
    page.get_by_role("combobox").last.fill("OSAI")
    page.get_by_role("option", name="OSAI").click()
    token = page.locator("input[name=password]")
    expect(page.get_by_text("Access token")).to_be_visible()
    expect(token).to_have_attribute("type", "password")
    token.fill(CANARY)
    page.get_by_role("button", name=re.compile("^Extra Fields(?! JSON)")).click()
    expect(page.get_by_text("The region of your OSAI account.")).to_be_visible()
    for label in ("Region", "Base URL", "Timeout (s)", "Contract", "Webhook base URL", "Webhook secret"):
        expect(page.get_by_text(label, exact=False).first).to_be_visible()
    page.locator("input[name=element_base_url]").fill(osai.base_url)
    screenshot(page, "connection-form")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("osai_by_hand")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="osai_by_hand")
    with page.expect_response("**/api/v2/connections/test") as response:
        row.get_by_role("button", name=re.compile("Test Connection")).click()
    body = response.value.json()
    # Airflow 3.3.2 sends port 0 for a port that the form hides, and treats it as different from the stored port.
    assert "Signed in" in body.get("message", "") or "host or port to test differs" in body["detail"], body
    assert not SECRET.search(page.content())


@pytest.fixture(scope="module")
def run_id(airflow, images):
    """The id of a successful run."""
    run_id = airflow.trigger(DAG, {"images": str(images)})
    assert airflow.wait(DAG, run_id) == "success", airflow.failures(DAG, run_id)
    return run_id


def open_job_page(page: Page, airflow: WholeAirflow, run_id: str):
    """Open the job page of the run's training through the tab on the task's page."""
    page.goto(f"{airflow.url}/dags/{DAG}/runs/{run_id}/tasks/train_model")
    page.get_by_role("link", name="OSAI", exact=True).click()
    return page.frame_locator("iframe")


def test_job_page_shows_a_training_that_has_ended(page, airflow, osai, run_id):
    """Its state, metrics and curves, in the colors and the font of Airflow's page."""
    job = airflow.xcom(DAG, run_id, "train_model")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        frame = open_job_page(page, airflow, run_id)
        expect(frame.get_by_role("heading", name=f"OSAI training {job['job_id']}")).to_be_visible()
        expect(frame.locator(".state")).to_have_text(["OSAI succeeded", "Airflow task success"])
        expect(frame.locator(".badge")).to_have_count(0)
        expect(frame.locator("canvas")).to_have_count(2)
        expect(frame.get_by_text(job["model_id"])).to_be_visible()
        is_dark = page.evaluate("document.documentElement.classList.contains('dark')")
        assert frame.locator("html").evaluate("page => page.classList.contains('dark')") is is_dark
        font, color = (f"element => getComputedStyle(element).{name}" for name in ("fontFamily", "backgroundColor"))
        assert frame.locator("body").evaluate(font) == page.locator("body").evaluate(font)
        outer = [page.locator(tag).evaluate(color) for tag in ("body", "html")]
        opaque = [each for each in outer if each != "rgba(0, 0, 0, 0)"]
        assert not opaque or frame.locator("body").evaluate(color) == opaque[0]
        page.wait_for_timeout(500)
        screenshot(page, f"panel-{scheme}")
    page.emulate_media(color_scheme="light")


def test_links_lead_out_of_the_frame(page, airflow, osai, run_id):
    """To the portal in a new tab, and to another task in this one, which Airflow's frame itself forbids."""
    job_id = airflow.xcom(DAG, run_id, "train_model")["job_id"]
    frame = open_job_page(page, airflow, run_id)
    with page.expect_popup() as popup:
        frame.get_by_role("link", name="Open in the OSAI portal").click()
    assert popup.value.url == f"{osai.portal_url}/trainings/{job_id}"
    popup.value.close()
    frame.get_by_role("link", name="convert_model").click()
    page.wait_for_url(f"**/dags/{DAG}/runs/**/tasks/convert_model**")


def test_roll_back_button_makes_an_earlier_model_the_champion(page, airflow):
    """On Browse > OSAI models, with an event that Airflow's REST API creates."""
    assets = airflow._get("/api/v2/assets?uri_pattern=osai://eu/models/digits")["assets"]
    (asset_id,) = (asset["id"] for asset in assets if asset["uri"] == "osai://eu/models/digits")
    for model_id in ("model-1", "model-2"):
        extra = {"model_id": model_id, "metrics": {"accuracy": 0.9}, "measured_on": "holdout"}
        airflow._send("POST", "/api/v2/assets/events", {"asset_id": asset_id, "extra": extra})
    page.goto(airflow.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="OSAI models").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="osai://eu/models/digits", exact=True).click()
    expect(frame.locator("header")).to_contain_text("Champion: model-2")
    frame.get_by_role("row").filter(has_text="model-1").get_by_role("button", name="Roll back").click()
    dialog = frame.get_by_role("dialog")
    expect(dialog).to_contain_text("Make model model-1 the champion")
    dialog.get_by_role("button", name="Roll back").click()
    expect(frame.locator("header")).to_contain_text("Champion: model-1")
    expect(frame.locator("tbody tr").first).to_contain_text("rolled back")
    latest = airflow._get(f"/api/v2/assets/events?asset_id={asset_id}&order_by=-timestamp&limit=1")["asset_events"][0]
    assert latest["extra"] | {"from_rest_api": True} == latest["extra"]
    assert (latest["extra"]["model_id"], latest["extra"]["measured_on"]) == ("model-1", "holdout")


def test_job_page_updates_while_a_training_runs(page, airflow, osai, images):
    """Without a reload."""
    osai.control.script("training", "reads", reads=10**9)
    before = {job["id"] for job in osai.control.record()["jobs"]}
    run_id = airflow.trigger(DAG, {"images": str(images)})
    try:
        new = until(lambda: [job["id"] for job in osai.control.record()["jobs"] if job["id"] not in before])
        frame = open_job_page(page, airflow, run_id)
        expect(frame.locator(".state").first).to_have_text("OSAI running")
        expect(frame.locator(".badge")).to_have_text("simulated")
        osai.control.end(new[0])
        expect(frame.locator(".state").first).to_have_text("OSAI succeeded")
    finally:
        osai.control.script("training")
    assert airflow.wait(DAG, run_id) == "success", airflow.failures(DAG, run_id)


def test_menu_leads_to_the_list_of_recent_jobs(page, airflow, run_id):
    """The list links to the job pages."""
    page.goto(airflow.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="OSAI jobs").click()
    frame = page.frame_locator("iframe")
    job_id = airflow.xcom(DAG, run_id, "train_model")["job_id"]
    frame.get_by_role("link", name=f"training {job_id}").click()
    expect(frame.locator(".state").first).to_have_text("OSAI succeeded")


def test_button_on_the_task_page_opens_the_job_in_the_portal(page, airflow, osai, run_id):
    """In a new tab."""
    page.goto(f"{airflow.url}/dags/{DAG}/runs/{run_id}/tasks/train_model/details")
    button = page.get_by_role("link", name="OSAI portal")
    job_id = airflow.xcom(DAG, run_id, "train_model")["job_id"]
    expect(button).to_have_attribute("href", f"{osai.portal_url}/trainings/{job_id}")
    with page.expect_popup() as popup:
        button.click()
    expect(popup.value.get_by_text(job_id).first).to_be_visible()
    popup.value.close()


@pytest.mark.parametrize("dag", EXAMPLES)
def test_graph_of_each_example_has_all_its_tasks(page, airflow, dag):
    page.goto(f"{airflow.url}/dags/{dag}")
    page.get_by_role("button", name=re.compile("Show Graph")).click()
    nodes = page.locator(".react-flow__node")
    tasks = {task["task_id"] for task in airflow._get(f"/api/v2/dags/{dag}/tasks")["tasks"]}
    expect(nodes.first).to_be_visible()
    for task in tasks:
        expect(nodes.filter(has_text=re.compile(rf"^{re.escape(task)}")).first).to_be_visible()
    page.get_by_role("button", name=re.compile("Details Panel")).first.click()
    page.wait_for_timeout(800)
    page.locator(".react-flow__controls-fitview").click()
    page.wait_for_timeout(800)
    if os.environ.get("OSAI_PICTURES"):
        path = PICTURES / f"graph-{dag}.png"
        page.locator(".react-flow").screenshot(path=path, style=GRAPH_ONLY)
        trim(path)
    page.get_by_role("button", name=re.compile("Details Panel")).first.click()
