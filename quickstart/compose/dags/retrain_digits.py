"""A first Dag: upload the sample images of the quick start, train a model on them, and convert it to ONNX."""

from airflow.sdk import DAG

from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("retrain_digits", schedule=None, catchup=False, default_args={"retries": 2, "deferrable": True}):
    dataset = OsaiCreateDatasetOperator(task_id="dataset", name="digits")
    upload = OsaiUploadImagesOperator(
        task_id="upload", dataset_id=dataset.output["dataset_id"], source="/opt/airflow/samples"
    )
    train = OsaiTrainModelOperator(task_id="train", dataset_ids=upload.output["dataset_id"], model_name="digits")
    OsaiConvertModelOperator(task_id="convert", model_id=train.output["model_id"], target="onnx")
