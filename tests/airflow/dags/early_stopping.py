"""Dags whose trainings are stopped by ``stop_when``, as somebody would write them by the documentation."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_osai.operators.training import OsaiRetrainModelOperator, OsaiTrainModelOperator

QUICK = {"poll_interval": 0.1, "dataset_ids": "{{ params.dataset }}"}

for name, deferrable in {"deferrable": True, "blocking": False}.items():
    with DAG(
        f"early_stopping_{name}",
        schedule=None,
        params={"dataset": "none", "patience": 3},
        default_args=QUICK | {"deferrable": deferrable},
    ):
        OsaiTrainModelOperator(
            task_id="train", model_name="m", stop_when={"nan_loss": True, "patience": "{{ params.patience }}"}
        )

with DAG("early_stopping_mapped", schedule=None, params={"dataset": "none"}, default_args=QUICK | {"deferrable": True}):
    OsaiTrainModelOperator.partial(task_id="train", model_name="m").expand(
        stop_when=[{"patience": 2}, {"patience": "{{ 2 + 1 }}", "monitor": "loss"}, None]
    )
    OsaiRetrainModelOperator.partial(
        task_id="retrain", model_id="no-such", model_name="m", stop_when={"nan_loss": True}
    ).expand(data_digest=["a"])
