"""The whole story of each style, by its contract document: what the world records counts, not what our client says."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiUnreachable,
)
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.operators.dataset import (
    BrightnessContrast,
    OsaiCreateDatasetOperator,
    OsaiDeleteDatasetOperator,
    OsaiManipulateDatasetOperator,
    OsaiUploadImagesOperator,
    Resize,
    Rotation,
)
from airflow_provider_osai.operators.device import OsaiReleaseDeviceOperator, OsaiRentDeviceOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiRetrainModelOperator, OsaiTrainModelOperator
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance
from tests.gallery.conftest import Crash, CrashingStateStore, CrashingTaskInstance, png
from tests.gallery.world import ORIGINAL

pytestmark = pytest.mark.slow
FOREVER = 10**6
BLOCKING = pytest.mark.parametrize("deferrable", [False], ids=["blocking"])
"""Marks a test that is the same in both modes."""


@pytest.fixture
def dataset(story, pictures):
    """The id of a dataset with six images."""
    dataset_id = story.run(OsaiCreateDatasetOperator, name="fruit", categories=["apple", "pear"])["dataset_id"]
    story.run(OsaiUploadImagesOperator, dataset_id=dataset_id, source=str(pictures))
    return dataset_id


@pytest.fixture
def train(story, dataset):
    """Train a model on the dataset."""

    def run(context=None, operator=OsaiTrainModelOperator):
        arguments = {"dataset_ids": [dataset], "model_name": "first", "parameters": {"epochs": 3}}
        return story.job(operator, context, **arguments)

    return run


@BLOCKING
def test_data_goes_in_once_and_is_deleted(story, pictures):
    world = story.world
    for other in ("cars", "fish", "birds", "trees", "fruits"):
        world.create_dataset(other)
    made = story.run(OsaiCreateDatasetOperator, name="fruit", categories=["apple"])
    again = story.run(OsaiCreateDatasetOperator, name="fruit", categories=["apple", "pear"])
    assert (made["created"], again["created"]) == (True, False)
    (found,) = world.find_datasets("fruit")
    assert story.is_id(made["dataset_id"], found.id)
    assert [row.name for row in world.categories_of(found.id)] == ["apple", "pear"]
    dataset_id = made["dataset_id"]
    for uploaded, skipped in ((6, 0), (0, 6)):
        told = story.run(OsaiUploadImagesOperator, dataset_id=dataset_id, source=str(pictures), max_concurrency=2)
        assert (told["uploaded"], told["skipped"], told["images"]) == (uploaded, skipped, 6)
    names = {row.id: row.name for row in world.categories_of(found.id)}
    stored = {image.sha256: names[image.category_id] for image in world.images_of(found.id)}
    assert stored == {hashlib.sha256(png(number)).hexdigest(): ("apple", "pear")[number % 2] for number in range(6)}
    assert world.count(found.id) == 6
    assert not found.locked
    upload = world.start_upload(found.id)
    with pytest.raises(OsaiUnreachable):
        story.run(OsaiDeleteDatasetOperator, dataset_id=dataset_id, timeout=0.0)
    world.finish_upload(upload.id)
    deleted = [story.run(OsaiDeleteDatasetOperator, dataset_id=dataset_id)["deleted"] for _ in range(2)]
    assert deleted == [True, False]
    assert world.find_datasets("fruit") == []
    assert len(world.datasets) == 5


def test_models_are_trained_used_and_downloaded(story, dataset, train):
    world = story.world
    first = train()
    assert story.last_job().settings == {"name": "first", "type": "classification", "options": {"epochs": 3}}
    assert story.is_id(first["job_id"], story.last_job().id)
    retraining = {"model_id": first["model_id"], "dataset_ids": [dataset], "model_name": "second"}
    second = story.job(OsaiRetrainModelOperator, **retraining)
    assert story.last_job().model_id == min(world.models)
    trained = sorted(world.models)
    assert [story.is_id(*pair) for pair in zip((first["model_id"], second["model_id"]), trained, strict=True)] == [
        True
    ] * 2
    with story.client() as client:
        shown = [client.get_model(told["model_id"]) for told in (first, second)]
        training = client.get_job("training", first["job_id"])
    assert [(model.name, model.metrics["accuracy"]) for model in shown] == [("first", 0.84), ("second", 0.92)]
    if story.style.has_metrics:
        assert [told["metrics"]["accuracy"] for told in (first, second)] == [0.84, 0.92]
    if story.style.has_epochs:
        assert [(epoch.epoch, epoch.loss, epoch.val_accuracy) for epoch in training.history][1:] == [
            (2, 0.45, 0.75),
            (3, 0.3, 0.8333),
        ]

    operations = [
        Rotation(angle=90, generate=2),
        BrightnessContrast(contrast=1.2, brightness=10),
        Resize(width=4, height=4),
    ]
    told = story.job(OsaiManipulateDatasetOperator, dataset_id=dataset, name="copy", operations=operations)
    (copy,) = world.find_datasets("copy")
    assert story.is_id(told["dataset_id"], copy.id)
    assert world.count(copy.id) == 12
    steps = (
        ("rotate", {"angle": 90, "copies": 2}),
        ("brightness", {"contrast": 1.2, "brightness": 10, "copies": 1}),
        ("resize", {"width": 4, "height": 4}),
    )
    for (name, values), (step, sent) in zip(steps, story.last_job().settings["steps"], strict=True):
        assert (name, sent) == (step, sent | values)
    for image in world.images_of(copy.id):
        image.category_id = None
    prediction = {"model_id": second["model_id"], "dataset_id": told["dataset_id"], "min_confidence": 0.55}
    story.job(OsaiPredictOperator, **prediction, mode="unannotated")
    settings = story.last_job().settings
    assert (settings["min_confidence"], settings["mode"]) == (0.55, "unannotated")
    assert story.last_job().model_id == trained[1]
    assert all(image.category_id for image in world.images_of(copy.id))

    for reused in (False, True) if story.style.lists_conversions else (False,):
        told = story.job(OsaiConvertModelOperator, model_id=second["model_id"], target="openvino")
        assert told["reused"] is reused
    (conversion,) = world.conversions.values()
    assert (conversion.model_id, conversion.target) == (trained[1], "openvino")
    for target in ("openvino", None) if story.style.has_original else ("openvino",):
        path = story.folder / f"{target}.bin"
        story.run(OsaiDownloadModelOperator, model_id=second["model_id"], target=target, destination=str(path))
        assert path.read_bytes() == world.model_file(trained[1], target or ORIGINAL)
    path = story.folder / "other.bin"
    with pytest.raises(AirflowFailException):
        story.run(OsaiDownloadModelOperator, model_id=second["model_id"], target="raspberry-pi", destination=str(path))
    assert not path.exists()
    assert story.kinds() == ["train", "retrain", "manipulate", "predict", "convert"]
    assert story.deferrals >= 5 if story.deferrable else story.deferrals == 0


def test_a_device_is_rented_and_released(story):
    world = story.world
    told = story.job(OsaiRentDeviceOperator, device="jetson-nano", duration=timedelta(minutes=30))
    job = story.last_job()
    assert (job.kind, job.device, job.settings["duration"]) == ("rent", "jetson-nano", timedelta(minutes=30))
    assert job.state == "running"
    assert story.is_id(told["device_id"], job.result["device"])
    release = {"job_id": told["job_id"], "reference": told["reference"]}
    released = [story.run(OsaiReleaseDeviceOperator, **release)["released"] for _ in range(2)]
    assert released == [[told["job_id"]], []]
    assert (job.state, world.cancels) == ("cancelled", [("rent", job.id)])


def test_a_failed_training_fails_the_task(story, train):
    story.world.fail_next("Out of memory.")
    with pytest.raises(OsaiJobFailed, match=r"Out of memory\." if story.style.has_reasons else "failed"):
        train()
    assert story.last_job().state == "failed"


def test_a_running_training_is_cancelled(story, train):
    """Blocking, its task is killed; while it is deferred, somebody else cancels it."""
    story.world.running_reads = FOREVER
    can_cancel = "train" in story.style.cancels

    class Killed(OsaiTrainModelOperator):
        def _sleep(self, seconds):
            if not story.deferrable and story.last_job().state == "running":
                self.on_kill()
            super()._sleep(seconds)

    def cancel(job_id):
        with story.client() as client:
            client.cancel_job("training", job_id)

    story.before_trigger = cancel
    with pytest.raises(OsaiJobCancelled if can_cancel or not story.deferrable else OsaiContractError):
        train(operator=Killed)
    job = story.last_job()
    assert story.world.cancels == ([("train", job.id)] if can_cancel else [])
    assert (job.state == "cancelled") is can_cancel
    assert story.kinds() == ["train"]


class TestCrash:
    """The task is run again after a crash, in the same run: it never pays for two jobs."""

    def crashed_and_retried(self, story, train, *, store, ti=FakeTaskInstance):
        context = {"ti": ti(task_id="task"), **store}
        with pytest.raises(Crash):
            train(context)
        assert story.kinds() == ["train"]
        return train({"ti": FakeTaskInstance(task_id="task", try_number=2), **store})

    def test_after_the_id_was_stored(self, story, train):
        store = {"task_state_store": FakeStateStore()}
        told = self.crashed_and_retried(story, train, store=store, ti=CrashingTaskInstance)
        assert story.kinds() == ["train"]
        assert story.is_id(told["model_id"], *story.world.models)

    def test_before_the_id_was_stored(self, story, train):
        """Without a list nobody knows whether there is a job, so the task asks to look."""
        store = CrashingStateStore()
        if story.style.lists_jobs:
            told = self.crashed_and_retried(story, train, store={"task_state_store": store})
            assert story.is_id(told["model_id"], *story.world.models)
        else:
            with pytest.raises(OsaiJobLost):
                self.crashed_and_retried(story, train, store={"task_state_store": store})
        assert story.kinds() == ["train"]

    def test_without_a_state_store(self, story, train):
        """Airflow 3.1 and 3.2 have none; without a list, a retry then submits again, as is documented."""
        told = self.crashed_and_retried(story, train, store={}, ti=CrashingTaskInstance)
        assert told["state"] == "succeeded"
        assert story.kinds() == ["train"] * (1 if story.style.lists_jobs else 2)


@BLOCKING
def test_a_busy_service_gets_the_submission_once_more(story, train):
    story.world.busy_submits = 1
    assert train()["state"] == "succeeded"
    assert story.kinds() == ["train"]
