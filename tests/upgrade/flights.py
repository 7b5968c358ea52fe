"""What is in flight during an upgrade: each flight begins before it, lands after it, and counts what went wrong."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

from PIL import Image

from tests.chaos.whole import process_of
from tests.upgrade.stage import Run, Stage, Task, wait

__all__ = ["FLIGHTS", "Batch", "Flight", "land", "take_off"]

IMAGES = 120
AT_ONCE = 10
"""Images that a killed upload may have sent without a record of it."""


class Flight:
    """Tasks of one kind. They need ``trainings`` jobs in all, of which ``cancelled`` are killed."""

    trainings: int = 1
    cancelled: ClassVar[int] = 0
    dag_id: ClassVar[str]
    also: ClassVar[dict[str, str]] = {}
    """Tasks that may end in another state."""
    run: Run

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.own: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Its name in the report."""
        return type(self).__name__.lower()

    def launch(self) -> None:
        """Start the tasks, in the Airflow before the upgrade."""
        self.run = self.stage.begin(self.dag_id)

    def settle(self) -> None:
        """Wait until they are in flight."""
        self.run.until("deferred")
        self.own = self.jobs()

    def between(self) -> None:
        """Act while no Airflow runs, or before :meth:`resume` if one does."""

    def resume(self) -> None:
        """Act in the Airflow after the upgrade: end the jobs, for instance."""
        self.end(*self.own.values())

    def land(self) -> Counter[str]:
        """Wait for the end, after all flights have resumed; return the violations."""
        return self.judge("success")

    def jobs(self) -> dict[str, str]:
        """Return the job that each task instance has pushed."""
        found = {task.name: self.run.result(task.task_id, task.map_index, "osai_job") for task in self.run.tasks()}
        return {name: str(job["job_id"]) for name, job in found.items() if job is not None}

    def end(self, *job_ids: str) -> None:
        """End jobs in OSAI."""
        for job_id in job_ids:
            self.stage.sandbox.control.end(job_id)

    def judge(self, state: str) -> Counter[str]:
        """Count, after the end of the run, the tasks that are not in *state*, and results of another job."""
        self.run.end()
        states = self.run.states()
        wrong = {name: found for name, found in states.items() if found not in (state, self.also.get(name))}
        if wrong:
            failures = self.stage.airflow.failures(self.run.dag_id, self.run.run_id)
            self.stage.notes.append(f"{self.name}: {wrong}\n{failures}")
        moved = [name for name, job_id in self.jobs().items() if self.own.get(name, job_id) != job_id]
        if moved:
            self.stage.notes.append(f"{self.name}: other jobs than before the upgrade: {moved}")
        return Counter(lost=len(wrong), wrong_result=len(moved))


class Deferred(Flight):
    """Many deferred trainings, and a deferred sensor. Half of the jobs end while no Airflow runs."""

    dag_id = "deferred"

    def settle(self) -> None:
        wait(lambda: len(self.run.states()) > 3, lambda: "the trainings are mapped")
        names = [name for name in self.run.states() if name != "submit"]
        self.run.until("deferred", *names)
        self.own = self.jobs()
        self.trainings = len(names)

    def between(self) -> None:
        self.end(*list(self.own.values())[::2])

    def resume(self) -> None:
        self.end(*list(self.own.values())[1::2])


class Retried(Flight):
    """Blocking trainings whose workers are killed with SIGKILL: their retries come after the upgrade."""

    trainings = 2
    dag_id = "retried"

    def settle(self) -> None:
        wait(lambda: len(self.jobs()) == self.trainings, lambda: f"the tasks have jobs: {self.run.states()}")
        self.own = self.jobs()
        kill(self.stage, self.run)

    def resume(self) -> None:
        self.stage.airflow.unpause(self.dag_id)

    def land(self) -> Counter[str]:
        # When a try starts, Airflow deletes the XComs of the earlier one.
        self.run.until("running")
        wait(lambda: len(self.jobs()) == self.trainings, lambda: f"the retries have jobs: {self.run.states()}")
        self.end(*self.jobs().values())
        return self.judge("success")


