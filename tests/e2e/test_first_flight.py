"""The example retrains in a whole Airflow: scheduler, Dag processor, triggerer and API server."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.conftest import CANARY, ROOT, SECRET

DAG = "example_osai_retraining"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def airflow(start_airflow, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    lineage = {"type": "file", "log_file_path": str(home / "lineage.jsonl"), "append": True}
    environment = {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(lineage)}
    return start_airflow(ROOT / "example_dags", home=home, environment=environment)


@pytest.fixture(scope="module")
def run_id(airflow, images):
    airflow.wait_for_dag(DAG)
    run_id = airflow.trigger(DAG, {"images": str(images)})
    assert airflow.wait(DAG, run_id) == "success", airflow.failures(DAG, run_id)
    return run_id


def test_the_run_uploads_trains_converts_and_predicts(airflow, run_id):
    """Each step hands its references on."""
    values = {
        task: airflow.xcom(DAG, run_id, task) for task in ("upload_images", "train_model", "convert_model", "predict")
    }
    assert values["upload_images"]["images"] == 60
    assert values["train_model"]["metrics"]["accuracy"] >= 0.8
    assert values["convert_model"]["conversion_id"]
    assert values["predict"]["metrics"]["images"] == 60


def test_the_wait_was_in_the_triggerer(airflow, run_id):
    """No worker was held while OSAI trained."""
    assert "Pausing task as DEFERRED" in airflow.task_log(DAG, run_id, "train_model")


def test_the_task_links_to_the_job_in_the_portal(airflow, run_id, osai):
    """From Airflow's page of the task, by Airflow's own API."""
    links = airflow._get(f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/train_model/links")
    job_id = airflow.xcom(DAG, run_id, "train_model")["job_id"]
    assert links["extra_links"]["OSAI portal"] == f"{osai.portal_url}/trainings/{job_id}"


def test_exactly_one_job_was_done_for_each_task(osai, run_id):
    """By OSAI's own record."""
    jobs = [(job["kind"], job["state"]) for job in osai.control.record()["jobs"]]
    assert sorted(jobs) == [(kind, "succeeded") for kind in ("conversion", "prediction", "training")]


def test_the_connection_form_has_our_fields(airflow):
    """What the page *Admin > Connections* is drawn from."""
    (meta,) = [m for m in airflow._http.get("/ui/connections/hook_meta").json() if m["connection_type"] == "osai"]
    assert meta["extra_fields"]["region"]["schema"]["enum"] == ["eu", "us"]
    assert meta["extra_fields"]["webhook_secret"]["schema"]["format"] == "password"
    assert meta["standard_fields"]["password"]["title"] == "Access token"
    assert meta["standard_fields"]["host"]["hidden"]


@pytest.mark.parametrize(("token", "ok"), [(CANARY, True), ("wrong", False)])
def test_the_button_that_tests_a_connection_works(airflow, osai, token, ok):
    """In the API server, which has the connection from the form and not from the database."""
    form = {
        "connection_id": "osai_new",
        "conn_type": "osai",
        "password": token,
        "extra": f'{{"base_url": "{osai.base_url}"}}',
    }
    answer = airflow._send("POST", "/api/v2/connections/test", form)
    assert (answer["status"], CANARY in answer["message"]) == (ok, False)
    assert ("Signed in" if ok else "rejected the access token") in answer["message"]


def test_what_was_read_and_made_is_told_as_lineage(airflow, osai, run_id):
    """Each event fits OpenLineage's schema; the chain goes from the images to the converted model."""
    schema = json.loads((ROOT / "tests/lineage/openlineage-2-0-2.json").read_text())
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    events = [json.loads(line) for line in (airflow.home / "lineage.jsonl").read_text().splitlines()]
    for event in events:
        validator.validate(event)
    done = {event["job"]["name"].partition(".")[2]: event for event in events if event["eventType"] == "COMPLETE"}
    trained, data = airflow.xcom(DAG, run_id, "train_model"), airflow.xcom(DAG, run_id, "create_dataset")["dataset_id"]
    converted = airflow.xcom(DAG, run_id, "convert_model")
    told = {
        task: ([one["name"] for one in done[task]["inputs"]], [one["name"] for one in done[task]["outputs"]])
        for task in ("train_model", "convert_model", "predict")
    }
    model = f"models/{trained['model_id']}"
    assert told == {
        "train_model": ([f"datasets/{data}"], [model]),
        "convert_model": ([model], [f"conversions/{converted['conversion_id']}"]),
        "predict": ([model, f"datasets/{data}"], [f"datasets/{data}"]),
    }
    (output,) = done["train_model"]["outputs"]
    assert output["namespace"] == f"osai://{osai.base_url.split('/')[2]}"
    assert output["facets"]["osai_metrics"]["metrics"] == trained["metrics"]
    assert done["train_model"]["run"]["facets"]["osai_job"]["job_id"] == trained["job_id"]
    assert not SECRET.search(json.dumps(events))


def test_no_secret_is_in_any_log(airflow, run_id):
    """Neither the access token nor a JWT of OSAI, in any file that Airflow wrote."""
    logs = list(airflow.all_logs())
    assert len(logs) > 10
    osais = [path for path in logs if "OSAI" in path.read_text(errors="replace")]
    assert osais, "the logs that were looked at must be those of the run"
    assert not [path.name for path in logs if SECRET.search(path.read_text(errors="replace"))]
