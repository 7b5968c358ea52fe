"""Labelled images: upload an archive with COCO, YOLO or Pascal VOC annotations, and train a detection model."""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_upload",
    schedule=None,
    catchup=False,
    default_args={"retries": 2},
    params={"archive": Param("parts.zip", type="string", description="Zip or tar archive, local or in object storage")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="parts")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images",
        dataset_id=data.output["dataset_id"],
        source="{{ params.archive }}",
        on_invalid_file="skip",  # invalid files are logged and returned
        max_concurrency=16,
        retries=3,  # each retry resumes the upload
    )
    OsaiTrainModelOperator(
        task_id="train_model",
        dataset_ids=upload.output["dataset_id"],
        model_name="parts",
        model_type="detection",
        deferrable=True,
        execution_timeout=timedelta(hours=6),
    )
