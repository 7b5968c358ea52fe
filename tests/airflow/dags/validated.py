"""Uploads whose images are checked before, mapped over folders, as somebody would write it by the documentation."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator

with DAG("validated", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=0.1)}):
    data = OsaiCreateDatasetOperator(task_id="data", name="{{ run_id }}")

    @task
    def folders(dag_run=None):
        return dag_run.conf["folders"]

    upload = OsaiUploadImagesOperator.partial(
        task_id="upload",
        dataset_id=data.output["dataset_id"],
        validate="{{ dag_run.conf['validate'] }}",
        validate_options={"ignore": ["{{ dag_run.conf['ignore'] }}"]},
    ).expand(source=folders())

    @task(trigger_rule="all_done")
    def report(ti=None):
        return [ti.xcom_pull(task_ids="upload", key="quality", map_indexes=index) for index in (0, 1)]

    upload >> report()
