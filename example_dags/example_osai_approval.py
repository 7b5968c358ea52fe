"""Human approval: a person reviews the metrics of a candidate before the gate may promote it."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_approval",
    schedule=None,
    catchup=False,
    default_args={"retries": 2},
    params={"images": Param("images", type="string", description="Folder on the worker; sub-folders are categories")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="approved {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    train = OsaiTrainModelOperator(
        task_id="train_model",
        dataset_ids=upload.output["dataset_id"],
        data_digest=upload.output["data_digest"],
        model_name="approved",
        deferrable=True,
        poll_interval=10,
        execution_timeout=timedelta(hours=2),
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote model {{ ti.xcom_pull(task_ids='train_model', key='model_id') }}?",
        body="Trained on {{ ti.xcom_pull(task_ids='upload_images', key='images') }} images: "
        "{{ ti.xcom_pull(task_ids='train_model', key='metrics') }}",
        response_timeout=timedelta(days=3),
    )
    gate = OsaiModelGateOperator(
        task_id="gate",
        candidate=train.output,
        champion=osai_model("approved"),
        threshold=0.8,
        allow_different_data=True,
    )
    train >> approve >> gate
