"""The whole-Airflow matrix: disturbances of real schedulers, triggerers and workers on PostgreSQL.

``python -m tests.chaos.whole [SCENARIO ...]`` prints a row for each scenario and, last, a line of JSON that counts
violations. A case is one task instance. Simulated: OSAI (the sandbox), and the grace after a deadline (5 s for 300).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.demo.process_group import ProcessGroup
from tests.chaos.harness import LIVE, TOKEN, Server, report
from tests.chaos.postgres import postgres
from tests.waiting import PATIENCE

AIRFLOW = os.environ.get("OSAI_TEST_PYTHON", sys.executable)
"""The Python whose Airflow is started; another one tests another version of Airflow."""
DAGS = Path(__file__).parent / "dags"
TRIGGERER = ("triggerer", "--skip-serve-logs")
SETTLED = 20.0
"""Maximum seconds from the end of a task to the end of its orphaned job."""
LONG = 3600.0
"""Seconds of jobs that run until the scenario ends them."""
IMPATIENT = {
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
}
"""Timeouts after which Airflow considers a component dead; minutes by default."""


@dataclass
class Run:
    """One run of a Dag of jobs, and its jobs in OSAI."""

    stage: Stage
    dag_id: str
    run_id: str

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return its task instances by task."""
        return {task["task_id"]: task for task in self.stage.airflow.task_instances(self.dag_id, self.run_id)}

    def until(self, state: str, *task_ids: str) -> None:
        """Wait until tasks, all if none is given, are in a state."""

        def there() -> bool:
            tasks = self.tasks()
            return all(tasks[task_id]["state"] == state for task_id in task_ids or tasks)

        until(there, f"tasks of {self.dag_id} are {state}")

    def job_of(self, task_id: str) -> str | None:
        """Return the id of the job that a task has submitted."""
        try:
            return self.stage.airflow.xcom(self.dag_id, self.run_id, task_id, "osai_job")["job_id"]
        except LookupError:
            return None

    def end(self) -> str:
        """Wait for its end."""
        return self.stage.airflow.wait(self.dag_id, self.run_id, timeout=PATIENCE)


@dataclass
class Stage:
    """The environment of a scenario: one Airflow, one OSAI, and the components that it has started."""

    airflow: WholeAirflow
    server: Server
    before: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)

    def begin(self, dag_id: str) -> Run:
        """Start a run whose jobs run until the scenario ends them."""
        self._script(LONG)
        dataset = self.server.osai.new_dataset()
        self.runs.append(Run(self, dag_id, self.airflow.trigger(dag_id, {"dataset": dataset})))
        return self.runs[-1]

    def _script(self, seconds: float) -> None:
        """Say how long the jobs run that are submitted from now on."""
        self.server.osai.post("scripts", {"kind": "training", "timing": "seconds", "seconds": seconds})

    def end_jobs(self) -> None:
        """Let OSAI end all jobs as succeeded, and those that are submitted from now on after a second."""
        self._script(1)
        for job in self.jobs():
            if job["state"] in LIVE:
                self.finish(job["id"])

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of this scenario."""
        return [job for job in self.server.osai.jobs() if job["id"] not in self.before]

    @contextmanager
    def triggerer(self, name: str) -> Iterator[ProcessGroup]:
        """Start a triggerer that can be frozen and killed."""
        with self.airflow.part(name, *TRIGGERER) as part:
            yield part

    def finish(self, job_id: str) -> None:
        """Let OSAI end a job as succeeded, if it has not ended."""
        self.server.osai.post(f"jobs/{job_id}/end")

    def running(self, count: int) -> None:
        """Wait until this many jobs are running in OSAI."""
        until(lambda: sum(job["state"] == "running" for job in self.jobs()) == count, f"{count} jobs run")

    def all_ended(self) -> bool:
        """Wait until all jobs have ended; return whether they have."""
        try:
            until(lambda: not any(job["state"] in LIVE for job in self.jobs()), "no job lives", SETTLED)
        except AssertionError:
            return False
        return True


def until(true: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Poll until the condition is true."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.3)


def verdict(stage: Stage, *runs: Run, calm: bool = True) -> list[Counter[str]]:
    """Let all jobs end, and count the violations for each task once its run has succeeded.

    :param calm: whether each task must have exactly one job; otherwise cancelled jobs are not counted.
    """
    stage.end_jobs()
    ended = [(run, task_id) for run in runs if run.end() for task_id in sorted(run.tasks())]
    stage.all_ended()
    jobs = {job["id"]: job["state"] for job in stage.jobs()}
    results: list[str | None] = []
    found: list[Counter[str]] = []
    for run, task_id in ended:
        state = run.tasks()[task_id]["state"]
        result = run.stage.airflow.xcom(run.dag_id, run.run_id, task_id)["job_id"] if state == "success" else None
        found.append(Counter(lost=state != "success", wrong_result=jobs.get(result) != "succeeded"))
        if task_id.startswith("train"):
            results.append(result)
    extra = [job for job, state in jobs.items() if state != "cancelled" or calm]
    found[0] += Counter(
        doubled=len(extra) - len(results),
        wrong_result=len(results) - len(set(results)),
        left_running=sum(state in LIVE for state in jobs.values()),
    )
    return found


def killed_triggerer(stage: Stage, signum: signal.Signals = signal.SIGKILL) -> list[Counter[str]]:
    """A triggerer stops with deferred tasks and sensors; another one starts while the jobs end."""
    with stage.triggerer("first") as first:
        run, sensed = stage.begin("deferred"), stage.begin("sensed")
        stage.running(7)
        run.until("deferred")
        sensed.until("deferred", "wait_deferred")
        first.send(signum)
        until(lambda: not first.is_running, "the triggerer has ended")
        with stage.triggerer("second"):
            return verdict(stage, run, sensed)


def stopped_triggerer(stage: Stage) -> list[Counter[str]]:
    """A deployment: the triggerer gets SIGTERM and cancels what it runs."""
    return killed_triggerer(stage, signal.SIGTERM)


def frozen_triggerer(stage: Stage) -> list[Counter[str]]:
    """A triggerer with all triggers freezes, another one takes them over, and the first one continues."""
    with stage.triggerer("first") as first:
        run = stage.begin("deferred")
        run.until("deferred")
        stage.running(4)
        until(lambda: all(map(triggerer_of, run.tasks().values())), "the triggerer has all triggers")
        owner = {triggerer_of(task) for task in run.tasks().values()}
        with stage.triggerer("second"):
            first.send(signal.SIGSTOP)
            until(
                lambda: not owner & {triggerer_of(task) for task in run.tasks().values()},
                "the second triggerer has all triggers",
            )
            first.send(signal.SIGCONT)
            return verdict(stage, run)


def triggerer_of(task: dict[str, Any]) -> int | None:
    """Return the triggerer that has a task's trigger."""
    return (task["triggerer_job"] or {}).get("id")


