"""Dags that leave jobs behind, and one that cancels those of two connections."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("orphans_left", schedule=None, params={"dataset": "1"}):
    OsaiTrainModelOperator.partial(
        task_id="train", wait_for_completion=False, dataset_ids="{{ params.dataset }}"
    ).expand(model_name=["one", "two"])

with DAG("orphans_mapped", schedule=None):
    OsaiCancelOrphanedJobsOperator.partial(task_id="cancel", action="cancel", grace=0).expand(
        osai_conn_id=["osai_default", "osai_staging"]
    )
