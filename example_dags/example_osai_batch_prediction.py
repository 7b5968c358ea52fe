"""Batch prediction: the champion labels a folder of images, and a teardown deletes the temporary dataset."""

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_osai.assets import champion_model_id, osai_model
from airflow_provider_osai.operators.dataset import (
    OsaiCreateDatasetOperator,
    OsaiDeleteDatasetOperator,
    OsaiUploadImagesOperator,
)
from airflow_provider_osai.operators.prediction import OsaiPredictOperator

champion = osai_model("digits")

with DAG(
    "example_osai_batch_prediction",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=2)},
    params={"images": Param("images", type="string", description="Folder on the worker")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:

    @task(inlets=[champion])
    def model() -> str:
        """Return the id of the current champion."""
        return champion_model_id(champion)

    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="batch {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images",
        dataset_id=data.output["dataset_id"],
        source="{{ params.images }}",
        min_images_per_category=0,
        on_invalid_file="skip",
    )
    predict = OsaiPredictOperator(
        task_id="predict",
        model_id=model(),
        dataset_id=upload.output["dataset_id"],
        min_confidence=0.7,
        deferrable=True,
        poll_interval=10,
    )
    delete = OsaiDeleteDatasetOperator(task_id="delete_dataset", dataset_id=data.output["dataset_id"])
    predict >> delete.as_teardown(setups=data)
