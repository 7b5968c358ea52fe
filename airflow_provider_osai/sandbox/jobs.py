"""Jobs from submission to end: the queue, cancelling, leases, and jobs that a script makes end by reads or a clock."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import JobRequest
from airflow_provider_osai.sandbox.leases import Leases, lent
from airflow_provider_osai.sandbox.records import JobProblem, JobRecord, JobStopped, Outcome, Refused
from airflow_provider_osai.sandbox.scripts import Script
from airflow_provider_osai.sandbox.store import Store
from airflow_provider_osai.sandbox.work import Work, forced
from airflow_provider_osai.sandbox.workers import Pool

__all__ = ["Jobs"]

TICK = 0.05
"""Seconds between looks at the clock for jobs that end by it."""

CANCELLED = Outcome(JobState.CANCELLED, "cancelled")

log = logging.getLogger(__name__)


class Jobs:
    """The rules of jobs.

    :param work: does them, or makes up their results.
    :param store: where records are kept; the jobs that it has are there from the start, and go on with :meth:`resume`.
    :param workers: how many are worked on at once.
    :param lock: the state's one lock.
    :param clock: seconds since the epoch.
    :param new_id: makes ids.
    """

    def __init__(
        self,
        work: Work,
        store: Store,
        *,
        workers: int,
        lock: threading.RLock,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._work, self._store, self._lock, self._clock, self._new_id = work, store, lock, clock, new_id
        self.leases = Leases()
        self.on_end: Callable[[JobRecord], None] = lambda _: None
        self._all: dict[str, JobRecord] = {}
        self._by_reference: dict[tuple[JobKind, str], list[JobRecord]] = {}
        self._due: list[tuple[float, int, JobRecord]] = []
        self._order = itertools.count()
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None
        self._pool: Pool[JobRecord] = Pool(workers, self._run, "osai-worker")
        for _, job in store.load(JobRecord):
            self._remember(job)
            if job.is_worked_on and not job.is_terminal and not job.stopped:
                job.start_over()

    def resume(self) -> None:
        """Go on with the jobs that an earlier process left: queue them, let the clock run. Twice is harmless."""
        with self._lock:
            left = [job for job in self._all.values() if job.is_worked_on and not job.is_terminal]
            for job in left:
                if job.stopped:
                    self._end(job, CANCELLED)
            if any(not job.is_terminal and not job.is_worked_on for job in self._all.values()):
                self._tick_from_now_on()
        for job in left:
            self._pool.put(job)

    def submit(
        self, request: JobRequest, script: Script, *, reference: str | None = None, webhook_url: str | None = None
    ) -> JobRecord:
        """Queue a job, or do with it what the *script* says."""
        with self._lock:
            job = JobRecord(self._new_id(), request.kind, request, script, self._clock(), reference, webhook_url)
            if script.timing in ("immediate", "seconds"):
                self._start(job)
            self._remember(job)
            if script.timing == "immediate":
                self._end(job, self._made_up(job))
            else:
                self._store.keep(job)
            if script.timing == "seconds" or job.is_lease:
                self._tick_from_now_on()
        if job.is_worked_on:
            self._pool.put(job)
        return job

    def get(self, kind: JobKind, job_id: str) -> JobRecord:
        """Return a job without counting it as a read; 404 if there is none of that kind."""
        with self._lock:
            self.tick()
            job = self._all.get(job_id)
            if job is None or job.kind is not kind:
                raise Refused(404, f"there is no {kind} job {job_id}")
            return job

    def read(self, kind: JobKind, job_id: str) -> JobRecord:
        """Return a job, and move it on if its script counts reads."""
        with self._lock:
            return self._seen(self.get(kind, job_id))

    def find(self, kind: JobKind, ids: Iterable[str] | None, reference: str | None) -> list[JobRecord]:
        """Return the jobs of a kind that have one of the *ids* and the *reference*, as far as these are given."""
        with self._lock:
            self.tick()
            if ids is not None:
                found = [self._all[job_id] for job_id in dict.fromkeys(ids) if job_id in self._all]
            elif reference is not None:
                found = self._by_reference.get((kind, reference), [])
            else:
                found = list(self._all.values())
            return [self._seen(job) for job in found if job.kind is kind and reference in (None, job.reference)]

    def everything(self) -> list[JobRecord]:
        """Return all jobs, oldest first."""
        with self._lock:
            return list(self._all.values())

    def cancel(self, kind: JobKind, job_id: str) -> JobRecord:
        """Stop a job: at once if it waits, at its next epoch or image if it is worked on. Twice is harmless."""
        with self._lock:
            job = self.get(kind, job_id)
            if not job.is_terminal:
                job.stopped = True
                if job.state is JobState.QUEUED or not job.is_worked_on:
                    self._end(job, replace(CANCELLED, result=job.result))
                else:
                    self._store.keep(job)
            return job

    def end(self, job_id: str) -> JobRecord:
        """End a job now, as its script says; 404 if there is none, 409 if a worker really works on it."""
        with self._lock:
            job = self._all.get(job_id)
            if job is None:
                raise Refused(404, f"there is no job {job_id}")
            if job.is_worked_on:
                raise Refused(409, f"job {job_id} is really worked on; it ends by itself")
            self._end(job, self._made_up(job))
            return job

    def uses(self, dataset_id: str) -> bool:
        """Whether a job that has not ended works on the dataset."""
        with self._lock:
            return any(not job.is_terminal and dataset_id in datasets_of(job.request) for job in self._all.values())

    def tick(self) -> None:
        """End the jobs whose time is up, and lend devices to those who wait for one."""
        with self._lock:
            for job in self.leases.over(self._clock()):
                self._end(job, self._made_up(job))
            for job in self.leases.due():
                outcome = self._made_up(job)
                if outcome.state is JobState.SUCCEEDED:
                    lent(job, outcome, self._clock())
                    self._store.keep(job)
                else:
                    self._end(job, outcome)
            while self._due and self._due[0][0] <= self._clock():
                job = heapq.heappop(self._due)[2]
                self._end(job, self._made_up(job))

    def clear(self) -> None:
        """Cancel and forget all jobs. No webhook tells of it."""
        with self._lock:
            for job in self._all.values():
                job.stopped = True
            self._all, self._by_reference, self._due = {}, {}, []
            self.leases.clear()

    def close(self) -> None:
        """Forget all jobs and stop the threads."""
        self.clear()
        self._closed.set()
        if self._ticker:
            self._ticker.join(5.0)
        self._pool.close()

    def _seen(self, job: JobRecord) -> JobRecord:
        job.reads += 1
        if job.script.timing == "reads":
            self._start(job)
            job.progress = max(job.progress, min(1.0, job.reads / (job.script.reads + 1)))
            if job.reads > job.script.reads:
                self._end(job, self._made_up(job))
        if job.script.counts_reads:
            self._store.keep(job)
        return job

    def _remember(self, job: JobRecord) -> None:
        self._all[job.id] = job
        if job.reference:
            self._by_reference.setdefault((job.kind, job.reference), []).append(job)
        if job.is_lease and not job.is_terminal:
            self.leases.add(job)
        if job.script.timing == "seconds" and not job.is_terminal:
            heapq.heappush(self._due, (job.created_at + job.script.seconds, next(self._order), job))

    def _start(self, job: JobRecord) -> bool:
        with self._lock:
            if job.state is not JobState.QUEUED or job.stopped:
                return False
            job.state, job.started_at = JobState.RUNNING, self._clock()
            return True

    def _end(self, job: JobRecord, outcome: Outcome) -> None:
        with self._lock:
            if job.is_terminal or job.id not in self._all:
                return
            with self._store.at_once():
                if outcome.effect:
                    outcome.effect()
                job.state, job.message, job.result = outcome.state, outcome.message, outcome.result
                job.finished_at = min(self._clock(), job.lease_ends or math.inf)
                if job.state is JobState.SUCCEEDED:
                    job.progress = 1.0
                self._store.keep(job)
            self.on_end(job)

    def _run(self, job: JobRecord) -> None:
        """Do one job, on a worker's thread."""
        if self._start(job):
            self._end(job, self._worked(job))

    def _worked(self, job: JobRecord) -> Outcome:
        try:
            if job.script.end not in (None, JobState.SUCCEEDED):
                return forced(job, job.script.end)
            return _scripted(job, self._work.perform(job))
        except JobStopped:
            return CANCELLED
        except (JobProblem, Refused) as problem:
            return Outcome(JobState.FAILED, str(problem))
        except Exception as error:
            if not job.stopped:
                log.exception("%s job %s failed in a way that nobody thought of", job.kind, job.id)
            return Outcome(JobState.FAILED, f"{type(error).__name__}: {error}")

    def _made_up(self, job: JobRecord) -> Outcome:
        if job.is_terminal:
            return Outcome(job.state, job.message, job.result)
        if job.script.end not in (None, JobState.SUCCEEDED):
            return forced(job, job.script.end)
        if job.is_lease and job.state is JobState.RUNNING:
            return Outcome(message=job.message, result=job.result)
        try:
            return _scripted(job, self._work.simulate(job))
        except (JobProblem, Refused) as problem:
            return Outcome(JobState.FAILED, str(problem))

    def _tick_from_now_on(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._keep_ticking, name="osai-clock", daemon=True)
            self._ticker.start()

    def _keep_ticking(self) -> None:
        while not self._closed.wait(TICK):
            self.tick()


def _scripted(job: JobRecord, outcome: Outcome) -> Outcome:
    """Lay the script's message and metrics over an outcome."""
    if job.script.metrics is None and job.script.message is None:
        return outcome
    result: dict[str, Any] = dict(outcome.result or {})
    if job.script.metrics is not None:
        result["metrics"] = {**(result.get("metrics") or {}), **job.script.metrics}
    return replace(outcome, message=job.script.message or outcome.message, result=result)


def datasets_of(request: JobRequest) -> list[str]:
    """Return the ids of the datasets that a job works on."""
    one = getattr(request, "dataset_id", None)
    return [one] if one else list(getattr(request, "dataset_ids", []))
