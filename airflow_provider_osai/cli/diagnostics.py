"""Diagnose a connection: reachability, TLS, clock skew, sign-in, list, cancel and webhooks, with remedies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, NamedTuple

import httpx

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.error_mapping import tls_error_message
from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["CheckResult", "Status", "diagnose"]

TIMEOUT: Final = 10.0
SKEW: Final = 60.0
"""Seconds of clock skew above which a check fails."""
SHORT: Final = 300.0
"""Seconds of JWT lifetime below which frequent renewals are worth a note."""
UNUSED_ID: Final = "0"
"""A job id that does not exist (assumed)."""


class Status(StrEnum):
    """The result of a check, as printed. ``NOTE``: cannot be verified, or an optional setting."""

    OK = "ok"
    FAIL = "FAIL"
    NOTE = "--"


class CheckResult(NamedTuple):
    """The result of one check: its status, and a sentence with the remedy."""

    status: Status
    text: str


def diagnose(settings: OsaiSettings, osai_conn_id: str) -> Iterator[CheckResult]:
    """Yield one result for each check, from the address to the API's operations.

    Checks that need a sign-in are skipped if the sign-in fails.
    """
    yield CheckResult(
        Status.OK, f"Address {settings.base_url}, {f'region {settings.region}' if settings.region else 'no region'}."
    )
    yield from _check_reachability(settings)
    signed_in, message = OsaiHook(osai_conn_id).test_settings(settings)
    yield CheckResult(Status.OK if signed_in else Status.FAIL, message)
    if signed_in:
        yield from _check_operations(settings)
    webhooks = "on" if settings.takes_webhooks else "off; the end of a job is detected at the next poll"
    yield CheckResult(Status.OK if settings.takes_webhooks else Status.NOTE, f"Webhooks are {webhooks}.")


def _check_reachability(settings: OsaiSettings) -> list[CheckResult]:
    """Send a GET to the base address; check the response time, the TLS certificate and the clock skew."""
    start = time.time()
    try:
        response = httpx.get(settings.base_url, timeout=TIMEOUT, follow_redirects=False)
    except httpx.HTTPError as error:
        return [CheckResult(Status.FAIL, _connection_problem(error, settings))]
    elapsed = time.time() - start
    is_tls = settings.base_url.startswith("https")
    security = "over TLS with a valid certificate" if is_tls else "without TLS, on this machine"
    results = [CheckResult(Status.OK, f"Responds in {elapsed * 1000:.0f} ms, {security}.")]
    try:
        skew = parsedate_to_datetime(response.headers["date"]).timestamp() - (start + elapsed / 2)
    except (KeyError, TypeError, ValueError):
        return [*results, CheckResult(Status.NOTE, "Clock skew is unknown: the response has no valid Date header.")]
    if abs(skew) <= SKEW:
        return [*results, CheckResult(Status.OK, "Server and local clocks agree.")]
    direction = "ahead of" if skew > 0 else "behind"
    remedy = "synchronize them by NTP, else sign-ins and webhook tokens seem to expire too early or too late"
    return [
        *results,
        CheckResult(Status.FAIL, f"The server clock is {abs(skew):.0f} s {direction} the local clock; {remedy}."),
    ]


def _connection_problem(error: httpx.HTTPError, settings: OsaiSettings) -> str:
    if message := tls_error_message(error, settings.base_url):
        return message
    reason = str(error) or type(error).__name__
    return f"{settings.base_url} does not respond: {reason}. Check the address, DNS, the proxy, and the firewall."


def _check_operations(settings: OsaiSettings) -> Iterator[CheckResult]:
    """Check the JWT's lifetime and the assumed operations list and cancel."""
    with OsaiClient(settings, retry_budget=0) as client:
        try:
            client.send(client.calls.get_user())
        except OsaiError as error:
            yield CheckResult(Status.FAIL, str(error))
            return
        life = client.auth.jwt_lifetime
        if "auth.sign_in" not in settings.contract:
            header = settings.contract.token_header.name
            yield CheckResult(Status.OK, f"The access token is sent in the header {header}, without a sign-in.")
        elif life is None:
            yield CheckResult(
                Status.NOTE,
                "The sign-in's token has no readable expiry; it is renewed when OSAI rejects it.",
            )
        else:
            yield CheckResult(
                Status.NOTE if life < SHORT else Status.OK,
                f"The sign-in is valid for {life / 60:.0f} minutes and renewed automatically.",
            )
        yield _check_list(client)
    missing = [kind.value for kind in JobKind if f"{kind}.cancel" not in settings.contract]
    if missing:
        text = "cancel is bound to null, so jobs of these kinds keep running after their task is killed"
        yield CheckResult(Status.NOTE, f"{text}: {', '.join(missing)}.")
    else:
        yield CheckResult(Status.OK, "All kinds of job have a cancel endpoint configured (not verified).")


def _check_list(client: OsaiClient) -> CheckResult:
    if any(f"{kind}.list" not in client.settings.contract for kind in JobKind):
        return CheckResult(
            Status.NOTE,
            "list is bound to null: each job is polled separately, and a retry reconnects by its checkpoint only.",
        )
    try:
        client.send(client.calls.list_jobs(JobKind.TRAINING, [UNUSED_ID]))
    except OsaiError as error:
        remedy = "Override training.list and the other list operations in the contract, or set them to null"
        return CheckResult(
            Status.FAIL, f"list does not work: {error}. {remedy}; 'osai-airflow contract check' compares them."
        )
    return CheckResult(
        Status.OK, "list works: jobs are polled in batches, and a retry can find the job of an earlier try."
    )
