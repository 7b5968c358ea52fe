"""Dags whose tasks are in flight during an upgrade. They have the argument names of version 0.1.0; see edits.py."""

import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.device import rented_device
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

TASKS = int(os.environ.get("OSAI_UPGRADE_TASKS", "20"))
SECOND = timedelta(seconds=1)
PARAMS = {"dataset": Param("", type="string"), "images": Param("", type="string")}
TRIES = {"retries": 3, "retry_delay": SECOND}
WAITS = {"poll_interval": 1, "max_unreachable": 900}
TRAINS = {"dataset_ids": "{{ params.dataset }}", **WAITS}
champion = osai_model("upgraded")

with DAG("deferred", schedule=None, params=PARAMS, default_args=TRIES, max_active_tasks=1000):
    names = [f"model-{number}" for number in range(TASKS)]
    OsaiTrainModelOperator.partial(task_id="train", deferrable=True, **TRAINS).expand(model_name=names)
    submitted = OsaiTrainModelOperator(task_id="submit", model_name="m", wait_for_completion=False, **TRAINS)
    OsaiJobSensor(
        task_id="wait",
        kind="training",
        job_id=submitted.output["job_id"],
        deferrable=True,
        poke_interval=1,
        max_unreachable=900,
    )

with DAG("retried", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(2):
        OsaiTrainModelOperator(task_id=f"train_{number}", model_name="m", deferrable=False, **TRAINS)

with DAG("marked", schedule=None, params=PARAMS, default_args=TRIES):
    OsaiTrainModelOperator(task_id="train", model_name="m", deferrable=True, **TRAINS)

with DAG("late", schedule=None, params=PARAMS):
    OsaiTrainModelOperator(task_id="train", model_name="m", deferrable=True, execution_timeout=180 * SECOND, **TRAINS)

# Before Airflow 3.3, OSAI unlocks the dataset of a killed upload only after some time.
with DAG("upload", schedule=None, params=PARAMS, default_args={**TRIES, "retries": 60}):
    OsaiUploadImagesOperator(
        task_id="upload",
        dataset_id="{{ params.dataset }}",
        source="{{ params.images }}",
        on_bad_file="fail",
    )

for dag_id in ("rented", "renting"):
    with (
        DAG(dag_id, schedule=None, params=PARAMS, default_args=TRIES),
        rented_device("jetson", duration=3600, deferrable=True, **WAITS) as device,
    ):
        OsaiTrainModelOperator(task_id="use", model_name="m", deferrable=True, **TRAINS)

with DAG("gated", schedule=None, params=PARAMS, default_args=TRIES):
    train = OsaiTrainModelOperator(task_id="train", model_name="m", deferrable=True, **TRAINS)
    OsaiModelGateOperator(task_id="gate", candidate=train.output, champion=champion, min_value=0.5, any_data=True)

with DAG("chained", schedule=None, params=PARAMS, default_args=TRIES):
    upload = OsaiUploadImagesOperator(
        task_id="upload", dataset_id="{{ params.dataset }}", source="{{ params.images }}", on_bad_file="fail"
    )
    first = OsaiTrainModelOperator(task_id="first", model_name="m", deferrable=True, **TRAINS)
    second = OsaiTrainModelOperator(
        task_id="second", model_name="m", deferrable=True, data_digest=upload.output["digest"], **TRAINS
    )
    upload >> first >> second
