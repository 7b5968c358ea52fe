"""Measure one side: start its process and its triggers, measure a window, verify that the right triggers fire."""

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
    """A side's process exited, or its triggers do not work correctly."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a side is measured.

    :param jobs: number of waiting triggers.
    :param interval: seconds between two polls of a job.
    :param seconds: length of the window in which CPU, requests and lag are measured.
    :param spread: seconds over which the triggers start, evenly; 0: all at once; default: one interval.
    :param proof: share of the jobs that end after the window, to verify that exactly their triggers fire.
    :param patience: seconds beyond ten intervals within which these triggers must fire.
    """

    jobs: int
    interval: float
    seconds: float
    spread: float | None = None
    proof: float = 0.01
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one side in one window.

    :param cpu: CPU of its process, as a share of one core.
    :param requests: requests per second, as counted by the server.
    :param handshakes: TLS handshakes per second.
    :param pace: polls sent, as a share of the due ones (one per job and interval).
    :param seen: share of the jobs that were polled at all in the window.
    :param lag_p50_ms: median delay of a coroutine that sleeps 50 ms; ``lag_p99_ms`` and ``lag_max_ms`` likewise.
    :param kb_per_job: growth of resident memory from one trigger to all of them, per trigger, in kB (1,000 bytes).
    :param sign_ins: number of sign-ins since the process started.
    :param server_cpu: CPU of the server's process, as a share of one core.
    :param dead: triggers that had ended by the end of the window, although no job had.
    :param fired: triggers that fired after their jobs ended; ``None`` if not verified.
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
        """Whether the side could not keep up: over 90 % of a core used, or less than 80 % of the due polls sent."""
        return self.cpu > 0.9 or (self.side != "idle" and self.pace < 0.8)

    def line(self) -> str:
        """Return the measurements as a line of JSON with rounded figures."""
        return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()})


class Side:
    """A process that runs the triggers of one side, as a context manager.

    :param name: one of :data:`benchmarks.waiting.SIDES`.
    :param interval: the poll interval in seconds.
    :param service: the server that it polls.
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
        # Killed, since a saturated event loop would take long to notice the end of its input.
        process.kill()
        process.communicate()
        self._home.cleanup()

    def ask(self, verb: str, *arguments: object) -> dict[str, Any]:
        """Call the method *verb* of :class:`benchmarks.waiting.Runner` in the process, and return its result."""
        process = cast("Any", self._process)
        process.stdin.write(json.dumps([verb, arguments]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SideError(f"{self._command} exited during {verb!r}")
        return cast("dict[str, Any]", json.loads(line))


def measure(name: str, plan: Plan, service: Service) -> Measured:
    """Run one side in a new process and measure one window.

    :raises SideError: if the process exits, its triggers never poll, or the wrong triggers fire.
    """
    jobs = [str(number) for number in range(1, plan.jobs + 1)]
    service.restart()
    service.forget()
    signed_in = service.counts()["sign_ins"]
    with Side(name, plan.interval, service) as side:
        # One trigger first, so that one-time costs (modules, client, TLS) are not counted as memory per trigger.
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
    """Wait until every job was polled once, at most *patience* seconds, since a saturated side may never get there."""
    give_up = time.monotonic() + patience
    while name != "idle" and service.counts()["seen"] < jobs and time.monotonic() < give_up:
        time.sleep(0.1)
    if name != "idle" and not service.counts()["seen"]:
        raise SideError(f"{name}: no trigger has sent a poll")


def prove(side: Side, name: str, jobs: list[str], plan: Plan, service: Service) -> int:
    """End some jobs and verify that exactly their triggers fire; return the number of these triggers."""
    already = set(side.ask("fired")["fired"])
    ended = set(jobs[:: max(1, round(1 / plan.proof))])
    service.end(sorted(ended))
    give_up = time.monotonic() + 10 * plan.interval + plan.patience
    while not ended <= (fired := set(side.ask("fired")["fired"])):
        if time.monotonic() > give_up:
            raise SideError(f"{name}: {len(ended - fired)} triggers of {len(ended)} ended jobs did not fire")
        time.sleep(0.1)
    if extra := fired - ended - already:
        raise SideError(f"{name}: {len(extra)} triggers fired although their jobs had not ended")
    return len(ended & fired)


def until(done: Callable[[], bool], patience: float, what: str) -> None:
    """Wait until *done* returns true; raise SideError after *patience* seconds."""
    give_up = time.monotonic() + patience
    while not done():
        if time.monotonic() > give_up:
            raise SideError(f"Timed out after {patience:g} s waiting for {what}")
        time.sleep(0.2)
