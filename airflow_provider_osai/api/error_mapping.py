"""Map unsuccessful HTTP responses to OsaiError subclasses."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
from httpx_retries import Retry

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiBusy,
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
    sanitize_server_text,
)
from airflow_provider_osai.api.json_paths import ABSENT, json_path
from airflow_provider_osai.api.limits import OBJECT_LIMIT, TooManyValues, decode_json

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract_rules import OperationRules

__all__ = [
    "MAX_BACKOFF",
    "RETRYABLE_STATUSES",
    "STATUS_OF",
    "RetryPolicy",
    "convert_invalid_redirects",
    "error_from_response",
    "error_of_meaning",
    "json_or_none",
    "raise_for_error_rules",
    "response_text",
    "tls_error_message",
]

MAX_BACKOFF = 60.0
"""Maximum seconds between two retries, including ``Retry-After``."""
MAX_HOST_LENGTH = 253
"""Maximum characters of a host name."""
RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Retryable HTTP statuses: the cause is temporary, not the request."""


class RetryPolicy(Retry):
    """The retry policy of a request; an invalid ``Retry-After`` is ignored."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Return the seconds to wait; raise ValueError if the value is invalid."""
        try:
            return super().parse_retry_after(retry_after)
        except (ArithmeticError, LookupError):  # a date out of range
            raise ValueError("not a time") from None


STATUS_OF: Final[Mapping[str, int]] = {
    "absent": 404,
    "ended": 409,
    "locked": 409,
    "busy": 429,
    "quota_reached": 429,
    "no_credit": 429,
    "invalid": 422,
    "unsupported": 405,
    "rejected": 403,
}
"""The HTTP status that stands for each meaning that a contract can give to a response."""
NO_ROOM: Final = frozenset({"busy", "quota_reached", "no_credit"})
"""Meanings of a request that was not processed because OSAI has no room now."""


def error_from_response(
    response: httpx.Response, method: str, path: str, rules: OperationRules | None = None
) -> OsaiError:
    """Return the error for an unsuccessful response.

    :param rules: the contract's rules of the operation.
    """
    status = response.status_code
    if rules is not None and status in rules.statuses:
        document = json_or_none(response)
        for case in rules.statuses[status]:
            if case.when is None or is_true(case.when, document):
                text = text_at(case.message, document) or _error_text(response)
                return error_of_meaning(case.means, status, method, path, text, _retry_after(response))
    if status == httpx.codes.UNAUTHORIZED:
        return OsaiAuthError(
            f"OSAI rejected {method} {path} with {status} after a successful sign-in; check the token's permissions"
        )
    if status == httpx.codes.TOO_MANY_REQUESTS:
        reason = f"{method} {path} returned {status} {response.reason_phrase}"
        return OsaiBusy(reason, retry_after=_retry_after(response))
    if status in RETRYABLE_STATUSES or response.is_server_error:
        return OsaiUnreachable(
            f"{method} {path} returned {status} {response.reason_phrase}",
            status=status,
            retry_after=_retry_after(response),
        )
    if response.is_redirect:
        target = _host(response.headers.get("location", "")) or "another path"
        return OsaiContractError(f"{method} {path} was redirected to {target}; check base_url of the connection")
    return OsaiRequestError(status, method, path, _error_text(response))


def error_of_meaning(
    means: str, status: int, method: str, path: str, text: str, retry_after: float | None = None
) -> OsaiError:
    """Return the error for a response that the contract gives a meaning to, whatever its status.

    :param means: a :data:`.Meaning`.
    :param status: the HTTP status of the response.
    :param text: the server's reason.
    """
    if means in NO_ROOM:
        meaning = means.replace("_", " ")
        return OsaiBusy(
            f"{method} {path} returned {status}, which means {meaning}: {text or 'no reason given'}",
            reason=meaning,
            status=STATUS_OF[means],
            retry_after=retry_after,
        )
    text = f"{text or 'no reason given'} (by the contract: {means})"
    return OsaiRequestError(STATUS_OF[means], method, path, text, received=status)


def raise_for_error_rules(rules: OperationRules, document: Any, status: int, method: str, path: str) -> None:
    """Raise the error that the contract recognizes in a response with a status of success."""
    for rule in rules.error or ():
        if is_true(rule.when, document):
            text = sanitize_server_text(text_at(rule.message, document) or json.dumps(document))
            raise error_of_meaning(rule.means, status, method, path, text)


def is_true(expression: str, document: Any) -> bool:
    """Return whether a JMESPath test holds for *document*, by JMESPath's rules for true."""
    value = json_path(expression).get(document)
    return value is not ABSENT and (value == 0 or bool(value)) and value is not False and value is not None


def text_at(path: str | None, document: Any) -> str:
    """Return the text at a path; empty if there is none."""
    value = json_path(path).get(document) if path is not None else ABSENT
    if value is ABSENT or value is None:
        return ""
    return sanitize_server_text(value if isinstance(value, str) else json.dumps(value))


def json_or_none(response: httpx.Response) -> Any:
    """Return the JSON document in a response that need not have one; ``None`` if there is none."""
    try:
        return decode_json(response.content, OBJECT_LIMIT.values)
    except (ValueError, RecursionError, TooManyValues):
        return None


@contextmanager
def convert_invalid_redirects() -> Iterator[None]:
    """Convert what httpx raises for an invalid redirect URL, even if it does not follow it, to an httpx.HTTPError.

    The URL is not shown, since it may be signed.
    """
    try:
        yield
    except (httpx.InvalidURL, UnicodeError) as error:
        raise httpx.RemoteProtocolError("redirected to an invalid URL") from error


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(RetryPolicy().parse_retry_after(response.headers["retry-after"]), MAX_BACKOFF)
    except (KeyError, ValueError):
        return None


def response_text(response: httpx.Response) -> str:
    """Return the body as text; an unknown charset, for which httpx raises, counts as UTF-8."""
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        return response.content.decode("utf-8", "replace")


def _error_text(response: httpx.Response) -> str:
    """Return the readable text of the body."""
    text = response_text(response)
    if "\0" in text or text.count("\ufffd") * 10 > len(text):
        return f"{len(response.content)} bytes that are not text"
    return sanitize_server_text(text)


def _host(location: str) -> str:
    try:
        return sanitize_server_text(urlsplit(location).netloc.rpartition("@")[2], MAX_HOST_LENGTH)
    except ValueError:
        return ""


def tls_error_message(error: BaseException, base_url: str) -> str | None:
    """Return a message with the remedy if TLS caused *error*, such as an untrusted certificate; else ``None``."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    reason = getattr(cause, "verify_message", "") or cause.reason or cause
    return (
        f"TLS with {base_url} failed: {reason}. "
        "Check the base URL, and that this machine trusts the certificate (SSL_CERT_FILE)."
    )
