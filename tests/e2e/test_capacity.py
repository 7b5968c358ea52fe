"""A pool in a whole Airflow: if it includes deferred tasks, it bounds how many jobs OSAI runs at the same time."""

from __future__ import annotations

import threading

import pytest

from tests.conftest import ROOT
from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = "example_osai_capacity"
SLOTS = 2
TASKS = ["train_urgent", *["train_variants"] * 4]


@pytest.fixture(scope="module")
def airflow(start_airflow):
    """Airflow with the example, which polls often here."""
    text = (ROOT / f"example_dags/{DAG}.py").read_text()
    assert '"poll_interval": 10' in text
    dags = {f"{DAG}.py": text.replace('"poll_interval": 10', '"poll_interval": 1')}
    return start_airflow(dags, wait_for=DAG, grace=3)


class Watch:
    """Counts the jobs that OSAI runs, several times a second, while it is entered."""

    def __init__(self, osai) -> None:
        self._osai = osai
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.most = 0

    def live(self) -> list[str]:
        """Return the ids of the jobs that OSAI runs."""
        return [job["id"] for job in self._osai.control.record()["jobs"] if job["state"] in ("queued", "running")]

    def end_all(self) -> None:
        """End the jobs that OSAI runs."""
        for job_id in self.live():
            self._osai.control.end(job_id)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, len(self.live()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


@pytest.fixture
def run(airflow, osai, images):
    """Run the example with a pool, and return its run and the most jobs at the same time.

    No job ends before as many as given run at the same time.
    """

    def run(at_once: int, *, include_deferred: bool):
        pool = {"name": "osai", "slots": SLOTS, "include_deferred": include_deferred}
        if airflow._http.patch("/api/v2/pools/osai", json=pool).status_code == 404:
            airflow._send("POST", "/api/v2/pools", pool)
        osai.control.script("training", "reads", reads=10**9)
        before = len(osai.control.record()["jobs"])
        with Watch(osai) as watch:
            run_id = airflow.trigger(DAG, {"images": str(images)})
            until(lambda: watch.most >= at_once)
            assert airflow.wait(DAG, run_id, on_poll=lambda _: watch.end_all()) == "success", airflow.failures(
                DAG, run_id
            )
        return run_id, osai.control.record()["jobs"][before:], watch.most

    return run


def test_a_pool_with_deferred_tasks_bounds_the_jobs_and_without_them_it_does_not(run, airflow):
    """Five trainings and two slots; the urgent one is among the first two, and all end."""
    run_id, jobs, most = run(SLOTS, include_deferred=True)
    assert [job["state"] for job in jobs] == ["succeeded"] * len(TASKS)
    assert most == SLOTS
    assert any("/train_urgent/" in job["reference"] for job in jobs[:SLOTS])
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(DAG, run_id)}
    assert set(tries.values()) == {1}  # waiting for a slot uses no retry

    _, jobs, most = run(SLOTS + 1, include_deferred=False)
    assert len(jobs) == len(TASKS)
    assert most > SLOTS
