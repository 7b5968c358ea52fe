"""Turns an unsuccessful answer into the error that says what to do."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
from httpx_retries import Retry

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
)

__all__ = ["LONGEST_WAIT", "PASSING", "decipher"]

LONGEST_WAIT = 60.0
"""Seconds that one wait between retries lasts at the most, ``Retry-After`` included."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that speak of the moment, not of the request."""


def decipher(response: httpx.Response, method: str, path: str) -> OsaiError:
    """Return the error that an unsuccessful answer stands for."""
    status = response.status_code
    if status == httpx.codes.UNAUTHORIZED:
        return OsaiAuthError(
            f"OSAI refused {method} {path} although it had just signed us in ({status}); check the token's rights"
        )
    if status in PASSING or response.is_server_error:
        return OsaiUnreachable(
            f"{method} {path} was answered with {status} {response.reason_phrase}",
            sent=status != httpx.codes.TOO_MANY_REQUESTS,
            status=status,
            retry_after=_retry_after(response),
        )
    if response.is_redirect:
        where = urlsplit(response.headers.get("location", "")).netloc or "another path"
        return OsaiContractError(f"{method} {path} was redirected to {where}; check base_url of the connection")
    return OsaiRequestError(status, method, path, response.text)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(Retry().parse_retry_after(response.headers["retry-after"]), LONGEST_WAIT)
    except (KeyError, ValueError):
        return None
