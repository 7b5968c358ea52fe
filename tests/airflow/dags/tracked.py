"""Trainings and a gate that are written to MLflow."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiRetrainModelOperator, OsaiTrainModelOperator

PARAMS = {"images": Param("images", type="string"), "digest": "d1"}


def data():
    made = OsaiCreateDatasetOperator(task_id="data", name="tracked {{ run_id }}")
    return OsaiUploadImagesOperator(
        task_id="upload", dataset_id=made.output["dataset_id"], source="{{ params.images }}"
    )


for deferrable in (False, True):
    with DAG(f"tracked_{'deferred' if deferrable else 'on_a_worker'}", schedule=None, params=PARAMS):
        upload = data()
        train = OsaiTrainModelOperator(
            task_id="train",
            dataset_ids=upload.output["dataset_id"],
            model_name="tracked",
            parameters={"epochs": 3},
            data_digest=upload.output["data_digest"],
            deferrable=deferrable,
            poll_interval=0.2,
            track_to="mlflow",
            mlflow_model="tracked",
        )
        retrain = OsaiRetrainModelOperator(
            task_id="retrain",
            model_id=train.output["model_id"],
            dataset_ids=upload.output["dataset_id"],
            model_name="tracked-again",
            deferrable=deferrable,
            poll_interval=0.2,
            track_to="mlflow",
            mlflow_experiment="experiment of {{ dag.dag_id }}",
        )
        OsaiModelGateOperator(
            task_id="gate",
            candidate=train.output,
            champion=osai_model("tracked"),
            threshold=0.0,
            track_to="mlflow",
        )

with DAG("tracked_mapped", schedule=None, params=PARAMS):
    OsaiTrainModelOperator.partial(
        task_id="train", dataset_ids=data().output["dataset_id"], track_to="mlflow", poll_interval=0.2
    ).expand(model_name=["a", "b"])

with DAG("tracked_gate", schedule=None, params={"threshold": 0.0}, render_template_as_native_obj=True):
    OsaiModelGateOperator(
        task_id="gate",
        candidate={"model_id": "b", "metrics": {"accuracy": 0.9}},
        champion=osai_model("a-model"),
        threshold="{{ params.threshold }}",
        track_to="mlflow",
    )
