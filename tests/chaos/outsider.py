"""The outsider matrix: disturbances of Airflow and the network, not of the tasks themselves.

``python -m tests.chaos.outsider [SCENARIO ...]`` prints a row for each scenario and, last, a line of JSON that counts
violations. A case is one task instance. Real: a complete Airflow on PostgreSQL, two triggerers, a separate scheduler,
signals, and proxies in front of OSAI and of the execution API. Simulated: OSAI (the sandbox), and the grace time after
a deadline (5 s instead of 300).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.demo.process_group import ProcessGroup
from tests.chaos.harness import LIVE, TOKEN, Server
from tests.chaos.postgres import postgres
from tests.chaos.proxy import Proxy
from tests.chaos.whole import AIRFLOW, IMPATIENT, TRIGGERER, Run, Stage, process_of, triggerer_of, until

DAGS = Path(__file__).parent / "dags_outsider"
COUNTS = ("doubled", "lost", "left_running", "cancelled_wrongly", "wrong_result")
TASKS = 3
LONG = 600.0
"""Seconds of a job that is not supposed to end by itself."""
PATIENCE = 180.0
"""Maximum seconds until an orphaned job must have been cancelled."""
AWAY = 45.0
"""Seconds during which the execution API is unavailable."""
SETTINGS = {
    **IMPATIENT,
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "10",
    "AIRFLOW__TRIGGERER__CAPACITY": "1000",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
    "AIRFLOW__API__EXPOSE_CONFIG": "False",
}
BUSY = {"quick-deferrals", "quick-webhooks"}
"""Scenarios whose load alone delays heartbeats."""
PATIENT = {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300"}
"""Airflow's default, for these scenarios."""
IDLE = 25_000
"""Milliseconds after which the database ends an idle transaction."""
WEBHOOK_SECRET = "chaos-webhook-secret"
LIVES_ON = '"$@"; exec sleep 86400'
"""A shell that outlives its command, so that the children of the command survive as well."""

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("{dag_id}", schedule=None, params={{"dataset": "none"}}):
    for number in range({tasks}):
        OsaiTrainModelOperator(
            task_id=f"train_{{number}}",
            dataset_ids="{{{{ params.dataset }}}}",
            model_name="{model}",
            osai_conn_id="{connection}",
            poll_interval=1,
            deferrable={deferrable},
            durable={durable},
            retries={retries},
            retry_delay=timedelta(seconds={delay}),
        )
