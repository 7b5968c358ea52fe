"""Weekly retraining with a gate: train if there is new data, and promote the model only if it is better."""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

champion, trained = osai_model("digits"), osai_model("digits-candidate")

with DAG(
    "example_osai_weekly",
    schedule="@weekly",
    catchup=False,
    default_args={"retries": 2, "deferrable": True, "poll_interval": 10, "execution_timeout": timedelta(hours=2)},
    params={name: Param(name, type="string", description="Folder of categories") for name in ("images", "holdout")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    holdout = OsaiCreateDatasetOperator(task_id="create_holdout", name="digits to compare on")
    compare_on = OsaiUploadImagesOperator(
        task_id="upload_holdout", dataset_id=holdout.output["dataset_id"], source="{{ params.holdout }}"
    )
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="digits {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images",
        dataset_id=data.output["dataset_id"],
        source="{{ params.images }}",
        skip_if_trained_on=trained,
    )
    train = OsaiTrainModelOperator(
        task_id="train_model", dataset_ids=upload.output["dataset_id"], model_name="digits",
        data_digest=upload.output["data_digest"], outlets=[trained],
    )  # fmt: skip
    gate = OsaiModelGateOperator(
        task_id="gate", candidate=train.output, champion=champion, threshold=0.8,
        evaluation_dataset_id=compare_on.output["dataset_id"],
    )  # fmt: skip
    OsaiConvertModelOperator(task_id="convert_model", model_id=gate.output["model_id"], target="onnx")
