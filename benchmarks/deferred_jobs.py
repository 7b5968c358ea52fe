"""The cost of thousands of deferred tasks in one triggerer: this provider beside two others.

``python -m benchmarks.deferred_jobs --jobs 5000 --interval 10 --peer http`` (or this file as a script) measures in one
run, against the same TLS server and in alternating order, each side in a new process:

- ``http``: ``HttpSensorTrigger`` of apache-airflow-providers-http, which waits while the response is 404;
- ``dbt``: ``DbtCloudRunJobTrigger`` of apache-airflow-providers-dbt-cloud;
- ``ours``: ``OsaiJobTrigger`` on an API that lists jobs by their ids;
- ``single``: the same on an API without such a list (``{"training.list": null}`` in the connection's contract).

``idle`` runs once before them: triggers that send no requests. It measures what Airflow needs for any trigger (its task
with greenback's portal) and the cost of the measurement itself. Each side starts its triggers, polls for at least one
interval, is measured for a window, and then 1 % of its jobs end, upon which exactly their triggers must fire. Figures
are medians of the rounds. For what is not included of a triggerer's work, see :mod:`benchmarks.waiting`.

The last line is JSON: CPU as a share of one core; ratios are peer / ours; ``kb_per_job`` is the growth of resident
memory per trigger, less that of ``idle`` (``airflow_kb_per_job``), in kB of 1,000 bytes. ``pace`` is the share of the
due polls (one per job and interval) that a side has sent. A saturated side sends fewer, so its CPU and requests are
lower than for the full work; it is listed in ``saturated``. A busy machine has the same effect, so run this on an idle
one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.peer_process import Measured, Plan, measure
from benchmarks.service import Service

__all__ = ["main", "summary"]

PEERS = {"http": ("http", "dbt", "ours", "single"), "none": ("ours",)}


def rounds(sides: list[str], plan: Plan, service: Service, count: int) -> dict[str, list[Measured]]:
    """Measure all *sides* *count* times, alternating their order, and print each result."""
    found: dict[str, list[Measured]] = {side: [] for side in sides}
    for number in range(count):
        for side in sides if number % 2 == 0 else reversed(sides):
            result = measure(side, plan, service)
            found[side].append(result)
            say(f"round {number + 1}: {result.line()}")
            if result.saturated:
                say(f"{side} is saturated: {result.cpu:.0%} of a core, {result.pace:.0%} of its due polls sent")
            if result.dead:
                say(f"{side}: {result.dead} of {plan.jobs} triggers ended although their jobs were running")
    return found


def summary(idle: Measured, found: dict[str, list[Measured]]) -> dict[str, Any]:
    """Return the figures of the last line; ``None`` for a figure that was not measured."""

    def figure(side: str, name: str) -> float | None:
        return median(getattr(result, name) for result in found[side]) if found.get(side) else None

    def kilobytes(side: str) -> float | None:
        gross = figure(side, "kb_per_job")
        return None if gross is None else gross - idle.kb_per_job

    def sign_ins(side: str) -> int | None:
        return max(result.sign_ins for result in found[side]) if found.get(side) else None

    ours_cpu, ours_requests = figure("ours", "cpu"), figure("ours", "requests")
    line = {
        "jobs": idle.jobs,
        "peer_cpu": figure("http", "cpu"),
        "ours_cpu": ours_cpu,
        "cpu_ratio": _ratio(figure("http", "cpu"), ours_cpu),
        "request_ratio": _ratio(figure("http", "requests"), ours_requests),
        "lag_p99_ms": figure("ours", "lag_p99_ms"),
        "peer_lag_p99_ms": figure("http", "lag_p99_ms"),
        "kb_per_job": kilobytes("ours"),
        "fallback_cpu_ratio": _ratio(figure("http", "cpu"), figure("single", "cpu")),
        "sign_ins": sign_ins("ours"),
        "cpu_ratio_by_look": _ratio(_per_look(figure, "http", "cpu"), _per_look(figure, "ours", "cpu")),
        "request_ratio_by_look": _ratio(_per_look(figure, "http", "requests"), _per_look(figure, "ours", "requests")),
        "fallback_cpu_ratio_by_look": _ratio(_per_look(figure, "http", "cpu"), _per_look(figure, "single", "cpu")),
        "peer_kb_per_job": kilobytes("http"),
        "peer_requests": figure("http", "requests"),
        "peer_pace": figure("http", "pace"),
        "ours_requests": ours_requests,
        "ours_pace": figure("ours", "pace"),
        "fallback_cpu": figure("single", "cpu"),
        "fallback_requests": figure("single", "requests"),
        "fallback_pace": figure("single", "pace"),
        "fallback_lag_p99_ms": figure("single", "lag_p99_ms"),
        "fallback_sign_ins": sign_ins("single"),
        "dbt_cpu": figure("dbt", "cpu"),
        "dbt_cpu_ratio": _ratio(figure("dbt", "cpu"), ours_cpu),
        "dbt_requests": figure("dbt", "requests"),
        "dbt_pace": figure("dbt", "pace"),
        "dbt_request_ratio": _ratio(figure("dbt", "requests"), ours_requests),
        "dbt_lag_p99_ms": figure("dbt", "lag_p99_ms"),
        "dbt_kb_per_job": kilobytes("dbt"),
        "airflow_kb_per_job": idle.kb_per_job,
        "floor_cpu": idle.cpu,
        "saturated": [side for side, results in found.items() if any(result.saturated for result in results)],
        "dead": {side: max(result.dead for result in results) for side, results in found.items()},
        "fired": {side: min(result.fired or 0 for result in results) for side, results in found.items()},
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()}


def say(text: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _per_look(figure: Callable[[str, str], float | None], side: str, name: str) -> float | None:
    """Return a side's figure extrapolated to all due polls."""
    return _ratio(figure(side, name), figure(side, "pace"))


def _ratio(peer: float | None, ours: float | None) -> float | None:
    return peer / ours if peer is not None and ours else None


def main(arguments: list[str] | None = None) -> int:
    """Measure with the command line's options; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two polls of a job")
    parser.add_argument("--peer", choices=PEERS, default="http", help="none: only ours")
    parser.add_argument("--sides", help="instead of --peer: any of http,dbt,ours,single")
    parser.add_argument("--seconds", type=float, help="seconds of each window, default: three intervals")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--spread", type=float, help="seconds over which the triggers start, default: one interval")
    options = parser.parse_args(arguments)
    plan = Plan(options.jobs, options.interval, options.seconds or 3 * options.interval, options.spread)
    with Service(options.jobs) as service:
        idle = measure("idle", plan, service)
        say(f"idle: {idle.line()}")
        sides = options.sides.split(",") if options.sides else list(PEERS[options.peer])
        found = rounds(sides, plan, service, options.rounds)
    say(json.dumps(summary(idle, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
