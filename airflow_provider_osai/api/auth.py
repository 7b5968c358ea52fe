"""Signs in with the access token, and keeps the JWT that OSAI answers fresh.

``POST /Users/SignIn`` takes the access token as a bare JSON string and answers the JWT as text
(docs.onestepai.com/how_to_use_api/authorization). How long a JWT lives is not described, so it is read from the token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import httpx

from airflow_provider_osai.api.answers import text_of
from airflow_provider_osai.api.errors import OsaiAuthError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from pydantic import SecretStr

__all__ = ["OnSecret", "OsaiAuth", "SignInRefused"]

OnSecret: TypeAlias = Callable[[str], Awaitable[None] | None]

MAX_TOKEN = 16_384
"""Characters of a JWT; servers refuse headers that are longer."""
RENEW_AT = 0.9
"""Share of a JWT's life after which it is renewed."""


class OsaiAuth(httpx.Auth):
    """One sign-in for all requests of a client: renewed before it expires, single-flight, one replay on 401.

    :param sign_in: makes the request that signs in.
    :param access_token: the user's token, for the error message's sake never shown.
    :param on_secret: is told each new JWT, so that it can be masked in logs. On an event loop it may return an
        awaitable, which is awaited before the JWT is used.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        sign_in: Callable[[str], httpx.Request],
        access_token: SecretStr,
        *,
        on_secret: OnSecret = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_sign_in, self._access_token = sign_in, access_token
        self._on_secret, self._clock = on_secret, clock
        self._jwt: str | None = None
        self._renew_at = float("inf")
        self._sync_lock = threading.Lock()
        self._async_lock = asyncio.Lock()
        self.sign_ins = 0
        self.life: float | None = None
        """Seconds that the last JWT was good for when it came; ``None``: it does not say."""

    def replace(self, access_token: SecretStr) -> bool:
        """Sign in with *access_token* from now on; return whether it is another than before."""
        if access_token == self._access_token:
            return False
        self._access_token, self._jwt = access_token, None
        return True

    def share(self, other: OsaiAuth) -> None:
        """Start with the access token and the sign-in that *other* has now."""
        self._access_token, self._jwt, self._renew_at = other._access_token, other._jwt, other._renew_at

    # httpx asks for both flows. All they decide is below; they differ in the lock and in how a body is read.

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send *request* signed in; once more with a new JWT if the first is refused."""
        refused: str | None = None
        for _ in range(2):
            with self._sync_lock:
                if self._is_stale(refused):
                    answer = yield self._sign_in()
                    answer.read()
                    self._accept(answer)
                refused = self._authorise(request)
            if (yield request).status_code != httpx.codes.UNAUTHORIZED:
                return

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same as :meth:`sync_auth_flow` on an event loop."""
        refused: str | None = None
        for _ in range(2):
            async with self._async_lock:
                if self._is_stale(refused):
                    answer = yield self._sign_in()
                    await answer.aread()
                    told = self._accept(answer)
                    if told is not None:
                        await told
                refused = self._authorise(request)
            if (yield request).status_code != httpx.codes.UNAUTHORIZED:
                return

    def _is_stale(self, refused: str | None) -> bool:
        return self._jwt is None or self._jwt == refused or self._clock() >= self._renew_at

    def _sign_in(self) -> httpx.Request:
        return self._make_sign_in(self._access_token.get_secret_value())

    def _authorise(self, request: httpx.Request) -> str | None:
        request.headers["Authorization"] = f"Bearer {self._jwt}"
        return self._jwt

    def _accept(self, answer: httpx.Response) -> Awaitable[None] | None:
        """Take the JWT out of the answer; leave every other answer to the client's ordinary reading of errors."""
        if answer.is_success:
            token = _bare(text_of(answer))
            life = _life(token)
            self._renew_at, self.life = self._clock() + RENEW_AT * life, None if life == float("inf") else life
            self._jwt = token
            self.sign_ins += 1
            return self._on_secret(token)
        self._jwt = None
        raise SignInRefused(answer)


class SignInRefused(Exception):
    """Carries OSAI's answer to a failed sign-in out of httpx, to the one place that turns answers into errors."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        super().__init__(f"sign-in was answered with {answer.status_code}")


def _bare(text: str) -> str:
    """Return the JWT from the answer: text, with or without quotes and white space."""
    token = text.strip().strip('"').strip()
    if not 0 < len(token) <= MAX_TOKEN or not token.isascii() or any(c.isspace() or c in "<>{}" for c in token):
        msg = (
            "OSAI's answer to the sign-in is no token, so this is probably not the address of an OSAI API; "
            "check region and base_url of the connection"
        )
        raise OsaiAuthError(msg)
    return token


def _life(token: str) -> float:
    """Return how many seconds the JWT is good for; infinite if it does not say (then a 401 tells).

    From ``iat`` where there is one, so that a wrong clock here does not matter. A life that is over already speaks of a
    wrong clock too: renewing at every request would not mend it.
    """
    import jwt  # noqa: PLC0415 - heavy, and most who import this never sign in

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        life = float(claims["exp"]) - float(claims.get("iat") or time.time())
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return float("inf")
    return life if life > 0 else float("inf")
