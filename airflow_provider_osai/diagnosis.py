"""What can be wrong with a connection, one line each, with what to do about it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, NamedTuple

import httpx

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["Grade", "Line", "diagnose"]

TIMEOUT: Final = 10.0
SKEW: Final = 60.0
"""Seconds that two clocks may differ before somebody should know."""
SHORT: Final = 300.0
"""Seconds of life under which a sign-in is renewed all the time."""
NOBODY: Final = "0"
"""The id of a job that there is not."""


class Grade(StrEnum):
    """How good a finding is, as the screen shows it. ``NOTE``: nobody can tell, or it is the user's choice."""

    OK = "ok"
    FAIL = "FAIL"
    NOTE = "--"


class Line(NamedTuple):
    """One finding, in words with a remedy."""

    grade: Grade
    text: str


def diagnose(settings: OsaiSettings, osai_conn_id: str) -> Iterator[Line]:
    """Yield what is found, from the address to what the API can do; what rests on a failure before it is left out."""
    yield Line(
        Grade.OK, f"Address {settings.base_url}, {f'region {settings.region}' if settings.region else 'no region'}."
    )
    reached = _reach(settings)
    yield from reached
    signed_in, said = OsaiHook(osai_conn_id).test_connection()
    yield Line(Grade.OK if signed_in else Grade.FAIL, said)
    if signed_in:
        yield from _able(settings)
    webhooks = "on" if settings.takes_webhooks else "off; without them the end of a job is seen at the next look"
    yield Line(Grade.OK if settings.takes_webhooks else Grade.NOTE, f"Webhooks are {webhooks}.")


def _reach(settings: OsaiSettings) -> list[Line]:
    """Ask for anything at all: how long that takes, whether the certificate is good, what time it is there."""
    begin = time.time()
    try:
        answer = httpx.get(settings.base_url, timeout=TIMEOUT, follow_redirects=False)
    except httpx.HTTPError as error:
        return [Line(Grade.FAIL, _unreached(error, settings))]
    took = time.time() - begin
    secure = settings.base_url.startswith("https")
    safe = "over TLS with a good certificate" if secure else "without TLS, on this machine"
    lines = [Line(Grade.OK, f"Answers in {took * 1000:.0f} ms, {safe}.")]
    try:
        skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - (begin + took / 2)
    except (KeyError, TypeError, ValueError):
        return [*lines, Line(Grade.NOTE, "It does not say what time it is there.")]
    if abs(skew) <= SKEW:
        return [*lines, Line(Grade.OK, "Its clock and ours agree.")]
    which = "ahead" if skew > 0 else "behind"
    remedy = "set the clocks by NTP: sign-ins seem to expire too early or too late, and signed webhook addresses too"
    return [*lines, Line(Grade.FAIL, f"Its clock is {abs(skew):.0f} s {which} of ours; {remedy}.")]


def _unreached(error: httpx.HTTPError, settings: OsaiSettings) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return f"TLS with {settings.base_url} fails: {cause}. Add the authority to SSL_CERT_FILE, or mend the address."
    reason = str(error) or type(error).__name__
    return f"{settings.base_url} does not answer: {reason}. Check the address, DNS, the proxy, and the firewall."


def _able(settings: OsaiSettings) -> Iterator[Line]:
    """Look into the sign-in, and into what the API can do besides what is documented."""
    with OsaiClient(settings, patience=0) as client:
        try:
            client.send(client.calls.me())
        except OsaiError as error:
            yield Line(Grade.FAIL, str(error))
            return
        life = client.auth.life
        if life is None:
            yield Line(Grade.NOTE, "The sign-in does not say when it expires; it is renewed when it is refused.")
        else:
            yield Line(
                Grade.NOTE if life < SHORT else Grade.OK,
                f"The sign-in holds for {life / 60:.0f} minutes, and is renewed by itself.",
            )
        yield _listing(client)
    lacking = [kind.value for kind in JobKind if f"{kind}.cancel" not in settings.contract]
    if lacking:
        text = "Jobs of these kinds cannot be cancelled (bound to null), so a killed task leaves them"
        yield Line(Grade.NOTE, f"{text}: {', '.join(lacking)}.")
    else:
        yield Line(Grade.OK, "cancel is bound for all kinds of job; whether OSAI takes it is seen at the first kill.")


def _listing(client: OsaiClient) -> Line:
    if any(f"{kind}.list" not in client.settings.contract for kind in JobKind):
        return Line(Grade.NOTE, "list is bound to null: jobs are polled one by one, found again by stored state only.")
    try:
        client.send(client.calls.list_jobs(JobKind.TRAINING, [NOBODY]))
    except OsaiError as error:
        remedy = "Bind training.list and the others to what your OSAI has, or to null ('osai-airflow contract check')"
        return Line(Grade.FAIL, f"list does not work: {error}. {remedy}.")
    return Line(Grade.OK, "list works: jobs are polled together, and a retry finds what an earlier try submitted.")
