"""Finds and cancels orphaned jobs: live OSAI jobs that no task wants any more.

The live jobs of this deployment, recognised by their idempotency keys, are compared with the state of their tasks in
Airflow. The operator reads that through the Task SDK, the command from Airflow's database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol, TypedDict, TypeVar

from airflow_provider_osai.api.calls import Call, OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiError,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.idempotency import Bond, Deployment, JobKey, TaskKey
from airflow_provider_osai.jobs.lifecycle import cancel, get_job
from airflow_provider_osai.jobs.wanted import (
    RETURN_VALUE,
    KnownJob,
    Tasks,
    Wanted,
    WantedResult,
    check_wanted,
    job_id_in,
)

__all__ = ["Client", "Orphan", "OrphanSearch", "OrphansFound", "Report"]

T = TypeVar("T")

MAX_CONSECUTIVE_FAILURES: Final = 2
"""Consecutive requests without a usable response after which OSAI counts as unreachable."""


class Client(Protocol):
    """The part of ``OsaiClient`` that the search uses."""

    @property
    def calls(self) -> OsaiApi:
        """Builds the requests."""

    def send(self, call: Call[T]) -> T:
        """Send one call; raise an OsaiError if there is no usable response."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A live job that its task does not want, or may not want.

    :param kind: the job's kind.
    :param job_id: OSAI's id of the job.
    :param state: the job's state, for instance ``running``.
    :param dag_id: the Dag of the job's task. Like ``task_id``, ``map_index`` and ``run_id``, it is ``None`` if the task
        is unknown.
    :param map_index: -1 if the task is not mapped.
    :param reason: why the job is not wanted, why that is unknown, or why it could not be cancelled.
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
    def from_job(cls, job: Job, owner: TaskKey | None, reason: str) -> Orphan:
        """Return the report entry for *job*."""
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
        task = f"task {self.dag_id}.{self.task_id}{index} in run {self.run_id}" if self.dag_id else "an unknown task"
        return f"OSAI {self.kind} job {self.job_id} ({self.state}) of {task}: {self.reason}"


