"""The combination matrix: two or three random disturbances in a row for each of many tasks.

``python -m tests.chaos.combination [--seed S] [--draws N]`` prints a row for each batch of ten draws and, last, a line
of JSON that counts violations. ``--draw K`` plays one draw alone, with the disturbances of its batch that affect all. A
case is a draw: one run of a separate Dag with one task. Real and simulated are the same as in the outsider matrix.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.harness import LIVE, TOKEN, Osai
from tests.chaos.outsider import DAGS, Outside, Site, brief, site, tell
from tests.chaos.whole import Run, process_of, until

BATCH = 10
DRAWS = 150
SEED = 20261124
GLOBALS = 4
"""Maximum number of disturbances per batch that affect all of its draws."""
RETRIES = 4
TIMEOUT = 5
"""The connection's ``timeout`` in seconds; a held submission is held for longer."""
HELD = 8.0
DEADLINE = 15
"""``execution_timeout`` in seconds for the draws that have one: less than their jobs take."""
PATIENCE = 240.0
"""Maximum seconds from the last disturbance to the end of a run."""
LONG = 1200.0
"""Seconds after which a job ends by itself: an orphaned job must not end before it is detected."""
OLD = 60.0
"""Additional seconds after which a job ends that should have been replaced, but for which its task still waits."""
SETTLED = 15.0
"""Maximum seconds that a job may live after orphaned jobs were cancelled."""
DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_osai.operators import job
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

job.GRACE = 5.0  # simulated: five minutes in earnest

with DAG("{dag_id}", schedule=None, params={{"dataset": "none"}}):
    OsaiTrainModelOperator(
        task_id="train",
        dataset_ids="{{{{ params.dataset }}}}",
        model_name="{model}",
        poll_interval=1,
        deferrable={deferrable},
        durable={durable},
        retries={retries},
        retry_delay=timedelta(seconds=1),
        execution_timeout=timedelta(seconds={timeout}) if {timeout} else None,
    )
"""


class NotNow(Exception):
    """A disturbance has no target."""


@dataclass(frozen=True)
class Step:
    """One disturbance.

    :param kind: a key of KINDS.
    :param after: seconds since the start of the run, or since the previous step.
    :param lasts: seconds until it is undone, if it can be undone.
    :param value: depends on the kind.
    """

    kind: str
    after: float
    lasts: float
    value: int

    def __str__(self) -> str:
        return f"+{self.after:g} s {self.kind} ({self.lasts:g} s, {self.value})"


@dataclass(frozen=True)
class Plan:
    """The plan of one draw.

    :param number: the draw's number.
    :param deferrable: whether the task waits in a triggerer.
    :param deadline: whether it has a timeout that its job exceeds.
    :param steps: its disturbances.
    """

    number: int
    deferrable: bool
    deadline: bool
    steps: tuple[Step, ...]


def planned(seed: int, batch: int) -> tuple[float, list[Plan]]:
    """Return the duration of a batch's jobs in seconds, and the plans of its draws."""
    chance = random.Random(f"{seed}/{batch}")
    left = GLOBALS
    plans = []
    seconds = float(chance.randint(25, 40))
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        deferrable, deadline = chance.random() < 0.5, chance.random() < 0.1
        steps: list[Step] = []
        for _ in range(chance.choice((2, 3))):
            kinds = [kind for kind, how in KINDS.items() if how.fits(deferrable=deferrable) and (left or not how.all)]
            kind = chance.choices(kinds, [KINDS[kind].weight for kind in kinds])[0]
            left -= KINDS[kind].all
            after = chance.uniform(0.5, 15) if not steps else chance.uniform(0, 8)
            steps.append(Step(kind, round(after, 1), round(chance.uniform(6, 20), 1), chance.randrange(1000)))
        plans.append(Plan(number, deferrable, deadline, tuple(steps)))
    return seconds, plans


