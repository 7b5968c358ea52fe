"""Each example Dag in a whole Airflow, against the sandbox: promoted, chosen, approved, used and released."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.hooks.deployment import VARIABLE
from airflow_provider_osai.jobs.idempotency import Bond, Deployment, TaskKey
from tests.conftest import CANARY, ROOT, settings_for
from tests.mail_server import MailServer, body
from tests.sandbox.client import Api, png, shades
from tests.waiting import until

pytestmark = pytest.mark.e2e
CHAMPION = "osai://eu/models/digits"
HERE = Deployment("the secret of this Airflow")


@pytest.fixture(scope="module")
def watched(osai):
    """The id of a dataset that the event-driven example watches; images may come."""
    with Api(osai) as api:
        return api.dataset(shades(5))


@pytest.fixture(scope="module")
def mail_server():
    """Receives the mail of gates."""
    with MailServer(CANARY).running() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(start_airflow, watched, mail_server, tmp_path_factory):
    home, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    shutil.copytree(ROOT / "example_dags", dags, dirs_exist_ok=True)
    # As their users have to: with the id of a dataset, and a folder for what is released.
    told = {
        "example_osai_on_new_data.py": {"the-id-of-a-dataset": watched, "poll_interval=60": "poll_interval=1"},
        "example_osai_edge_release.py": {"releases/": f"{home}/releases/"},
    }
    for name, words in told.items():
        text = (dags / name).read_text()
        for word, mine in words.items():
            assert word in text
            text = text.replace(word, mine)
        (dags / name).write_text(text)
    environment = {"AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(mail_server.connection)}
    running = start_airflow(dags, home=home, variables={VARIABLE: HERE.secret}, environment=environment)
    running.unpause("example_osai_on_new_data")
    running.unpause("example_osai_edge_release")
    return running


@pytest.fixture(scope="module")
def runs(airflow, images):
    """A run of each Dag that needs nothing of another, all at once."""
    folder = str(images)
    conf = {
        "example_osai_weekly": {"images": folder, "holdout": folder},
        "example_osai_candidates": {"images": folder},
        "example_osai_approval": {"images": folder},
        "example_osai_augmentation": {"images": folder},
        "example_osai_alerts": {"images": folder, "mail_to": "ann@example.com, bob@example.com"},
    }
    for dag in conf:
        airflow.wait_for_dag(dag)
    return {dag: airflow.trigger(dag, given) for dag, given in conf.items()}


def ended(airflow, dag, run_id):
    assert airflow.wait(dag, run_id) == "success", airflow.failures(dag, run_id)


def states(airflow, dag, run_id):
    return {task["task_id"]: task["state"] for task in airflow.task_instances(dag, run_id)}


def test_a_person_approves_before_a_model_is_promoted(airflow, runs):
    """The gate waits for the yes; nobody is asked before there are figures to see."""
    dag, run_id = "example_osai_approval", runs["example_osai_approval"]
    path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    until(lambda: airflow._http.get(path).is_success, what=lambda: states(airflow, dag, run_id))
    assert "accuracy" in airflow._http.get(path).json()["body"]
    assert states(airflow, dag, run_id)["gate"] is None
    # Airflow fails a task that goes on before its scheduler has seen the asking process end.
    asked = rf"Received executor event with state success .*'{dag}', task_id='approve'"
    until(lambda: re.search(asked, (airflow.logs / "parts" / "scheduler.log").read_text(errors="replace")), what=asked)
    yes = {"chosen_options": ["Approve"], "params_input": {}}
    # SQLite is locked now and then.
    answer = until(lambda: (sent := airflow._http.patch(path, json=yes)).status_code < 500 and sent, what="the answer")
    assert answer.status_code == 200, answer.text
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
    assert decision["decision"] == "promoted"
    assert decision["metrics"]["accuracy"] == best["metrics"]["accuracy"]
    (event,) = airflow.asset_events("osai://eu/models/candidates")
    assert event["model_id"] == decision["model_id"]


def test_people_get_a_mail_of_the_promotion(airflow, runs, mail_server):
    """One, with the figures."""
    dag, run_id = "example_osai_alerts", runs["example_osai_alerts"]
    ended(airflow, dag, run_id)
    decision = airflow.xcom(dag, run_id, "gate")
    (mail,) = mail_server.received
    assert mail["Subject"] == f"Model {decision['model_id']} is promoted"
    assert {address.addr_spec for address in mail["To"].addresses} == {"ann@example.com", "bob@example.com"}
    assert f"accuracy {decision['metrics']['accuracy']}" in body(mail)


def test_few_images_are_varied_and_what_was_made_goes_away(airflow, runs):
    """Also by the teardown of a whole Airflow."""
    dag, run_id = "example_osai_augmentation", runs["example_osai_augmentation"]
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "delete_varied")["deleted"] is True


def polls(osai):
    return osai.control.record()["counts"].get("dataset.find", 0)


def test_new_data_start_a_retraining(airflow, runs, osai, watched):
    """Nobody tells Airflow of them; the triggerer looks."""
    dag = "example_osai_on_new_data"
    # Its trigger has measured what was there before. A few of these requests may be those of other tasks.
    polled = polls(osai)
    until(lambda: polls(osai) >= polled + 5, what="polls of the datasets")
    before = set(airflow.run_ids(dag))
    with Api(osai) as api:
        upload = api.ok("POST", f"/Datasets/{watched}/StartUploading")["id"]
        assert api.image(watched, upload, png(77)).is_success
        api.ok("POST", f"/Datasets/{watched}/FinishUploading", params={"datasetUploadId": upload})
    (run_id,) = until(lambda: set(airflow.run_ids(dag)) - before, what="a run that new data started")
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "train_model")["metrics"]["images"] == 10  # the one without a category stays out


def test_the_weekly_model_is_promoted_labels_a_batch_and_is_released(airflow, runs, images, osai):
    """Who uses the champion finds it by its asset; the release starts by itself."""
    dag, run_id = "example_osai_weekly", runs["example_osai_weekly"]
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "gate")["decision"] == "promoted"
    (event,) = airflow.asset_events(CHAMPION)
    dag = "example_osai_batch_prediction"
    run_id = airflow.trigger(dag, {"images": str(images)})
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "model") == event["model_id"]
    assert airflow.xcom(dag, run_id, "predict")["metrics"]["images"] == 60
    assert states(airflow, dag, run_id)["delete_dataset"] == "success"
    dag = "example_osai_edge_release"
    (run_id,) = until(lambda: airflow.run_ids(dag), what="a run that the promotion started")
    ended(airflow, dag, run_id)
    assert airflow.xcom(dag, run_id, "release").startswith(f"{event['model_id']} is released as ")
    assert [rental["state"] for rental in osai.control.rentals()] == ["cancelled"]


def test_devices_that_no_task_wants_are_given_back(airflow, runs, osai):
    """Those of a deleted Dag, and of a run that is over; neither one by hand nor that of another Airflow."""
    dag, run_id = "example_osai_augmentation", runs["example_osai_augmentation"]
    ended(airflow, dag, run_id)
    osai.control.devices(4)
    request, deleted = DeviceRentalRequest(device="jetson", duration=600), TaskKey("deleted", "run", "rent", -1, 0)
    keys = [
        deleted.reference(request, deployment=HERE, bond=Bond.RENTS),
        TaskKey(dag, run_id, "delete_varied", -1, 0).reference(request, deployment=HERE, bond=Bond.RENTS),
        deleted.reference(request, deployment=Deployment("of another Airflow"), bond=Bond.RENTS),
        "by hand",
    ]
    with OsaiClient(settings_for(osai.base_url)) as client:
        jobs = [client.send(client.calls.submit_job(request, key)).id for key in keys]
        dag = "example_osai_cancel_orphans"
        run_id = airflow.trigger(dag, {"grace": 0})
        ended(airflow, dag, run_id)
        found = airflow.xcom(dag, run_id, "cancel_orphans")
        assert set(found["cancelled"]) == set(jobs[:2]), found
        assert found["unknown"] == found["not_cancelled"] == found["unchecked_kinds"] == []
        states_of = {rental["id"]: rental["state"] for rental in osai.control.rentals()}
        assert [states_of[job] for job in jobs] == ["cancelled", "cancelled", "running", "running"]
        for job in jobs[2:]:
            client.send(client.calls.cancel_job(request.kind, job))
