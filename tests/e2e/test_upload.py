"""An upload that is killed in a whole Airflow: nothing stays locked, and next to nothing is sent twice."""

from __future__ import annotations

import pytest
from PIL import Image

from airflow_provider_osai.api.client import OsaiClient
from tests.conftest import settings_for
from tests.waiting import until

pytestmark = pytest.mark.e2e
IMAGES = 400
AT_ONCE = 10
DAG = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator

with DAG("upload", schedule=None, params={"dataset": "", "images": ""}):
    OsaiUploadImagesOperator(task_id="upload", dataset_id="{{ params.dataset }}", source="{{ params.images }}")
"""


@pytest.fixture(scope="module")
def airflow(start_airflow):
    return start_airflow({"upload.py": DAG}, wait_for="upload", grace=3)


def test_a_killed_upload_unlocks_and_goes_on(airflow, osai, tmp_path):
    """The user marks it failed while it runs, and clears it then."""
    folder = tmp_path / "images" / "grey"
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        Image.new("L", (8, 8), number % 256).resize((8 + number // 256, 8)).save(folder / f"{number:04}.png")
    osai.control.fault("delay", "upload.image", seconds=0.3, times=10**6)
    with OsaiClient(settings_for(osai.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d")).id

        def failures():
            return airflow.failures("upload", run_id)

        def sent():
            return osai.control.record()["counts"].get("upload.image", 0)

        run_id = airflow.trigger("upload", {"dataset": dataset, "images": str(tmp_path / "images")})
        until(lambda: sent() >= 50, what=failures)
        osai.control.clear_faults()
        osai.control.fault("delay", "upload.image", seconds=5, times=10**6)  # so that it cannot end before the kill
        airflow.set_task_state("upload", run_id, "upload", "failed")
        until(lambda: client.send(client.calls.get_dataset(dataset)).locked, False, what=failures)
        first = sent()
        assert 50 <= first < IMAGES
        osai.control.clear_faults()
        airflow.clear("upload", run_id)
        until(lambda: airflow.task_instances("upload", run_id)[0]["state"], "success", what=failures)
        told = airflow.xcom("upload", run_id, "upload")
        assert (told["images"], len(client.send(client.calls.list_images(dataset)))) == (IMAGES, IMAGES)
        assert sent() <= IMAGES + AT_ONCE
