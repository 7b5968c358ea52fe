"""The gate page, and the history of a model's champions."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update

from tests.airflow.pages import charts_of, text_of, two_weeks

DAG = "example_osai_weekly"
URI = "osai://eu/models/digits"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def runs(dagbag, images, tmp_path_factory):
    with two_weeks(dagbag, images, tmp_path_factory.mktemp("weeks")) as runs:
        yield runs


@pytest.fixture
def asset_id(runs):
    """The id of the champion's asset; events that a test adds are deleted."""
    with create_session() as session:
        asset_id = session.execute(select(AssetModel.id).where(AssetModel.uri == URI)).scalar_one()
        last = max(session.execute(select(AssetEvent.id)).scalars())
    yield asset_id
    with create_session() as session:
        session.execute(delete(AssetEvent).where(AssetEvent.id > last))


def add_event(asset_id, extra, minutes=1):
    """Add an event of the asset, as Airflow's REST API does, after all others."""
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    with create_session() as session:
        session.execute(insert(AssetEvent), [{"asset_id": asset_id, "extra": extra, "timestamp": at}])


def gate(ran):
    return f"/task/{DAG}/{ran.run.run_id}/gate/-1"


def test_gate_page_shows_why_a_model_was_promoted(browser, runs):
    page = browser().get(gate(runs[0]))
    text = text_of(page)
    model = runs[0].result("gate", "model_id")
    assert re.match(rf"OSAI gate Model {model} is promoted", text)
    assert "Why promoted there was no champion" in text
    assert "What to do" not in text
    assert re.search(r"accuracy - \S+ at least 0.8 met", text)
    assert "Champion at the decision none" in text
    assert f"Champion now {model}" in text
    assert f"promoted by run {runs[0].run.run_id}" in text
    assert 'data-refresh="0"' in page.text


def test_gate_page_shows_why_a_model_was_rejected_and_what_to_do(browser, runs):
    """With both models' metrics, the requirement of each, and the evaluations."""
    text = text_of(browser().get(gate(runs[1])))
    candidate, champion = (ran.result("gate", "model_id") for ran in reversed(runs))
    assert "is rejected" in text
    assert runs[1].result("gate", "reasons")[0] in text
    assert "What to do Train with more or better data" in text
    assert re.search(r"accuracy \S+ \S+ -0\.\d+ at least 0.8 and better than \S+ not met", text)
    assert f"Champion at the decision {champion}" in text
    assert f"Evaluation of {candidate} job" in text
    assert f"Evaluation of {champion} job" in text


def test_gate_page_without_access_to_the_asset_shows_only_the_decision(browser, runs):
    """The decision is in the task's XCom; who is champion now is in the asset's events."""
    text = text_of(browser("no_assets").get(gate(runs[1])))
    assert "is rejected" in text
    assert "Champion now" not in text
    assert URI not in text


@pytest.mark.parametrize("value", [{}, [], "promoted", {"decision": "promoted"}, {"decision": 7, "candidate": "x"}])
def test_gate_page_with_an_odd_result_does_not_fail(browser, runs, value):
    """Someone has changed the XCom."""
    where = (XComModel.run_id == runs[0].run.run_id, XComModel.task_id == "gate", XComModel.key == "return_value")
    with create_session() as session:
        original = session.execute(select(XComModel.value).where(*where)).scalar_one()
        session.execute(update(XComModel).where(*where).values(value=value))
    try:
        assert browser().get(gate(runs[0])).status_code == 200
        assert browser().get("/").status_code == 200
    finally:
        with create_session() as session:
            session.execute(update(XComModel).where(*where).values(value=original))


def test_metrics_of_a_training_are_compared_with_champion_and_previous_run(browser, runs):
    """On the page of the second run; the first run's model is the champion and has no previous one."""
    text = text_of(browser().get(f"/task/{DAG}/{runs[1].run.run_id}/train_model/-1"))
    assert "to champion, measured on other data" in text  # of the gate's evaluation
    assert "to previous run" in text
    assert f"Gate gate , champion of {URI}" in text
    text = text_of(browser().get(f"/task/{DAG}/{runs[0].run.run_id}/train_model/-1"))
    assert "to champion" not in text
    assert "to previous run" not in text
    assert " champion ran " in text
    text = text_of(browser("no_assets").get(f"/task/{DAG}/{runs[1].run.run_id}/train_model/-1"))
    assert "to champion" not in text
    assert "to previous run" in text


def test_training_is_better_or_worse_than_a_champion_measured_on_the_same_data(browser, runs, asset_id):
    """Which is what a gate without an evaluation compares."""
    digest = runs[1].result("train_model", "data_digest")
    add_event(asset_id, {"model_id": "same-data", "metrics": {"accuracy": 0.99, "loss": 9}, "measured_on": digest})
    page = browser().get(f"/task/{DAG}/{runs[1].run.run_id}/train_model/-1").text
    assert re.search(r'class="difference worse"><b>-0\.\d+</b> to champion<', page)
    assert re.search(r'class="difference better"><b>-\d\.\d+</b> to champion<', page)
    assert "other data" not in page