@dataclass
class Facts:
    """What was done to a draw's task, as far as it matters to the judge. Times are seconds since the epoch."""

    deadline: bool = False
    against: bool = False
    """Whether a user has ended the task, and not restarted it since."""
    cancel_from: float = float("inf")
    """When a job's cancellation was first requested, by a user or by a signal to the task."""
    fresh_after: float = 0.0
    """When the task last had to start over; earlier results are outdated."""
    renewals: int = 0
    """How many times a new job was requested: by a clear, a new run, or changed arguments."""
    lowered: bool = False
    """Whether the task's retries were reduced."""
    ended: bool = True
    """Whether its run has ended."""
    settled: float = float("inf")
    """When the cancellation of orphaned jobs started; jobs that it cancels are not violations."""
    state: str | None = None
    """The task's last state; ``None`` if Airflow no longer has it."""
    try_number: int = 0
    max_tries: int = 0
    result: str | None = None
    """The id of the job that the task has returned."""

    def asked(self, at: float) -> None:
        """Record that jobs may be cancelled from this time on."""
        self.cancel_from = min(self.cancel_from, at)


@dataclass(frozen=True)
class JobFacts:
    """A job of a draw, as reported by OSAI. Times are seconds since the epoch."""

    id: str
    reference: str
    state: str
    created: float
    finished: float | None


def judge(facts: Facts, jobs: Iterable[JobFacts]) -> Counter[str]:
    """Count the violations."""
    known = {job.id: job for job in jobs}
    succeeded = [job for job in known.values() if job.state == "succeeded"]
    keys = Counter(job.reference for job in known.values())
    wrongly = [
        job
        for job in known.values()
        if job.state == "cancelled"
        and not facts.deadline
        and keys[job.reference] == 1  # else it is a duplicate
        and (job.finished or 0.0) < min(facts.cancel_from, facts.settled)
    ]
    fresh = [job for job in succeeded if job.created >= facts.fresh_after]
    failed_with_retries = facts.state == "failed" and facts.try_number <= facts.max_tries
    excused = facts.against or facts.deadline or facts.lowered
    result = known.get(facts.result or "")
    old = result is not None and result.created < facts.fresh_after
    return +Counter(
        doubled=max(0, len(succeeded) - 1 - facts.renewals),
        lost=int(bool(fresh) and not excused and (failed_with_retries or not facts.ended)),
        left_running=sum(job.state in LIVE for job in known.values()),
        cancelled_wrongly=len(wrongly),
        wrong_result=int(facts.result is not None and (result is None or result.state != "succeeded" or old)),
    )


