"""Retraining end to end: upload images, train a model, convert it for the edge, and predict with it.

Runs unchanged against the sandbox and OSAI; only the connection ``osai_default`` differs.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_retraining",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "deferrable": True, "poll_interval": 10, "execution_timeout": timedelta(hours=2)},
    params={"images": Param("images", type="string", description="Folder on the worker; sub-folders are categories")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    dataset = OsaiCreateDatasetOperator(task_id="create_dataset", name="digits")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=dataset.output["dataset_id"], source="{{ params.images }}"
    )
    train = OsaiTrainModelOperator(
        task_id="train_model", dataset_ids=upload.output["dataset_id"], model_name="digits", parameters={"epochs": 20}
    )
    convert = OsaiConvertModelOperator(task_id="convert_model", model_id=train.output["model_id"], target="onnx")
    predict = OsaiPredictOperator(
        task_id="predict", model_id=train.output["model_id"], dataset_id=dataset.output["dataset_id"]
    )
    convert >> predict
