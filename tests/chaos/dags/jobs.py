"""The Dags of the whole-Airflow matrix: four jobs each, submitted and waited for in every way there is."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_osai.operators import job
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

SECOND = timedelta(seconds=1)
PARAMS = {"dataset": "none"}
TRIES = {"retries": 3, "retry_delay": SECOND}
TASKS = 4
DURABLE = "OSAI_CHAOS_FORGET" not in os.environ

job.GRACE = 5.0  # simulated: five minutes in earnest, and nobody here has the time


def train(name, **how):
    """Submit a training of the run's dataset."""
    asked = {"dataset_ids": "{{ params.dataset }}", "model_name": "m", "poll_interval": 1, "durable": DURABLE}
    return OsaiTrainModelOperator(task_id=name, **asked, **how)


with DAG("deferred", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=True)

with DAG("blocking", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=False)

with DAG("late", schedule=None, params=PARAMS):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=True, execution_timeout=20 * SECOND)

with DAG("sensed", schedule=None, params=PARAMS, default_args=TRIES):
    ways = {"poke": {}, "reschedule": {"mode": "reschedule", "poke_interval": 6}, "deferred": {"deferrable": True}}
    for number, (way, how) in enumerate(ways.items()):
        submitted = train(f"train_{number}", wait_for_completion=False)
        OsaiJobSensor(
            task_id=f"wait_{way}", kind="training", job_id=submitted.output["job_id"], **{"poke_interval": 1, **how}
        )
