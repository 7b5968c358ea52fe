"""A batch, an operator that version 0.1.0 does not have."""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.batch import OsaiJobBatchOperator

with DAG(
    "batch",
    schedule=None,
    params={"dataset": Param("", type="string")},
    default_args={"retries": 5, "retry_delay": timedelta(seconds=5)},
):
    OsaiJobBatchOperator(
        task_id="train",
        kind="training",
        argument="model_name",
        requests=[f"model-{number}" for number in range(5)],
        arguments={"dataset_ids": ["{{ params.dataset }}"]},
        deferrable=True,
        poll_interval=1,
    )
