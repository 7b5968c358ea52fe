"""A client of an Airflow connection for one command, with errors that name the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli.output import CommandError

__all__ = ["RETRY_BUDGET", "airflow_database", "connected", "read_settings", "with_remedy"]

RETRY_BUDGET: Final = 5.0
"""Seconds for the retries of one request: a person waits for the answer."""


@contextlib.contextmanager
def connected(osai_conn_id: str, retry_budget: float = RETRY_BUDGET) -> Iterator[OsaiClient]:
    """Open a client of the connection.

    :param retry_budget: maximum seconds that the retries of one request wait in total.
    :raises CommandError: if the connection cannot be read, or a request fails.
    """
    settings = read_settings(osai_conn_id)
    try:
        with OsaiClient(settings, retry_budget=retry_budget) as client:
            yield client
    except OsaiError as error:
        raise CommandError(with_remedy(error, osai_conn_id)) from error


def read_settings(osai_conn_id: str, code: int = 1) -> OsaiSettings:
    """Return the settings of a connection.

    :param code: the exit code if it cannot be read.
    :raises CommandError: if the connection cannot be read.
    """
    try:
        # Not at the top: it imports Airflow.
        from airflow_provider_osai.cli.check import load_settings

        return load_settings(osai_conn_id)
    except OsaiError as error:
        raise CommandError(str(error), code) from error
    except Exception as error:  # Airflow's secrets backends can raise anything
        raise CommandError(
            f"The connection {osai_conn_id!r} could not be read: {type(error).__name__}. Check the connection id, and "
            "run this where Airflow is configured.",
            code,
        ) from error


@contextlib.contextmanager
def airflow_database(code: int = 1) -> Iterator[None]:
    """Convert the errors of Airflow's database.

    :param code: the exit code if the database cannot be used.
    :raises CommandError: if the database cannot be used.
    """
    try:
        yield
    except (CommandError, OsaiError):
        raise
    except Exception as error:  # Airflow's configuration and its database can raise anything
        raise CommandError(
            f"Airflow's database cannot be used: {type(error).__name__}. Run this where Airflow is configured, as you "
            "run 'airflow' commands. If it is new, or Airflow was upgraded, run 'airflow db migrate'; 'airflow db "
            "check' tests only the connection.",
            code,
        ) from error


def with_remedy(error: OsaiError, osai_conn_id: str) -> str:
    """Return the message of an error, with what to do."""
    text = str(error).rstrip(".")
    if isinstance(error, OsaiUnreachable):
        return f"{text}. Try again later; 'osai-airflow check --conn-id {osai_conn_id}' names the reason."
    if isinstance(error, (OsaiContractError, OsaiRequestError)):
        return f"{text}. 'osai-airflow contract check --live --conn-id {osai_conn_id}' compares the endpoints."
    return text if text.endswith("?") else f"{text}."
