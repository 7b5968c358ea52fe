"""``osai-airflow check``: one screen of diagnosis for a connection, and whether webhooks reach this Airflow."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

import httpx

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.diagnosis import Grade, Line, diagnose
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.ticket import Probe, address

__all__ = ["main", "settings_of", "webhook_check"]

TIMEOUT: Final = 10.0
"""Seconds that the webhook's address may take to answer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and tell; the return code is 0 if all is well."""
    parser = argparse.ArgumentParser(prog="osai-airflow check", description="check a connection to OSAI")
    parser.add_argument("--conn-id", default=OsaiHook.default_conn_name, help="default: %(default)s")
    parser.add_argument(
        "--webhook", action="store_true", help="call this Airflow's webhook address too, from here, as OSAI would"
    )
    options = parser.parse_args(arguments)
    try:
        settings = settings_of(options.conn_id)
    except OsaiError as error:
        return _tell(options.conn_id, [Line(Grade.FAIL, str(error))])
    except Exception as error:  # noqa: BLE001 - of Airflow's secrets backends, whatever they are
        found = f"the connection could not be read: {type(error).__name__}. Is it there, and is this Airflow's machine?"
        return _tell(options.conn_id, [Line(Grade.FAIL, found)])
    findings = list(diagnose(settings, options.conn_id))
    if options.webhook:
        good, text = webhook_check(settings, options.conn_id)
        findings.append(Line(Grade.OK if good else Grade.FAIL, text))
    return _tell(options.conn_id, findings)


def webhook_check(settings: OsaiSettings, osai_conn_id: str) -> tuple[bool, str]:
    """Call the webhook's address once with a probe; return whether it is ours, and what to do if not.

    The address is shown without the signed part.
    """
    if not settings.takes_webhooks:
        lacking = "webhook_secret" if settings.webhook_base_url else "webhook_base_url"
        return False, f"Webhooks are off: the connection has no {lacking}; see docs/webhooks.md."
    keys = [secret.get_secret_value() for secret in settings.webhook_secrets]
    probe = Probe(osai_conn_id, secrets.token_hex(8))
    base_url = str(settings.webhook_base_url)
    shown = address(base_url, "...")
    begin = time.monotonic()
    try:
        answer = httpx.post(address(base_url, probe.sign(keys)), timeout=TIMEOUT)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        return False, f"POST {shown} got no answer: {reason}. Check the address, its certificate, and the firewall."
    if answer.status_code == httpx.codes.OK and probe.is_answered_by(answer.text, keys):
        took = (time.monotonic() - begin) * 1000
        return (
            True,
            f"POST {shown} reached this Airflow in {took:.0f} ms. OSAI's own way there is not tried.",
        )
    return False, f"POST {shown} was answered with {answer.status_code}: {_remedy(answer)}"


def _remedy(answer: httpx.Response) -> str:
    if answer.is_redirect or answer.status_code in (401, 403, 407):
        return "something in front of Airflow wants a login; let POST to /osai/webhook/ pass without one."
    if answer.status_code == httpx.codes.NOT_FOUND:
        return (
            "no receiver, or one that knows another secret: check the base path, that this package is installed where "
            "the API server runs, and that the server has been restarted since; a new secret takes half a minute."
        )
    if answer.is_success:
        return "that is not this Airflow; check the address."
    return "look into the log of the API server and of what is in front of it."


def settings_of(osai_conn_id: str) -> OsaiSettings:
    """Return what a connection of this Airflow says, wherever it is kept; raise OsaiError if it cannot be used."""
    # Not at the top: it makes Airflow's database ready.
    from airflow.models.connection import Connection  # noqa: PLC0415

    connection = Connection.get_connection_from_secrets(osai_conn_id)
    # For the hook, which outside a task looks into the environment only.
    os.environ[f"AIRFLOW_CONN_{osai_conn_id.upper()}"] = connection.as_json()
    return OsaiSettings.from_connection(connection.password, connection.extra_dejson)


def _tell(osai_conn_id: str, findings: Sequence[Line]) -> int:
    for line in findings:
        sys.stdout.write(f"{line.grade:<4} {osai_conn_id}: {line.text}\n")
    return 1 if any(line.grade is Grade.FAIL for line in findings) else 0
