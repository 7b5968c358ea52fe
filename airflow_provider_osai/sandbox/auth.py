"""Authentication of the sandbox: exchange the access token for a JWT, and check JWTs."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

import jwt

from airflow_provider_osai.sandbox.models import ApiError

__all__ = ["Accounts"]


class Accounts:
    """Signs in one user and checks the JWTs that it has issued.

    :param access_token: the only token that is accepted.
    :param lifetime: lifetime of a JWT in seconds.
    :param single_session: whether a new sign-in revokes earlier JWTs.
    :param clock: returns the seconds since the epoch.
    :param new_id: returns a new id.
    """

    def __init__(
        self,
        access_token: str,
        *,
        lifetime: float,
        single_session: bool,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._access_token = access_token
        self._lifetime = lifetime
        self._single_session = single_session
        self._clock = clock
        self._new_id = new_id
        self._key = secrets.token_hex(32)
        self._sessions: dict[str, float] = {}
        self.user = {"id": "1", "name": "Sandbox user", "email": "user@sandbox.invalid"}

    def sign_in(self, access_token: str) -> str:
        """Return a JWT.

        :raises ApiError: 401, if *access_token* is not the valid one.
        """
        if not hmac.compare_digest(access_token.encode(), self._access_token.encode()):
            raise ApiError(401, "Invalid access token")
        now = self._clock()
        session, expires_at = self._new_id(), now + self._lifetime
        others = {} if self._single_session else {name: end for name, end in self._sessions.items() if end > now}
        self._sessions = {**others, session: expires_at}
        claims = {"sub": self.user["id"], "jti": session, "iat": round(now, 3), "exp": round(expires_at, 3)}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def check(self, authorization: str | None) -> None:
        """Check that the ``Authorization`` header carries a valid JWT.

        :raises ApiError: 401, if it does not.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ApiError(401, "Not signed in: send the header 'Authorization: Bearer <token>'")
        options = {"verify_exp": False, "verify_iat": False}  # expiry is checked below, by the injected clock
        try:
            claims = jwt.decode(token.strip(), self._key, algorithms=["HS256"], options=options)  # type: ignore[arg-type]  # wants a TypedDict
        except jwt.InvalidTokenError:
            raise ApiError(401, "The token was not issued by this sandbox") from None
        if self._sessions.get(claims["jti"], 0.0) <= self._clock():
            raise ApiError(401, "The token has expired")

    def check_key(self, key: str | None) -> None:
        """Check that a request without a sign-in carries the access token itself.

        :raises ApiError: 401, if it does not.
        """
        if not key or not hmac.compare_digest(key.encode(), self._access_token.encode()):
            raise ApiError(401, "The access token is missing or invalid")

    def rotate(self, access_token: str) -> None:
        """Replace the access token, as a user would in the portal, and revoke all JWTs."""
        self._access_token = access_token
        self.expire_all()

    def expire_all(self) -> None:
        """Revoke all JWTs."""
        self._sessions = {}
