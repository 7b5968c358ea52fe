"""Dags whose tasks are mapped, as somebody would write them by the documentation."""

from __future__ import annotations

from airflow.sdk import DAG, TriggerRule, task, task_group

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.device import OsaiReleaseDeviceOperator, OsaiRentDeviceOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

QUICK = {"poll_interval": 0.2, "deferrable": True}
PARAMS = {"images": "images", "holdout": "none", "candidates": []}


@task
def candidates(params):
    """Return what trainings would."""
    return params["candidates"]


@task
def reached():
    """Follow a gate."""


with DAG("mapped_training", schedule=None, params=PARAMS, default_args=QUICK):
    trained = osai_model("mapped-candidates")
    create = OsaiCreateDatasetOperator.partial(task_id="create", categories=["0", "1", "2"]).expand(
        name=["mapped one", "mapped two"]
    )
    upload = OsaiUploadImagesOperator.partial(
        task_id="upload", source="{{ params.images }}", skip_if_trained_on=trained
    ).expand(dataset_id=create.output.map(lambda dataset: dataset["dataset_id"]))
    train = OsaiTrainModelOperator.partial(task_id="train", model_name="digits", outlets=[trained]).expand_kwargs(
        upload.output.map(lambda told: {"dataset_ids": told["dataset_id"], "data_digest": told["data_digest"]})
    )
    OsaiConvertModelOperator.partial(task_id="convert", target="onnx").expand(
        model_id=train.output.map(lambda job: job["model_id"])
    )

with DAG("mapped_gate", schedule=None, params=PARAMS, default_args=QUICK):
    OsaiModelGateOperator.partial(task_id="gate", champion=osai_model("mapped-champion")).expand(candidate=candidates())

with DAG("mapped_holdout", schedule=None, params=PARAMS, default_args=QUICK):
    OsaiModelGateOperator.partial(
        task_id="gate",
        champion=osai_model("mapped-holdout"),
        evaluation_dataset_id="{{ params.holdout }}",
    ).expand(candidate=candidates())

with DAG("mapped_missing", schedule=None, params=PARAMS | {"missing": "fail"}, default_args=QUICK):
    OsaiModelGateOperator.partial(
        task_id="gate",
        champion=osai_model("mapped-missing"),
        evaluation_dataset_id="{{ params.holdout }}",
        if_champion_missing="{{ params.missing }}",
        deferrable=True,
    ).expand(candidate=candidates())

with DAG("mapped_group", schedule=None, params=PARAMS, default_args=QUICK):

    @task_group
    def judged(candidate):
        """Judge one candidate, and follow its gate."""
        gate = OsaiModelGateOperator(task_id="gate", candidate=candidate, champion=osai_model("mapped-group"))
        gate >> reached.override(task_id="promoted")()

    judged.expand(candidate=candidates())

with DAG("mapped_rent", schedule=None, default_args=QUICK):
    rent = OsaiRentDeviceOperator.partial(task_id="rent", duration=3600).expand(device=["jetson", "coral"])

    @task
    def use(device):
        """Return the device's id."""
        return device["device_id"]

    release = OsaiReleaseDeviceOperator.partial(task_id="release", trigger_rule=TriggerRule.ALL_DONE).expand_kwargs(
        rent.output.map(lambda device: {"job_id": device["job_id"], "reference": device["reference"]})
    )
    use.expand(device=rent.output) >> release

with DAG("mapped_rent_released_at_once", schedule=None, default_args=QUICK):
    rent = OsaiRentDeviceOperator.partial(task_id="rent", duration=3600).expand(device=["jetson", "coral"])
    OsaiReleaseDeviceOperator(task_id="release", job_id=rent.output["job_id"])

with DAG("mapped_late", schedule=None, params=PARAMS, default_args=QUICK | {"retries": 2}):

    @task
    def assets():
        """Return an asset for each upload and gate, which is too late."""
        return [{"skip_if_trained_on": osai_model("late")}]

    @task
    def champions():
        """Return a champion for each gate, which is too late."""
        return [{"champion": osai_model("late"), "candidate": "1"}]

    @task
    def branches():
        """Return tasks to follow, which is too late."""
        return [{"rejected_task_ids": "follows", "candidate": "1"}]

    OsaiUploadImagesOperator.partial(task_id="upload", dataset_id="1", source="{{ params.images }}").expand_kwargs(
        assets()
    )
    OsaiModelGateOperator.partial(task_id="gate").expand_kwargs(champions())
    branch = OsaiModelGateOperator.partial(task_id="branch", champion=osai_model("late")).expand_kwargs(branches())
    branch >> reached.override(task_id="follows")()

    @task_group
    def group(candidate):
        """Branch in a mapped task group, which Airflow 3.2 and 3.3 do not."""
        gate = OsaiModelGateOperator(
            task_id="gate", candidate=candidate, champion=osai_model("late"), rejected_task_ids="group.follows"
        )
        gate >> reached.override(task_id="follows")()

    group.expand(candidate=["1"])
