"""Edge release: whenever a model is promoted, convert it, test it on a rented device, and release it."""

from datetime import timedelta

from airflow.sdk import DAG, ObjectStoragePath, Param, task

from airflow_provider_osai.assets import osai_model, standing_model
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.operators.device import rented_device

champion = osai_model("digits")

with DAG(
    "example_osai_edge_release",
    schedule=[champion],
    catchup=False,
    max_active_runs=1,
    default_args={"execution_timeout": timedelta(hours=1)},
    params={"releases": Param("releases/", type="string", description="Folder on the worker, or in a storage")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:

    @task(inlets=[champion])
    def model() -> str:
        """Return the model that stands now."""
        return standing_model(champion)

    @task
    def test_on_device(path: str, device: dict) -> None:
        """Stands for what a team does on the device: here it only looks whether there is a file to test."""
        if not ObjectStoragePath(path).stat().st_size:
            raise ValueError(f"nothing to test on {device['device_id']}")

    @task
    def release(model_id: str, path: str) -> str:
        """Stands for what a team does to bring a model into the field."""
        return f"{model_id} is released as {path}"

    convert = OsaiConvertModelOperator(task_id="convert_model", model_id=model(), target="onnx", deferrable=True)
    download = OsaiDownloadModelOperator(
        task_id="download", model_id=convert.output["model_id"], target="onnx", destination="{{ params.releases }}"
    )
    with rented_device("jetson-orin", duration=timedelta(minutes=30), deferrable=True) as device:
        tested = test_on_device(download.output["path"], device)
    tested >> release(convert.output["model_id"], download.output["path"])