class Trial:
    """One draw while it runs.

    :param batch: its batch.
    :param plan: its disturbances.
    """

    def __init__(self, batch: Batch, plan: Plan) -> None:
        self.batch, self.plan, self.site = batch, plan, batch.site
        self.airflow = batch.site.airflow
        self.dag_id = f"draw_{batch.name}_{plan.number}"
        self.run_id = "one"
        self.model = f"d{plan.number}"
        self.retries = 1 if plan.deadline else RETRIES
        self.dataset = ""
        self.facts = Facts(deadline=plan.deadline)
        self.told: list[str] = []
        self.is_deleted = False

    @property
    def path(self) -> Path:
        """Its Dag file."""
        return self.airflow.dags / f"{self.dag_id}.py"

    def write(self) -> None:
        """Write its Dag file."""
        partly = self.path.with_suffix(".partly")
        timeout = DEADLINE if self.plan.deadline else 0
        values = {"dag_id": self.dag_id, "model": self.model, "retries": self.retries, "timeout": timeout}
        values |= {"deferrable": self.plan.deferrable, "durable": self.site.durable}
        partly.write_text(DAG_FILE.format(**values))
        partly.replace(self.path)

    def begin(self) -> None:
        """Start its run."""
        self.dataset = self.site.server.osai.new_dataset()
        self.airflow.trigger(self.dag_id, {"dataset": self.dataset}, self.run_id)

    def play(self) -> None:
        """Apply its disturbances one after the other."""
        for step in self.plan.steps:
            if self.batch.is_over.wait(step.after):
                return
            began = time.time()
            try:
                undo = KINDS[step.kind].act(self, step)
                outcome = "done"
            except (NotNow, LookupError, AssertionError, httpx.HTTPError, OSError, psutil.Error) as error:
                undo, outcome = None, f"not done: {type(error).__name__} {error}"[:200]
            self.told.append(f"{clock(began)} {step}: {outcome}")
            if undo is not None:
                self.batch.later(step.lasts, undo)

    def task(self) -> dict[str, Any]:
        """Its task instance.

        :raises LookupError: if Airflow does not have it.
        """
        try:
            tasks = self.airflow.task_instances(self.dag_id, self.run_id)
        except httpx.HTTPStatusError as error:
            raise LookupError(str(error)) from error
        if not tasks:
            raise LookupError("no task")
        return tasks[0]

    def is_over(self) -> bool:
        """Whether its run has ended or was deleted."""
        try:
            return self.airflow.run_state(self.dag_id, self.run_id) in {"success", "failed"}
        except httpx.HTTPStatusError as error:
            return error.response.status_code == httpx.codes.NOT_FOUND

    def delete(self) -> bool:
        """Delete its Dag; return whether that was possible."""
        try:
            self.airflow.delete_dag(self.dag_id)
        except httpx.HTTPStatusError as error:
            return error.response.status_code == httpx.codes.NOT_FOUND
        return True

    def conclude(self) -> None:
        """Record how its task ended."""
        try:
            task = self.task()
        except LookupError:
            return
        facts = self.facts
        facts.state, facts.try_number, facts.max_tries = task["state"], task["try_number"], task["max_tries"]
        if facts.state == "success":
            with contextlib.suppress(LookupError):
                facts.result = self.airflow.xcom(self.dag_id, self.run_id, "train")["job_id"]

    def runner(self) -> psutil.Process:
        """The process that runs its task."""
        task = self.task()
        if task["state"] != "running":
            raise NotNow(f"the task is {task['state']}")
        stage = self.batch.stage
        return process_of(stage, task["id"])

    def renew(self, at: float) -> None:
        """Record that the task had to start over at this time."""
        self.facts.fresh_after = at
        self.facts.renewals += 1
        self.facts.against = False
        self.facts.asked(at)

    def log(self) -> str:
        """All logs of its task."""
        return self.batch.stage.log_of(Run(self.batch.stage, self.dag_id, self.run_id), "train")


def clock(seconds: float) -> str:
    """Return the time of day in UTC, as in the logs."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f"{seconds % 1:.2f}"[1:]


Undo = Callable[[], object]
Act = Callable[[Trial, Step], "Undo | None"]


def supervisor_of(runner: psutil.Process) -> psutil.Process:
    """Return the process that supervises a task's process; after its end, the task has another parent."""
    parent = runner.parent()
    if parent is None or "LocalExecutor" not in " ".join(parent.cmdline()):
        raise NotNow("the task has no supervisor")
    return parent


