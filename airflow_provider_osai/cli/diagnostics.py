"""Diagnose a connection: reachability, TLS, clock skew, sign-in, list, cancel and webhooks, with remedies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, NamedTuple

import httpx

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.error_mapping import tls_error_message
from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.limits import LIST_LIMIT
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.pagination import first_page
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli.time_limits import NotRun, TimeLimits, TookTooLong
from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["CheckResult", "Status", "diagnose", "within_limits"]

SKEW: Final = 60.0
"""Seconds of clock skew above which a check fails."""
SHORT: Final = 300.0
"""Seconds of JWT lifetime below which frequent renewals are worth a note."""
UNUSED_ID: Final = "0"
"""A job id that does not exist (assumed)."""
MAX_SHOWN: Final = 5
"""Maximum differences from the contract in one line."""


class Status(StrEnum):
    """The result of a check. ``NOTE``: cannot be verified, or an optional setting. ``NOT_RUN``: no time was left."""

    OK = "ok"
    FAIL = "fail"
    NOTE = "note"
    NOT_RUN = "not-run"


class CheckResult(NamedTuple):
    """The result of one check: its stable id, its status, and a sentence with the remedy."""

    id: str
    status: Status
    text: str


def diagnose(settings: OsaiSettings, osai_conn_id: str, limits: TimeLimits | None = None) -> Iterator[CheckResult]:
    """Yield one result for each check, from the address to the API's operations.

    Checks that need a sign-in are not run if the sign-in fails.

    :param limits: the time limits of each probe and of all.
    """
    limits = limits or TimeLimits()
    settings = settings.model_copy(update={"timeout": min(settings.timeout, limits.each)})
    region = f"region {settings.region}" if settings.region else "no region"
    yield CheckResult("address", Status.OK, f"Address {settings.base_url}, {region}.")
    yield from within_limits(limits, ["reachable", "clock"], lambda: _check_reachability(settings))
    (signed_in,) = within_limits(limits, ["sign-in"], lambda: [_check_sign_in(settings, osai_conn_id)])
    yield signed_in
    if signed_in.status is Status.OK:
        yield from _check_operations(settings, limits)
    else:
        for check in ("token", "list", "responses"):
            yield CheckResult(check, Status.NOT_RUN, "Not run: there is no sign-in.")
    yield _check_cancel(settings)
    webhooks = "on" if settings.takes_webhooks else "off; the end of a job is detected at the next poll"
    yield CheckResult("webhooks", Status.OK if settings.takes_webhooks else Status.NOTE, f"Webhooks are {webhooks}.")


def within_limits(
    limits: TimeLimits, checks: list[str], probe: Callable[[], Iterable[CheckResult]]
) -> list[CheckResult]:
    """Return the results of *probe*; of one that takes too long, or that no time is left for, those of *checks*."""
    try:
        return list(limits.run(probe))
    except TookTooLong as error:
        unknown = [CheckResult(check, Status.NOT_RUN, "Not run: the check before it failed.") for check in checks[1:]]
        return [CheckResult(checks[0], Status.FAIL, str(error)), *unknown]
    except NotRun as error:
        return [CheckResult(check, Status.NOT_RUN, str(error)) for check in checks]


def _check_sign_in(settings: OsaiSettings, osai_conn_id: str) -> CheckResult:
    signed_in, message = OsaiHook(osai_conn_id).test_settings(settings)
    return CheckResult("sign-in", Status.OK if signed_in else Status.FAIL, message)


def _check_reachability(settings: OsaiSettings) -> list[CheckResult]:
    """Send a GET to the base address; check the response time, the TLS certificate and the clock skew."""
    start = time.time()
    try:
        # The body is not read: it may be endless.
        with httpx.stream("GET", settings.base_url, timeout=settings.timeout, follow_redirects=False) as response:
            date = response.headers.get("date", "")
    except httpx.HTTPError as error:
        unknown = CheckResult("clock", Status.NOT_RUN, "Not run: there is no response.")
        return [CheckResult("reachable", Status.FAIL, _connection_problem(error, settings)), unknown]
    elapsed = time.time() - start
    is_tls = settings.base_url.startswith("https")
    security = "over TLS with a valid certificate" if is_tls else "without TLS, on this machine"
    reachable = CheckResult("reachable", Status.OK, f"Responds in {elapsed * 1000:.0f} ms, {security}.")
    return [reachable, _check_clock(date, start + elapsed / 2)]


def _check_clock(date: str, now: float) -> CheckResult:
    """Compare the header ``Date`` of a response with the local time."""
    try:
        skew = parsedate_to_datetime(date).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return CheckResult("clock", Status.NOTE, "Clock skew is unknown: the response has no valid Date header.")
    if abs(skew) <= SKEW:
        return CheckResult("clock", Status.OK, "Server and local clocks agree.")
    direction = "ahead of" if skew > 0 else "behind"
    remedy = "synchronize them by NTP, else sign-ins and webhook tokens seem to expire too early or too late"
    return CheckResult(
        "clock", Status.FAIL, f"The server clock is {abs(skew):.0f} s {direction} the local clock; {remedy}."
    )


def _connection_problem(error: httpx.HTTPError, settings: OsaiSettings) -> str:
    if message := tls_error_message(error, settings.base_url):
        return message
    reason = str(error) or type(error).__name__
    return f"{settings.base_url} does not respond: {reason}. Check the address, DNS, the proxy, and the firewall."


def _check_operations(settings: OsaiSettings, limits: TimeLimits) -> Iterator[CheckResult]:
    """Check the JWT's lifetime and the assumed operation list."""
    with OsaiClient(settings, retry_budget=0) as client:
        (token,) = within_limits(limits, ["token"], lambda: [_check_token(client)])
        yield token
        if token.status in (Status.OK, Status.NOTE):
            yield from within_limits(limits, ["list"], lambda: [_check_list(client)])
            yield from within_limits(limits, ["responses"], lambda: [_check_responses(client)])
        else:
            for check in ("list", "responses"):
                yield CheckResult(check, Status.NOT_RUN, "Not run: there is no sign-in.")