"""


class Site:
    """One Airflow, the networks around it, and its components, which can be killed separately.

    :param airflow: without a scheduler and triggerers.
    :param server: the sandbox.
    :param osai: the proxy in front of the sandbox.
    :param api: the proxy in front of the execution API.
    :param folder: the parent of all data folders.
    :param durable: whether tasks are durable.
    """

    def __init__(
        self, airflow: WholeAirflow, server: Server, osai: Proxy, api: Proxy, *, folder: Path, durable: bool
    ) -> None:
        self.airflow, self.server, self.osai, self.api = airflow, server, osai, api
        self.folder, self.durable = folder, durable
        self.scheduler: ProcessGroup | None = None
        self.triggerers: list[ProcessGroup] = []
        self.burners: list[subprocess.Popen[bytes]] = []
        self._former: list[ProcessGroup] = []
        self._parts = 0

    def start_scheduler(self) -> None:
        """Start a scheduler whose workers survive its death."""
        self._parts += 1
        words = ["/bin/sh", "-c", LIVES_ON, "sh", AIRFLOW, "-P", "-m", "airflow", "scheduler", "--skip-serve-logs"]
        name = f"scheduler-{self._parts}"
        self.scheduler = self.airflow._process_group(words, name, self.airflow._env()).start()

    def end_scheduler(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the scheduler's process only; its workers and their tasks survive."""
        assert self.scheduler is not None
        (scheduler,) = schedulers(self.scheduler)
        scheduler.send_signal(signum)
        self._former.append(self.scheduler)
        self.scheduler = None

    def run_triggerers(self, count: int) -> None:
        """Start or stop triggerers until this many run."""
        while len(self.triggerers) > count:
            self.triggerers.pop().stop()
        while len(self.triggerers) < count:
            self.triggerers.append(self.new_triggerer())

    def new_triggerer(self) -> ProcessGroup:
        """Start a triggerer."""
        self._parts += 1
        return self.airflow.part(f"triggerer-{self._parts}", *TRIGGERER).start()

    def burn(self, count: int) -> None:
        """Keep this many CPU cores busy."""
        self.burners += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]

    def cool_down(self) -> None:
        """Stop keeping cores busy."""
        while self.burners:
            with self.burners.pop() as burner:
                burner.kill()

    def restore(self) -> None:
        """Undo a scenario's changes to the network and the components."""
        self.osai.release()
        self.osai.pass_on()
        self.api.pass_on()
        self.cool_down()
        self.server.osai.clear_faults()
        for family in self._former:
            family.stop()
        self._former.clear()
        if self.scheduler is None or not schedulers(self.scheduler):
            self.start_scheduler()

    def write_dag(self, dag_id: str, **how: Any) -> None:
        """Write or change the file of a Dag, and wait until Airflow has parsed it."""
        path = self.airflow.dags / f"{dag_id}.py"
        plain = {"tasks": TASKS, "model": "m", "connection": "osai_default", "deferrable": True}
        values = {"durable": self.durable, "retries": 0, "delay": 1, **plain, **how}
        partly = path.with_suffix(".partly")
        partly.write_text(DAG_FILE.format(dag_id=dag_id, **values))
        partly.replace(path)
        self.airflow.wait_for_dag(dag_id)

        def read() -> bool:
            tasks = self.airflow.tasks(dag_id)
            return [task["retries"] for task in tasks] == [values["retries"]] * values["tasks"]

        until(read, f"{dag_id} has {values['retries']} retries")


def schedulers(family: ProcessGroup) -> list[psutil.Process]:
    """Return the process of a scheduler that was started by a shell, if it is running."""
    for pid in family.processes:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.cmdline()[:1] == ["/bin/sh"]:
                return process.children()[:1]
    return []


@dataclass
class Outside(Stage):
    """The environment of a scenario."""

    site: Site = field(kw_only=True)

    def start(self, dag_id: str, seconds: float, **how: Any) -> Run:
        """Start a run whose jobs take *seconds*; *how*: further fields of the jobs' script."""
        self.script(seconds, **how)
        return self.run_of(dag_id, self.server.osai.new_dataset())

    def script(self, seconds: float, **how: Any) -> None:
        """Script the jobs that are submitted from now on."""
        self.server.osai.post("scripts", {"kind": "training", "timing": "seconds", "seconds": seconds, **how})

    def run_of(self, dag_id: str, dataset: str, run_id: str | None = None) -> Run:
        """Start a run with a dataset."""
        self.runs.append(Run(self, dag_id, self.airflow.trigger(dag_id, {"dataset": dataset}, run_id)))
        return self.runs[-1]

    def states(self) -> dict[str, str]:
        """Return the states of this scenario's jobs by id."""
        return {job["id"]: job["state"] for job in self.jobs()}

    def live(self) -> int:
        """Return the number of this scenario's unfinished jobs."""
        return sum(state in LIVE for state in self.states().values())

    def none_lives(self, patience: float = PATIENCE) -> bool:
        """Wait until all jobs have ended; return whether they have."""
        try:
            until(lambda: not self.live(), "no job lives", patience)
        except AssertionError:
            return False
        return True

    def second_line(self) -> None:
        """Cancel orphaned jobs, if this version of the package supports it."""
        time.sleep(3)  # longer than its grace time
        if self.airflow.tasks("orphans"):
            run_id = self.airflow.trigger("orphans")
            state = self.airflow.wait("orphans", run_id, timeout=120)
            assert state == "success", self.airflow.failures("orphans", run_id)[-3000:]

    def log_of(self, run: Run, task_id: str) -> str:
        """Return all logs of a task, by workers and triggerers, from disk."""
        folder = self.airflow.logs / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task_id}"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.rglob("*")) if path.is_file())


