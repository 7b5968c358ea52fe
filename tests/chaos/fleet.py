"""A larger deployment: CeleryExecutor with two schedulers, two triggerers and two workers, some of which are killed.

``python -m tests.chaos.fleet`` runs the example's retraining twice, deferrable and blocking, with real images and a
real training, and prints, last, a line of JSON that counts violations. A case is one task instance. The broker is the
metadata database, through kombu.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from airflow_provider_osai.demo.digits import write_digits
from airflow_provider_osai.demo.process_group import ProcessGroup
from tests.chaos.harness import LIVE, report
from tests.chaos.whole import Run, Stage, play, process_of, theatre, until

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "example_osai_retraining.py"
DAG = "example_osai_retraining"
EPOCHS = 600
"""Long enough to kill a process during the training."""
KINDS = ("training", "conversion", "prediction")
GOOD = 0.9


def settings(database: str) -> dict[str, str]:
    """Return Airflow's settings for Celery."""
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__CELERY__BROKER_URL": f"sqla+{database}",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
    }


def write_dags(folder: Path) -> None:
    """Write the example, once unchanged and once without deferring, both with more epochs."""
    text = EXAMPLE.read_text().replace('"retries": 2, ', "")  # the fleet sets its own retries
    text = text.replace('{"epochs": 20}', f'{{"epochs": {EPOCHS}}}')
    blocking = text.replace('"deferrable": True', '"deferrable": False').replace(f'"{DAG}"', f'"{DAG}_blocking"')
    assert text != EXAMPLE.read_text()
    assert "_blocking" in blocking
    (folder / "deferrable.py").write_text(text)
    (folder / "blocking.py").write_text(blocking)


class Fleet:
    """The duplicated components.

    :param stage: where the scenario runs.
    :param images: the folder of images for the retraining.
    :param stack: stops the components.
    """

    def __init__(self, stage: Stage, images: Path, stack: ExitStack) -> None:
        self.stage, self._images, self._stack = stage, images, stack
        self.scheduler = self._part("scheduler-2", "scheduler", "--skip-serve-logs")
        self.triggerers = [self._part(f"triggerer-{n}", "triggerer", "--skip-serve-logs") for n in (1, 2)]
        self.workers = [self._worker(n) for n in (1, 2)]

    def begin(self, dag_id: str) -> Run:
        """Start a retraining."""
        airflow = self.stage.airflow
        airflow.wait_for_dag(dag_id)
        self.stage.runs.append(Run(self.stage, dag_id, airflow.trigger(dag_id, {"images": str(self._images)})))
        return self.stage.runs[-1]

    def _worker(self, number: int) -> ProcessGroup:
        own = (f"--celery-hostname=worker{number}@here", f"--pid={self.stage.airflow.home / f'worker-{number}.pid'}")
        return self._part(f"worker-{number}", "celery", "worker", "--skip-serve-logs", "--concurrency=2", *own)

    def _part(self, name: str, *command: str) -> ProcessGroup:
        return self._stack.enter_context(self.stage.airflow.part(name, *command))


def training_begins(run: Run) -> None:
    """Wait until OSAI is training."""
    until(lambda: any(job["state"] == "running" and job["kind"] == "training" for job in run.stage.jobs()), "training")


def killed_triggerer_and_scheduler(fleet: Fleet) -> list[Counter[str]]:
    """Kill a triggerer and a scheduler during the training; the others continue."""
    run = fleet.begin(DAG)
    training_begins(run)
    run.until("deferred", "train_model")
    fleet.triggerers[0].send(signal.SIGKILL)
    fleet.scheduler.send(signal.SIGKILL)
    return verdict(run)


def killed_worker(fleet: Fleet) -> list[Counter[str]]:
    """Kill a worker while it waits for the training; the retry on the other worker reconnects to the job."""
    run = fleet.begin(f"{DAG}_blocking")
    training_begins(run)
    runner = process_of(run.stage, run.tasks()["train_model"]["id"]).pid
    victim = next(worker for worker in fleet.workers if runner in worker.processes)
    victim.send(signal.SIGKILL)
    return verdict(run)


def verdict(run: Run) -> list[Counter[str]]:
    """Count violations: there must be one successful job of each kind, and consistent results."""
    state = run.end()
    run.stage.all_ended()
    jobs = run.stage.jobs()
    tasks = run.tasks()
    found = [Counter(lost=task["state"] != "success") for task in tasks.values()]
    told = {
        task_id: run.stage.airflow.xcom(run.dag_id, run.run_id, task_id) if state == "success" else {}
        for task_id in ("train_model", "convert_model", "predict")
    }
    done = {job["id"] for job in jobs if job["state"] == "succeeded"}
    model, accuracy = told["train_model"].get("model_id"), told["train_model"].get("metrics", {}).get("accuracy", 0.0)
    right = [
        {one.get("job_id") for one in told.values()} == done,
        model is not None and told["convert_model"].get("model_id") == model,
        accuracy > GOOD,
    ]
    found[0] += Counter(
        doubled=len(jobs) - len(KINDS),
        left_running=sum(job["state"] in LIVE for job in jobs),
        wrong_result=right.count(False),
    )
    return found


def main() -> int:
    """Run both; return 0 if no job was duplicated, lost, left running or wrong."""
    found: list[Counter[str]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="osai-fleet-") as name, ExitStack() as stack:
        dags, images = Path(name) / "dags", Path(name) / "images"
        dags.mkdir()
        write_dags(dags)
        write_digits(images)
        airflow, server = stack.enter_context(theatre(dags, settings))
        fleet = Fleet(Stage(airflow, server), images, stack)
        for scenario in (killed_worker, killed_triggerer_and_scheduler):
            fleet.stage = Stage(airflow, server, {job["id"] for job in server.osai.jobs()})
            found += play(scenario.__name__.replace("_", "-"), lambda _, act=scenario: act(fleet), fleet.stage)
    return report(found, started)


if __name__ == "__main__":
    sys.exit(main())
