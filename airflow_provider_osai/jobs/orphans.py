"""The second line: jobs that live at OSAI although no task wants them any more, found and cancelled.

The live jobs of this deployment, known by their idempotency keys, are compared with what Airflow says of their tasks.
An operator does that through the Task SDK, and a command through Airflow's database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypedDict, TypeVar

from airflow_provider_osai.api.calls import Call, Calls
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiError,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lifecycle import cancel, look
from airflow_provider_osai.jobs.reference import Bond, Deployment, JobKey, Owner
from airflow_provider_osai.jobs.wanted import RETURNED, KnownJob, Tasks, Verdict, Want, job_id_in, judge

__all__ = ["Client", "Orphan", "OrphansFound", "Report", "Search"]

T = TypeVar("T")

OUTAGE: Final = 2
"""Requests in a row without a usable answer after which OSAI is taken to be unreachable."""


class Client(Protocol):
    """What is used of an ``OsaiClient``."""

    @property
    def calls(self) -> Calls:
        """Makes the calls."""

    def send(self, call: Call[T]) -> T:
        """Send one call; raise an OsaiError if no usable answer comes."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A live job that its task does not want, or that may be unwanted.

    :param kind: the job's kind.
    :param job_id: OSAI's id of it.
    :param state: the job's state, for instance ``running``.
    :param dag_id: whose job it is; this, ``task_id``, ``map_index`` and ``run_id`` are ``None`` if that is unknown.
    :param map_index: -1 if the task is not mapped.
    :param reason: why it is not wanted, why that is unknown, or why it could not be cancelled.
    """

    kind: str
    job_id: str
    state: str
    dag_id: str | None
    task_id: str | None
    map_index: int | None
    run_id: str | None
    reason: str

    @classmethod
    def of(cls, job: Job, owner: Owner | None, reason: str) -> Orphan:
        """Return what is reported of *job*."""
        return cls(
            kind=job.kind.value,
            job_id=job.id,
            state=job.state.value,
            dag_id=owner.dag_id if owner else None,
            task_id=owner.task_id if owner else None,
            map_index=owner.map_index if owner else None,
            run_id=owner.run_id if owner else None,
            reason=reason,
        )

    def __str__(self) -> str:
        index = "" if self.map_index in (None, -1) else f"[{self.map_index}]"
        whose = f"task {self.dag_id}.{self.task_id}{index} in run {self.run_id}" if self.dag_id else "an unknown task"
        return f"OSAI {self.kind} job {self.job_id} ({self.state}) of {whose}: {self.reason}"


class OrphansFound(TypedDict):
    """What the operator returns, and the command prints as JSON.

    ``orphans``, ``unknown`` and ``not_cancelled`` hold the fields of :class:`Orphan` for each job; ``cancelled`` holds
    ids. See :class:`Report`.
    """

    action: str
    checked: int
    orphans: list[dict[str, Any]]
    cancelled: list[str]
    unknown: list[dict[str, Any]]
    not_cancelled: list[dict[str, Any]]
    unchecked_kinds: list[str]


@dataclass(slots=True)
class Report:
    """What a search has found and done.

    :param checked: live jobs of this deployment that were compared with their tasks.
    :param others: live jobs that were left alone: of other deployments or Dags, by hand, or with keys of version 0.1.
    :param young: live jobs of this deployment within their grace time.
    :param orphans: those that no task wants.
    :param cancelled: ids of the orphans that were told to stop.
    :param unknown: jobs that may be wanted or not.
    :param not_cancelled: orphans that could not be cancelled, with the error as their reason.
    :param unchecked: kinds whose jobs could not be found at all, and why.
    :param failures: errors that a later try may not meet.
    """

    checked: int = 0
    others: int = 0
    young: int = 0
    orphans: list[Orphan] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    unknown: list[Orphan] = field(default_factory=list)
    not_cancelled: list[Orphan] = field(default_factory=list)
    unchecked: dict[JobKind, str] = field(default_factory=dict)
    failures: list[OsaiError] = field(default_factory=list)

    def found(self, action: str, most: int | None = None) -> OrphansFound:
        """Return the report as it is handed on.

        :param most: entries of each list; ``None``: all.
        """
        return OrphansFound(
            action=action,
            checked=self.checked,
            orphans=[asdict(one) for one in self.orphans[:most]],
            cancelled=self.cancelled[:most],
            unknown=[asdict(one) for one in self.unknown[:most]],
            not_cancelled=[asdict(one) for one in self.not_cancelled[:most]],
            unchecked_kinds=[kind.value for kind in self.unchecked],
        )

    def summary(self) -> str:
        """Return the report in one line."""
        kinds = f"; not checked: {', '.join(sorted(self.unchecked))}" if self.unchecked else ""
        return (
            f"{self.checked} live OSAI jobs of this Airflow compared with their tasks: {len(self.orphans)} orphaned, "
            f"{len(self.cancelled)} cancelled, {len(self.not_cancelled)} not to be cancelled, {len(self.unknown)} "
            f"unknown. Left alone: {self.young} younger than the grace time, {self.others} of others{kinds}"
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    job: Job
    owner: Owner
    bond: Bond


class Search:
    """Compares live jobs with the tasks that want them.

    :param client: of the account whose jobs are listed.
    :param deployment: the Airflow deployment whose jobs are looked for.
    :param tasks: what Airflow says.
    :param grace: seconds; a job that OSAI made less than that ago is left alone.
    :param dag_ids: only jobs of these Dags; ``None``: of all.
    :param note: called with a message for the log, for each orphan and whatever else an operator should know.
    :param clock: the time now, in seconds since the epoch.
    """

    def __init__(
        self,
        client: Client,
        deployment: Deployment,
        tasks: Tasks,
        *,
        grace: float = 600.0,
        dag_ids: Collection[str] | None = None,
        note: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.report = Report()
        self._client = client
        self._deployment = deployment
        self._tasks = tasks
        self._grace = grace
        self._dag_ids = dag_ids
        self._note = note
        self._clock = clock
        self._listed: dict[tuple[JobKind, str], Job] = {}
        self._in_a_row = 0

    def run(self, kinds: Sequence[JobKind] = tuple(JobKind), *, cancels: bool = False) -> Report:
        """Look for orphans among the live jobs of *kinds*.

        :param cancels: whether orphans are cancelled. Right before, Airflow is asked again, and the job is read.
        :raises OsaiUnreachable: if OSAI gives no usable answer twice in a row while jobs are looked for.
        :raises OsaiAuthError: if the access token is refused.
        """
        candidates = self._candidates(kinds)
        found = [(one, verdict) for one in candidates if (verdict := self._unwanted(one)) is not None]
        self._in_a_row = 0
        for one, verdict in found:
            if not cancels:
                self._say(self.report.orphans, one.job, one.owner, verdict.reason, "not cancelled, only reported")
            elif self._in_a_row >= OUTAGE:
                untried = "not tried, since OSAI is unreachable"
                self._say(self.report.orphans, one.job, one.owner, verdict.reason, untried)
                self.report.not_cancelled.append(Orphan.of(one.job, one.owner, untried))
            elif (still := self._unwanted(one, again=True)) is not None:
                self._cancel(one, still.reason)
        return self.report

    def _candidates(self, kinds: Sequence[JobKind]) -> list[_Candidate]:
        """Return the live jobs of this deployment that are old enough, with their tasks."""
        found: list[_Candidate] = []
        unlisted: dict[JobKind, str] = {}
        for kind in kinds:
            try:
                found += self._from_list(kind)
            except (OsaiContractError, OsaiRequestError) as error:
                unlisted[kind] = str(error)
            except OsaiUnreachable as error:
                self._bear(error, f"The {kind} jobs could not be listed and are not checked")
                self.report.unchecked[kind] = str(error)
                continue
            self._in_a_row = 0
        return found + self._from_airflow(unlisted) if unlisted else found

    def _bear(self, error: OsaiUnreachable, message: str) -> None:
        """Go on after one request without a usable answer; raise the error of the second in a row."""
        self._in_a_row += 1
        if self._in_a_row >= OUTAGE:
            raise error
        self.report.failures.append(error)
        self._note(f"{message}: {error}")

    def _from_list(self, kind: JobKind) -> list[_Candidate]:
        jobs = self._client.send(self._client.calls.list_all_jobs(kind))
        live = [job for job in jobs if not job.is_terminal]
        if live and all(job.reference is None for job in jobs):
            msg = f"{kind}.list: none of {len(jobs)} jobs shows a reference. If yours have one, bind it in 'response'"
            raise OsaiContractError(msg)
        self._listed |= {(kind, job.id): job for job in jobs}
        return [one for job in live if (one := self._ours(job)) is not None]

    def _ours(self, job: Job) -> _Candidate | None:
        """Return a listed job with its task, unless it is to be left alone."""
        key = JobKey.parse(job.reference)
        if key is None or key.tag != self._deployment.tag or (key.owner and not key.is_of(self._deployment)):
            self.report.others += 1
            return None
        owner = key.owner or self._owner_of(key, job)
        if owner is not None and self._dag_ids is not None and owner.dag_id not in self._dag_ids:
            self.report.others += 1
            return None
        if not self._is_counted(job):
            return None
        if owner is None:
            reason = "its key leaves out the names of its task, and Airflow does not tell whose it is"
            self._say(self.report.unknown, job, None, reason, "left alone")
            return None
        return _Candidate(job, owner, key.bond)

    def _owner_of(self, key: JobKey, job: Job) -> Owner | None:
        try:
            return self._tasks.owner_of(key, job.kind, job.id)
        except Exception:  # noqa: BLE001 - whatever Airflow raises, the owner is unknown
            return None

    def _from_airflow(self, kinds: dict[JobKind, str]) -> list[_Candidate]:
        """Return the live jobs of kinds that cannot be listed, as far as Airflow remembers their ids."""
        names = ", ".join(sorted(kinds))
        self._note(f"The live jobs of kind {names} cannot be listed: {'; '.join(kinds.values())}")
        known = self._tasks.known_jobs(kinds)
        if known is None:
            self.report.unchecked |= kinds
            self._note(
                f"Jobs of kind {names} are not checked. Give dag_ids to have the jobs of these Dags read one by one, "
                "or run 'osai-airflow orphans', which does that for all Dags"
            )
            return []
        self._note(
            f"Jobs of kind {names}: works from what Airflow still knows, the latest job of each task that has ended. "
            "Jobs of deleted runs and Dags, and earlier jobs of a task, are not among them"
        )
        found: list[_Candidate] = []
        self._in_a_row = 0
        for one in known:
            failed = f"OSAI {one.kind} job {one.job_id} could not be read and is not checked"
            try:
                found += self._read(one)
            except OsaiUnreachable as error:
                self._bear(error, failed)
                continue
            except OsaiJobLost:
                pass  # it is gone
            except (OsaiContractError, OsaiRequestError) as error:
                self._note(f"{failed}: {error}")
            self._in_a_row = 0
        return found

    def _read(self, known: KnownJob) -> list[_Candidate]:
        """Return a job that Airflow remembers, unless it has ended or is to be left alone."""
        owner = known.owner
        if self._has_returned(known):
            return []
        job = run(look(self._client.calls, known.kind, known.job_id), self._client.send)
        if job.is_terminal:
            return []
        key = JobKey.parse(job.reference)
        if job.reference is not None and (key is None or not key.is_of(self._deployment, owner)):
            self.report.others += 1
            return []
        if key is None:
            told = f"It is taken for that of task {owner.dag_id}.{owner.task_id}, which has told of it"
            self._note(f"OSAI {job.kind} job {job.id} shows no reference. {told}")
        unsaid = Bond.RENTS if known.kind is JobKind.DEVICE_RENTAL else Bond.SUBMITS
        return [_Candidate(job, owner, key.bond if key else unsaid)] if self._is_counted(job) else []

    def _has_returned(self, known: KnownJob) -> bool:
        """Whether the task has succeeded with this job, so that OSAI need not be asked; a rental goes on then."""
        if known.state != "success" or known.kind is JobKind.DEVICE_RENTAL:
            return False
        try:
            return job_id_in(self._tasks.xcom(known.owner, RETURNED)) == known.job_id
        except Exception:  # noqa: BLE001 - whatever Airflow raises, the job is read then
            return False

    def _is_counted(self, job: Job) -> bool:
        """Whether a job of this deployment is old enough to be compared."""
        created = _seconds(job.created_at)
        if created is None:
            said = f"OSAI {job.kind} job {job.id}: its age is unknown, since its creation time {job.created_at!r}"
            self._note(f"{said} is not understood. It is taken for older than {self._grace:.0f} s")
        elif self._clock() - created < self._grace:
            self.report.young += 1
            return False
        self.report.checked += 1
        return True

    def _unwanted(self, one: _Candidate, *, again: bool = False) -> Verdict | None:
        """Return why the job is not wanted; ``None`` if it is, or if that is unknown, which is reported."""
        verdict = judge(self._tasks, one.owner, one.bond, one.job.id)
        if verdict.other and _is_earlier(self._listed.get((one.job.kind, verdict.other)), one.job):
            # A gate has one job after the other, and may have fallen silent before it told of this one.
            verdict = Verdict(Want.UNKNOWN, f"it may be the next job of its task, after job {verdict.other}")
        if verdict.want is Want.UNKNOWN:
            self._say(self.report.unknown, one.job, one.owner, verdict.reason, "left alone")
        elif verdict.want is Want.WANTED and again:
            self._note(f"{Orphan.of(one.job, one.owner, verdict.reason)}; wanted again, left alone")
        return verdict if verdict.want is Want.UNWANTED else None

    def _cancel(self, one: _Candidate, reason: str) -> None:
        job, owner = one.job, one.owner
        try:
            before = run(cancel(self._client.calls, job.kind, job.id), self._client.send)
        except OsaiJobLost:
            self._note(f"{Orphan.of(job, owner, reason)}; OSAI does not know it any more")
            return
        except OsaiError as error:
            self._in_a_row = self._in_a_row + 1 if isinstance(error, OsaiUnreachable) else 0
            self._say(self.report.orphans, job, owner, reason, f"it could not be cancelled and may go on: {error}")
            self.report.not_cancelled.append(Orphan.of(job, owner, str(error)))
            self.report.failures += [error] if error.retryable else []
            return
        self._in_a_row = 0
        if before.is_terminal:
            self._note(f"{Orphan.of(job, owner, reason)}; it has ended meanwhile as {before.state}")
            return
        self._say(self.report.orphans, job, owner, reason, "cancelled")
        self.report.cancelled.append(job.id)

    def _say(self, kept: list[Orphan], job: Job, owner: Owner | None, reason: str, done: str) -> None:
        kept.append(Orphan.of(job, owner, reason))
        self._note(f"{kept[-1]}; {done}")


def _seconds(text: str | None) -> float | None:
    """Return a time of OSAI's in seconds since the epoch; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_earlier(other: Job | None, job: Job) -> bool:
    """Whether *other* is an earlier job, under another key."""
    if other is None or other.reference == job.reference:
        return False
    earlier, later = _seconds(other.created_at), _seconds(job.created_at)
    return earlier is not None and later is not None and earlier < later
