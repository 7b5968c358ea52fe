"""One side as the measuring process sees it: started anew, filled with triggers, measured, and put to the proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from benchmarks.service import Service

__all__ = ["Measured", "Plan", "Side", "SideError", "measure", "prove", "until", "wait_until_seen"]


class SideError(Exception):
    """A side's process ended, or its triggers do not do what they must."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a side is measured.

    :param jobs: how many triggers wait.
    :param interval: seconds between two polls.
    :param seconds: how long the window is in which CPU, requests and lag are taken.
    :param spread: seconds over which the triggers start, evenly; 0 = in one go; one interval if left out.
    :param proof: share of the jobs that end after the window, to see exactly their triggers fire.
    :param patience: seconds beyond ten intervals until such an end must have been noticed.
    """

    jobs: int
    interval: float
    seconds: float
    spread: float | None = None
    proof: float = 0.01
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side did in one window.

    :param cpu: of its process, as a share of one core.
    :param requests: a second, as the server counted them.
    :param handshakes: TLS handshakes a second.
    :param pace: jobs asked for, as a share of one look at each job in each interval.
    :param seen: the share of the jobs that were asked for at all in the window.
    :param lag_p50_ms: how late a coroutine woke that wanted to sleep 50 ms; so for ``p99`` and ``max``.
    :param kb_per_job: growth of resident memory from one trigger to all of them, by trigger, in kB (1,000 bytes).
    :param sign_ins: since the process started.
    :param server_cpu: of the server's process, as a share of one core.
    :param dead: triggers that had ended by the end of the window, although no job had.
    :param fired: triggers that fired after their jobs ended; ``None`` if that was not tried.
    """

    side: str
    jobs: int
    cpu: float
    requests: float
    handshakes: float
    pace: float
    seen: float
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    kb_per_job: float
    sign_ins: int
    server_cpu: float
    dead: int
    fired: int | None

    @property
    def saturated(self) -> bool:
        """Whether it could not keep up: its core was full, or it came to less than 80 % of the looks it was to take."""
        return self.cpu > 0.9 or (self.side != "idle" and self.pace < 0.8)

    def line(self) -> str:
        """Return this as a line of JSON with rounded figures."""
        return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()})


class Side:
    """A process that runs the triggers of one side, as a context manager.

    :param name: one of :data:`benchmarks.waiting.SIDES`.
    :param interval: the poll interval in seconds.
    :param service: the server that it asks.
    """

    def __init__(self, name: str, interval: float, service: Service) -> None:
        self._command = [sys.executable, "-m", "benchmarks.waiting", name, str(interval)]
        self._service = service
        self._home = tempfile.TemporaryDirectory(prefix="osai-bench-home-")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        root = Path(__file__).parents[1]
        env = {k: v for k, v in os.environ.items() if "AIRFLOW" not in k and not k.lower().endswith("_proxy")}
        env |= {"AIRFLOW_HOME": self._home.name, "_AIRFLOW_PROCESS_CONTEXT": "client", "PYTHONPATH": str(root)}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env | self._service.environment,
            cwd=root,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = cast("subprocess.Popen[str]", self._process)
        # Its waiting is of no more interest; a full loop would take long to hear that its input has ended.
        process.kill()
        process.communicate()
        self._home.cleanup()

    def ask(self, verb: str, *arguments: object) -> dict[str, Any]:
        """Let the process do *verb*, a method of :class:`benchmarks.waiting.Runner`, and return its answer."""
        process = cast("Any", self._process)
        process.stdin.write(json.dumps([verb, arguments]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SideError(f"{self._command} ended at {verb!r}")
        return cast("dict[str, Any]", json.loads(line))


def measure(name: str, plan: Plan, service: Service) -> Measured:
    """Run one side in a fresh process through one window.

    :raises SideError: if it ends, if its triggers never ask, or if other triggers fire than those whose jobs ended.
    """
    jobs = [str(number) for number in range(1, plan.jobs + 1)]
    service.restart()
    service.forget()
    signed_in = service.counts()["sign_ins"]
    with Side(name, plan.interval, service) as side:
        # One trigger first: what is made once for all (modules, client, TLS) is not what a trigger costs.
        side.ask("add", jobs[:1])
        wait_until_seen(name, service, 1)
        time.sleep(0.3)
        before = side.ask("memory")["rss"]
        side.ask("add", jobs[1:], plan.interval if plan.spread is None else plan.spread)
        time.sleep(plan.interval)
        wait_until_seen(name, service, plan.jobs)
        window = _window(side, plan, service)
        after = side.ask("memory")["rss"]
        dead = side.ask("fired")
        fired = prove(side, name, jobs, plan, service) if plan.proof and name != "idle" else None
        return Measured(
            side=name,
            jobs=plan.jobs,
            kb_per_job=(after - before) / 1000 / max(1, plan.jobs - 1),
            sign_ins=service.counts()["sign_ins"] - signed_in,
            dead=len(dead["dead"]) + len(dead["fired"]),
            fired=fired,
            **window,
        )


def _window(side: Side, plan: Plan, service: Service) -> dict[str, float]:
    service.forget()
    side.ask("start")
    begin, busy = service.counts(), service.cpu()
    time.sleep(plan.seconds)
    end, busy = service.counts(), service.cpu() - busy
    own = side.ask("stop")
    seconds = own.pop("seconds")
    return {
        **own,
        "requests": (end["requests"] - begin["requests"]) / seconds,
        "handshakes": (end["handshakes"] - begin["handshakes"]) / seconds,
        "pace": (end["looks"] - begin["looks"]) * plan.interval / plan.jobs / seconds,
        "seen": end["seen"] / plan.jobs,
        "server_cpu": busy / seconds,
    }


def wait_until_seen(name: str, service: Service, jobs: int, patience: float = 60.0) -> None:
    """Wait until all triggers have looked once; for *patience* seconds, as a full side may never get there."""
    give_up = time.monotonic() + patience
    while name != "idle" and service.counts()["seen"] < jobs and time.monotonic() < give_up:
        time.sleep(0.1)
    if name != "idle" and not service.counts()["seen"]:
        raise SideError(f"{name}: no trigger ever asked")


def prove(side: Side, name: str, jobs: list[str], plan: Plan, service: Service) -> int:
    """End some jobs and wait until their triggers have fired: the waiting was real, and so was what ended it."""
    already = set(side.ask("fired")["fired"])
    ended = set(jobs[:: max(1, round(1 / plan.proof))])
    service.end(sorted(ended))
    give_up = time.monotonic() + 10 * plan.interval + plan.patience
    while not ended <= (fired := set(side.ask("fired")["fired"])):
        if time.monotonic() > give_up:
            raise SideError(f"{name}: {len(ended - fired)} of {len(ended)} ended jobs were not noticed")
        time.sleep(0.1)
    if extra := fired - ended - already:
        raise SideError(f"{name}: {len(extra)} triggers fired whose jobs had not ended")
    return len(ended & fired)


def until(done: Callable[[], bool], patience: float, what: str) -> None:
    """Wait until it is *done*; raise SideError after so many seconds."""
    give_up = time.monotonic() + patience
    while not done():
        if time.monotonic() > give_up:
            raise SideError(f"no {what} after {patience:g} s")
        time.sleep(0.2)
