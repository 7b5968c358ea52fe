"""Idempotency keys of jobs: a retry finds its job by the key, and the key identifies the task that owns the job.

On the wire the key is the job's ``reference``. For example::

    airflow-3f2a91c04b-w-8c1d0f...e2-retrain/train/-1/scheduled__2026-11-24T03%3A00%3A00%2B00%3A00
            |          | |           |
            |          | |           Dag, task, map index and run (left out if the key would be too long)
            |          | HMAC of these names (12 digits), then of everything that identifies the job (20 digits)
            |          what happens to the job without its task, see Bond
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

__all__ = ["NO_DEPLOYMENT", "Bond", "Deployment", "JobKey", "TaskKey", "fingerprint"]

MAX_LENGTH: Final = 255
"""Maximum characters of a key. A longer key omits the names of Dag, task and run."""
PATTERN: Final = re.compile(r"airflow-([0-9a-f]{10})-([a-z])-([0-9a-f]{12})([0-9a-f]{20})(?:-(.+))?")


class Bond(StrEnum):
    """What happens to a job when its task no longer waits for it."""

    WAITS = "w"
    """The task waits for the job; without the task it is orphaned."""
    SUBMITS = "s"
    """The task only submits the job (``wait_for_completion=False``); after the task succeeded, the job is kept."""
    KEEPS = "k"
    """The job is kept when its task is killed (``cancel_on_kill=False``)."""
    RENTS = "r"
    """A rented device, kept until the Dag run has ended."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One Airflow deployment. Its keys differ from those of other deployments on the same OSAI account.

    :param secret: the HMAC key, generated once for each metadata database; see ``hooks/deployment.py``.
    :param name: the connection's extra ``deployment``, which distinguishes deployments with copies of one database.
    """

    secret: str = field(repr=False)
    name: str = ""

    @property
    def tag(self) -> str:
        """Ten hexadecimal digits that identify this deployment in its keys."""
        return self.sign("deployment")[:10]

    def sign(self, *parts: object) -> str:
        """Return the HMAC-SHA256 of *parts* in hexadecimal."""
        text = json.dumps([self.name, *parts], sort_keys=True)
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


NO_DEPLOYMENT: Final = Deployment("")
"""For code that runs without Airflow, such as unit tests."""


def fingerprint(request: JobRequest) -> str:
    """Return a hash of *request*'s kind and arguments, as 32 hexadecimal digits."""
    text = json.dumps([request.kind, request.wire()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class TaskKey:
    """The task instance that a job belongs to.

    ``generation`` is Airflow's ``max_tries``, which a clear increases and a retry does not.
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
        """Return the idempotency key of this task's job for *request*.

        :param failed: number of earlier jobs of this generation that failed or were cancelled.
        :param deployment: the Airflow deployment.
        :param run: distinguishes the Dag run and the task's generation from others with the same ids; ``None``: only
            the generation does.
        :param bond: what happens to the job without its task.
        """
        names = self._names()
        scope = ["generation", self.generation] if run is None else ["run", run]
        job_digits = deployment.sign("job", *names, *scope, request.kind, request.wire(), failed, bond)[:20]
        key = f"airflow-{deployment.tag}-{bond}-{self._owner_digits(deployment)}{job_digits}"
        identity = "/".join(quote(str(name), safe="") for name in names)
        return f"{key}-{identity}" if len(key) + 1 + len(identity) <= MAX_LENGTH else key

    def legacy_reference(self, request: JobRequest, failed: int = 0) -> str:
        """Return the key as version 0.1 of this package built it."""
        task = [self.dag_id, self.run_id, self.task_id, self.map_index, self.generation]
        parts = [*task, request.kind, request.wire(), failed]
        return "airflow-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]

    def _names(self) -> tuple[str, str, int, str]:
        return self.dag_id, self.task_id, self.map_index, self.run_id

    def _owner_digits(self, deployment: Deployment) -> str:
        return deployment.sign("owner", *self._names())[:12]


@dataclass(frozen=True, slots=True)
class JobKey:
    """A parsed idempotency key.

    :param tag: the deployment, see :attr:`Deployment.tag`.
    :param bond: what happens to the job without its task.
    :param owner: the task instance, with an unknown generation (-1); ``None`` if the key omits the names.
    :param check: HMAC of the task instance's names, for :meth:`is_of`.
    """

    tag: str
    bond: Bond
    owner: TaskKey | None
    check: str = field(repr=False)

    @classmethod
    def parse(cls, text: str | None) -> JobKey | None:
        """Parse the key *text*; return ``None`` if it is not a key of this package's version 0.2 or newer."""
        match = PATTERN.fullmatch(text or "")
        if match is None:
            return None
        tag, bond, check, _, identity = match.groups()
        names = [unquote(part) for part in identity.split("/")] if identity else []
        try:
            owner = TaskKey(names[0], names[3], names[1], int(names[2]), -1) if len(names) == 4 else None
            return cls(tag, Bond(bond), owner, check)
        except ValueError:
            return None

    def matches(self, deployment: Deployment, owner: TaskKey | None = None) -> bool:
        """Return whether *deployment* created the key for *owner* (``None``: for the task named in the key)."""
        owner = owner or self.owner
        if self.tag != deployment.tag or owner is None:
            return False
        return hmac.compare_digest(self.check, owner._owner_digits(deployment))
