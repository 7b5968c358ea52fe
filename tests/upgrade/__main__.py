"""Run the cases, or some. With ``only=FLIGHT,...`` just these tasks are in flight.

With ``undrained``, the cases of the way back have tasks in retry too, which docs/upgrades.md warns of.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.chaos.harness import report
from tests.upgrade.builds import NOW, OLD, describe, python_with, wheel_of
from tests.upgrade.flights import (
    FLIGHTS,
    Batch,
    Deferred,
    Flight,
    Gated,
    Late,
    Marked,
    Rented,
    Renting,
    Retried,
    land,
    take_off,
)
from tests.upgrade.stage import Stage, new_stage

Found = list[Counter[str]]
TRIGGERER = ("triggerer", "--skip-serve-logs")
chosen: tuple[type[Flight], ...] = FLIGHTS


def upgrade(stage: Stage, before: tuple[str, str], after: tuple[str, str]) -> Found:
    """Stop one Airflow with everything in flight, and start another on its database."""
    # Version 0.1.0 does not know the keys of later versions, so docs/upgrades.md lets retries end before the way back.
    flights = [
        flight(stage) for flight in chosen if flight is not Retried or after[0] == NOW or "undrained" in sys.argv
    ]
    with stage.run(*before):
        take_off(flights)
    for flight in flights:
        flight.between()
    with stage.run(*after):
        return land(stage, flights)


def side_by_side(stage: Stage, worker: str, triggerer: str) -> Found:
    """Run two versions of this package at the same time: one in the triggerer, the other in all else."""
    waiting = (Gated, Deferred, Marked, Rented, Renting, Late)
    flights = [flight(stage) for flight in chosen if flight in waiting]
    with stage.run(worker, "3.3", triggerer=False) as airflow:
        python = python_with(triggerer, "3.3")
        with airflow.part(f"triggerer-{triggerer}", *TRIGGERER, executable=python):
            take_off(flights)
            for flight in flights:
                flight.between()
            return land(stage, flights)


def unknown_trigger(stage: Stage) -> Found:
    """A task is deferred with a trigger that the old triggerer does not know, until a new triggerer replaces it."""
    flight = Batch(stage)
    with stage.run(NOW, "3.3", triggerer=False) as airflow:
        with airflow.part("triggerer-old", *TRIGGERER, executable=python_with(OLD, "3.3")):
            take_off([flight])
        with airflow.part("triggerer-new", *TRIGGERER):
            return land(stage, [flight])


CASES: dict[str, Callable[[Stage], Found]] = {
    "package-3.3": lambda stage: upgrade(stage, (OLD, "3.3"), (NOW, "3.3")),
    "package-3.2": lambda stage: upgrade(stage, (OLD, "3.2"), (NOW, "3.2")),
    "back-3.3": lambda stage: upgrade(stage, (NOW, "3.3"), (OLD, "3.3")),
    "back-3.2": lambda stage: upgrade(stage, (NOW, "3.2"), (OLD, "3.2")),
    "airflow": lambda stage: upgrade(stage, (NOW, "3.2"), (NOW, "3.3")),
    "old-triggerer": lambda stage: side_by_side(stage, worker=NOW, triggerer=OLD),
    "new-triggerer": lambda stage: side_by_side(stage, worker=OLD, triggerer=NOW),
    "unknown-trigger": unknown_trigger,
}


def play(name: str, case: Callable[[Stage], Found]) -> Found:
    """Run one case and print its row."""
    began = time.monotonic()
    with new_stage() as stage:
        try:
            found = case(stage)
        except Exception as error:  # continue with the other cases
            found = [Counter(wrong_result=1)]
            stage.notes.append(f"{type(error).__name__}: {error}")
    bad = {word: count for word, count in sum(found, Counter()).items() if count > 0}
    seconds = time.monotonic() - began
    sys.stdout.write(f"{name:<20}{'BAD' if bad else 'ok':>4}{len(found):>5} cases {seconds:6.0f} s {bad or ''}\n")
    sys.stdout.flush()
    sys.stderr.write("".join(f"{name}: {note[-3000:]}\n" for note in stage.notes))
    return [+counts for counts in found]


def main(arguments: list[str]) -> int:
    """Run the cases; return 0 if no job was duplicated, lost, left running, cancelled by mistake or wrong."""
    global chosen  # noqa: PLW0603 - an option of the command line
    if unknown := [each for each in arguments if each not in (*CASES, "undrained") and not each.startswith("only=")]:
        names = ", ".join(flight.__name__ for flight in FLIGHTS)
        sys.stderr.write(f"unknown: {', '.join(unknown)}. Cases: {', '.join(CASES)}. {__doc__} Flights: {names}.\n")
        return 2
    for argument in arguments:
        if argument.startswith("only="):
            names = argument.removeprefix("only=").split(",")
            chosen = tuple(flight for flight in FLIGHTS if flight.__name__.lower() in names)
    cases = [argument for argument in arguments if argument in CASES] or list(CASES)
    for version in (OLD, NOW):  # as they are now: the working tree may change while this runs
        wheel_of(version)
    sys.stdout.write(f"{describe(OLD)} and {describe(NOW)}\n")
    started = time.monotonic()
    found: Found = []
    for case in cases:
        found += play(case, CASES[case])
    return report(found, started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
