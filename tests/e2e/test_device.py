"""A rented device in a whole Airflow: whatever a user or a test does, it is given back."""

from __future__ import annotations

import pytest

from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = """
import time
from airflow.sdk import DAG, task
from airflow_provider_osai.operators.device import rented_device

with DAG("rents", schedule=None, params={"does": "nothing"}):

    @task
    def use(device, params):
        if params["does"] == "fail":
            raise ValueError("the test failed")
        time.sleep(600 if params["does"] == "go on" else 0)

    with rented_device("jetson", duration=3600, deferrable=True, poll_interval=1) as device:
        use(device)
"""


@pytest.fixture(scope="module")
def airflow(start_airflow):
    return start_airflow({"rents.py": DAG}, wait_for="rents", grace=3)


def test_a_device_is_given_back_when_its_test_fails_its_run_is_marked_or_its_rent_or_test_is_cleared(airflow, osai):
    """One device at a time is paid for, and in the end none."""

    def rentals():
        return [rental["state"] for rental in osai.control.rentals()]

    def task(run_id, task_id):
        return next(one["state"] for one in airflow.task_instances("rents", run_id) if one["task_id"] == task_id)

    failed = airflow.trigger("rents", {"does": "fail"})
    assert airflow.wait("rents", failed) == "failed"
    assert task(failed, "release_device") == "success"
    assert rentals() == ["cancelled"]
    airflow.clear("rents", failed, "use")  # rent and release come with it
    until(rentals, ["cancelled", "cancelled"])
    until(lambda: task(failed, "release_device"), "success")

    marked = airflow.trigger("rents", {"does": "go on"})
    until(lambda: task(marked, "use"), "running")
    assert rentals()[2:] == ["running"]
    airflow.set_run_state("rents", marked, "failed")
    until(rentals, ["cancelled"] * 3)

    osai.control.devices(0)
    waiting = airflow.trigger("rents")
    until(lambda: task(waiting, "rent_device"), "deferred")
    until(rentals, ["cancelled"] * 3 + ["queued"])
    airflow.set_task_state("rents", waiting, "rent_device", "failed")
    until(rentals, ["cancelled"] * 4)
    until(lambda: task(waiting, "release_device"), "success")
