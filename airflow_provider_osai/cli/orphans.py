"""``osai-airflow jobs orphans``, also called ``orphans``: find and cancel orphaned jobs, with Airflow's database."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Final

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli.output import CommandError, redirect_stdout
from airflow_provider_osai.cli.session import airflow_database, read_settings, with_remedy
from airflow_provider_osai.jobs.orphans import OrphanSearch, Report

__all__ = ["run"]

DONE: Final = 0
ORPHANS_REMAIN: Final = 1
FAILED: Final = 2


def run(options: argparse.Namespace) -> int:
    """Find orphaned jobs, and cancel them with ``--action cancel``.

    :return: 0 if no orphan remains, 1 if some do, 2 if a kind of job could not be listed.
    :raises CommandError: if the connection, OSAI or Airflow's database cannot be used, with the exit code 2.
    """
    lines: list[str] = []
    log: Callable[[str], object] = _write_message if options.json else lines.append
    try:
        with redirect_stdout(enabled=True):
            settings = read_settings(options.connection, FAILED)
            with airflow_database(FAILED):
                report = _search(settings, options.connection, options.grace, log, cancels=options.action == "cancel")
        log(report.summary())
    except OsaiError as error:
        raise CommandError(with_remedy(error, options.connection), FAILED) from error
    finally:  # also for Ctrl-C: jobs may have been cancelled
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    if options.json:
        sys.stdout.write(json.dumps(report.found(options.action), indent=2) + "\n")
    if report.not_cancelled or (report.orphans and options.action == "report"):
        return ORPHANS_REMAIN
    return FAILED if report.failures else DONE


def _write_message(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _search(
    settings: OsaiSettings, osai_conn_id: str, grace: float, log: Callable[[str], object], *, cancels: bool
) -> Report:
    # Not at the top: importing Airflow configures its logging with the standard output of that moment.
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.hooks.deployment import deployment_in_database
    from airflow_provider_osai.plugins.task_queries import TasksInDatabase

    deployment = deployment_in_database(settings.deployment)
    if deployment is None:
        log("This Airflow has not submitted a job yet: it has no variable osai_deployment_secret")
        return Report()
    with OsaiClient(settings) as client:
        tasks = TasksInDatabase(osai_conn_id, deployment, log)
        return OrphanSearch(client, deployment, tasks, grace=grace, log=log).run(cancels=cancels)
