"""The combination matrix: two or three disturbances in a row, drawn at random, befall each of many tasks.

``python -m tests.chaos.combination [--seed S] [--draws N]`` prints a row for each batch of ten draws and, last, a line
of JSON that counts what must not be. ``--draw K`` plays one draw alone, with what befell all of its batch. A case is a
draw: one run of a Dag of its own with one task. Real and simulated are the same as in the outsider matrix.
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

from tests.chaos.outsider import DAGS, Outside, Site, brief, site, tell
from tests.chaos.whole import Run, process_of, until
from tests.chaos.world import LIVE, TOKEN, Osai

BATCH = 10
DRAWS = 150
SEED = 20261124
GLOBALS = 4
"""Disturbances of a batch that befall all of its draws, at most."""
RETRIES = 4
TIMEOUT = 5
"""Seconds that the connection says; what holds a submission holds it for longer."""
HELD = 8.0
DEADLINE = 15
"""Seconds of ``execution_timeout``, for the draws that have one: less than their jobs take."""
PATIENCE = 240.0
"""Seconds after the last disturbance within which a run must be over."""
LONG = 1200.0
"""Seconds that a job takes if nothing ends it: what no task wants must not end by itself before it is noticed."""
OLD = 60.0
"""Seconds more after which a job ends that should have been replaced, but for which its task waits."""
SETTLED = 15.0
"""Seconds after the second line within which no job lives."""
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
    """A disturbance has nothing to befall."""


@dataclass(frozen=True)
class Step:
    """One disturbance.

    :param kind: of KINDS.
    :param after: seconds since the run was started, or since the step before.
    :param lasts: seconds until it is undone, if it can be.
    :param value: what it means depends on the kind.
    """

    kind: str
    after: float
    lasts: float
    value: int

    def __str__(self) -> str:
        return f"+{self.after:g} s {self.kind} ({self.lasts:g} s, {self.value})"


@dataclass(frozen=True)
class Plan:
    """What is drawn for one task.

    :param number: of the draw.
    :param deferrable: whether the task waits in a triggerer.
    :param deadline: whether it has a limit that its job exceeds.
    :param steps: what befalls it.
    """

    number: int
    deferrable: bool
    deadline: bool
    steps: tuple[Step, ...]


def planned(seed: int, batch: int) -> tuple[float, list[Plan]]:
    """Return how long the jobs of a batch take, in seconds, and the plans of its draws."""
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
    """What a draw's judge must know of what was done to its task. Times are seconds since the epoch."""

    deadline: bool = False
    against: bool = False
    """Whether a user has ended the task, and not started it again since."""
    cancel_from: float = float("inf")
    """When something first asked that a job be cancelled: a user, or a signal to the task."""
    fresh_after: float = 0.0
    """When the task was last to start anew; results of before are old."""
    renewals: int = 0
    """How often a new job was asked for: by a clear, a new run, or other arguments."""
    lowered: bool = False
    """Whether the task's retries were lowered."""
    ended: bool = True
    """Whether its run came to an end."""
    settled: float = float("inf")
    """When the second line began; what it cancels is its business."""
    state: str | None = None
    """The task's last state; ``None`` if Airflow no longer knows it."""
    try_number: int = 0
    max_tries: int = 0
    result: str | None = None
    """The job that the task has handed on."""

    def asked(self, at: float) -> None:
        """Note that jobs may be cancelled from a time on."""
        self.cancel_from = min(self.cancel_from, at)


@dataclass(frozen=True)
class JobFacts:
    """A job of a draw as OSAI tells of it. Times are seconds since the epoch."""

    id: str
    reference: str
    state: str
    created: float
    finished: float | None