def deferred(run: Run) -> None:
    """Wait until each task of a run is deferred, its job is running, and its trigger is in a triggerer."""
    run.until("deferred")
    run.stage.running(len(run.tasks()))
    until(lambda: all(map(triggerer_of, run.tasks().values())), "a triggerer has all triggers")
    time.sleep(2)


def submitted(run: Run) -> dict[str, str]:
    """Wait until each task of a run has returned its running job; return the jobs by task."""
    run.until("running")
    run.stage.running(len(run.tasks()))
    until(lambda: all(run.job_of(task_id) for task_id in run.tasks()), "the tasks have told their jobs")
    return {task_id: str(run.job_of(task_id)) for task_id in run.tasks()}


def tries(run: Run, number: int, patience: float = 120.0) -> None:
    """Wait until each task of a run has reached a try."""
    until(
        lambda: all(t["try_number"] >= number and t["state"] == "running" for t in run.tasks().values()),
        f"try {number} runs",
        patience,
    )


def judged(
    stage: Outside, *runs: Run, cancelled: int | None = 0, old: frozenset[str] = frozenset()
) -> list[Counter[str]]:
    """Count the violations for each task of runs that should succeed.

    :param cancelled: maximum number of cancelled jobs; ``None``: any number.
    :param old: jobs that must not be returned as results.
    """
    for run in runs:
        run.end()
    stage.none_lives(20)
    jobs = stage.states()
    found: list[Counter[str]] = []
    results: list[str] = []
    for run in runs:
        for task_id, task in sorted(run.tasks().items()):
            if task["state"] != "success":
                found.append(Counter(lost=1))
                continue
            results.append(run.stage.airflow.xcom(run.dag_id, run.run_id, task_id)["job_id"])
            found.append(Counter(wrong_result=jobs.get(results[-1]) != "succeeded" or results[-1] in old))
    ended = Counter(jobs.values())
    found[0] += Counter(
        doubled=max(0, ended["succeeded"] + ended["running"] + ended["queued"] - len(found) - len(old)),
        wrong_result=len(results) - len(set(results)),
        left_running=ended["running"] + ended["queued"],
        cancelled_wrongly=0 if cancelled is None else max(0, ended["cancelled"] - cancelled),
    )
    return found


def ended_all(stage: Outside, count: int, **wrong: int) -> list[Counter[str]]:
    """Count the violations of a scenario in which all jobs must be cancelled, and none submitted again."""
    states = Counter(stage.states().values())
    found = [Counter() for _ in range(count)]
    found[0] += Counter(
        left_running=states["running"] + states["queued"],
        wrong_result=states["succeeded"],
        doubled=max(0, states.total() - count),
    )
    found[0] += Counter(wrong)
    return found


def superseded_scheduler(stage: Outside) -> list[Counter[str]]:
    """Kill the scheduler; a new one starts the tasks again, and the first tries learn that they are superseded."""
    run = stage.start("blocking", 75)
    submitted(run)
    stage.site.end_scheduler()
    stage.site.start_scheduler()
    tries(run, 2)
    found = judged(stage, run)
    was_told(stage, run)
    return found


def was_told(stage: Outside, run: Run) -> None:
    """Check that first tries were ended because they were superseded; otherwise the scenario proves nothing."""
    logs = [stage.log_of(run, task_id) for task_id in run.tasks()]
    assert all("shouldn't be running anymore" in log for log in logs), "no try was told that it was superseded"


