"""The signed token in a webhook's URL, which identifies the waiting task. It only authorizes a poll of that task's job.

It is signed twice: by the connection's webhook secret, and around that, as a seal, by the secret of the Airflow
deployment that created it. The seal is verified first and without any lookup, so unauthenticated calls cause none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from airflow_provider_osai.jobs.idempotency import TaskKey

__all__ = [
    "InvalidToken",
    "WebhookProbe",
    "WebhookToken",
    "claimed_connection_id",
    "seal",
    "unseal",
]

LIFETIME: Final = 30 * 24 * 3600
"""Seconds for which a token is valid. The end of a job that takes longer is detected by polling."""
TOKEN_CHARACTERS: Final = re.compile(r"[A-Za-z0-9_.-]*")
MAX_LENGTH: Final = 4096
"""Maximum characters of a token; enough for Airflow's ids of at most 250 characters each."""


class InvalidToken(Exception):
    """A token is invalid. The message gives the reason and contains nothing of the token."""


def seal(text: str, deployment_secret: str) -> str:
    """Return a token or probe with the deployment's seal in front."""
    return f"{_seal(text, deployment_secret)}.{text}"


def unseal(text: str, deployment_secret: str) -> str:
    """Verify the seal, the outer signature, and return the token or probe inside; invalid ones take constant time.

    :raises InvalidToken: if this deployment did not create it.
    """
    if len(text) > MAX_LENGTH or not TOKEN_CHARACTERS.fullmatch(text):
        raise InvalidToken("malformed token")
    given, _, inner = text.partition(".")
    if not hmac.compare_digest(given, _seal(inner, deployment_secret)):
        raise InvalidToken("not sealed by this Airflow deployment")
    return inner


def _seal(text: str, deployment_secret: str) -> str:
    key = hashlib.sha256(b"osai.webhook.seal" + deployment_secret.encode()).digest()
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()[:16]
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def claimed_connection_id(text: str) -> str:
    """Return the connection id that a token or probe claims. Its signature is not verified.

    :raises InvalidToken: if the text is malformed.
    """
    encoded, dot, _ = text.partition(".")
    if not dot or len(text) > MAX_LENGTH or not TOKEN_CHARACTERS.fullmatch(text):
        raise InvalidToken("malformed token")
    try:
        return base64.b64decode(_pad(encoded), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidToken("the connection id cannot be decoded") from None


@dataclass(frozen=True, slots=True)
class WebhookToken:
    """The task instance, including its generation, and the connection through which it waits for a job.

    The token is created before the job has an id, so it identifies the task and not the job: a webhook causes a poll of
    the task's current job.
    """

    osai_conn_id: str
    owner: TaskKey

    def sign(self, secrets: Sequence[str]) -> str:
        """Return the token as a URL path segment, signed with the first of *secrets*."""
        owner = self.owner
        parts = [owner.dag_id, owner.run_id, owner.task_id, owner.map_index, owner.generation]
        return _sign("task", self.osai_conn_id, parts, secrets)

    @classmethod
    def verify(cls, text: str, secrets: Sequence[str]) -> WebhookToken:
        """Verify the signature; return the token if one of *secrets* signed it at most thirty days ago.

        :raises InvalidToken: otherwise.
        """
        osai_conn_id, parts = _verify("task", text, secrets)
        match parts:
            case [str(dag_id), str(run_id), str(task_id), int(map_index), int(generation)]:
                return cls(osai_conn_id, TaskKey(dag_id, run_id, task_id, map_index, generation))
        raise InvalidToken("the signed content is not a task instance")


@dataclass(frozen=True, slots=True)
class WebhookProbe:
    """A challenge that checks whether the server behind a URL has the connection's secret. It authorizes nothing."""

    osai_conn_id: str
    nonce: str

    def sign(self, secrets: Sequence[str]) -> str:
        """Return the challenge as a URL path segment, signed with the first of *secrets*."""
        return _sign("probe", self.osai_conn_id, self.nonce, secrets)

    @classmethod
    def verify(cls, text: str, secrets: Sequence[str]) -> WebhookProbe:
        """Return the challenge if it was signed with one of *secrets*.

        :raises InvalidToken: otherwise.
        """
        osai_conn_id, nonce = _verify("probe", text, secrets)
        return cls(osai_conn_id, str(nonce))

    def answer(self, secrets: Sequence[str]) -> str:
        """Return the response that proves possession of the secret."""
        return _sign("answer", self.osai_conn_id, self.nonce, secrets)

    def is_answered_by(self, text: str, secrets: Sequence[str]) -> bool:
        """Return whether *text* is a valid response to this challenge."""
        try:
            return _verify("answer", text, secrets) == (self.osai_conn_id, self.nonce)
        except InvalidToken:
            return False


def _sign(purpose: str, osai_conn_id: str, content: object, secrets: Sequence[str]) -> str:
    encoded = base64.urlsafe_b64encode(osai_conn_id.encode()).decode().rstrip("=")
    return f"{encoded}.{_serializer(purpose, secrets).dumps([osai_conn_id, content])}"


def _verify(purpose: str, text: str, secrets: Sequence[str]) -> tuple[str, object]:
    """Verify the signature and the age; return the connection id and the signed content."""
    claimed_id = claimed_connection_id(text)
    if not secrets:
        raise InvalidToken("the connection is not set up for webhooks")
    try:
        signed_id, content = _serializer(purpose, secrets).loads(text.partition(".")[2], max_age=LIFETIME)
    except SignatureExpired:
        raise InvalidToken("expired token") from None
    except (BadData, TypeError, ValueError):
        raise InvalidToken("not signed with a secret of the connection") from None
    if signed_id != claimed_id:
        raise InvalidToken("signed for another connection")
    return claimed_id, content


def _serializer(purpose: str, secrets: Sequence[str]) -> URLSafeTimedSerializer:
    # itsdangerous signs with the last of several keys and accepts all; ours come newest first.
    return URLSafeTimedSerializer(
        list(secrets)[::-1],
        salt=f"osai.webhook.{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def _pad(text: str) -> str:
    return text + "=" * (-len(text) % 4)
