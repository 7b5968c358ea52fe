"""``osai-airflow orphans``: jobs that no task of this Airflow wants any more, from where its database is reachable."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.jobs.orphans import Report, Search

__all__ = ["main"]

DONE: Final = 0
LEFT: Final = 1
FAILED: Final = 2
STDOUT: Final = 1
STDERR: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Find orphaned jobs, and cancel them if told to.

    :return: 0 if none is left, 1 if some are, 2 if an argument is wrong, or OSAI or Airflow's database cannot be used.
    """
    options = _parser().parse_args(arguments)
    lines = sys.stderr if options.json else sys.stdout

    def note(message: str) -> None:
        lines.write(f"{message}\n")

    try:
        with _kept_clean(is_wanted=options.json):
            report = _search(options.connection, options.grace, note, cancels=options.action == "cancel")
    except OsaiError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    except Exception as error:  # noqa: BLE001 - of Airflow's database and secrets backends, whatever they are
        sys.stderr.write(
            f"Airflow could not be read for connection {options.connection}: {type(error).__name__}. Is the connection "
            "there, and is Airflow's database reachable from this machine?\n"
        )
        return FAILED
    note(report.summary())
    if options.json:
        sys.stdout.write(json.dumps(report.found(options.action), indent=2) + "\n")
    if report.not_cancelled or (report.orphans and options.action == "report"):
        return LEFT
    return FAILED if report.failures else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="osai-airflow orphans", description="find live OSAI jobs that no task of this Airflow wants any more"
    )
    parser.add_argument("--connection", "--conn-id", default="osai_default", help="its id, default: %(default)s")
    parser.add_argument("--action", choices=("report", "cancel"), default="report", help="default: %(default)s")
    parser.add_argument(
        "--grace", type=_seconds, default=600.0, help="seconds; younger jobs are left alone, default: %(default).0f"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON; messages go to stderr")
    return parser


def _search(osai_conn_id: str, grace: float, note: Callable[[str], object], *, cancels: bool) -> Report:
    # Not at the top: Airflow, when it is imported, takes hold of the standard output for its log.
    from airflow_provider_osai.api.client import OsaiClient  # noqa: PLC0415
    from airflow_provider_osai.check import settings_of  # noqa: PLC0415

    settings = settings_of(osai_conn_id)
    from airflow_provider_osai.plugins.task_queries import TasksInDatabase, deployment_in_database  # noqa: PLC0415

    deployment = deployment_in_database(settings.deployment)
    if deployment is None:
        note("This Airflow has no variable osai_deployment_secret: it has not submitted a job yet")
        return Report()
    with OsaiClient(settings) as client:
        tasks = TasksInDatabase(osai_conn_id, deployment, note)
        return Search(client, deployment, tasks, grace=grace, note=note).run(cancels=cancels)


@contextmanager
def _kept_clean(*, is_wanted: bool) -> Iterator[None]:
    """Send to the standard error what is written to the standard output meanwhile, as Airflow's log is."""
    if not is_wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, STDOUT)
        os.close(kept)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: 0 or more is needed")
    return seconds
