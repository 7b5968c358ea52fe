"""Who may use the sandbox: access tokens in, JWTs out."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

import jwt

from airflow_provider_osai.sandbox.records import Refused

__all__ = ["Accounts"]


class Accounts:
    """Signs in one user and checks the JWTs that it handed out.

    :param access_token: the only token that signs in.
    :param lifetime: seconds that a JWT lives.
    :param single_session: whether signing in anew ends what was signed in before.
    :param clock: seconds since the epoch.
    :param new_id: makes ids.
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
        self._access_token, self._lifetime, self._single = access_token, lifetime, single_session
        self._clock, self._new_id = clock, new_id
        self._key = secrets.token_hex(32)
        self._valid: dict[str, float] = {}
        self.user = {"id": "1", "name": "Sandbox user", "email": "user@sandbox.invalid"}

    def sign_in(self, access_token: str) -> str:
        """Return a JWT for the right access token; refuse any other with 401."""
        if not hmac.compare_digest(access_token.encode(), self._access_token.encode()):
            raise Refused(401, "the access token is not valid")
        now = self._clock()
        session, until = self._new_id(), now + self._lifetime
        kept = {} if self._single else {name: end for name, end in self._valid.items() if end > now}
        self._valid = {**kept, session: until}
        claims = {"sub": self.user["id"], "jti": session, "iat": round(now, 3), "exp": round(until, 3)}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def check(self, authorization: str | None) -> None:
        """Refuse with 401 unless the ``Authorization`` header carries a JWT that is still good."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "sign in and send the header 'Authorization: Bearer <token>'")
        options = {"verify_exp": False, "verify_iat": False}  # the injected clock decides, below
        try:
            claims = jwt.decode(token.strip(), self._key, algorithms=["HS256"], options=options)  # type: ignore[arg-type]  # a dict will do
        except jwt.InvalidTokenError:
            raise Refused(401, "this token was not issued here") from None
        if self._valid.get(claims["jti"], 0.0) <= self._clock():
            raise Refused(401, "this token has expired")

    def rotate(self, access_token: str) -> None:
        """Let only *access_token* sign in from now on, as if the user had replaced the one before; all JWTs end."""
        self._access_token = access_token
        self.expire_all()

    def expire_all(self) -> None:
        """End everything that is signed in."""
        self._valid = {}
