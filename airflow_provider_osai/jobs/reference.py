"""Idempotency keys of jobs: a retry finds its job by the key, and the key says whose job it is.

On the wire a key is the job's ``reference``. It looks like this::

    airflow-3f2a91c04b-w-8c1d0f...e2-retrain/train/-1/scheduled__2026-11-24T03%3A00%3A00%2B00%3A00
            |          | |           |
            |          | |           Dag, task, map index and run (left out if the key would be too long)
            |          | HMAC of these (12 digits), then of everything that tells this job from others (20 digits)
            |          what becomes of the job without its task, see Bond
            the Airflow deployment
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

from airflow_provider_osai.api.requests import JobRequest

__all__ = ["NO_DEPLOYMENT", "Bond", "Deployment", "JobKey", "Owner", "fingerprint"]

MAX_LENGTH: Final = 255
"""Characters of a key. A longer one leaves out the names of Dag, task and run."""
PATTERN: Final = re.compile(r"airflow-([0-9a-f]{10})-([a-z])-([0-9a-f]{12})([0-9a-f]{20})(?:-(.+))?")


class Bond(StrEnum):
    """What becomes of a job when its task is no longer there to wait for it."""

    WAITS = "w"
    """The task waits for the job; without the task nobody wants it."""
    SUBMITS = "s"
    """The task only submits the job (``wait_for_completion=False``); once it has succeeded, the job is on its own."""
    KEEPS = "k"
    """The job outlives kills of its task (``cancel_on_kill=False``)."""
    RENTS = "r"
    """A rented device: wanted until the Dag run is over."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One Airflow deployment; its keys differ from those of other deployments on the same OSAI account.

    :param secret: the HMAC key. It is made once for each metadata database; see ``hooks/deployment.py``.
    :param name: the connection's extra ``deployment``, for deployments that share a database's contents.
    """

    secret: str = field(repr=False)
    name: str = ""

    @property
    def tag(self) -> str:
        """Ten hexadecimal digits that stand for this deployment in its keys."""
        return self.sign("deployment")[:10]

    def sign(self, *parts: object) -> str:
        """Return the HMAC-SHA256 of *parts*, as hexadecimal digits."""
        text = json.dumps([self.name, *parts], sort_keys=True)
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


NO_DEPLOYMENT: Final = Deployment("")
"""For code that runs without an Airflow, as unit tests do."""


def fingerprint(request: JobRequest) -> str:
    """Return digits that tell *request* from requests with other arguments."""
    text = json.dumps([request.kind, request.wire()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Owner:
    """The task instance that a job belongs to.

    ``generation`` is Airflow's ``max_tries``, which a clear raises and a retry does not.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    generation: int

    def reference(
        self,
        request: JobRequest,
        failed: int = 0,
        *,
        deployment: Deployment = NO_DEPLOYMENT,
        run: str | None = None,
        bond: Bond = Bond.WAITS,
    ) -> str:
        """Return the key of this owner's job for *request*.

        :param failed: jobs of this generation that ended badly before.
        :param deployment: the Airflow deployment.
        :param run: tells the run and the task's generation from others of the same name; ``None``: the generation.
        :param bond: what becomes of the job without its task.
        """
        names = self._names()
        told_apart = ["generation", self.generation] if run is None else ["run", run]
        job = deployment.sign("job", *names, *told_apart, request.kind, request.wire(), failed, bond)[:20]
        key = f"airflow-{deployment.tag}-{bond}-{self._check(deployment)}{job}"
        identity = "/".join(quote(str(name), safe="") for name in names)
        return f"{key}-{identity}" if len(key) + 1 + len(identity) <= MAX_LENGTH else key

    def legacy_reference(self, request: JobRequest, failed: int = 0) -> str:
        """Return the key that version 0.1 of this package would have made."""
        task = [self.dag_id, self.run_id, self.task_id, self.map_index, self.generation]
        parts = [*task, request.kind, request.wire(), failed]
        return "airflow-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]

    def _names(self) -> tuple[str, str, int, str]:
        return self.dag_id, self.task_id, self.map_index, self.run_id

    def _check(self, deployment: Deployment) -> str:
        return deployment.sign("owner", *self._names())[:12]


@dataclass(frozen=True, slots=True)
class JobKey:
    """What a key says of its job.

    :param tag: the deployment, see :attr:`Deployment.tag`.
    :param bond: what becomes of the job without its task.
    :param owner: the task instance, its generation unknown (-1); ``None`` if the key leaves the names out.
    """

    tag: str
    bond: Bond
    owner: Owner | None
    check: str = field(repr=False)

    @classmethod
    def parse(cls, text: str | None) -> JobKey | None:
        """Return what the key *text* says, or ``None`` if no version of this package since 0.2 has made it."""
        match = PATTERN.fullmatch(text or "")
        if match is None:
            return None
        tag, bond, check, _, identity = match.groups()
        names = [unquote(part) for part in identity.split("/")] if identity else []
        try:
            owner = Owner(names[0], names[3], names[1], int(names[2]), -1) if len(names) == 4 else None
            return cls(tag, Bond(bond), owner, check)
        except ValueError:
            return None

    def is_of(self, deployment: Deployment, owner: Owner | None = None) -> bool:
        """Whether *deployment* has made the key, for *owner* if one is given, else for the task that the key names."""
        owner = owner or self.owner
        if self.tag != deployment.tag or owner is None:
            return False
        return hmac.compare_digest(self.check, owner._check(deployment))
