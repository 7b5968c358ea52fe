"""In a whole Airflow: trainings and a gate that are written to an MLflow server, and the retry policy."""

from __future__ import annotations

import pytest

from airflow_provider_osai.operators.retry_policy import HAS_RETRY_POLICIES
from tests.mlflow_server import QUIET, mlflow_server
from tests.waiting import until

pytestmark = pytest.mark.e2e
WITH_POLICY = pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="retry policies need Airflow 3.3")
DAG = """
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.retry_policy import osai_retry_policy
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

POLICY = osai_retry_policy(lost=timedelta(seconds=1), busy=timedelta(seconds=1))
WAIT = {"deferrable": True, "poll_interval": 1}

with DAG("tracked", schedule=None, params={"images": Param("none", type="string")}, default_args=WAIT):
    data = OsaiCreateDatasetOperator(task_id="data", name="tracked")
    upload = OsaiUploadImagesOperator(
        task_id="upload", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    train = OsaiTrainModelOperator(
        task_id="train",
        dataset_ids=upload.output["dataset_id"],
        model_name="tracked",
        parameters={"epochs": 3},
        data_digest=upload.output["data_digest"],
        track_to="mlflow",
        mlflow_model="tracked",
    )
    OsaiModelGateOperator(
        task_id="gate", candidate=train.output, champion=osai_model("tracked"), threshold=0.0, track_to="mlflow"
    )

# Without the policy, a retry would follow an hour later.
RETRIES = {"retries": 2, "retry_delay": timedelta(hours=1), "unreachable_timeout": 2, "retry_policy": POLICY}
with DAG("retried", schedule=None, default_args=WAIT | RETRIES):
    dataset = OsaiCreateDatasetOperator(task_id="dataset", name="retried", if_exists="reuse")
    OsaiTrainModelOperator(task_id="train", dataset_ids=dataset.output["dataset_id"], model_name="m")
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(scope="module")
def airflow(start_airflow, mlflow):
    environment = {**QUIET, "MLFLOW_TRACKING_URI": mlflow, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    return start_airflow({"dags.py": DAG}, wait_for="retried", environment=environment, grace=3)


@pytest.fixture
def jobs(osai):
    """Return the jobs that were submitted since the test began."""
    before = len(osai.control.record()["jobs"])
    return lambda: osai.control.record()["jobs"][before:]


@pytest.fixture
def tries(airflow):
    """Return the number of tries of a run's training."""
    return lambda run_id: next(
        task["try_number"] for task in airflow.task_instances("retried", run_id) if task["task_id"] == "train"
    )


def test_a_deferred_training_and_the_promotion_are_in_mlflow(airflow, mlflow, images):
    from mlflow import MlflowClient

    run_id = airflow.trigger("tracked", {"images": str(images)})
    assert airflow.wait("tracked", run_id) == "success", airflow.failures("tracked", run_id)
    trained = airflow.xcom("tracked", run_id, "train")
    client = MlflowClient(mlflow)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert (run.info.status, run.data.tags["osai.job_id"]) == ("FINISHED", trained["job_id"])
    assert run.data.params["epochs"] == "3"
    assert run.data.metrics["accuracy"] == pytest.approx(trained["metrics"]["accuracy"])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "epoch/loss")] == [1, 2, 3]
    assert client.get_model_version_by_alias("tracked", "champion").run_id == run.info.run_id


@WITH_POLICY
def test_a_lost_job_is_retried_soon_by_a_try_that_reconnects_to_it(airflow, osai, jobs, tries):
    osai.control.script("training", "reads", reads=10**9)
    run_id = airflow.trigger("retried")
    until(lambda: len(jobs()) == 1)
    osai.control.fault("status", "training.*", status=503, times=10**9)
    try:
        until(lambda: tries(run_id) > 1)
    finally:
        osai.control.clear_faults()
    (job,) = jobs()
    osai.control.end(job["id"])
    assert airflow.wait("retried", run_id) == "success", airflow.failures("retried", run_id)
    assert [each["id"] for each in jobs()] == [job["id"]]


@WITH_POLICY
def test_a_submission_without_room_is_retried_later(airflow, osai, jobs, tries):
    osai.control.script("training", "immediate")
    osai.control.fault("status", "training.submit", status=429, times=10**9)
    run_id = airflow.trigger("retried")
    try:
        until(lambda: tries(run_id) > 1)
    finally:
        osai.control.clear_faults()
    assert airflow.wait("retried", run_id) == "success", airflow.failures("retried", run_id)
    assert len(jobs()) == 1


@pytest.mark.parametrize("outcome", [{"end": "failed", "invalid_data": True}, {"end": "cancelled"}], ids=str)
@WITH_POLICY
def test_what_a_retry_cannot_change_is_not_retried(airflow, osai, jobs, tries, outcome):
    osai.control.script("training", "reads", reads=2, **outcome)
    run_id = airflow.trigger("retried")
    assert airflow.wait("retried", run_id) == "failed"
    assert tries(run_id) == 1
    assert [job["state"] for job in jobs()] == [outcome["end"]]
