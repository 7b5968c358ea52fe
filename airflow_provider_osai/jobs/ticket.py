"""What a webhook's address carries: a signed note of which task waits, good for nothing but a look at its job."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from airflow_provider_osai.jobs.reference import Owner

__all__ = ["PREFIX", "WEBHOOK", "Probe", "Ticket", "TicketError", "address", "connection_of"]

PREFIX: Final = "/osai"
"""Below which Airflow's API server serves what is OSAI's."""
WEBHOOK: Final = "/webhook/"
"""What a webhook's path has before the ticket, below the prefix."""
LIFETIME: Final = 30 * 24 * 3600
"""Seconds for which a ticket is good; the poll finds the end of a job that takes longer."""
LETTERS: Final = re.compile(r"[A-Za-z0-9_.-]*")
LONGEST: Final = 4096
"""Characters of a ticket; Airflow's ids, which are at most 250 characters each, need no more."""


class TicketError(Exception):
    """A ticket is no good. The message says why, and holds nothing of the ticket."""


def address(base_url: str, text: str) -> str:
    """Return where to send a ticket or a probe.

    :param base_url: Airflow's address, without a slash at the end.
    """
    return f"{base_url}{PREFIX}{WEBHOOK}{text}"


def connection_of(text: str) -> str:
    """Return the id of the connection whose secret shall have signed this; nothing vouches for it yet.

    :raises TicketError: if it is no ticket.
    """
    name, dot, _ = text.partition(".")
    if not dot or len(text) > LONGEST or not LETTERS.fullmatch(text):
        raise TicketError("it is no ticket")
    try:
        return base64.b64decode(_padded(name), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise TicketError("it names no connection") from None


@dataclass(frozen=True, slots=True)
class Ticket:
    """Which task instance, of which generation, waits for a job of which connection.

    It is made before the job has an id, so it names none: whoever shows it gets the task's present job looked at.
    """

    osai_conn_id: str
    owner: Owner

    def sign(self, secrets: Sequence[str]) -> str:
        """Return the ticket as a part of an address, signed with the first of *secrets*."""
        owner = self.owner
        parts = [owner.dag_id, owner.run_id, owner.task_id, owner.map_index, owner.generation]
        return _sign("task", self.osai_conn_id, parts, secrets)

    @classmethod
    def read(cls, text: str, secrets: Sequence[str]) -> Ticket:
        """Return the ticket if one of *secrets* has signed it, at most thirty days ago.

        :raises TicketError: if not.
        """
        osai_conn_id, parts = _read("task", text, secrets)
        match parts:
            case [str(dag_id), str(run_id), str(task_id), int(map_index), int(generation)]:
                return cls(osai_conn_id, Owner(dag_id, run_id, task_id, map_index, generation))
        raise TicketError("it names no task")


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks whether whoever answers at an address knows the connection's secret; good for nothing else."""

    osai_conn_id: str
    word: str

    def sign(self, secrets: Sequence[str]) -> str:
        """Return the question as a part of an address."""
        return _sign("probe", self.osai_conn_id, self.word, secrets)

    @classmethod
    def read(cls, text: str, secrets: Sequence[str]) -> Probe:
        """Return the question; raise TicketError if it is none."""
        osai_conn_id, word = _read("probe", text, secrets)
        return cls(osai_conn_id, str(word))

    def answer(self, secrets: Sequence[str]) -> str:
        """Return what proves that the secret is known."""
        return _sign("answer", self.osai_conn_id, self.word, secrets)

    def is_answered_by(self, text: str, secrets: Sequence[str]) -> bool:
        """Whether *text* proves it."""
        try:
            return _read("answer", text, secrets) == (self.osai_conn_id, self.word)
        except TicketError:
            return False


def _sign(purpose: str, osai_conn_id: str, content: object, secrets: Sequence[str]) -> str:
    name = base64.urlsafe_b64encode(osai_conn_id.encode()).decode().rstrip("=")
    return f"{name}.{_serializer(purpose, secrets).dumps([osai_conn_id, content])}"


def _read(purpose: str, text: str, secrets: Sequence[str]) -> tuple[str, object]:
    named = connection_of(text)
    if not secrets:
        raise TicketError("the connection takes no webhooks")
    try:
        osai_conn_id, content = _serializer(purpose, secrets).loads(text.partition(".")[2], max_age=LIFETIME)
    except SignatureExpired:
        raise TicketError("it has expired") from None
    except (BadData, TypeError, ValueError):
        raise TicketError("none of the connection's secrets has signed it") from None
    if osai_conn_id != named:
        raise TicketError("it was signed for another connection")
    return named, content


def _serializer(purpose: str, secrets: Sequence[str]) -> URLSafeTimedSerializer:
    # itsdangerous signs with the last of several keys and accepts all; ours come newest first.
    return URLSafeTimedSerializer(
        list(secrets)[::-1],
        salt=f"osai.webhook.{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
