"""``osai-airflow orphans``: find and cancel orphaned jobs. Run it where Airflow's database is reachable."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Final

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.cli.output import redirect_stdout, seconds
from airflow_provider_osai.jobs.orphans import OrphanSearch, Report

__all__ = ["main"]

DONE: Final = 0
ORPHANS_REMAIN: Final = 1
FAILED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Find orphaned jobs, and cancel them with ``--action cancel``.

    :return: 0 if no orphan remains, 1 if some do, 2 if an argument is invalid, or OSAI or Airflow's database cannot be
        used.
    """
    options = _parser().parse_args(arguments)
    stream = sys.stderr if options.json else sys.stdout

    def log(message: str) -> None:
        stream.write(f"{message}\n")

    try:
        with redirect_stdout(enabled=options.json):
            report = _search(options.connection, options.grace, log, cancels=options.action == "cancel")
    except OsaiError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    except Exception as error:  # Airflow's database and secrets backends can raise anything
        sys.stderr.write(
            f"Airflow could not be read for connection {options.connection}: {type(error).__name__}. Check the "
            "connection id, and run this where Airflow's database is reachable.\n"
        )
        return FAILED
    log(report.summary())
    if options.json:
        sys.stdout.write(json.dumps(report.found(options.action), indent=2) + "\n")
    if report.not_cancelled or (report.orphans and options.action == "report"):
        return ORPHANS_REMAIN
    return FAILED if report.failures else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="osai-airflow orphans",
        description="Find, and optionally cancel, live OSAI jobs that no task of this Airflow needs any more.",
    )
    parser.add_argument("--connection", "--conn-id", default="osai_default", help="connection id, default: %(default)s")
    parser.add_argument("--action", choices=("report", "cancel"), default="report", help="default: %(default)s")
    parser.add_argument(
        "--grace",
        type=seconds,
        default=600.0,
        help="grace time in seconds; younger jobs are ignored, default: %(default).0f",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON; messages go to stderr")
    return parser


def _search(osai_conn_id: str, grace: float, log: Callable[[str], object], *, cancels: bool) -> Report:
    # Not at the top: importing Airflow configures its logging with the standard output of that moment.
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.cli.check import load_settings

    settings = load_settings(osai_conn_id)
    from airflow_provider_osai.hooks.deployment import deployment_in_database
    from airflow_provider_osai.plugins.task_queries import TasksInDatabase

    deployment = deployment_in_database(settings.deployment)
    if deployment is None:
        log("This Airflow has not submitted a job yet: it has no variable osai_deployment_secret")
        return Report()
    with OsaiClient(settings) as client:
        tasks = TasksInDatabase(osai_conn_id, deployment, log)
        return OrphanSearch(client, deployment, tasks, grace=grace, log=log).run(cancels=cancels)
