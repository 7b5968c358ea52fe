"""``osai-airflow check``: diagnose a connection and, with ``--webhook``, whether webhooks reach this Airflow."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from typing import Final

import httpx

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli.diagnostics import CheckResult, Status, diagnose, within_limits
from airflow_provider_osai.cli.output import redirect_stdout
from airflow_provider_osai.cli.time_limits import EACH, TimeLimits
from airflow_provider_osai.hooks.deployment import VARIABLE
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.webhooks.address import address
from airflow_provider_osai.webhooks.token import WebhookProbe, seal

__all__ = ["load_settings", "run", "webhook_check"]

MARKS: Final = {Status.OK: "ok", Status.FAIL: "FAIL", Status.NOTE: "--", Status.NOT_RUN: "skip"}
"""How a status is printed."""
CONNECTION_PAGE: Final = "https://airflow-provider-osai.github.io/airflow-provider-osai/connection/"
WEBHOOKS_PAGE: Final = "https://airflow-provider-osai.github.io/airflow-provider-osai/webhooks/"


def run(options: argparse.Namespace) -> int:
    """Print one line for each check, or a JSON document; return 0 if none failed and all were run, else 1."""
    with redirect_stdout(enabled=True):
        results = _results(options)
    is_ok = all(result.status in (Status.OK, Status.NOTE) for result in results)
    if options.json:
        document = {"conn_id": options.conn_id, "ok": is_ok, "checks": [result._asdict() for result in results]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for result in results:
            sys.stdout.write(f"{MARKS[result.status]:<4} {options.conn_id} {result.id}: {result.text}\n")
    return 0 if is_ok else 1


def _results(options: argparse.Namespace) -> list[CheckResult]:
    try:
        settings = load_settings(options.conn_id)
    except OsaiError as error:
        return [CheckResult("connection", Status.FAIL, str(error))]
    except Exception as error:  # Airflow's secrets backends can raise anything
        text = (
            f"The connection could not be read: {type(error).__name__}. Check the connection id, and run this where "
            "Airflow is configured."
        )
        return [CheckResult("connection", Status.FAIL, text)]
    limits = TimeLimits(options.timeout, options.total_timeout)
    results = list(diagnose(settings, options.conn_id, limits))
    if options.webhook:
        secret = _deployment_secret()

        def probe() -> list[CheckResult]:
            is_ok, text = webhook_check(settings, options.conn_id, secret, limits.each)
            return [CheckResult("webhook-test", Status.OK if is_ok else Status.FAIL, text)]

        results += within_limits(limits, ["webhook-test"], probe)
    return results


def webhook_check(
    settings: OsaiSettings, osai_conn_id: str, deployment_secret: str | None, timeout: float = EACH
) -> tuple[bool, str]:
    """Send one probe to the webhook address; return whether this Airflow answered it, and the text to print.

    The text shows the address without its signed part.

    :param deployment_secret: seals the probe's token; ``None`` if the secret cannot be read on this machine.
    :param timeout: seconds to wait for a response.
    """
    if missing := settings.missing_webhook_extra:
        return False, f"Webhooks are off: the connection has no {missing}; see {WEBHOOKS_PAGE}"
    if deployment_secret is None:
        return False, (
            f"The webhook cannot be tested: Airflow's variable {VARIABLE} cannot be read. Run this where Airflow's "
            "database is reachable, with the same [core] fernet_key as the other components."
        )
    keys = [secret.get_secret_value() for secret in settings.webhook_secrets]
    probe = WebhookProbe(osai_conn_id, secrets.token_hex(8))
    base_url = str(settings.webhook_base_url)
    shown = address(base_url, "...")
    start = time.monotonic()
    try:
        response = httpx.post(address(base_url, seal(probe.sign(keys), deployment_secret)), timeout=timeout)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        return False, f"POST {shown} got no response: {reason}. Check the address, its certificate, and the firewall."
    if response.status_code == httpx.codes.OK and probe.is_answered_by(response.text, keys):
        elapsed = (time.monotonic() - start) * 1000
        return (
            True,
            f"POST {shown} reached this Airflow in {elapsed:.0f} ms. Whether OSAI can reach it is not tested.",
        )
    return False, f"POST {shown} returned {response.status_code}: {_remedy(response)}"


def _remedy(response: httpx.Response) -> str:
    if response.is_redirect or response.status_code in (401, 403, 407):
        return "a proxy in front of Airflow requires a login; allow POST to /osai/webhook/ without one."
    if response.status_code == httpx.codes.NOT_FOUND:
        return (
            "no webhook handler, or one with another secret. Check the base path, that the API server has the same "
            "version of this package installed, and that it has been restarted since. A new secret, and a new value "
            f"of Airflow's variable {VARIABLE}, take effect within 30 seconds."
        )
    if response.is_success:
        return "the response is not from this Airflow; check the address."
    return "check the logs of the API server and of any proxy in front of it."


def load_settings(osai_conn_id: str) -> OsaiSettings:
    """Return the settings of an Airflow connection from any secrets backend or the metadata database.

    :raises OsaiError: if there is no such connection, or it has another type than ``osai`` or an invalid field.
    """
    # Not at the top: the import initializes Airflow's database access.
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]  # re-exported
    from airflow.models.connection import Connection

    # Outside of a task, the hook itself would read the environment only.
    try:
        connection = Connection.get_connection_from_secrets(osai_conn_id)
    except AirflowNotFoundException:
        variable = f"AIRFLOW_CONN_{osai_conn_id.upper()}"
        if os.environ.get(variable):
            raise OsaiArgumentError(
                f"{variable} is set, but it is neither valid JSON nor a URI. Check its quotes and braces."
            ) from None
        raise OsaiArgumentError(
            f"There is no connection {osai_conn_id!r}. Set {variable} in this shell, or add it under Admin > "
            f"Connections: {CONNECTION_PAGE}"
        ) from None
    return OsaiHook(osai_conn_id).settings_from(connection)


def _deployment_secret() -> str | None:
    # Not at the top: the import initializes Airflow's database access.
    from airflow_provider_osai.hooks.deployment import deployment_in_database

    try:
        deployment = deployment_in_database(create=True)
    except Exception:  # a database or a secrets backend can raise anything
        return None
    return deployment.secret if deployment else None
