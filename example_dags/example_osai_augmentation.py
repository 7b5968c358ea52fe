"""Augmentation: augment a small dataset, train on both datasets, and delete the augmented one in a teardown."""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.dataset import (
    BrightnessContrast,
    OsaiCreateDatasetOperator,
    OsaiDeleteDatasetOperator,
    OsaiManipulateDatasetOperator,
    OsaiUploadImagesOperator,
    Rotation,
)
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_augmentation",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=2)},
    params={"images": Param("images", type="string", description="Folder on the worker; sub-folders are categories")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    jobs = {"deferrable": True, "poll_interval": 10}
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="few images")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    vary = OsaiManipulateDatasetOperator(
        task_id="vary",
        dataset_id=upload.output["dataset_id"],
        name="few images, varied {{ run_id }}",
        operations=[Rotation(angle=10, generate=2), BrightnessContrast(contrast=1.1, brightness=15)],
        **jobs,
    )
    train = OsaiTrainModelOperator(
        task_id="train_model",
        dataset_ids=[upload.output["dataset_id"], vary.output["dataset_id"]],
        model_name="augmented",
        **jobs,
    )
    delete = OsaiDeleteDatasetOperator(task_id="delete_varied", dataset_id=vary.output["dataset_id"])
    train >> delete.as_teardown(setups=vary)
