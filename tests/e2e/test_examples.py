"""Each example Dag in a whole Airflow, against the sandbox: promoted, chosen, approved, used and released."""

from __future__ import annotations

import time

import pytest

from airflow_provider_osai.demo.airflow import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import AIRFLOW, CANARY, ROOT

pytestmark = pytest.mark.e2e
CHAMPION = "osai://eu/models/digits"


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
        yield running


@pytest.fixture(scope="module")
def runs(airflow, images):
    """A run of each Dag that needs nothing of another, all at once."""
    folder = str(images)
    conf = {
        "example_osai_weekly": {"images": folder, "holdout": folder},
        "example_osai_candidates": {"images": folder},
        "example_osai_approval": {"images": folder},
        "example_osai_augmentation": {"images": folder},
    }
    for dag in conf:
        airflow.wait_for_dag(dag)
    return {dag: airflow.trigger(dag, given) for dag, given in conf.items()}


def ended(airflow, dag, run_id):
    assert airflow.wait(dag, run_id, timeout=240) == "success", airflow.failures(dag, run_id)


def states(airflow, dag, run_id):
    return {task["task_id"]: task["state"] for task in airflow.task_instances(dag, run_id)}


def test_a_person_approves_before_a_model_is_promoted(airflow, runs):
    """The gate waits for the yes; nobody is asked before there are figures to see."""
    dag, run_id = "example_osai_approval", runs["example_osai_approval"]
    path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    until = time.monotonic() + 120
    while (answer := airflow._http.get(path)).status_code != 200:
        assert time.monotonic() < until, states(airflow, dag, run_id)
        time.sleep(0.3)
    assert "accuracy" in answer.json()["body"]
    assert states(airflow, dag, run_id)["gate"] is None
    airflow._send("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})
    ended(airflow, dag, run_id)
    (event,) = airflow.asset_events("osai://eu/models/approved")
    assert event["model_id"] == airflow.xcom(dag, run_id, "train_model")["model_id"]


def test_of_six_candidates_the_best_is_promoted(airflow, runs):
    """Trained in parallel; the gate is given all of them."""
    dag, run_id = "example_osai_candidates", runs["example_osai_candidates"]
    ended(airflow, dag, run_id)
    trained = [airflow.xcom(dag, run_id, "train_model", map_index=index) for index in range(6)]
    assert len({one["model_id"] for one in trained}) == 6
    best = max(trained, key=lambda one: one["metrics"]["accuracy"])
    decision = airflow.xcom(dag, run_id, "gate")
    assert decision["verdict"] == "promoted"
    assert decision["metrics"]["accuracy"] == best["metrics"]["accuracy"]
    (event,) = airflow.asset_events("osai://eu/models/candidates")
    assert event["model_id"] == decision["model_id"]


def test_few_images_are_varied_and_what_was_made_goes_away(airflow, runs):
    """Also by the teardown of a whole Airflow."""
    dag, run_id = "example_osai_augmentation", runs["example_osai_augmentation"]
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "delete_varied")["deleted"] is True


def test_the_weekly_model_is_promoted_and_labels_a_batch(airflow, runs, images):
    """Who uses the champion finds it by its asset."""
    dag, run_id = "example_osai_weekly", runs["example_osai_weekly"]
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "gate")["verdict"] == "promoted"
    (event,) = airflow.asset_events(CHAMPION)
    dag = "example_osai_batch_prediction"
    run_id = airflow.trigger(dag, {"images": str(images)})
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "model") == event["model_id"]
    assert airflow.xcom(dag, run_id, "predict")["metrics"]["images"] == 60
    assert states(airflow, dag, run_id)["delete_dataset"] == "success"
