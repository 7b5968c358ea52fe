"""The Dags of the outsider matrix, and the second line."""

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_osai.operators import job
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

SECOND = timedelta(seconds=1)
PARAMS = {"dataset": "none"}
TRIES = {"retries": 4, "retry_delay": SECOND}
TASKS = 3
QUICK = 200
WOKEN = 40
DURABLE = "OSAI_CHAOS_FORGET" not in os.environ

job.GRACE = 5.0  # simulated: five minutes in earnest, and nobody here has the time


def train(name, **how):
    """Submit a training of the run's dataset."""
    model = name.replace("_", "-")
    asked = {"dataset_ids": "{{ params.dataset }}", "model_name": model, "poll_interval": 1, "durable": DURABLE}
    return OsaiTrainModelOperator(task_id=name, **asked, **how)


with DAG("blocking", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=False)

with DAG("deferred", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=True)

with DAG("alone", schedule=None, params=PARAMS):
    train("train_0", deferrable=True)

with DAG("late", schedule=None, params=PARAMS):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=True, execution_timeout=20 * SECOND)

with DAG("again", schedule=None, params=PARAMS, default_args={**TRIES, "retries": 1}):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=number > 0, execution_timeout=30 * SECOND)

with DAG("held", schedule=None, params=PARAMS, default_args=TRIES):
    for number in range(TASKS):
        train(f"train_{number}", deferrable=number > 0, osai_conn_id="osai_brief")

with DAG("quick", schedule=None, params=PARAMS):
    asked = {"dataset_ids": "{{ params.dataset }}", "poll_interval": 1, "durable": DURABLE, "deferrable": True}
    OsaiTrainModelOperator.partial(task_id="train", **asked).expand(model_name=[f"m{n}" for n in range(QUICK)])

with DAG("woken", schedule=None, params=PARAMS):
    woken = {**asked, "osai_conn_id": "osai_webhook", "use_webhook": True, "poll_interval": 30}
    OsaiTrainModelOperator.partial(task_id="train", **woken).expand(model_name=[f"m{n}" for n in range(WOKEN)])

try:
    from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator
except ImportError:  # a version of the package without a second line
    OsaiCancelOrphanedJobsOperator = None

with DAG("orphans", schedule=None):
    if OsaiCancelOrphanedJobsOperator is not None:
        OsaiCancelOrphanedJobsOperator(task_id="cancel", osai_conn_id="osai_default", action="cancel", grace=SECOND)
