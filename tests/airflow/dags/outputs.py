"""Dags whose tasks refer to results in each way that Airflow has."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

TRAINING = {"dataset_ids": ["{{ params.dataset_id }}"], "model_name": "m", "poll_interval": 0.2}

for name, options in {
    "deferrable": {"deferrable": True},
    "blocking": {"deferrable": False},
    "all": {"deferrable": True, "multiple_outputs": True},
    "none": {"deferrable": True, "multiple_outputs": False},
    "no_xcom": {"deferrable": True, "do_xcom_push": False},
}.items():
    with DAG(f"outputs_{name}", schedule=None, params={"dataset_id": "1"}):
        train = OsaiTrainModelOperator(task_id="train", **TRAINING, **options)

        @task
        def reads(model_id, more):
            return model_id

        reads(train.output["model_id"], {"nested": [train.output["metrics"]]})
        BashOperator(task_id="template", bash_command="echo {{ ti.xcom_pull('train', key='state') }}")

with DAG("outputs_mapped", schedule=None, params={"dataset_id": "1"}):
    arguments = {name: value for name, value in TRAINING.items() if name != "model_name"}
    train = OsaiTrainModelOperator.partial(task_id="train", deferrable=True, **arguments).expand(model_name=["a", "b"])

    @task
    def all_models(model_ids):
        return list(model_ids)

    all_models(train.output["model_id"])
    BashOperator.partial(task_id="template").expand(bash_command=["echo {{ ti.xcom_pull('train', key='kind') }}"])

with DAG("outputs_failed", schedule=None, params={"dataset_id": "1"}):
    train = OsaiTrainModelOperator(task_id="train", deferrable=True, **TRAINING)

    @task(trigger_rule="all_done")
    def after(job_id):
        return job_id

    after(train.output["job_id"])

with DAG("outputs_others", schedule=None, params={"dataset_id": "1"}):
    create = OsaiCreateDatasetOperator(task_id="create", name="outputs")
    train = OsaiTrainModelOperator(task_id="train", wait_for_completion=False, **TRAINING)
    sensor = OsaiJobSensor(task_id="sensor", kind="training", job_id=train.output["job_id"], poke_interval=0.2)

    @task
    def several(dataset_id, model_id):
        return [dataset_id, model_id]

    several(create.output["dataset_id"], sensor.output["model_id"])