def _check_token(client: OsaiClient) -> CheckResult:
    """Sign in, and check the JWT's lifetime."""
    try:
        client.get_user()
    except OsaiError as error:
        return CheckResult("token", Status.FAIL, str(error))
    life = client.auth.jwt_lifetime
    if "auth.sign_in" not in client.settings.contract:
        header = client.settings.contract.token_header.name
        return CheckResult("token", Status.OK, f"The access token is sent in the header {header}, without a sign-in.")
    if life is None:
        return CheckResult(
            "token", Status.NOTE, "The sign-in's token has no readable expiry; it is renewed when OSAI rejects it."
        )
    text = f"The sign-in is valid for {life / 60:.0f} minutes and renewed automatically."
    return CheckResult("token", Status.NOTE if life < SHORT else Status.OK, text)


def _check_cancel(settings: OsaiSettings) -> CheckResult:
    missing = [kind.value for kind in JobKind if f"{kind}.cancel" not in settings.contract]
    if not missing:
        text = "All kinds of job have a cancel endpoint configured (not verified)."
        return CheckResult("cancel", Status.OK, text)
    text = "cancel is bound to null, so jobs of these kinds keep running after their task is killed"
    return CheckResult("cancel", Status.NOTE, f"{text}: {', '.join(missing)}.")


def _check_list(client: OsaiClient) -> CheckResult:
    contract = client.settings.contract
    unlisted = [kind.value for kind in JobKind if f"{kind}.list" not in contract]
    keyless = [kind.value for kind in JobKind if "reference" in contract[f"{kind}.submit"].unsent_fields]
    unfound = [kind.value for kind in JobKind if kind.value in (*unlisted, *keyless)]
    retries = f"A retry reconnects to jobs of these kinds by its checkpoint only: {', '.join(unfound)}."
    if unlisted:
        text = f"list is bound to null, so jobs of these kinds are polled separately: {', '.join(unlisted)}. {retries}"
        return CheckResult("list", Status.NOTE, text)
    try:
        client.list_jobs(JobKind.TRAINING, [UNUSED_ID])
    except OsaiError as error:
        remedy = "Override training.list and the other list operations in the contract, or set them to null"
        text = f"list does not work: {error}. {remedy}; 'osai-airflow contract check' compares them."
        return CheckResult("list", Status.FAIL, text)
    if unfound:
        return CheckResult("list", Status.NOTE, f"list works: jobs are polled in batches. {retries}")
    text = "list works: jobs are polled in batches, and a retry can find the job of an earlier try."
    return CheckResult("list", Status.OK, text)


def _check_responses(client: OsaiClient) -> CheckResult:
    """Read the list of trainings, and report how all responses about jobs so far differ from the contract."""
    text = "There is no training to compare with the contract."
    try:
        call = client.calls.list_all_jobs(JobKind.TRAINING)
        if call.rules.pages is not None:
            call = first_page(call, call.rules.pages)
        call = replace(call, limit=LIST_LIMIT)
        client.read(call, client.exchange(call))
    except OsaiError:
        text = "The list of trainings could not be read, so that nothing was compared with the contract."
    watch = client.calls.watch
    hint = "'osai-airflow contract check --live' compares each operation."
    if differences := watch.differences():
        texts = "; ".join(each.text for each in list(differences)[:MAX_SHOWN])
        return CheckResult(
            "responses", Status.NOTE, f"{len(differences)} differences from the contract: {texts}. {hint}"
        )
    if not watch.responses:
        return CheckResult("responses", Status.NOTE, f"{text} {hint}")
    return CheckResult(
        "responses", Status.OK, f"All trainings of the list ({watch.responses}) are as the contract says."
    )