def no_triggerer(stage: Stage) -> list[Counter[str]]:
    """No triggerer runs at the timeout: Airflow's own timeout ends the wait, and the job is cancelled."""
    with stage.triggerer("only") as only:
        run = stage.begin("late")
        run.until("deferred")
        stage.running(4)
        only.send(signal.SIGKILL)
        assert run.end() == "failed"
    stage.all_ended()
    states = [job["state"] for job in stage.jobs()]
    logs = [stage.airflow.task_log(run.dag_id, run.run_id, task_id) for task_id in run.tasks()]
    found = [Counter(wrong_result="OsaiJobTimeout" not in log) for log in logs]
    found[0] += Counter(doubled=len(states) - 4, left_running=sum(state != "cancelled" for state in states))
    return found


def by_hand(stage: Stage, dag_id: str, state: str) -> list[Counter[str]]:
    """A user marks one task failed and one success, clears one, and leaves one alone."""
    with stage.triggerer("only"):
        run = stage.begin(dag_id)
        run.until(state)
        stage.running(4)
        jobs = pushed_jobs(run)
        for task_id, word in (("train_0", "failed"), ("train_1", "success")):
            stage.airflow.set_task_state(dag_id, run.run_id, task_id, word)
        stage.airflow.clear(dag_id, run.run_id, "train_2")
        until(lambda: run.job_of("train_2") not in (None, jobs["train_2"]), "the cleared task has a new job")
        again = run.job_of("train_2")
        stage.running(2)
        for job_id in (jobs["train_3"], again):
            stage.finish(job_id)
        run.end()
    states = {job["id"]: job["state"] for job in stage.jobs()}
    tasks = {task_id: task["state"] for task_id, task in run.tasks().items()}
    wanted = {
        "train_0": ("failed", jobs["train_0"], "cancelled"),
        "train_1": ("success", jobs["train_1"], "cancelled"),
        "train_2": ("success", again, "succeeded"),
        "train_3": ("success", jobs["train_3"], "succeeded"),
    }
    found = [
        Counter(wrong_result=tasks[task_id] != end or states.get(job) != fate)
        for task_id, (end, job, fate) in wanted.items()
    ]
    found[0] += Counter(doubled=len(states) - 5, left_running=states[jobs["train_2"]] != "cancelled")
    return found


def pushed_jobs(run: Run) -> dict[str, str]:
    """Wait until all tasks have pushed the ids of their jobs, a moment after OSAI runs them; return the ids by task."""
    until(lambda: all(run.job_of(task_id) for task_id in run.tasks()), "the tasks have pushed the ids of their jobs")
    return {task_id: run.job_of(task_id) for task_id in run.tasks()}


def deferred_by_hand(stage: Stage) -> list[Counter[str]]:
    """Deferred tasks are marked and cleared."""
    return by_hand(stage, "deferred", "deferred")


def running_by_hand(stage: Stage) -> list[Counter[str]]:
    """Tasks that wait on a worker are marked and cleared."""
    return by_hand(stage, "blocking", "running")