def judge(facts: Facts, jobs: Iterable[JobFacts]) -> Counter[str]:
    """Count what must not be."""
    known = {job.id: job for job in jobs}
    succeeded = [job for job in known.values() if job.state == "succeeded"]
    keys = Counter(job.reference for job in known.values())
    wrongly = [
        job
        for job in known.values()
        if job.state == "cancelled"
        and not facts.deadline
        and keys[job.reference] == 1  # else it was one too many
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
    """One draw, while it is played.

    :param batch: what it is a part of.
    :param plan: what is to befall it.
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
        """Let everything befall it, one after the other."""
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

        :raises LookupError: if Airflow does not know it.
        """
        try:
            tasks = self.airflow.task_instances(self.dag_id, self.run_id)
        except httpx.HTTPStatusError as error:
            raise LookupError(str(error)) from error
        if not tasks:
            raise LookupError("no task")
        return tasks[0]

    def is_over(self) -> bool:
        """Whether its run has ended, or is gone."""
        try:
            return self.airflow.run_state(self.dag_id, self.run_id) in {"success", "failed"}
        except httpx.HTTPStatusError as error:
            return error.response.status_code == httpx.codes.NOT_FOUND

    def delete(self) -> bool:
        """Delete its Dag; whether that was possible."""
        try:
            self.airflow.delete_dag(self.dag_id)
        except httpx.HTTPStatusError as error:
            return error.response.status_code == httpx.codes.NOT_FOUND
        return True

    def conclude(self) -> None:
        """Write down how its task ended."""
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
        """Note that the task was to start anew at a time."""
        self.facts.fresh_after = at
        self.facts.renewals += 1
        self.facts.against = False
        self.facts.asked(at)

    def log(self) -> str:
        """All that was logged for its task."""
        return self.batch.stage.log_of(Run(self.batch.stage, self.dag_id, self.run_id), "train")


def clock(seconds: float) -> str:
    """Return the time of day in UTC, as logs do."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f"{seconds % 1:.2f}"[1:]


Undo = Callable[[], object]
Act = Callable[[Trial, Step], "Undo | None"]


def supervisor_of(runner: psutil.Process) -> psutil.Process:
    """Return the process that watches a task's process; once it has ended, another one is the parent."""
    parent = runner.parent()
    if parent is None or "LocalExecutor" not in " ".join(parent.cmdline()):
        raise NotNow("the task has no supervisor")
    return parent


def signal_task(trial: Trial, step: Step) -> None:
    """SIGTERM or SIGKILL to the process of the task or to its supervisor."""
    runner = trial.runner()
    victim = supervisor_of(runner) if step.value % 2 else runner
    signum = (signal.SIGTERM, signal.SIGKILL)[step.value // 2 % 2]
    if signum == signal.SIGTERM:
        trial.facts.asked(time.time())
    victim.send_signal(signum)
    trial.told.append(f"  {signum.name} to the {('task', 'supervisor')[step.value % 2]}")


def freeze_task(trial: Trial, step: Step) -> Undo:
    """SIGSTOP to both, and SIGCONT later."""
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
    """SIGTERM or SIGKILL to a triggerer, and another one later."""
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
    """SIGSTOP to a triggerer, and SIGCONT later."""
    family = trial.site.triggerers[step.value % 2]
    family.send(signal.SIGSTOP)
    return lambda: family.send(signal.SIGCONT)


def end_scheduler(trial: Trial, step: Step) -> Undo:
    """SIGKILL or SIGTERM to the scheduler, whose workers live on, and a new one later."""
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
    """Return what changes a proxy's mode, and changes it back unless it was changed again meanwhile."""

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
    """The next submission of the task arrives after its client gave up."""
    trial.batch.to_hold.add(trial.plan.number)


def mark(state: str) -> Act:
    """Return what marks the task."""

    def act(trial: Trial, step: Step) -> None:
        began = time.time()
        trial.airflow.set_task_state(trial.dag_id, trial.run_id, "train", state)
        trial.facts.against = True
        trial.facts.asked(began)

    act.__doc__ = f"The task is marked {state}."
    return act


def clear(trial: Trial, step: Step) -> None:
    """The task is cleared."""
    trial.task()
    began = time.time()
    trial.airflow.clear(trial.dag_id, trial.run_id, "train")
    trial.renew(began)


def recreate_run(trial: Trial, step: Step) -> None:
    """The run is marked failed, deleted, and created again under its id."""
    trial.task()
    trial.facts.against = True
    trial.facts.asked(time.time())
    trial.airflow.set_run_state(trial.dag_id, trial.run_id, "failed")
    trial.airflow.delete_run(trial.dag_id, trial.run_id)
    began = time.time()
    trial.airflow.trigger(trial.dag_id, {"dataset": trial.dataset}, trial.run_id)
    trial.renew(began)


def pause(trial: Trial, step: Step) -> Undo:
    """The Dag is paused for a while."""
    trial.airflow.pause(trial.dag_id)
    return lambda: None if trial.is_deleted else trial.airflow.unpause(trial.dag_id)


def edit_retries(trial: Trial, step: Step) -> None:
    """The Dag file is changed to other retries."""
    if trial.is_deleted:
        raise NotNow("the Dag was deleted")
    trial.retries = max(1, trial.retries + (-2, -1, 1, 2)[step.value % 4])
    trial.facts.lowered |= trial.retries < RETRIES
    trial.write()


def edit_argument(trial: Trial, step: Step) -> None:
    """The Dag file is changed to another name of the model."""
    if trial.is_deleted:
        raise NotNow("the Dag was deleted")
    trial.model = f"d{trial.plan.number}-{step.value}"
    trial.facts.renewals += 1
    trial.facts.asked(time.time())
    trial.write()


def delete_dag(trial: Trial, step: Step) -> None:
    """The Dag file is removed and the Dag deleted."""
    trial.facts.against = True
    trial.facts.asked(time.time())
    trial.is_deleted = True
    trial.path.unlink(missing_ok=True)
    until(trial.delete, "the Dag is deleted", 30)


def change_timeout(trial: Trial, step: Step) -> Undo:
    """The connection has another timeout for a while."""
    return change_connection(trial, extra={"timeout": 3 + step.value % 20})


def change_token(trial: Trial, step: Step) -> Undo:
    """The connection has a token that OSAI refuses, for a while, and all that was signed in is no longer."""
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

    :param act: does it to a draw's task, or to all of the batch; returns what undoes it.
    :param weight: how often it is drawn.
    :param all: whether it befalls the whole batch.
    :param only: whether only tasks that wait on a worker (``blocking``) can be befallen.
    """

    act: Act
    weight: float = 1.0
    all: bool = False
    only: str = ""

    def fits(self, *, deferrable: bool) -> bool:
        """Whether it can befall such a task."""
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
    """Draws that are played at the same time.

    :param site: where.
    :param name: of its Dags and in its row.
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
        """Play draws, and return for each what must not be and its jobs.

        :param others: draws of which only that is played which befalls all.
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
        """Undo something after a while, or at the end of the batch."""
        timer = threading.Timer(after, lambda: self._undo(timer))
        self._undone.append((timer, undo))
        timer.daemon = True
        timer.start()

    def take(self, what: str) -> int:
        """Note that something was changed, and return by what its latest change is known."""
        self._newest[what] += 1
        return self._newest[what]

    def is_newest(self, what: str, mine: int) -> bool:
        """Whether nothing was changed since."""
        return self._newest[what] == mine

    def set_connection(self, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        """Change the connection; without arguments, to what it is at first."""
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
                    osai.post(f"jobs/{job_id}/end")  # the task waits for it, and is about to hand on an old result

        while not self.runs_are_over.wait(0.5):
            quietly(end)

    def _sees(self, request: bytes) -> bool:
        """Remember whose submission passes the proxy; whether it is to be held."""
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
        """Wait until all runs are over; write down which are not."""

        def over() -> bool:
            for trial in trials:
                if trial.is_deleted:
                    quietly(trial.delete)  # not possible while its task runs
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
        """End all of it, whatever it was at."""
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
    """Do something, whether or not Airflow answers at the moment."""
    try:
        return act()
    except (httpx.HTTPError, OSError, psutil.Error, LookupError, AssertionError, RuntimeError):
        return None


def epoch(text: str | None) -> float | None:
    """Return seconds since the epoch."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def listed(osai: Osai) -> list[dict[str, Any]]:
    """Return all trainings as OSAI's own list tells of them."""
    with httpx.Client(base_url=osai.base_url, timeout=30.0) as client:
        jwt = client.post("/Users/SignIn", json=TOKEN).raise_for_status().text.strip('"')
        headers = {"Authorization": f"Bearer {jwt}"}
        return list(client.get("/Trainings", headers=headers).raise_for_status().json())


def global_part(plan: Plan) -> Plan:
    """Return a plan with only those of its steps that befall the whole batch, at the same times."""
    steps: list[Step] = []
    waited = 0.0
    for step in plan.steps:
        waited += step.after
        if KINDS[step.kind].all:
            steps.append(Step(step.kind, round(waited, 1), step.lasts, step.value))
            waited = 0.0
    return Plan(plan.number, plan.deferrable, plan.deadline, tuple(steps))


def tell_of(seed: int, trial: Trial, bad: Counter[str], jobs: list[JobFacts], batch: list[Plan]) -> str:
    """Return all that is known of a draw that ended badly."""
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
    """Play a batch, or one draw of it, and print its row; print all about the bad ones, or about all."""
    began = time.monotonic()
    duration, plans = planned(seed, batch)
    chosen = [plan for plan in plans if only in (None, plan.number)]
    others = [plan for plan in plans if plan not in chosen]
    playing = Batch(where, f"{batch}")
    try:
        told = playing.play(chosen, others, duration)
    except Exception as error:  # noqa: BLE001 - the others are to be played too
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
    """Play the draws; return 0 only if all counts are 0."""
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