class TestHistory:
    """Browse > OSAI models."""

    def test_list_has_the_champion_of_each_readable_asset(self, browser, runs, asset_id):
        text = text_of(browser().get("/models"))
        assert f"{URI} {runs[0].xcom('gate', 'model_id')}" in text
        assert DAG in text
        for name in ("no_assets", "stranger"):
            assert URI not in text_of(browser(name).get("/models"))

    def test_history_has_promotions_and_rejections(self, browser, runs, asset_id):
        """The latest first, with the reasons; and a chart of the metric that the gate compares."""
        page = browser().get(f"/models/{asset_id}")
        text = text_of(page)
        promoted, rejected = (ran.result("gate", "model_id") for ran in runs)
        body = text[text.index("Time Model Outcome") :]
        assert body.index(rejected) < body.index(promoted)
        assert re.search(rf"{promoted} champion promoted", body)
        assert runs[1].result("gate", "reasons")[0] in body
        (chart,) = charts_of(page)
        assert chart["title"] == "accuracy"
        assert [each["label"] for each in chart["points"]] == ["promoted", "rejected"]
        assert chart["champion"][0] == chart["champion"][1] == chart["points"][0]["values"][0]

    def test_history_of_another_metric_can_be_shown(self, browser, runs, asset_id):
        names = list(runs[0].result("gate", "metrics"))
        assert len(names) > 1
        (chart,) = charts_of(browser().get(f"/models/{asset_id}?metric={names[-1]}"))
        assert chart["title"] == names[-1]
        assert charts_of(browser().get(f"/models/{asset_id}?metric=none"))[0]["title"] == "accuracy"

    def test_event_by_hand_is_a_rollback_if_the_model_was_champion_before(self, browser, runs, asset_id):
        model = runs[0].result("gate", "model_id")
        add_event(asset_id, {"model_id": "by-hand", "metrics": {"accuracy": 0.5}}, 1)
        assert re.search(r"by-hand champion set by hand 0.5", text_of(browser().get(f"/models/{asset_id}")))
        add_event(asset_id, {"model_id": model, "from_rest_api": True}, 2)
        text = text_of(browser().get(f"/models/{asset_id}"))
        assert re.search(rf"{model} champion rolled back", text)
        assert "by-hand set by hand" in text

    def test_promotion_that_replaced_nobody_is_ignored(self, browser, runs, asset_id):
        """Another Dag promoted a model that replaces an earlier champion."""
        extra = {"model_id": "late", "replaces": "long-gone", "decision": {"reasons": []}, "metrics": {"accuracy": 1}}
        add_event(asset_id, extra)
        assert "late ignored" in text_of(browser().get(f"/models/{asset_id}"))

    def test_only_who_may_create_events_can_roll_back(self, browser, runs, asset_id):
        """The button has what Airflow's REST API takes: the model with the metrics of its promotion."""
        add_event(asset_id, {"model_id": "by-hand"})
        assert "Roll back to this" not in browser("viewer", "VIEWER").get(f"/models/{asset_id}").text
        page = browser("admin", "ADMIN").get(f"/models/{asset_id}").text
        (button,) = re.findall(r'data-roll-back="([^"]*)"', page)
        body = json.loads(html.unescape(button))
        promotion = runs[0].xcom("gate")["candidate"]
        assert body == {"asset_id": asset_id, "extra": promotion}

    def test_event_of_an_unreadable_dag_is_not_shown(self, browser, runs, asset_id):
        """Airflow shows events only to users who may read the Dag that created them."""
        source = {"source_dag_id": "secret_dag", "source_run_id": "r", "source_task_id": "t", "source_map_index": -1}
        at = datetime.now(UTC) + timedelta(minutes=1)
        event = {"asset_id": asset_id, "extra": {"model_id": "secret-model"}, "timestamp": at}
        with create_session() as session:
            session.execute(insert(AssetEvent), [event | source])
        for path in ("/models", f"/models/{asset_id}"):
            assert "secret" not in browser().get(path).text

    def test_asset_that_may_not_be_read_or_is_no_model_is_refused(self, browser, runs, asset_id):
        assert browser("no_assets").get(f"/models/{asset_id}").status_code == 403
        assert browser(None).get(f"/models/{asset_id}").status_code == 401
        assert browser().get("/models/999999").status_code == 404
        assert browser().get("/models/none").status_code == 422

    def test_odd_and_hostile_events_are_shown_escaped(self, browser, runs, asset_id):
        odd = [None, [], 7, HOSTILE, {"model_id": ""}, {"model_id": HOSTILE, "metrics": {HOSTILE: HOSTILE}}]
        odd += [
            {"model_id": 7, "metrics": [], "decision": HOSTILE},
            {"model_id": "m", "decision": {"reasons": [HOSTILE]}},
        ]
        odd += [{"model_id": "m", "metrics": {"accuracy": float("1e308")}, "measured_on": HOSTILE}]
        for minutes, extra in enumerate(odd, 1):
            add_event(asset_id, extra, minutes)
        for path in ("/models", f"/models/{asset_id}", gate(runs[0])):
            page = browser("admin", "ADMIN").get(path)
            assert page.status_code == 200
            assert HOSTILE not in page.text