def killed_workers(stage: Stage) -> list[Counter[str]]:
    """The process that runs a task and the one that supervises it get SIGTERM and SIGKILL."""
    run = stage.begin("blocking")
    run.until("running")
    pushed_jobs(run)
    victims: dict[str, psutil.Process] = {}
    for number, (task_id, task) in enumerate(sorted(run.tasks().items())):
        runner = process_of(stage, task["id"])
        victims[task_id] = runner if number < 2 else runner.parent()
        victims[task_id].send_signal(signal.SIGTERM if number % 2 == 0 else signal.SIGKILL)
    signalled = time.monotonic()

    def runs_again(task_id: str, task: dict[str, Any]) -> bool:
        # The supervisors of Airflow 3.1 ignore SIGTERM, and their tasks go on.
        ignores = is_alive(victims[task_id]) and time.monotonic() > signalled + SETTLED
        return task["state"] == "running" and (task["try_number"] > 1 or ignores)

    until(lambda: all(starmap(runs_again, run.tasks().items())), "each task that was killed runs again")
    pushed_jobs(run)
    return verdict(stage, run, calm=False)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def process_of(stage: Stage, task_instance: str) -> psutil.Process:
    """Find the process that runs a task instance."""
    for pid in stage.airflow.processes:
        try:
            process = psutil.Process(pid)
            if " ".join(process.cmdline()).strip() == f"airflow worker -- {task_instance}":
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no process runs {task_instance}")


def restarted_osai(stage: Stage) -> list[Counter[str]]:
    """OSAI is killed while all tasks wait, and restarts with its jobs ten seconds later."""
    with stage.triggerer("only"):
        runs = [stage.begin(dag_id) for dag_id in ("deferred", "blocking", "sensed")]
        stage.running(11)
        runs[0].until("deferred")
        stage.server.end(signal.SIGKILL)
        time.sleep(10)
        stage.server.start()
        return verdict(stage, *runs)


SCENARIOS: dict[str, Callable[[Stage], list[Counter[str]]]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        killed_triggerer,
        stopped_triggerer,
        frozen_triggerer,
        no_triggerer,
        deferred_by_hand,
        running_by_hand,
        killed_workers,
        restarted_osai,
    )
}


@contextmanager
def theatre(dags: Path, environment: Callable[[str], dict[str, str]]) -> Iterator[tuple[WholeAirflow, Server]]:
    """Run an Airflow without triggerers on PostgreSQL, and a persistent sandbox, until the end of the block.

    :param environment: creates Airflow's settings, given the database's address.
    """
    with tempfile.TemporaryDirectory(prefix="osai-whole-") as name, postgres(Path(name) / "pg") as database:
        server = Server(Path(name) / "osai")
        connection = {"conn_type": "osai", "password": TOKEN, "extra": {"base_url": server.osai.base_url}}
        options = {"executable": AIRFLOW, "database": database, "environment": IMPATIENT | environment(database)}
        parts = ("api-server", "scheduler", "dag-processor")
        home = Path(name) / "home"
        try:
            with WholeAirflow(dags, home, {"osai_default": connection}, parts=parts, grace=3, **options) as airflow:
                yield airflow, server
        finally:
            server.end()


def main(arguments: list[str]) -> int:
    """Run the scenarios, or some; return 0 if no job was duplicated, lost, left running or wrong.

    With ``forget``, the tasks are not durable, which must cause violations.
    """
    chosen = [scenario for scenario in arguments if scenario in SCENARIOS] or list(SCENARIOS)
    forget = {"OSAI_CHAOS_FORGET": "yes"} if "forget" in arguments else {}
    found: list[Counter[str]] = []
    started = time.monotonic()
    with theatre(DAGS, lambda _: forget) as (airflow, server):
        airflow.wait_for_dag("sensed")
        for scenario in chosen:
            stage = Stage(airflow, server, {job["id"] for job in server.osai.jobs()})
            found += play(scenario, SCENARIOS[scenario], stage)
    return report(found, started)


def play(name: str, scenario: Callable[[Stage], list[Counter[str]]], stage: Stage) -> list[Counter[str]]:
    """Run one scenario and print its row."""
    began = time.monotonic()
    try:
        found = scenario(stage)
    except Exception as error:  # continue with the other scenarios
        found = [Counter(wrong_result=1)]
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
    bad = +sum(found, Counter())
    seconds = time.monotonic() - began
    sys.stdout.write(f"{name:<20}{'BAD' if bad else 'ok':>4}{len(found):>5} cases {seconds:6.0f} s\n")
    if bad:
        sys.stdout.write(f"  {dict(bad)}; {facts(stage)}\n")
        failures = [stage.airflow.failures(run.dag_id, run.run_id)[-3000:] for run in stage.runs]
        sys.stderr.write("\n".join([f"{name}: {stage.jobs()}", *failures, ""]))
    sys.stdout.flush()
    return found


def facts(stage: Stage) -> str:
    """Return what became of the tasks and jobs of a scenario, in one line."""
    tasks = {
        f"{run.dag_id}.{task_id}": f"{task['state']}, job {run.job_of(task_id)}"
        for run in stage.runs
        for task_id, task in run.tasks().items()
    }
    return f"tasks: {tasks}; jobs: { {job['id']: job['state'] for job in stage.jobs()} }"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
