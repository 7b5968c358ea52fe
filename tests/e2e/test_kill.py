"""What a user does to a deferred task in a whole Airflow, and what becomes of its job."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import AIRFLOW, CANARY, SECRET, settings_for
from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("forever", schedule=None, params={"dataset": "none"}):
    OsaiTrainModelOperator(
        task_id="train", dataset_ids="{{ params.dataset }}", model_name="m", deferrable=True, poll_interval=1
    )
"""


@pytest.fixture(scope="module")
def airflow(osai, start_airflow):
    osai.control.script("training", "reads", reads=10**9)
    return start_airflow({"forever.py": DAG}, wait_for="forever", grace=3)


@pytest.fixture
def job(airflow, osai):
    """A run whose task is deferred on a job that does not end; the run's id, and a look at its jobs."""
    with OsaiClient(settings_for(osai.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d")).id
    before = {job["id"] for job in osai.control.record()["jobs"]}
    run_id = airflow.trigger("forever", {"dataset": dataset})

    def jobs() -> list[str]:
        return [job["state"] for job in osai.control.record()["jobs"] if job["id"] not in before]

    until(lambda: airflow.task_instances("forever", run_id)[0]["state"], "deferred")
    until(jobs, ["running"])  # the trigger has looked at it
    return run_id, jobs


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_deferred_task_that_is_marked_takes_its_job_with_it(airflow, job, state):
    """Nobody waits for it any more, so it must not bill."""
    run_id, jobs = job
    airflow.set_task_state("forever", run_id, "train", state)
    until(jobs, ["cancelled"])


def test_a_deferred_task_that_is_cleared_gets_a_new_job_and_the_old_one_is_cancelled(airflow, job):
    """One job bills, not two."""
    run_id, jobs = job
    airflow.clear("forever", run_id)
    until(jobs, ["cancelled", "running"])


def test_an_airflow_that_stops_and_starts_again_goes_on_with_the_same_job(tmp_path):
    """A deploy is not a kill: the job lives meanwhile, and the task ends with its result."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "forever.py").write_text(DAG)
    with Sandbox(access_token=CANARY) as osai:
        osai.control.script("training", "reads", reads=10**9)
        connection = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": osai.base_url}}
        with OsaiClient(settings_for(osai.base_url)) as client:
            dataset = client.send(client.calls.create_dataset("d")).id
        options = {"home": tmp_path / "home", "connections": {"osai_default": connection}, "executable": AIRFLOW}
        with WholeAirflow(dags, **options, grace=3) as airflow:
            airflow.wait_for_dag("forever")
            run_id = airflow.trigger("forever", {"dataset": dataset})
            until(lambda: airflow.task_instances("forever", run_id)[0]["state"], "deferred")
            until(lambda: [job["state"] for job in osai.control.record()["jobs"]], ["running"])
        (job,) = osai.control.record()["jobs"]
        assert job["state"] == "running"
        with WholeAirflow(dags, **options, grace=3) as airflow:
            osai.control.end(job["id"])
            assert airflow.wait("forever", run_id) == "success", airflow.failures("forever", run_id)
            result = airflow.xcom("forever", run_id, "train")
        assert [(job["id"], job["state"]) for job in osai.control.record()["jobs"]] == [(result["job_id"], "succeeded")]
    texts = [path.read_text(errors="replace") for path in airflow.all_logs()]
    assert not any(SECRET.search(text) for text in texts)