def frozen_worker(stage: Outside) -> list[Counter[str]]:
    """Freeze the tasks and their supervisors; Airflow starts the tasks again, then the first tries continue."""
    run = stage.start("blocking", 75)
    submitted(run)
    frozen = [process_of(stage, task["id"]) for task in run.tasks().values()]
    frozen += [process.parent() for process in frozen]
    for process in frozen[::-1]:
        process.suspend()
    try:
        tries(run, 2)
        time.sleep(3)  # by now the second tries have their jobs
    finally:
        for process in frozen:
            process.resume()
    found = judged(stage, run)
    was_told(stage, run)
    return found


def api_away(stage: Outside, leave: Callable[[], None]) -> list[Counter[str]]:
    """The execution API is unavailable for a while."""
    run = stage.start("blocking", AWAY + 30)
    submitted(run)
    leave()
    time.sleep(AWAY)
    stage.site.api.pass_on()
    return judged(stage, run)


def api_refused(stage: Outside) -> list[Counter[str]]:
    """It refuses connections."""
    return api_away(stage, stage.site.api.refuse)


def api_silent(stage: Outside) -> list[Counter[str]]:
    """It accepts connections and never responds."""
    return api_away(stage, stage.site.api.blackhole)


def held_submission(stage: Outside) -> list[Counter[str]]:
    """The first submission of each task is held for longer than its client waits, and then delivered."""
    seen: set[bytes] = set()

    def first(request: bytes) -> bool:
        name = re.search(rb'"train-\d"', request)
        if not request.startswith(b"POST /api/Trainings ") or name is None or name[0] in seen:
            return False
        seen.add(name[0])
        return True

    hold = stage.site.osai.hold(first, 8)
    run = stage.start("held", 25)
    until(lambda: hold.held == TASKS, "all submissions are held")
    return judged(stage, run, cancelled=None)


def namesake_run(stage: Outside) -> list[Counter[str]]:
    """A run is deleted and created again with the same id."""
    stage.script(3)
    dataset = stage.server.osai.new_dataset()
    run = stage.run_of("deferred", dataset, "twin")
    assert run.end() == "success", stage.airflow.failures(run.dag_id, run.run_id)
    old = frozenset(stage.states())
    stage.airflow.delete_run("deferred", "twin")
    stage.runs.clear()
    return judged(stage, stage.run_of("deferred", dataset, "twin"), old=old)


def two_deployments(stage: Outside) -> list[Counter[str]]:
    """Two Airflows share an account and the names of Dag, run and tasks; in one, a user marks the tasks failed."""
    with tempfile.TemporaryDirectory(prefix="osai-second-") as name, ExitStack() as stack:
        folder = Path(name)
        database = stack.enter_context(postgres(folder / "pg"))
        extra = {"base_url": stage.site.osai.through(stage.server.osai.base_url)}
        connections = {"osai_default": {"conn_type": "osai", "password": TOKEN, "extra": extra}}
        options = {"executable": AIRFLOW, "database": database, "environment": environment(durable=stage.site.durable)}
        other = stack.enter_context(WholeAirflow(DAGS, folder / "home", connections, grace=3, **options))
        other.wait_for_dag("deferred")
        stage.script(60)
        dataset = stage.server.osai.new_dataset()
        mine = stage.run_of("deferred", dataset, "same")
        mine.until("deferred")
        second = Outside(other, stage.server, stage.before, site=stage.site)
        theirs = second.run_of("deferred", dataset, "same")
        theirs.until("deferred")
        shared = 2 * TASKS - len(stage.jobs())
        until(lambda: all(map(triggerer_of, theirs.tasks().values())), "a triggerer has all triggers")
        for task_id in theirs.tasks():
            other.set_task_state("deferred", "same", task_id, "failed")
        found = judged(stage, mine, cancelled=TASKS)
    found[0] += Counter(wrong_result=shared)
    stage.airflow.delete_run("deferred", "same")
    stage.runs.clear()
    return found


