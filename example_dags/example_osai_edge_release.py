"""Edge release: when a model is promoted, convert it, test it on a rented device, and release the model."""

from datetime import timedelta

from airflow.sdk import DAG, ObjectStoragePath, Param, task

from airflow_provider_osai.assets import champion_model_id, osai_model
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.operators.device import rented_device

champion = osai_model("digits")

with DAG(
    "example_osai_edge_release",
    schedule=[champion],
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=1)},
    params={"releases": Param("releases/", type="string", description="Folder on the worker or in object storage")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:

    @task(inlets=[champion])
    def model() -> str:
        """Return the id of the current champion."""
        return champion_model_id(champion)

    @task
    def test_on_device(path: str, device: dict) -> None:
        """Placeholder for your test on the device; checks only that the file is not empty."""
        if not ObjectStoragePath(path).stat().st_size:
            raise ValueError(f"nothing to test on {device['device_id']}")

    @task
    def release(model_id: str, path: str) -> str:
        """Placeholder for your rollout."""
        return f"{model_id} is released as {path}"

    convert = OsaiConvertModelOperator(task_id="convert_model", model_id=model(), target="onnx", deferrable=True)
    download = OsaiDownloadModelOperator(
        task_id="download", model_id=convert.output["model_id"], target="onnx", destination="{{ params.releases }}"
    )
    with rented_device("jetson-orin", duration=timedelta(minutes=30), deferrable=True) as device:
        tested = test_on_device(download.output["path"], device)
    tested >> release(convert.output["model_id"], download.output["path"])