class OrphansFound(TypedDict):
    """The operator's return value and the command's JSON output.

    ``orphans``, ``unknown`` and ``not_cancelled`` contain the fields of :class:`Orphan` for each job; ``cancelled``
    contains ids. See :class:`Report`.
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
    """The results of a search.

    :param checked: number of live jobs of this deployment that were compared with their tasks.
    :param ignored: number of live jobs that were not compared: of other deployments or Dags, submitted by hand, or with
        keys of version 0.1.
    :param too_new: number of live jobs of this deployment that are younger than the grace time.
    :param orphans: jobs that no task wants.
    :param cancelled: ids of the orphans that OSAI was asked to cancel.
    :param unknown: jobs that may or may not be wanted.
    :param not_cancelled: orphans that could not be cancelled, with the error as their reason.
    :param unchecked: kinds whose jobs could not be found at all, with the reason.
    :param failures: the retryable errors that occurred.
    """

    checked: int = 0
    ignored: int = 0
    too_new: int = 0
    orphans: list[Orphan] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    unknown: list[Orphan] = field(default_factory=list)
    not_cancelled: list[Orphan] = field(default_factory=list)
    unchecked: dict[JobKind, str] = field(default_factory=dict)
    failures: list[OsaiError] = field(default_factory=list)

    def found(self, action: str, most: int | None = None) -> OrphansFound:
        """Return the report as plain JSON.

        :param most: maximum number of entries in each list; ``None``: no limit.
        """
        return OrphansFound(
            action=action,
            checked=self.checked,
            orphans=[asdict(orphan) for orphan in self.orphans[:most]],
            cancelled=self.cancelled[:most],
            unknown=[asdict(orphan) for orphan in self.unknown[:most]],
            not_cancelled=[asdict(orphan) for orphan in self.not_cancelled[:most]],
            unchecked_kinds=[kind.value for kind in self.unchecked],
        )

    def summary(self) -> str:
        """Return the report as one line of text."""
        kinds = f". Kinds not checked: {', '.join(sorted(self.unchecked))}" if self.unchecked else ""
        return (
            f"{self.checked} live OSAI jobs of this Airflow compared with their tasks: {len(self.orphans)} orphaned, "
            f"{len(self.cancelled)} cancelled, {len(self.not_cancelled)} could not be cancelled, {len(self.unknown)} "
            f"unknown. Ignored: {self.too_new} younger than the grace time, {self.ignored} of other origin{kinds}"
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    job: Job
    owner: TaskKey
    bond: Bond


class OrphanSearch:
    """Searches the live jobs of an account for those that no task wants.

    :param client: client of the account whose jobs are listed.
    :param deployment: the Airflow deployment whose jobs are searched for.
    :param tasks: looks up tasks in Airflow.
    :param grace: minimum age in seconds; younger jobs are ignored.
    :param dag_ids: search only for jobs of these Dags; ``None``: of all.
    :param log: called with messages for the log, among them one for each orphan.
    :param clock: returns the current time in seconds since the epoch.
    """

    def __init__(
        self,
        client: Client,
        deployment: Deployment,
        tasks: Tasks,
        *,
        grace: float = 600.0,
        dag_ids: Collection[str] | None = None,
        log: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.report = Report()
        self._client = client
        self._deployment = deployment
        self._tasks = tasks
        self._grace = grace
        self._dag_ids = dag_ids
        self._log = log
        self._clock = clock
        self._listed: dict[tuple[JobKind, str], Job] = {}
        self._consecutive_failures = 0

    def run(self, kinds: Sequence[JobKind] = tuple(JobKind), *, cancels: bool = False) -> Report:
        """OrphanSearch for orphans among the live jobs of *kinds*.

        :param cancels: whether to cancel orphans. Right before, the task and the job are read again.
        :raises OsaiUnreachable: if two consecutive requests get no usable response while jobs are searched for.
        :raises OsaiAuthError: if the access token is rejected.
        """
        candidates = self._candidates(kinds)
        orphans = [(candidate, result) for candidate in candidates if (result := self._unwanted(candidate)) is not None]
        self._consecutive_failures = 0
        for candidate, result in orphans:
            job, owner = candidate.job, candidate.owner
            if not cancels:
                self._report(self.report.orphans, job, owner, result.reason, "not cancelled, only reported")
            elif self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
                outcome = "not cancelled, since OSAI is unreachable"
                self._report(self.report.orphans, job, owner, result.reason, outcome)
                self.report.not_cancelled.append(Orphan.from_job(job, owner, outcome))
            elif (recheck := self._unwanted(candidate, again=True)) is not None:
                self._cancel(candidate, recheck.reason)
        return self.report

    def _candidates(self, kinds: Sequence[JobKind]) -> list[_Candidate]:
        """Return the live jobs of this deployment that are older than the grace time, with their tasks."""
        candidates: list[_Candidate] = []
        unlisted: dict[JobKind, str] = {}
        for kind in kinds:
            try:
                candidates += self._from_list(kind)
            except (OsaiContractError, OsaiRequestError) as error:
                unlisted[kind] = str(error)
            except OsaiUnreachable as error:
                self._tolerate(error, f"Listing the {kind} jobs failed; they are not checked")
                self.report.unchecked[kind] = str(error)
                continue
            self._consecutive_failures = 0
        return candidates + self._from_airflow(unlisted) if unlisted else candidates

    def _tolerate(self, error: OsaiUnreachable, message: str) -> None:
        """Log and record *error*; raise it if the previous request failed too."""
        self._consecutive_failures += 1
        if self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            raise error
        self.report.failures.append(error)
        self._log(f"{message}: {error}")

    def _from_list(self, kind: JobKind) -> list[_Candidate]:
        jobs = self._client.send(self._client.calls.list_all_jobs(kind))
        live = [job for job in jobs if not job.is_terminal]
        if live and all(job.reference is None for job in jobs):
            msg = (
                f"{kind}.list: none of {len(jobs)} jobs has a reference. If OSAI returns it in another field, name the "
                "field in 'response' of the connection's contract"
            )
            raise OsaiContractError(msg)
        self._listed |= {(kind, job.id): job for job in jobs}
        return [candidate for job in live if (candidate := self._candidate(job)) is not None]

    def _candidate(self, job: Job) -> _Candidate | None:
        """Return a listed job with its task; ``None`` if the job is ignored."""
        key = JobKey.parse(job.reference)
        if key is None or key.tag != self._deployment.tag or (key.owner and not key.matches(self._deployment)):
            self.report.ignored += 1
            return None
        owner = key.owner or self._owner_of(key, job)
        if owner is not None and self._dag_ids is not None and owner.dag_id not in self._dag_ids:
            self.report.ignored += 1
            return None
        if not self._is_old_enough(job):
            return None
        if owner is None:
            reason = "its idempotency key omits the names of its task, which could not be found in Airflow"
            self._report(self.report.unknown, job, None, reason, "not cancelled")
            return None
        return _Candidate(job, owner, key.bond)

    def _owner_of(self, key: JobKey, job: Job) -> TaskKey | None:
        try:
            return self._tasks.find_owner(key, job.kind, job.id)
        except Exception:  # whatever Airflow raises, the owner is unknown
            return None

    def _from_airflow(self, kinds: dict[JobKind, str]) -> list[_Candidate]:
        """Return the live jobs of kinds that cannot be listed, as far as their ids are recorded in Airflow."""
        names = ", ".join(sorted(kinds))
        self._log(f"Jobs of kind {names} cannot be listed: {'; '.join(kinds.values())}")
        known = self._tasks.known_jobs(kinds)
        if known is None:
            self.report.unchecked |= kinds
            self._log(
                f"Jobs of kind {names} are not checked. Set dag_ids to read the jobs of these Dags one by one, or run "
                "'osai-airflow orphans', which does so for all Dags"
            )
            return []
        self._log(
            f"Jobs of kind {names} are read one by one: the latest job of each ended task in Airflow. Jobs of deleted "
            "runs and Dags, and earlier jobs of a task, are not checked"
        )
        candidates: list[_Candidate] = []
        self._consecutive_failures = 0
        for known_job in known:
            message = f"Reading OSAI {known_job.kind} job {known_job.job_id} failed; it is not checked"
            try:
                candidates += self._read(known_job)
            except OsaiUnreachable as error:
                self._tolerate(error, message)
                continue
            except OsaiJobLost:
                pass  # OSAI no longer has it
            except (OsaiContractError, OsaiRequestError) as error:
                self._log(f"{message}: {error}")
            self._consecutive_failures = 0
        return candidates

    def _read(self, known: KnownJob) -> list[_Candidate]:
        """Read a job that is recorded in Airflow; return it unless it has ended or is ignored."""
        owner = known.owner
        if self._has_returned(known):
            return []
        job = run(get_job(self._client.calls, known.kind, known.job_id), self._client.send)
        if job.is_terminal:
            return []
        key = JobKey.parse(job.reference)
        if job.reference is not None and (key is None or not key.matches(self._deployment, owner)):
            self.report.ignored += 1
            return []
        if key is None:
            self._log(
                f"OSAI {job.kind} job {job.id} has no reference. It is assumed to belong to task "
                f"{owner.dag_id}.{owner.task_id}, which recorded it"
            )
        assumed_bond = Bond.RENTS if known.kind is JobKind.DEVICE_RENTAL else Bond.SUBMITS
        return [_Candidate(job, owner, key.bond if key else assumed_bond)] if self._is_old_enough(job) else []

    def _has_returned(self, known: KnownJob) -> bool:
        """Return whether the task succeeded with this job, so that it has ended; a rental has not."""
        if known.state != "success" or known.kind is JobKind.DEVICE_RENTAL:
            return False
        try:
            return job_id_in(self._tasks.xcom(known.owner, RETURN_VALUE)) == known.job_id
        except Exception:  # whatever Airflow raises, the job is read
            return False

    def _is_old_enough(self, job: Job) -> bool:
        """Return whether a job of this deployment is older than the grace time, and count it."""
        created = parse_time(job.created_at)
        if created is None:
            self._log(
                f"OSAI {job.kind} job {job.id} has an invalid creation time {job.created_at!r}. It is assumed to be "
                f"older than {self._grace:.0f} s"
            )
        elif self._clock() - created < self._grace:
            self.report.too_new += 1
            return False
        self.report.checked += 1
        return True

    def _unwanted(self, candidate: _Candidate, *, again: bool = False) -> WantedResult | None:
        """Return why the job is not wanted; ``None`` if it is wanted, or if that is unknown, which is reported."""
        job, owner = candidate.job, candidate.owner
        result = check_wanted(self._tasks, owner, candidate.bond, job.id)
        if result.other_job_id and _is_earlier(self._listed.get((job.kind, result.other_job_id)), job):
            # A gate submits one job after the other, and may have been interrupted before it recorded this one.
            reason = f"it may be the next job of its task, after job {result.other_job_id}"
            result = WantedResult(Wanted.UNKNOWN, reason)
        if result.wanted is Wanted.UNKNOWN:
            self._report(self.report.unknown, job, owner, result.reason, "not cancelled")
        elif result.wanted is Wanted.YES and again:
            self._log(f"{Orphan.from_job(job, owner, result.reason)}; not cancelled, since it is wanted again")
        return result if result.wanted is Wanted.NO else None

    def _cancel(self, candidate: _Candidate, reason: str) -> None:
        job, owner = candidate.job, candidate.owner
        try:
            before = run(cancel(self._client.calls, job.kind, job.id), self._client.send)
        except OsaiJobLost:
            self._log(f"{Orphan.from_job(job, owner, reason)}; not cancelled, since OSAI no longer has it")
            return
        except OsaiError as error:
            self._consecutive_failures = self._consecutive_failures + 1 if isinstance(error, OsaiUnreachable) else 0
            self._report(self.report.orphans, job, owner, reason, f"cancelling it failed, so it may still run: {error}")
            self.report.not_cancelled.append(Orphan.from_job(job, owner, str(error)))
            self.report.failures += [error] if error.retryable else []
            return
        self._consecutive_failures = 0
        if before.is_terminal:
            self._log(f"{Orphan.from_job(job, owner, reason)}; not cancelled, since it has ended as {before.state}")
            return
        self._report(self.report.orphans, job, owner, reason, "cancelled")
        self.report.cancelled.append(job.id)

    def _report(self, entries: list[Orphan], job: Job, owner: TaskKey | None, reason: str, outcome: str) -> None:
        entries.append(Orphan.from_job(job, owner, reason))
        self._log(f"{entries[-1]}; {outcome}")


def _is_earlier(other: Job | None, job: Job) -> bool:
    """Return whether *other* was created before *job*, under another idempotency key."""
    if other is None or other.reference == job.reference:
        return False
    earlier, later = parse_time(other.created_at), parse_time(job.created_at)
    return earlier is not None and later is not None and earlier < later