def signal_task(trial: Trial, step: Step) -> None:
    """Send SIGTERM or SIGKILL to the task's process or to its supervisor."""
    runner = trial.runner()
    victim = supervisor_of(runner) if step.value % 2 else runner
    signum = (signal.SIGTERM, signal.SIGKILL)[step.value // 2 % 2]
    if signum == signal.SIGTERM:
        trial.facts.asked(time.time())
    victim.send_signal(signum)
    trial.told.append(f"  {signum.name} to the {('task', 'supervisor')[step.value % 2]}")


def freeze_task(trial: Trial, step: Step) -> Undo:
    """Send SIGSTOP to both, and SIGCONT later."""
    runner = trial.runner()
    frozen = [supervisor_of(runner), runner]
    for process in frozen:
        process.suspend()

    def resume() -> None:
        for process in frozen:
            with contextlib.suppress(psutil.Error):
                process.resume()

    return resume


def kill_triggerer(trial: Trial, step: Step) -> Undo:
    """Send SIGTERM or SIGKILL to a triggerer, and start another one later."""
    where, index = trial.site, step.value % 2
    with trial.batch.parts:
        family = where.triggerers[index]
        family.send((signal.SIGTERM, signal.SIGKILL)[step.value // 2 % 2])

    def replace() -> None:
        with trial.batch.parts:
            if where.triggerers[index] is family:
                family.stop()
                where.triggerers[index] = where.new_triggerer()

    return replace


def freeze_triggerer(trial: Trial, step: Step) -> Undo:
    """Send SIGSTOP to a triggerer, and SIGCONT later."""
    family = trial.site.triggerers[step.value % 2]
    family.send(signal.SIGSTOP)
    return lambda: family.send(signal.SIGCONT)


def end_scheduler(trial: Trial, step: Step) -> Undo:
    """Send SIGKILL or SIGTERM to the scheduler, whose workers survive, and start a new one later."""
    where = trial.site
    with trial.batch.parts:
        if where.scheduler is None:
            raise NotNow("there is no scheduler")
        where.end_scheduler((signal.SIGKILL, signal.SIGTERM)[step.value % 2])

    def replace() -> None:
        with trial.batch.parts:
            if where.scheduler is None:
                where.start_scheduler()

    return replace


def network(name: str, mode: str) -> Act:
    """Return a disturbance that changes a proxy's mode, and restores it unless it was changed again meanwhile."""

    def act(trial: Trial, step: Step) -> Undo | None:
        proxy = getattr(trial.site, name)
        if mode == "cut":
            proxy.cut()
            return None
        mine = trial.batch.take(name)
        getattr(proxy, mode)(*([1.0 + step.value % 3] if mode == "delay" else []))
        return lambda: proxy.pass_on() if trial.batch.is_newest(name, mine) else None

    act.__doc__ = f"{name} {mode}"
    return act


def hold_submission(trial: Trial, step: Step) -> None:
    """Deliver the task's next submission after its client has given up."""
    trial.batch.to_hold.add(trial.plan.number)


def mark(state: str) -> Act:
    """Return a disturbance that marks the task."""

    def act(trial: Trial, step: Step) -> None:
        began = time.time()
        trial.airflow.set_task_state(trial.dag_id, trial.run_id, "train", state)
        trial.facts.against = True
        trial.facts.asked(began)

    act.__doc__ = f"The task is marked {state}."
    return act


def clear(trial: Trial, step: Step) -> None:
    """Clear the task."""
    trial.task()
    began = time.time()
    trial.airflow.clear(trial.dag_id, trial.run_id, "train")
    trial.renew(began)


def recreate_run(trial: Trial, step: Step) -> None:
    """Mark the run failed, delete it, and create it again with the same id."""
    trial.task()
    trial.facts.against = True
    trial.facts.asked(time.time())
    trial.airflow.set_run_state(trial.dag_id, trial.run_id, "failed")
    trial.airflow.delete_run(trial.dag_id, trial.run_id)
    began = time.time()
    trial.airflow.trigger(trial.dag_id, {"dataset": trial.dataset}, trial.run_id)
    trial.renew(began)


def pause(trial: Trial, step: Step) -> Undo:
    """Pause the Dag for a while."""
    trial.airflow.pause(trial.dag_id)
    return lambda: None if trial.is_deleted else trial.airflow.unpause(trial.dag_id)


def edit_retries(trial: Trial, step: Step) -> None:
    """Change the retries in the Dag file."""
    if trial.is_deleted:
        raise NotNow("the Dag was deleted")
    trial.retries = max(1, trial.retries + (-2, -1, 1, 2)[step.value % 4])
    trial.facts.lowered |= trial.retries < RETRIES
    trial.write()


def edit_argument(trial: Trial, step: Step) -> None:
    """Change the name of the model in the Dag file."""
    if trial.is_deleted:
        raise NotNow("the Dag was deleted")
    trial.model = f"d{trial.plan.number}-{step.value}"
    trial.facts.renewals += 1
    trial.facts.asked(time.time())
    trial.write()


def delete_dag(trial: Trial, step: Step) -> None:
    """Remove the Dag file and delete the Dag."""
    trial.facts.against = True
    trial.facts.asked(time.time())
    trial.is_deleted = True
    trial.path.unlink(missing_ok=True)
    until(trial.delete, "the Dag is deleted", 30)


def change_timeout(trial: Trial, step: Step) -> Undo:
    """Change the connection's timeout for a while."""
    return change_connection(trial, extra={"timeout": 3 + step.value % 20})


def change_token(trial: Trial, step: Step) -> Undo:
    """Give the connection an invalid token for a while, and revoke all JWTs."""
    undo = change_connection(trial, password="not-the-token")
    trial.site.server.osai.post("faults", {"kind": "expired_token", "times": 1})
    return undo


def change_connection(trial: Trial, extra: dict[str, Any] | None = None, **fields: Any) -> Undo:
    mine = trial.batch.take("connection")
    trial.batch.set_connection(extra, **fields)
    return lambda: trial.batch.set_connection() if trial.batch.is_newest("connection", mine) else None


@dataclass(frozen=True)
class Kind:
    """A kind of disturbance.

    :param act: applies it to a draw's task, or to the whole batch; returns the function that undoes it.
    :param weight: relative frequency.
    :param all: whether it affects the whole batch.
    :param only: whether it affects only tasks that wait on a worker (``blocking``).
    """

    act: Act
    weight: float = 1.0
    all: bool = False
    only: str = ""

    def fits(self, *, deferrable: bool) -> bool:
        """Whether it can affect such a task."""
        return not (deferrable and self.only == "blocking")


KINDS: dict[str, Kind] = {
    "signal task": Kind(signal_task, 4, only="blocking"),
    "freeze task": Kind(freeze_task, 3, only="blocking"),
    "mark failed": Kind(mark("failed"), 3),
    "mark success": Kind(mark("success")),
    "clear": Kind(clear, 3),
    "recreate run": Kind(recreate_run, 2),
    "pause": Kind(pause),
    "edit retries": Kind(edit_retries, 1.5),
    "edit argument": Kind(edit_argument, 1.5),
    "delete dag": Kind(delete_dag),
    "hold submission": Kind(hold_submission, 1.5),
    "kill triggerer": Kind(kill_triggerer, all=True),
    "freeze triggerer": Kind(freeze_triggerer, all=True),
    "end scheduler": Kind(end_scheduler, all=True),
    "osai cut": Kind(network("osai", "cut"), 0.5, all=True),
    "osai refuse": Kind(network("osai", "refuse"), all=True),
    "osai blackhole": Kind(network("osai", "blackhole"), all=True),
    "osai delay": Kind(network("osai", "delay"), all=True),
    "api refuse": Kind(network("api", "refuse"), all=True),
    "api blackhole": Kind(network("api", "blackhole"), 0.5, all=True),
    "change timeout": Kind(change_timeout, 0.5, all=True),
    "change token": Kind(change_token, 0.5, all=True),
}


@dataclass
class Batch:
    """Draws that run at the same time.

    :param site: where they run.
    :param name: the prefix of their Dags, and the name in the printed row.
    """

    site: Site
    name: str
    parts: threading.RLock = field(default_factory=threading.RLock)
    is_over: threading.Event = field(default_factory=threading.Event)
    runs_are_over: threading.Event = field(default_factory=threading.Event)
    to_hold: set[int] = field(default_factory=set)
    """Draws whose next submission is held."""
    submitted: dict[str, int] = field(default_factory=dict)
    """The draw of each idempotency key."""
    _undone: list[tuple[threading.Timer, Undo]] = field(default_factory=list)
    _newest: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        airflow, server = self.site.airflow, self.site.server
        self.stage = Outside(airflow, server, {job["id"] for job in server.osai.jobs()}, site=self.site)

    def play(
        self, plans: list[Plan], others: list[Plan], seconds: float
    ) -> list[tuple[Trial, Counter[str], list[JobFacts]]]:
        """Play draws; return the violations and jobs of each.

        :param others: draws of which only the disturbances of the whole batch are applied.
        """
        self.site.run_triggerers(2)
        self.set_connection()
        self.stage.script(LONG)
        trials = [Trial(self, plan) for plan in plans]
        ghosts = [Trial(self, global_part(plan)) for plan in others]
        for trial in trials:
            trial.write()
        for trial in trials:
            self.site.airflow.wait_for_dag(trial.dag_id)
        self.site.osai.hold(self._sees, HELD)
        for trial in trials:
            trial.begin()
        threads = [threading.Thread(target=trial.play, name=trial.dag_id) for trial in trials + ghosts]
        ending = threading.Thread(target=self._end_jobs, args=(trials, seconds))
        for thread in (*threads, ending):
            thread.start()
        for thread in threads:
            thread.join()
        self._wait_for(trials)
        self._undo_all()
        self._wait_for(trials, 30)
        self.runs_are_over.set()
        ending.join()
        for trial in trials:
            trial.conclude()
        settled = time.time()
        self.stage.second_line()
        with contextlib.suppress(AssertionError):
            until(lambda: not self.stage.live(), "no job lives", SETTLED)
        jobs = self.jobs()
        told = []
        for trial in trials:
            trial.facts.settled = settled
            mine = [job for job in jobs if self.submitted.get(job.reference) == trial.plan.number]
            told.append((trial, judge(trial.facts, mine), mine))
        unknown = [job for job in jobs if job.reference not in self.submitted]
        assert not unknown, f"jobs of no draw: {unknown}"
        self._clean_up(trials)
        return told

    def jobs(self) -> list[JobFacts]:
        """The jobs of this batch."""
        states = self.stage.states()
        return [
            JobFacts(
                job["id"], job["reference"], states[job["id"]], epoch(job["createdAt"]) or 0, epoch(job["finishedAt"])
            )
            for job in listed(self.site.server.osai)
            if job["id"] in states
        ]

    def later(self, after: float, undo: Undo) -> None:
        """Undo a disturbance after a while, or at the end of the batch."""
        timer = threading.Timer(after, lambda: self._undo(timer))
        self._undone.append((timer, undo))
        timer.daemon = True
        timer.start()

    def take(self, what: str) -> int:
        """Record a change, and return its version."""
        self._newest[what] += 1
        return self._newest[what]

    def is_newest(self, what: str, mine: int) -> bool:
        """Whether there was no later change."""
        return self._newest[what] == mine

    def set_connection(self, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        """Change the connection; without arguments, restore it."""
        url = self.site.osai.through(self.site.server.osai.base_url)
        plain = {"conn_type": "osai", "password": TOKEN, **fields}
        self.site.airflow.set_connection(
            "osai_default", {**plain, "extra": {"base_url": url, "timeout": TIMEOUT, **(extra or {})}}
        )

    def _end_jobs(self, trials: list[Trial], seconds: float) -> None:
        """Let each job succeed after some seconds, if its task still waits for it."""
        osai = self.site.server.osai
        known = {trial.plan.number: trial for trial in trials}
        seen: dict[str, float] = {}

        def end() -> None:
            living = [job for job in self.stage.jobs() if job["state"] in LIVE]
            draws = {job["id"]: self.submitted.get(job["reference"], -1) for job in living}
            for job_id, number in draws.items():
                began, trial = seen.setdefault(job_id, time.time()), known.get(number)
                age = time.time() - began
                if trial is None or age < seconds or trial.facts.against or trial.facts.deadline:
                    continue
                if began >= trial.facts.fresh_after:
                    osai.post(f"jobs/{job_id}/end")
                elif age > seconds + OLD and list(draws.values()).count(number) == 1 and not trial.is_over():
                    osai.post(f"jobs/{job_id}/end")  # the task waits for it, and is about to return an outdated result

        while not self.runs_are_over.wait(0.5):
            quietly(end)

    def _sees(self, request: bytes) -> bool:
        """Record which draw's submission passes the proxy; return whether to hold it."""
        if not request.startswith(b"POST /api/Trainings "):
            return False
        body = json.loads(request.partition(b"\r\n\r\n")[2])
        number = next(int(found[1]) for value in body.values() if (found := re.fullmatch(r"d(\d+)(-\d+)?", str(value))))
        self.submitted[body["reference"]] = number
        if number in self.to_hold:
            self.to_hold.discard(number)
            return True
        return False

    def _wait_for(self, trials: list[Trial], patience: float = PATIENCE) -> None:
        """Wait until all runs have ended; record those that have not."""

        def over() -> bool:
            for trial in trials:
                if trial.is_deleted:
                    quietly(trial.delete)  # not possible while its task is running
            waiting = [trial for trial in trials if not quietly(trial.is_over)]
            for trial in trials:
                trial.facts.ended = trial not in waiting
            return not waiting

        with contextlib.suppress(AssertionError):
            until(over, "all runs are over", patience)

    def _undo(self, timer: threading.Timer) -> None:
        for mine in [mine for mine in self._undone if mine[0] is timer]:
            with contextlib.suppress(ValueError):
                self._undone.remove(mine)
                quietly(mine[1])

    def _undo_all(self) -> None:
        self.is_over.set()
        for timer, _ in self._undone[:]:
            timer.cancel()
            self._undo(timer)
        self.site.osai.pass_on()
        self.site.api.pass_on()
        self.site.server.osai.clear_faults()
        self.set_connection()

    def give_up(self) -> None:
        """Delete everything, whatever its state."""
        self.runs_are_over.set()
        quietly(self._undo_all)
        for path in self.site.airflow.dags.glob(f"draw_{self.name}_*.py"):
            path.unlink()
        self.site.restore()

    def _clean_up(self, trials: list[Trial]) -> None:
        for trial in trials:
            if not trial.facts.ended:
                quietly(lambda trial=trial: self.site.airflow.set_run_state(trial.dag_id, trial.run_id, "failed"))
            trial.path.unlink(missing_ok=True)
        self.site.restore()


def quietly(act: Undo) -> object:
    """Run an action, and ignore errors of Airflow's API."""
    try:
        return act()
    except (httpx.HTTPError, OSError, psutil.Error, LookupError, AssertionError, RuntimeError):
        return None


def epoch(text: str | None) -> float | None:
    """Parse a time, and return seconds since the epoch."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def listed(osai: Osai) -> list[dict[str, Any]]:
    """Return all trainings from OSAI's list."""
    with httpx.Client(base_url=osai.base_url, timeout=30.0) as client:
        jwt = client.post("/Users/SignIn", json=TOKEN).raise_for_status().text.strip('"')
        headers = {"Authorization": f"Bearer {jwt}"}
        return list(client.get("/Trainings", headers=headers).raise_for_status().json())


def global_part(plan: Plan) -> Plan:
    """Return a plan with only the steps that affect the whole batch, at the same times."""
    steps: list[Step] = []
    waited = 0.0
    for step in plan.steps:
        waited += step.after
        if KINDS[step.kind].all:
            steps.append(Step(step.kind, round(waited, 1), step.lasts, step.value))
            waited = 0.0
    return Plan(plan.number, plan.deferrable, plan.deadline, tuple(steps))


def tell_of(seed: int, trial: Trial, bad: Counter[str], jobs: list[JobFacts], batch: list[Plan]) -> str:
    """Return all known details of a draw with violations."""
    plan = trial.plan
    others = [f"{other.number}: {step}" for other in batch for step in global_part(other).steps]
    how = "deferrable" if plan.deferrable else "blocking"
    return "\n".join(
        [
            f"== draw {plan.number} of seed {seed}: {dict(bad)} ({how}{', deadline' if plan.deadline else ''})",
            f"   python -m tests.chaos.combination --seed {seed} --draw {plan.number}",
            *(f"   {line}" for line in trial.told),
            f"   befell all: {'; '.join(others) or 'nothing'}",
            f"   {trial.facts}",
            *(
                f"   job {job.id} {job.state} {clock(job.created)} - {clock(job.finished) if job.finished else ''} "
                f"{job.reference}"
                for job in jobs
            ),
            brief(trial.log()),
        ]
    )


def play_batch(
    where: Site, seed: int, batch: int, only: int | None = None, *, shows_all: bool = False
) -> list[Counter[str]]:
    """Play a batch, or one draw of it, and print its row, with details of draws with violations, or of all."""
    began = time.monotonic()
    duration, plans = planned(seed, batch)
    chosen = [plan for plan in plans if only in (None, plan.number)]
    others = [plan for plan in plans if plan not in chosen]
    playing = Batch(where, f"{batch}")
    try:
        told = playing.play(chosen, others, duration)
    except Exception as error:  # continue with the other batches
        sys.stderr.write(f"batch {batch}: {type(error).__name__}: {error}\n")
        sys.stdout.write(f"batch {batch:<3} BAD    {type(error).__name__}\n")
        sys.stdout.flush()
        playing.give_up()
        return [Counter(wrong_result=1)]
    found = [bad for _, bad, _ in told]
    total = +sum(found, Counter())
    stuck = sum(not trial.facts.ended for trial, _, _ in told)
    idle = sum("not done" in line for trial, _, _ in told for line in trial.told)
    words = [f"{sum(len(plan.steps) for plan in chosen)} steps, {idle} not done, {stuck} stuck"]
    words += [json.dumps(total)] if total else []
    row = f"batch {batch:<3}{'BAD' if total else 'ok':>4}{len(found):>5} cases {time.monotonic() - began:6.0f} s"
    sys.stdout.write(f"{row}  {'  '.join(words)}\n")
    sys.stdout.flush()
    for trial, bad, jobs in told:
        if bad or shows_all:
            sys.stderr.write(tell_of(seed, trial, bad, jobs, plans) + "\n")
    sys.stderr.flush()
    return found


def main(arguments: list[str]) -> int:
    """Play the draws; return 0 if all counts are 0, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.combination", description=__doc__)
    parser.add_argument("forget", nargs="?", choices=["forget"], help="tasks forget their jobs, which must be noticed")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--draw", type=int, help="play this one alone")
    parser.add_argument("--first", type=int, default=0, help="begin with the batch of this draw")
    parser.add_argument("--all", action="store_true", help="print all about the good draws as well")
    given = parser.parse_args(arguments)
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    started = time.monotonic()
    found: list[Counter[str]] = []
    with tempfile.TemporaryDirectory(prefix="osai-dags-") as name:
        dags = Path(name)
        (dags / "outside.py").write_text((DAGS / "outside.py").read_text())
        more = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60"}
        with site(dags, durable=given.forget is None, in_database=True, more=more) as where:
            where.airflow.wait_for_dag("orphans")
            if given.draw is not None:
                found += play_batch(where, given.seed, given.draw // BATCH, given.draw, shows_all=True)
            else:
                first = given.first // BATCH
                for batch in range(first, first + (given.draws + BATCH - 1) // BATCH):
                    found += play_batch(where, given.seed, batch, shows_all=given.all)
    return tell(found, started)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