def clear_after_lower_retries(stage: Outside) -> list[Counter[str]]:
    """Tasks succeed, the retries in the Dag file are reduced, and the tasks are cleared."""
    stage.site.write_dag("lowered", retries=2)
    run = stage.start("lowered", 3)
    assert run.end() == "success"
    old = frozenset(stage.states())
    stage.site.write_dag("lowered", retries=1)
    stage.airflow.clear(run.dag_id, run.run_id)
    until(lambda: stage.airflow.run_state(run.dag_id, run.run_id) != "success", "the run goes on")
    return judged(stage, run, old=old)


def first_kill(stage: Outside) -> list[Counter[str]]:
    """A triggerer's first task is marked failed while the machine is busy; three times."""
    stage.site.run_triggerers(0)
    stage.site.burn(2)
    found = []
    for _ in range(3):
        stage.before = {job["id"] for job in stage.server.osai.jobs()}
        run = stage.start("alone", LONG)
        stage.site.run_triggerers(1)
        deferred(run)
        stage.airflow.set_task_state(run.dag_id, run.run_id, "train_0", "failed")
        stage.none_lives()
        found += ended_all(stage, 1)
        stage.site.run_triggerers(0)
    return found


def delete_dag(stage: Outside) -> list[Counter[str]]:
    """A Dag is deleted while its tasks are deferred."""
    stage.site.write_dag("doomed")
    run = stage.start("doomed", LONG)
    deferred(run)
    (stage.airflow.dags / "doomed.py").unlink()
    stage.airflow.delete_dag("doomed")
    stage.runs.clear()
    stage.none_lives()
    return ended_all(stage, TASKS)


def no_triggerer_kill(stage: Outside) -> list[Counter[str]]:
    """Deferred tasks are marked failed while no triggerer is running; the orphans command cancels their jobs."""
    run = stage.start("deferred", LONG)
    deferred(run)
    stage.site.run_triggerers(0)
    for task_id in run.tasks():
        stage.airflow.set_task_state(run.dag_id, run.run_id, task_id, "failed")
    wanted = stage.start("deferred", 45)  # its jobs must not be cancelled
    wanted.until("deferred")
    stage.second_line()
    left = max(0, stage.live() - TASKS)  # before a triggerer can find triggers that Airflow has not yet deleted
    stage.site.run_triggerers(2)
    wanted.end()
    stage.none_lives(10)
    states = Counter(stage.states().values())
    found = [Counter(lost=task["state"] != "success") for task in wanted.tasks().values()]
    found += [Counter() for _ in range(TASKS)]
    found[0] += Counter(
        left_running=max(left, states["running"] + states["queued"]),
        cancelled_wrongly=max(0, states["cancelled"] - TASKS),
        doubled=max(0, states.total() - 2 * TASKS),
    )
    return found


def killed_while_unreachable(stage: Outside) -> list[Counter[str]]:
    """Deferred tasks are marked failed while OSAI is unreachable for a minute."""
    run = stage.start("deferred", LONG)
    deferred(run)
    stage.site.osai.blackhole()
    for task_id in run.tasks():
        stage.airflow.set_task_state(run.dag_id, run.run_id, task_id, "failed")
    time.sleep(60)
    stage.site.osai.pass_on()
    stage.none_lives()
    logs = [stage.log_of(run, task_id) for task_id in run.tasks()]
    silent = sum(not re.search(r"(?i)may (still )?(run|go on|be running)", log) for log in logs)
    return ended_all(stage, TASKS, wrong_result=silent)


def paused_at_deadline(stage: Outside) -> list[Counter[str]]:
    """A Dag is paused when its deferred tasks time out, so that no worker runs for them."""
    run = stage.start("late", LONG)
    run.until("deferred")
    stage.running(TASKS)
    stage.airflow.pause("late")
    try:
        stage.none_lives(45)
        found = ended_all(stage, TASKS)
    finally:
        stage.airflow.unpause("late")
    assert run.end() == "failed"
    logs = [stage.log_of(run, task_id) for task_id in run.tasks()]
    found[0] += Counter(wrong_result=sum("OsaiJobTimeout" not in log for log in logs))
    return found


