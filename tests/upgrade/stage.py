"""What survives an upgrade: Airflow's database and home, the Dag folder, and OSAI with its jobs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.demo.airflow_instance import PARTS, WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.chaos.harness import LIVE, TOKEN
from tests.chaos.postgres import postgres
from tests.chaos.whole import until
from tests.upgrade.builds import NOW, OLD, python_with
from tests.upgrade.edits import edited

__all__ = ["Run", "Stage", "new_stage"]

DAGS = Path(__file__).parent / "dags"
PATIENCE = 600.0
"""Maximum seconds to wait for anything, on a busy machine."""
SETTINGS = {
    # Without the folder of the sources, which would hide the installed wheel.
    "PYTHONPATH": "",
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
}
WITHOUT_TRIGGERER = tuple(part for part in PARTS if part != "triggerer")


@dataclass
class Task:
    """A task instance as Airflow's API describes it."""

    fields: dict[str, Any]

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self.fields["task_id"])

    @property
    def map_index(self) -> int:
        """The map index, -1 if it is not mapped."""
        return int(self.fields["map_index"])

    @property
    def name(self) -> str:
        """The task's id, with the map index if there is one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def uuid(self) -> str:
        """The id of this try."""
        return str(self.fields["id"])

    @property
    def triggerer(self) -> int | None:
        """The triggerer that has its trigger."""
        return (self.fields["triggerer_job"] or {}).get("id")


@dataclass
class Run:
    """One Dag run; it survives the Airflow that started it."""

    stage: Stage
    dag_id: str
    run_id: str
    dataset: str

    def tasks(self) -> list[Task]:
        """Return its task instances."""
        return [Task(fields) for fields in self.stage.airflow.task_instances(self.dag_id, self.run_id)]

    def states(self) -> dict[str, str]:
        """Return the states of its task instances by name."""
        return {task.name: str(task.fields["state"]) for task in self.tasks()}

    def until(self, state: str, *names: str) -> None:
        """Wait until tasks, all if none is given, are in a state."""

        def there() -> bool:
            states = self.states()
            if "failed" in states.values() and state != "failed":
                raise RuntimeError(self.stage.airflow.failures(self.dag_id, self.run_id))
            return all(states.get(name) == state for name in names or states)

        wait(there, lambda: f"{names or 'all tasks'} of {self.dag_id} are {state}: {self.states()}")

    def end(self) -> str:
        """Wait for its end; return its state."""
        return self.stage.airflow.wait(self.dag_id, self.run_id, timeout=PATIENCE)

    def result(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Return an XCom; ``None`` if it is missing."""
        try:
            return self.stage.airflow.xcom(self.dag_id, self.run_id, task_id, key, map_index)
        except LookupError:
            return None


@dataclass
class Stage:
    """The environment of a case."""

    folder: Path
    database: str
    sandbox: Sandbox
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _airflow: WholeAirflow | None = None

    @property
    def airflow(self) -> WholeAirflow:
        """The Airflow that runs now."""
        assert self._airflow is not None
        return self._airflow

    @contextmanager
    def run(
        self, version: str, airflow: str, *, dags: str | None = None, triggerer: bool = True
    ) -> Iterator[WholeAirflow]:
        """Run an Airflow on what the earlier one left, until the end of the block.

        :param version: the version of this package.
        :param airflow: the version of Airflow.
        :param dags: the version that the Dag file is written for; default: *version*.
        :param triggerer: whether a triggerer is part of it.
        """
        self.write_dags(dags or version)
        connection = {"conn_type": "osai", "password": TOKEN, "extra": {"base_url": self.sandbox.base_url}}
        with WholeAirflow(
            self.folder / "dags",
            self.folder / "home",
            {"osai_default": connection},
            environment=SETTINGS,
            executable=python_with(version, airflow),
            parts=PARTS if triggerer else WITHOUT_TRIGGERER,
            database=self.database,
            timeout=PATIENCE,
            grace=10,
        ) as whole:
            self._airflow = whole
            try:
                yield whole
            finally:
                self._airflow = None

    def write_dags(self, version: str) -> None:
        """Write the Dag file as users of *version* would."""
        folder = self.folder / "dags"
        folder.mkdir(exist_ok=True)
        for source in DAGS.glob("*.py"):
            if version == OLD and source.name == "batch.py":
                (folder / source.name).unlink(missing_ok=True)
                continue
            text = source.read_text()
            (folder / source.name).write_text(edited(text) if version == NOW else text)

    def begin(self, dag_id: str, **params: str) -> Run:
        """Start a run, with a dataset of its own."""
        with OsaiClient(OsaiSettings(base_url=self.sandbox.base_url, access_token=TOKEN)) as client:
            dataset = client.send(client.calls.create_dataset(f"{dag_id} {len(self.runs)}")).id
        self.airflow.wait_for_dag(dag_id, timeout=PATIENCE)
        run_id = self.airflow.trigger(dag_id, {"dataset": dataset, **params})
        self.runs.append(Run(self, dag_id, run_id, dataset))
        return self.runs[-1]

    def jobs(self, *kinds: str) -> dict[str, str]:
        """Return the states of OSAI's jobs by id."""
        jobs = self.sandbox.control.record()["jobs"]
        return {job["id"]: job["state"] for job in jobs if not kinds or job["kind"] in kinds}

    def polls(self, *job_ids: str) -> int:
        """Return how often jobs have been read."""
        return sum(job.reads for job in self.sandbox.state.jobs.all_jobs() if job.id in job_ids)

    def live(self, *kinds: str) -> int:
        """Return the number of jobs that have not ended."""
        return sum(state in LIVE for state in self.jobs(*kinds).values())


@contextmanager
def new_stage() -> Iterator[Stage]:
    """Run PostgreSQL and a sandbox whose trainings run until the case ends them."""
    with (
        tempfile.TemporaryDirectory(prefix="osai-upgrade-", ignore_cleanup_errors=True) as name,
        postgres(Path(name) / "pg") as database,
        Sandbox(access_token=TOKEN, workers=64, idle_unlock=20) as sandbox,
    ):
        sandbox.control.script("training", "seconds", seconds=10**6, metrics={"accuracy": 0.9})
        yield Stage(Path(name), database, sandbox)


def wait(true: Callable[[], bool], what: Callable[[], str]) -> None:
    """Poll until the condition is true."""
    try:
        until(true, "", PATIENCE)
    except AssertionError:
        raise AssertionError(what()) from None
