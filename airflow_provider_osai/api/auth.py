"""Sign in with the access token, and renew the JWT that OSAI returns.

``POST /Users/SignIn`` takes the access token as a bare JSON string and returns the JWT as text
(docs.onestepai.com/how_to_use_api/authorization). The lifetime of a JWT is not documented, so it is read from the JWT.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import httpx

from airflow_provider_osai.api.contract import TokenHeader
from airflow_provider_osai.api.error_mapping import response_text
from airflow_provider_osai.api.errors import OsaiAuthError
from airflow_provider_osai.api.json_paths import JsonPath
from airflow_provider_osai.api.secret import HoldsSecret, Sealed, sealed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from pydantic import SecretStr

__all__ = ["OnSecret", "OsaiAuth", "SignInFailed"]

OnSecret: TypeAlias = Callable[[str], Awaitable[None] | None]

MAX_TOKEN = 16_384
"""Maximum characters of a JWT; servers reject longer headers."""
MIN_REDACTED = 8
"""Minimum characters of a token that is replaced in responses: a shorter one may be a part of anything."""
RENEW_AT = 0.9
"""Fraction of a JWT's lifetime after which it is renewed."""


class OsaiAuth(HoldsSecret, httpx.Auth):
    """Authenticates all requests of a client with one JWT: renewed before it expires, single-flight, one retry on 401.

    :param sign_in: builds the sign-in request; ``None``: the access token itself is sent, without a sign-in.
    :param access_token: the user's access token; never included in error messages.
    :param on_secret: called with each new JWT, so that it can be masked in logs. On an event loop it may return an
        awaitable, which is awaited before the JWT is used.
    :param header: the header that carries the JWT.
    :param token_path: where the JWT is in the response to the sign-in, if that is JSON; ``None``: it is the response.
    :param clock: monotonic time in seconds.
    """

    def __init__(
        self,
        sign_in: Callable[[str], httpx.Request] | None,
        access_token: SecretStr,
        *,
        on_secret: OnSecret = lambda _: None,
        header: TokenHeader = TokenHeader(),  # noqa: B008 - immutable
        token_path: JsonPath | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build_sign_in = sign_in
        self._access_token = sealed(access_token)
        self._on_secret = on_secret
        self._clock = clock
        self._header = header
        self._token_path = token_path
        self._jwt: Sealed | None = None if sign_in is not None else self._access_token
        self._renew_at = float("inf")
        self._sync_lock = threading.Lock()
        self._async_lock = asyncio.Lock()
        self.sign_ins = 0
        self.jwt_lifetime: float | None = None
        """Lifetime of the last JWT in seconds; ``None`` if it has no expiry."""

    def set_access_token(self, access_token: SecretStr) -> bool:
        """Replace the access token and discard the JWT; return whether the token differs from the previous one."""
        if access_token == self._access_token:
            return False
        self._access_token = sealed(access_token)
        self._jwt = None if self._build_sign_in is not None else self._access_token
        return True

    def redact(self, content: bytes) -> bytes:
        """Return the content of a response without the access token and the JWT, should a server repeat them."""
        for secret in (self._access_token, self._jwt):
            text = secret.get_secret_value().encode() if secret is not None else b""
            if len(text) >= MIN_REDACTED and text in content:
                content = content.replace(text, b"***")
        return content

    def copy_session(self, other: OsaiAuth) -> None:
        """Copy the access token and the current JWT of *other*."""
        self._access_token = other._access_token
        self._jwt = other._jwt
        self._renew_at = other._renew_at

    # httpx requires both flows. They share all decisions and differ only in the lock and in how the body is read.

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send *request* with the JWT; after a 401, send it once more with a new JWT."""
        rejected: Sealed | None = None
        for _ in range(2):
            with self._sync_lock:
                if self._is_stale(rejected):
                    response = yield self._sign_in(request)
                    response.read()
                    self._accept(response)
                rejected = self._authorize(request)
            if (yield request).status_code != httpx.codes.UNAUTHORIZED:
                return

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Asynchronous variant of :meth:`sync_auth_flow`."""
        rejected: Sealed | None = None
        for _ in range(2):
            async with self._async_lock:
                if self._is_stale(rejected):
                    response = yield self._sign_in(request)
                    await response.aread()
                    masking = self._accept(response)
                    if masking is not None:
                        await masking
                rejected = self._authorize(request)
            if (yield request).status_code != httpx.codes.UNAUTHORIZED:
                return

    def _is_stale(self, rejected: Sealed | None) -> bool:
        if self._build_sign_in is None:
            return False
        return self._jwt is None or self._jwt == rejected or self._clock() >= self._renew_at

    def _sign_in(self, request: httpx.Request) -> httpx.Request:
        """Return the sign-in request; it is not retried if *request* may not be."""
        assert self._build_sign_in is not None  # noqa: S101 - without it, nothing is stale
        sign_in = self._build_sign_in(self._access_token.get_secret_value())
        retry = request.extensions.get("retry")
        if retry is not None and retry.total == 0:
            sign_in.extensions["retry"] = retry
        return sign_in

    def _authorize(self, request: httpx.Request) -> Sealed | None:
        if self._jwt is not None:
            request.headers[self._header.name] = f"{self._header.prefix}{self._jwt.get_secret_value()}"
        return self._jwt

    def _accept(self, response: httpx.Response) -> Awaitable[None] | None:
        """Store the JWT of a successful response; raise SignInFailed for the client to map any other response."""
        if response.is_success:
            token = _parse_jwt(self._token_text(response))
            lifetime = _jwt_lifetime(token)
            self._renew_at = self._clock() + RENEW_AT * lifetime
            self.jwt_lifetime = None if lifetime == float("inf") else lifetime
            self._jwt = Sealed(token)
            self.sign_ins += 1
            return self._on_secret(token)
        self._jwt = None
        raise SignInFailed(response)

    def _token_text(self, response: httpx.Response) -> str:
        """Return the text of the response that is the JWT; empty if the contract's place has none."""
        text = response_text(response)
        if self._token_path is None:
            return text
        try:
            token = self._token_path.get(json.loads(text))
        except ValueError:
            return ""
        return token if isinstance(token, str) else ""


class SignInFailed(Exception):
    """Carries the response of a failed sign-in through httpx to the client, which maps it to an error."""

    def __init__(self, answer: httpx.Response) -> None:
        self.response = answer
        super().__init__(f"Sign-in returned {answer.status_code}")


def _parse_jwt(text: str) -> str:
    """Return the JWT from the response text, without quotes and surrounding whitespace."""
    token = text.strip().strip('"').strip()
    if not 0 < len(token) <= MAX_TOKEN or not token.isascii() or any(c.isspace() or c in "<>{}" for c in token):
        msg = (
            "The sign-in response is not a token, so the address is probably not that of an OSAI API; "
            "check region and base_url of the connection"
        )
        raise OsaiAuthError(msg)
    return token


def _jwt_lifetime(token: str) -> float:
    """Return the lifetime of a JWT in seconds; infinite if unknown, then a 401 triggers the renewal.

    Counted from ``iat`` if present, so that a wrong local clock does not matter. A lifetime that is already over also
    indicates a wrong clock and counts as unknown: renewing at every request would not help.
    """
    import jwt  # slow import, needed only to sign in

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        lifetime = float(claims["exp"]) - float(claims.get("iat") or time.time())
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return float("inf")
    return lifetime if lifetime > 0 else float("inf")
