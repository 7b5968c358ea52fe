"""Candidates in parallel: one training per framework and set of parameters; the gate compares the best one."""

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_candidates",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "deferrable": True, "poll_interval": 10, "execution_timeout": timedelta(hours=2)},
    params={"images": Param("images", type="string", description="Folder on the worker; sub-folders are categories")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="candidates {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    train = OsaiTrainModelOperator.partial(
        task_id="train_model",
        dataset_ids=upload.output["dataset_id"],
        data_digest=upload.output["data_digest"],
        model_name="candidate",
    ).expand(
        framework=["pytorch", "tensorflow"],
        parameters=[{"epochs": 2}, {"epochs": 20}, {"epochs": 20, "learning_rate": 0.001}],
    )
    # If a candidate fails, the others are still compared. The digest shows that all were trained on the same data.
    OsaiModelGateOperator(
        task_id="gate",
        candidate=train.output,
        champion=osai_model("candidates"),
        threshold=0.8,
        guardrail_metrics={"f1": 0.02},
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
    )