def retry_after_timeout(stage: Outside) -> list[Counter[str]]:
    """A job stops slowly after the timeout of a try, and the next try starts meanwhile."""
    # It looks running for this many reads, whatever its real state.
    run = stage.start("again", LONG, word="Running", word_reads=90)
    stage.running(TASKS)
    stage.script(5)
    return judged(stage, run, cancelled=TASKS)


def region_between_tries(stage: Outside) -> list[Counter[str]]:
    """Tasks lose their workers, and the next tries have another connection, to another OSAI, in the Dag file."""
    dataset = stage.server.osai.new_dataset()
    shutil.copytree(stage.site.folder / "osai", stage.site.folder / "elsewhere")  # with the same dataset
    elsewhere = Server(stage.site.folder / "elsewhere")
    try:
        before = {job["id"] for job in elsewhere.osai.jobs()}
        extra = {"base_url": elsewhere.osai.base_url}
        stage.airflow.set_connection("osai_moved", {"conn_type": "osai", "password": TOKEN, "extra": extra})
        elsewhere.osai.post("scripts", {"kind": "training", "timing": "seconds", "seconds": 5})
        how = {"deferrable": False, "retries": 2, "delay": 15}
        stage.site.write_dag("moved", **how)
        stage.script(LONG)
        run = stage.run_of("moved", dataset)
        submitted(run)
        runners = [process_of(stage, task["id"]) for task in run.tasks().values()]
        stage.site.write_dag("moved", **{**how, "retries": 3, "connection": "osai_moved"})
        for runner in runners:
            runner.kill()
        run.end()
        stage.none_lives(20)
        there = Counter(job["state"] for job in elsewhere.osai.jobs() if job["id"] not in before)
        found = ended_all(stage, TASKS)
        found[0] += Counter(doubled=max(0, there.total() - TASKS))
        found[0] += Counter(lost=sum(task["state"] != "success" for task in run.tasks().values()))
    finally:
        elsewhere.end()
    return found


def resume(stage: Outside, trouble: Callable[[], None], end: Callable[[], None]) -> list[Counter[str]]:
    """OSAI becomes unavailable for half a minute after the jobs have ended and before their tasks resume."""
    run = stage.start("deferred", 20)
    deferred(run)
    stage.airflow.pause("deferred")  # so that there is time between the two
    run.until("scheduled")
    trouble()
    stage.airflow.unpause("deferred")
    time.sleep(30)
    end()
    return judged(stage, run)


def resume_while_token_refused(stage: Outside) -> list[Counter[str]]:
    """OSAI rejects the access token."""
    osai = stage.server.osai

    def refuse() -> None:
        osai.post("faults", {"kind": "status", "endpoint": "auth.sign_in", "status": 401, "times": 100_000})
        osai.post("faults", {"kind": "expired_token", "times": 1})

    return resume(stage, refuse, osai.clear_faults)


def resume_while_unreachable(stage: Outside) -> list[Counter[str]]:
    """OSAI refuses connections."""
    return resume(stage, stage.site.osai.refuse, stage.site.osai.pass_on)


def quick(stage: Outside, dag_id: str, count: int) -> list[Counter[str]]:
    """Many jobs end shortly after their tasks were deferred, on a busy machine."""
    stage.site.burn(1)
    over = threading.Event()

    def vary() -> None:
        chance = random.Random(15)
        while not over.wait(0.05):
            stage.script(round(chance.uniform(0.1, 5.5), 2))

    varying = threading.Thread(target=vary)
    varying.start()
    try:
        run = stage.run_of(dag_id, stage.server.osai.new_dataset())
        stage.airflow.wait(dag_id, run.run_id, timeout=900)
    finally:
        over.set()
        varying.join()
        stage.site.cool_down()
    tasks = stage.airflow.task_instances(dag_id, run.run_id)
    states = Counter(stage.states().values())
    found = [Counter(lost=task["state"] != "success") for task in tasks]
    assert len(found) == count, f"{len(found)} tasks"
    found[0] += Counter(
        doubled=max(0, states.total() - count),
        left_running=states["running"] + states["queued"],
        cancelled_wrongly=states["cancelled"],
    )
    return found


