"""A Dag that starts when a dataset has changed, in a whole Airflow whose triggerer is killed."""

from __future__ import annotations

import io
import signal
from contextlib import contextmanager

import pytest

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import AIRFLOW, CANARY, SECRET
from tests.sandbox.client import png
from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = """
from airflow.sdk import DAG, AssetWatcher, task
from airflow_provider_osai.assets import osai_dataset
from airflow_provider_osai.triggers.events import OsaiDatasetChangedTrigger

watcher = AssetWatcher(name="changed", trigger=OsaiDatasetChangedTrigger("{dataset}", poll_interval=1))

with DAG("on_new_data", schedule=[osai_dataset("{dataset}", watchers=[watcher])], is_paused_upon_creation=False):

    @task
    def see(triggering_asset_events=None):
        events = [event for events in triggering_asset_events.values() for event in events]
        return [event.extra["payload"]["image_count"] for event in events]

    see()
"""
PARTS = ("api-server", "scheduler", "dag-processor")
IMPATIENT = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6"}
"""Seconds after which a triggerer that fell silent is replaced."""


class Stage:
    """One Airflow, one OSAI with a dataset, and what comes of its changes."""

    def __init__(self, osai, airflow, dataset):
        self.osai, self.airflow, self.dataset = osai, airflow, dataset
        version = airflow._get("/api/v2/version")["version"]
        self.has_memory = tuple(int(part) for part in version.split(".")[:2]) >= (3, 3)
        self.images = 0

    @contextmanager
    def triggerer(self, name):
        """A triggerer that has looked and knows what it was told, and in the end is killed."""
        with self.airflow.part(name, "triggerer", "--skip-serve-logs") as part:
            if self.has_memory:
                until(lambda: self.memory() is not None, what="there is a memory")
            else:
                self.looked()
            yield
            part.send(signal.SIGKILL)
            until(lambda: not part.is_running, what="the triggerer has ended")

    def change(self):
        """Upload an image."""
        datasets = self.osai.state.datasets
        upload = datasets.start_upload(self.dataset)
        datasets.add_image(self.dataset, upload, io.BytesIO(png()))
        datasets.finish_upload(self.dataset, upload)
        self.images += 1

    def told(self):
        """Wait until all changes have had their run and, where there is a memory, are remembered."""
        until(lambda: len(self.runs()) >= self.images, what=f"there are {self.images} runs")
        if self.has_memory:
            until(lambda: self.memory() == self.images, what="the change is remembered")

    def looked(self, times=4):
        """Wait for so many more looks."""
        wanted = self.count() + times
        until(lambda: self.count() >= wanted, what="the triggerer looks")

    def count(self):
        return self.osai.control.record()["counts"].get("dataset.find", 0)

    def runs(self):
        return self.airflow.run_ids("on_new_data")

    def memory(self):
        """The number of images that the asset's state store has for the last change told."""
        (asset,) = self.airflow._get("/api/v2/assets")["assets"]
        kept = self.airflow._get(f"/api/v2/assets/{asset['id']}/state-store")
        (entries,) = (value for value in kept.values() if isinstance(value, list))
        return entries[0]["value"]["told"]["image_count"] if entries else None


@pytest.fixture
def stage(tmp_path):
    with Sandbox(access_token=CANARY) as osai:
        dataset = osai.state.datasets.create("defects").id
        dags = tmp_path / "dags"
        dags.mkdir()
        (dags / "on_new_data.py").write_text(DAG.replace("{dataset}", dataset))
        connection = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": osai.base_url}}
        options = {"executable": AIRFLOW, "environment": IMPATIENT, "parts": PARTS, "grace": 3}
        with WholeAirflow(dags, tmp_path / "home", {"osai_default": connection}, **options) as airflow:
            airflow.wait_for_dag("on_new_data")
            yield Stage(osai, airflow, dataset)


def test_each_change_starts_one_run_also_over_kills_of_the_triggerer(stage):
    """One while it runs, one while it is down (where Airflow remembers), one with its successor: three runs."""
    with stage.triggerer("first"):
        stage.change()
        stage.told()
        stage.looked()
    if stage.has_memory:
        stage.change()
    with stage.triggerer("second"):
        if not stage.has_memory:
            stage.change()
        stage.told()
        stage.looked()
    with stage.triggerer("third"):
        stage.looked()
        stage.change()
        stage.told()
        stage.looked(8)
        runs = stage.runs()
        assert [stage.airflow.wait("on_new_data", run_id) for run_id in runs] == ["success"] * 3
        assert [stage.airflow.xcom("on_new_data", run_id, "see") for run_id in runs] == [[1], [2], [3]]
    texts = [path.read_text(errors="replace") for path in stage.airflow.all_logs()]
    assert not any(SECRET.search(text) for text in texts)
