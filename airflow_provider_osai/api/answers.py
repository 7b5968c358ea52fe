"""Reads answers that are no JSON of the API: turns an unsuccessful one into the error that says what to do."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

import httpx
from httpx_retries import Retry

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
    quotable,
)

__all__ = ["LONGEST_WAIT", "PASSING", "Repeat", "decipher", "text_of"]

LONGEST_WAIT = 60.0
"""Seconds that one wait between retries lasts at the most, ``Retry-After`` included."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that speak of the moment, not of the request."""


class Repeat(Retry):
    """When a request is sent again. Whatever a server says in ``Retry-After``, it is a time or it is ignored."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Return the seconds to wait; raise ValueError if it is no time."""
        try:
            return super().parse_retry_after(retry_after)
        except (ArithmeticError, LookupError):  # a date that no calendar holds
            raise ValueError("not a time") from None


def decipher(response: httpx.Response, method: str, path: str, busy: Collection[int] = ()) -> OsaiError:
    """Return the error that an unsuccessful answer stands for.

    :param busy: statuses besides 429 that say "not now".
    """
    status = response.status_code
    if status == httpx.codes.UNAUTHORIZED:
        return OsaiAuthError(
            f"OSAI refused {method} {path} although it had just signed us in ({status}); check the token's rights"
        )
    if status in PASSING or status in busy or response.is_server_error:
        return OsaiUnreachable(
            f"{method} {path} was answered with {status} {response.reason_phrase}",
            sent=status != httpx.codes.TOO_MANY_REQUESTS and status not in busy,
            status=status,
            retry_after=_retry_after(response),
        )
    if response.is_redirect:
        where = _host(response.headers.get("location", "")) or "another path"
        return OsaiContractError(f"{method} {path} was redirected to {where}; check base_url of the connection")
    return OsaiRequestError(status, method, path, _quotable(response))


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(Repeat().parse_retry_after(response.headers["retry-after"]), LONGEST_WAIT)
    except (KeyError, ValueError):
        return None


def text_of(response: httpx.Response) -> str:
    """Return the body as text, whatever charset the server claims; httpx raises on those that are no charset."""
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        return response.content.decode("utf-8", "replace")


def _quotable(response: httpx.Response) -> str:
    """Return what a person can read of the body."""
    text = text_of(response)
    if "\0" in text or text.count("\ufffd") * 10 > len(text):
        return f"{len(response.content)} bytes that are no text"
    return quotable(text)


def _host(location: str) -> str:
    try:
        return urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return ""