def quick_deferrals(stage: Outside) -> list[Counter[str]]:
    """The triggerer polls."""
    return quick(stage, "quick", 200)


def quick_webhooks(stage: Outside) -> list[Counter[str]]:
    """OSAI sends webhooks."""
    return quick(stage, "woken", 40)


SCENARIOS: dict[str, Callable[[Outside], list[Counter[str]]]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        superseded_scheduler,
        frozen_worker,
        api_refused,
        api_silent,
        held_submission,
        namesake_run,
        two_deployments,
        clear_after_lower_retries,
        first_kill,
        delete_dag,
        no_triggerer_kill,
        killed_while_unreachable,
        paused_at_deadline,
        retry_after_timeout,
        region_between_tries,
        resume_while_token_refused,
        resume_while_unreachable,
        quick_deferrals,
        quick_webhooks,
    )
}


def environment(*, durable: bool) -> dict[str, str]:
    """Return the settings of every Airflow of this matrix."""
    return SETTINGS | ({} if durable else {"OSAI_CHAOS_FORGET": "yes"})


@contextmanager
def site(
    dags: Path, *, durable: bool = True, in_database: bool = False, more: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Run an Airflow with one scheduler on PostgreSQL, a persistent sandbox, and proxies, until the end of the block.

    :param dags: the Dag folder.
    :param in_database: whether the connection ``osai_default`` is in the database, where it can be changed.
    :param more: settings that override those of all sites.
    """
    with tempfile.TemporaryDirectory(prefix="osai-outside-") as name, ExitStack() as stack:
        folder = Path(name)
        database = stack.enter_context(postgres(folder / "pg"))
        end_idle_transactions(database)
        server = Server(folder / "osai")
        stack.callback(server.end)
        osai, api = stack.enter_context(Proxy(server.osai.base_url)), stack.enter_context(Proxy())
        plain = {"base_url": osai.through(server.osai.base_url)}
        webhook = {**plain, "webhook_secret": WEBHOOK_SECRET}
        extras = {"osai_default": plain, "osai_brief": {**plain, "timeout": 2}, "osai_webhook": webhook}
        connections = {key: {"conn_type": "osai", "password": TOKEN, "extra": extra} for key, extra in extras.items()}
        default = connections.pop("osai_default") if in_database else None
        variables = {**environment(durable=durable), **(more or {})}
        variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = api.through("http://127.0.0.1/execution/")
        options = {"executable": AIRFLOW, "database": database, "environment": variables}
        parts = ("api-server", "dag-processor")
        airflow = WholeAirflow(dags, folder / "home", connections, parts=parts, grace=3, **options)
        webhook["webhook_base_url"] = api.target = airflow.url
        stack.enter_context(airflow)
        if default:
            airflow.set_connection("osai_default", default)
        made = Site(airflow, server, osai, api, folder=folder, durable=durable)
        stack.callback(made.cool_down)
        made.start_scheduler()
        yield made


def end_idle_transactions(database: str) -> None:
    """Let the database end transactions that are idle for longer than any freeze in the scenarios.

    Children of a killed scheduler keep its database connections open, with the locks of its transactions.
    """
    with contextlib.closing(psycopg2.connect(database.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            name = cursor.fetchone()[0]
            cursor.execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = {IDLE}')


def tell(found: list[Counter[str]], started: float) -> int:
    """Print the line of JSON; return 0 if all counts are 0, else 1."""
    total = sum(found, Counter())
    counts = {name: total[name] for name in COUNTS}
    line = {"cases": len(found), **counts, "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return 1 if any(counts.values()) else 0


def play(name: str, scenario: Callable[[Outside], list[Counter[str]]], stage: Outside) -> list[Counter[str]]:
    """Run one scenario, print its row, and restore the environment."""
    began = time.monotonic()
    stage.site.run_triggerers(2)
    try:
        found = scenario(stage)
    except Exception as error:  # continue with the other scenarios
        found = [Counter(wrong_result=1)]
        sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    bad = +sum(found, Counter())
    seconds = time.monotonic() - began
    more = f"  {json.dumps(bad)}" if bad else ""
    sys.stdout.write(f"{name:<28}{'BAD' if bad else 'ok':>4}{len(found):>5} cases {seconds:6.0f} s{more}\n")
    sys.stdout.flush()
    if bad:
        sys.stderr.write(f"{name}: {dict(bad)}, jobs: {json.dumps(stage.jobs())}\n")
        for run in stage.runs:
            sys.stderr.write(failures(stage, run) + "\n")
    stage.site.restore()
    for run in stage.runs:
        with contextlib.suppress(httpx.HTTPError):
            if stage.airflow.run_state(run.dag_id, run.run_id) == "running":
                stage.airflow.set_run_state(run.dag_id, run.run_id, "failed")
    return found


def failures(stage: Outside, run: Run) -> str:
    """Return the ends of the logs of a run's unsuccessful tasks, or of all."""
    try:
        tasks = run.tasks()
    except httpx.HTTPError as error:
        return f"{run.dag_id} {run.run_id}: {error}"
    chosen = [task_id for task_id, task in tasks.items() if task["state"] != "success"] or list(tasks)
    texts = [f"{run.dag_id} {run.run_id} {[(key, t['state'], t['try_number']) for key, t in tasks.items()]}"]
    texts += [f"-- {task_id}\n{brief(stage.log_of(run, task_id))}" for task_id in chosen[:3]]
    return "\n".join(texts)


NEED_STORE = {"retry-after-timeout", "region-between-tries"}
"""What a retry can only know from Airflow's task state store (3.3 and newer; see docs/reliability.md): that its job was
cancelled, and through which connection it was submitted."""


def brief(log: str, lines: int = 80) -> str:
    """Return the last lines of a task's log, without the fields that are the same in each line."""
    texts = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            texts.append(line)
            continue
        if str(entry.get("event", "")).startswith(("::", "DAG bundles", "Filling up", "Worker startup")):
            continue
        errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
        words = [str(entry.get(key, "")) for key in ("timestamp", "level", "try_number", "event", "detail")]
        texts.append(" ".join([words[0][11:23], *filter(None, words[1:]), *errors]))
    return "\n".join(texts[-lines:])


def main(arguments: list[str]) -> int:
    """Run the scenarios, or some; return 0 if all counts are 0, else 1.

    With ``forget``, the tasks are not durable, which must cause violations.
    """
    unknown = set(arguments) - set(SCENARIOS) - {"forget"}
    assert not unknown, f"no scenarios: {unknown}; there are {', '.join(SCENARIOS)}"
    has_store = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 3)
    promised = [scenario for scenario in SCENARIOS if has_store or scenario not in NEED_STORE]
    chosen = [scenario for scenario in arguments if scenario in SCENARIOS] or promised
    found: list[Counter[str]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="osai-dags-") as name:
        dags = Path(name) / "dags"
        shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
        for group, more in (
            ([one for one in chosen if one not in BUSY], {}),
            ([one for one in chosen if one in BUSY], PATIENT),
        ):
            if not group:
                continue
            with site(dags, durable="forget" not in arguments, more=more) as where:
                where.airflow.wait_for_dag("orphans")
                for scenario in group:
                    before = {job["id"] for job in where.server.osai.jobs()}
                    stage = Outside(where.airflow, where.server, before, site=where)
                    found += play(scenario, SCENARIOS[scenario], stage)
                if "keep" in os.environ.get("OSAI_CHAOS_LOGS", ""):
                    kept = Path(tempfile.gettempdir()) / "outsider-logs"
                    shutil.copytree(where.airflow.logs, kept, dirs_exist_ok=True)
    return tell(found, started)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
