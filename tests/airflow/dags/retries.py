"""A training with the retry policy, as somebody would write it by the documentation."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from urllib.parse import urljoin

import httpx
from airflow.sdk import DAG, task

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator
from airflow_provider_osai.operators.retry_policy import osai_retry_policy
from airflow_provider_osai.operators.training import OsaiTrainModelOperator


def recover(_context):
    """End the faults of the sandbox, which end the first try."""
    url = json.loads(os.environ["AIRFLOW_CONN_OSAI_DEFAULT"])["extra"]["base_url"]
    httpx.delete(urljoin(url, "/sandbox/faults")).raise_for_status()


POLICY = osai_retry_policy(lost=timedelta(seconds=0.1), busy=timedelta(seconds=0.2))

for name, deferrable in {"blocking": False, "deferrable": True}.items():
    with DAG(
        f"retries_{name}",
        schedule=None,
        default_args={
            "retries": 1,
            "retry_delay": timedelta(seconds=0.3),
            "retry_policy": POLICY,
            "on_retry_callback": recover,
        },
    ):
        data = OsaiCreateDatasetOperator(task_id="data", name="{{ run_id }}")
        OsaiTrainModelOperator(
            task_id="train",
            dataset_ids=data.output["dataset_id"],
            model_name="m",
            deferrable=deferrable,
            poll_interval=0.05,
            unreachable_timeout=0.5,
        )

with DAG("retries_mapped", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(seconds=0.3)}):
    OsaiTrainModelOperator.partial(
        task_id="train",
        dataset_ids=OsaiCreateDatasetOperator(task_id="data", name="{{ run_id }}").output["dataset_id"],
        **({} if POLICY is None else {"retry_policy": POLICY}),
    ).expand(model_name=["a", "b"])

with DAG("retries_taskflow", schedule=None, default_args={"retries": 1, "retry_policy": POLICY}):

    @task(retry_delay=timedelta(seconds=0.3))
    def read():
        """Read a dataset that is not there."""
        with OsaiHook().get_conn() as client:
            client.get_dataset("none")

    read()
