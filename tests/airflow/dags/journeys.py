"""Dags that the tests run: the same journey in each mode, mapped, and waited for by a sensor."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

QUICK = {"poll_interval": 0.2, "poke_interval": 0.2}


def filled_dataset() -> OsaiUploadImagesOperator:
    dataset = OsaiCreateDatasetOperator(task_id="create", name="{{ params.dataset }}")
    return OsaiUploadImagesOperator(
        task_id="upload", dataset_id=dataset.output["dataset_id"], source="{{ params.images }}"
    )


PARAMS = {"images": "images", "dataset": "digits", "epochs": 3}

for name, options in {
    "deferrable": {"deferrable": True},
    "blocking": {"deferrable": False},
    "submit_only": {"deferrable": True, "wait_for_completion": False},
}.items():
    with DAG(f"journey_{name}", schedule=None, params=PARAMS, default_args=QUICK | options):
        train = OsaiTrainModelOperator(
            task_id="train",
            dataset_ids=[filled_dataset().output["dataset_id"]],
            model_name="m-{{ ti.map_index + 1 }}",
            parameters={"epochs": "{{ params.epochs }}"},
        )

with DAG("journey_mapped", schedule=None, params=PARAMS, default_args=QUICK | {"deferrable": True}):
    upload = filled_dataset()
    train = OsaiTrainModelOperator.partial(task_id="train", dataset_ids=[upload.output["dataset_id"]]).expand_kwargs(
        [{"model_name": f"m-{epochs}", "parameters": {"epochs": epochs}} for epochs in (2, 3)]
    )
    convert = OsaiConvertModelOperator.partial(task_id="convert", target="onnx").expand(
        model_id=train.output.map(lambda job: job["model_id"])
    )

    @task
    def predictions(model_ids, dataset_id):
        return [{"model_id": m, "dataset_id": dataset_id, "mode": "replace"} for m in model_ids]

    predict = OsaiPredictOperator.partial(task_id="predict").expand_kwargs(
        predictions(train.output["model_id"], upload.output["dataset_id"])
    )
    convert >> predict

for name, options in {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}.items():
    with DAG(f"sensor_{name}", schedule=None, params={"job_id": "x", "kind": "training"}, default_args=QUICK | options):
        OsaiJobSensor(task_id="wait", kind="{{ params.kind }}", job_id="{{ params.job_id }}", timeout=60)