class Marked(Flight):
    """A deferred training whose task is marked failed after the upgrade."""

    cancelled = 1
    dag_id = "marked"
    polls = 0

    def between(self) -> None:
        self.polls = self.stage.polls(*self.own.values())

    def resume(self) -> None:
        # Airflow deletes a trigger that its triggerer has not loaded yet, and nothing of ours runs.
        wait(
            lambda: self.stage.polls(*self.own.values()) > self.polls,
            lambda: f"the trigger polls: {self.run.states()}",
        )
        self.stage.airflow.set_task_state(self.dag_id, self.run.run_id, "train", "failed")

    def land(self) -> Counter[str]:
        return self.judge("failed")


class Late(Flight):
    """A deferred training whose time limit passes, during the upgrade or after it."""

    cancelled = 1
    dag_id = "late"

    def resume(self) -> None:
        """Leave the job to its time limit."""

    def land(self) -> Counter[str]:
        found = self.judge("failed")
        log = self.stage.airflow.task_log(self.dag_id, self.run.run_id, "train")
        return found + Counter(wrong_result="OsaiJobTimeout" not in log and "OsaiJobCancelled" not in log)


class Upload(Flight):
    """An upload whose worker is killed in the middle."""

    trainings = 0
    dag_id = "upload"

    def launch(self) -> None:
        """Begin later: each image takes time, and the other upload should not."""

    def settle(self) -> None:
        control = self.stage.sandbox.control
        control.fault("delay", "upload.image", seconds=0.5, times=10**6)
        self.before = self.requests()
        self.run = self.stage.begin(self.dag_id, images=str(images(self.stage.folder)))
        wait(lambda: self.requests() >= IMAGES // 3, lambda: f"{self.requests()} images are sent")
        kill(self.stage, self.run)
        control.clear_faults()
        assert self.requests() < IMAGES, "the upload ended before it was killed"

    def resume(self) -> None:
        self.stage.airflow.unpause(self.dag_id)

    def land(self) -> Counter[str]:
        found = self.judge("success")
        present = len(self.stage.sandbox.control.images(self.run.dataset))
        again = self.requests() - IMAGES - AT_ONCE
        return found + Counter(lost=max(0, IMAGES - present), doubled=max(0, present - IMAGES, again))

    before = 0

    def requests(self) -> int:
        """Return the number of requests that have sent an image of it."""
        return self.stage.sandbox.control.record()["counts"].get("upload.image", 0) - self.before


class Rented(Flight):
    """A device in use, by a deferred training."""

    dag_id = "rented"

    def settle(self) -> None:
        self.run.until("deferred", "use")
        self.own = self.jobs()

    def resume(self) -> None:
        self.end(self.own["use"])


class Renting(Flight):
    """A device that was asked for and is not ready yet; it becomes ready after the upgrade."""

    dag_id = "renting"

    def launch(self) -> None:
        """Begin later, when the other device is rented and no more are to be had."""

    def settle(self) -> None:
        self.stage.sandbox.control.devices(self.stage.live("device_rental"))
        self.run = self.stage.begin(self.dag_id)
        self.run.until("deferred", "rent_device")
        self.own = self.jobs()

    def resume(self) -> None:
        self.stage.sandbox.control.devices(None)

    def land(self) -> Counter[str]:
        self.run.until("deferred", "use")
        self.end(self.jobs()["use"])
        return self.judge("success")


class Gated(Flight):
    """A champion promoted before the upgrade, and a candidate trained after it."""

    trainings = 2
    dag_id = "gated"
    also: ClassVar[dict[str, str]] = {"gate": "skipped"}

    def settle(self) -> None:
        self.run.until("deferred", "train")
        self.end(*self.jobs().values())
        assert self.run.end() == "success", self.stage.airflow.failures(self.dag_id, self.run.run_id)
        self.champion = self.run.result("gate")["model_id"]

    def resume(self) -> None:
        self.run = self.stage.begin(self.dag_id)

    def land(self) -> Counter[str]:
        self.run.until("deferred", "train")
        self.end(*self.jobs().values())
        found = self.judge("success")
        # As good is not better: the gate must know the champion, and reject the candidate.
        champion = ((self.run.result("gate") or {}).get("champion") or {}).get("model_id")
        return found + Counter(wrong_result=champion != self.champion)


class Chained(Flight):
    """A run whose upload is done before the upgrade, and whose next tasks use the upload's result after it."""

    trainings = 2
    dag_id = "chained"

    def launch(self) -> None:
        self.run = self.stage.begin(self.dag_id, images=str(images(self.stage.folder)))

    def settle(self) -> None:
        self.run.until("deferred", "first")
        self.own = self.jobs()

    def land(self) -> Counter[str]:
        wait(
            lambda: self.run.states()["second"] not in ("None", "scheduled", "queued", "running"),
            lambda: f"the second training is deferred: {self.run.states()}",
        )
        if job_id := self.jobs().get("second"):
            self.end(job_id)
        return self.judge("success")


class Batch(Flight):
    """A batch, whose trigger an older triggerer does not know: the deferral fails until the try does."""

    trainings = 5
    dag_id = "batch"

    def settle(self) -> None:
        wait(
            lambda: any(
                task.fields["try_number"] > 1 or task.fields["state"] == "up_for_retry" for task in self.tasks()
            ),
            lambda: f"the first try has failed: {self.run.states()}",
        )

    def tasks(self) -> list[Task]:
        """Return the task, unless it has used up its retries."""
        tasks = self.run.tasks()
        assert "failed" not in self.run.states().values(), "no retry is left"
        return tasks

    def resume(self) -> None:
        """Let the retry reconnect first."""

    def land(self) -> Counter[str]:
        wait(
            lambda: all(task.triggerer is not None and task.fields["state"] == "deferred" for task in self.tasks()),
            lambda: f"the new triggerer has the trigger: {self.run.states()}",
        )
        self.end(*self.stage.jobs("training"))
        found = self.judge("success")
        results = self.run.result("train") or []
        return found + Counter(
            wrong_result={result["job_id"] for result in results} != set(self.stage.jobs("training"))
        )


FLIGHTS: tuple[type[Flight], ...] = (Gated, Chained, Retried, Upload, Deferred, Marked, Rented, Renting, Late)


def take_off(flights: list[Flight]) -> None:
    """Bring all flights in flight."""
    for flight in flights:
        flight.launch()
    for flight in flights:
        flight.settle()


def land(stage: Stage, flights: list[Flight]) -> list[Counter[str]]:
    """Land all flights; return the violations of each."""
    found = []
    for flight in flights:
        flight.resume()
    for flight in flights:
        try:
            counts = flight.land()
        except Exception as error:  # the others land nevertheless
            stage.notes.append(f"{flight.name}: {type(error).__name__}: {error}")
            counts = Counter(wrong_result=1)
        found.append(counts)
    patience = time.monotonic() + 60  # before 3.3, a triggerer waits some seconds before it cancels a marked task's job
    while stage.live() and time.monotonic() < patience:
        time.sleep(0.5)
    trainings = stage.jobs("training")
    states = Counter(trainings.values())
    cancelled = sum(flight.cancelled for flight in flights)
    rentals = sum(isinstance(flight, (Rented, Renting)) for flight in flights)
    doubled = len(trainings) - sum(flight.trainings for flight in flights)
    found[0] = found[0] + Counter(
        doubled=max(0, doubled) + max(0, len(stage.jobs("device_rental")) - rentals),
        lost=max(0, -doubled),
        left_running=stage.live(),
        cancelled_wrongly=max(0, states["cancelled"] - cancelled),
    )
    return found


def kill(stage: Stage, run: Run) -> None:
    """Kill the processes of all tasks of a run with SIGKILL; their retries wait, since the Dag is paused."""
    stage.airflow.pause(run.dag_id)
    for task in run.tasks():
        process_of(stage, task.uuid).send_signal(signal.SIGKILL)  # type: ignore[arg-type]  # it has an Airflow too
    run.until("up_for_retry")


def images(folder: Path) -> Path:
    """Make a folder of images."""
    source = folder / "images"
    category = source / "grey"
    if not category.exists():
        category.mkdir(parents=True)
        for number in range(IMAGES):
            Image.new("L", (8 + number % 2, 8), number).save(category / f"{number:04}.png")
    return source
