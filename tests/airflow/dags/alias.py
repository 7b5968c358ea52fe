"""A Dag whose tasks tell Airflow at run time which model and which datasets they have made."""

from __future__ import annotations

from airflow.sdk import DAG, AssetAlias

from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("alias", schedule=None, params={"images": "images"}, default_args={"poll_interval": 0.1}):
    data = OsaiCreateDatasetOperator(task_id="data", name="aliases")
    upload = OsaiUploadImagesOperator(
        task_id="upload",
        dataset_id=data.output["dataset_id"],
        source="{{ params.images }}",
        outlets=[AssetAlias("uploaded datasets")],
    )
    train = OsaiTrainModelOperator(
        task_id="train",
        dataset_ids=upload.output["dataset_id"],
        model_name="aliases",
        outlets=[AssetAlias("trained models")],
    )
    OsaiConvertModelOperator(
        task_id="convert",
        model_id=train.output["model_id"],
        target="onnx",
        outlets=[AssetAlias("converted models")],
    )
