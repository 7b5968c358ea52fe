"""The life of jobs: submission, queue, cancellation, device leases, and scripts that end jobs by reads or time."""

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
from airflow_provider_osai.sandbox.device_pool import DevicePool, start_lease
from airflow_provider_osai.sandbox.job_runner import MEASURED, JobRunner, forced_outcome
from airflow_provider_osai.sandbox.models import ApiError, InvalidData, JobCancelled, JobFailed, JobOutcome, JobRecord
from airflow_provider_osai.sandbox.persistence import Store
from airflow_provider_osai.sandbox.scenarios import Script
from airflow_provider_osai.sandbox.thread_pool import Pool

__all__ = ["Jobs"]

TICK = 0.05
"""Seconds between checks for jobs that end by time."""

CANCELLED = JobOutcome(JobState.CANCELLED, "cancelled")

log = logging.getLogger(__name__)


class Jobs:
    """All jobs of a sandbox.

    :param runner: runs or simulates jobs.
    :param store: stores records; its jobs are loaded at once, and continue with :meth:`resume`.
    :param workers: maximum number of concurrent jobs.
    :param lock: the lock of the sandbox's state.
    :param clock: returns the seconds since the epoch.
    :param new_id: returns a new id.
    """

    def __init__(
        self,
        runner: JobRunner,
        store: Store,
        *,
        workers: int,
        lock: threading.RLock,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._runner = runner
        self._store = store
        self._lock = lock
        self._clock = clock
        self._new_id = new_id
        self.devices = DevicePool()
        self.on_end: Callable[[JobRecord], None] = lambda _: None
        self._jobs: dict[str, JobRecord] = {}
        self._by_reference: dict[tuple[JobKind, str], list[JobRecord]] = {}
        self._due: list[tuple[float, int, JobRecord]] = []
        self._order = itertools.count()
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None
        self._pool: Pool[JobRecord] = Pool(workers, self._run, "osai-worker")
        for _, job in store.load(JobRecord):
            self._add(job)
            if job.is_worked_on and not job.is_terminal and not job.stopped:
                job.start_over()

    def resume(self) -> None:
        """Resume the unfinished jobs of an earlier process: queue them, and start the ticker. Idempotent."""
        with self._lock:
            unfinished = [job for job in self._jobs.values() if job.is_worked_on and not job.is_terminal]
            for job in unfinished:
                if job.stopped:
                    self._end(job, CANCELLED)
            if any(not job.is_terminal and not job.is_worked_on for job in self._jobs.values()):
                self._start_ticker()
        for job in unfinished:
            self._pool.put(job)

    def submit(
        self, request: JobRequest, script: Script, *, reference: str | None = None, webhook_url: str | None = None
    ) -> JobRecord:
        """Create a job, and queue it or follow its *script*."""
        with self._lock:
            job = JobRecord(self._new_id(), request.kind, request, script, self._clock(), reference, webhook_url)
            job.simulated = script.is_simulated or self._runner.is_simulated(request)
            if script.timing in ("immediate", "seconds"):
                self._start(job)
            self._add(job)
            if script.timing == "immediate":
                self._end(job, self._simulated_outcome(job))
            else:
                self._store.save(job)
            if script.timing == "seconds" or job.is_lease:
                self._start_ticker()
        if job.is_worked_on:
            self._pool.put(job)
        return job

    def get(self, kind: JobKind, job_id: str) -> JobRecord:
        """Return a job without counting a read.

        :raises ApiError: 404, if there is no such job of this kind.
        """
        with self._lock:
            self.tick()
            job = self._jobs.get(job_id)
            if job is None or job.kind is not kind:
                raise ApiError(404, f"{kind} job {job_id} does not exist")
            return job

    def read(self, kind: JobKind, job_id: str) -> JobRecord:
        """Return a job and count a read, which may advance a scripted job."""
        with self._lock:
            return self._count_read(self.get(kind, job_id))

    def find(self, kind: JobKind, ids: Iterable[str] | None, reference: str | None) -> list[JobRecord]:
        """Return the jobs of a kind, filtered by *ids* and *reference* unless these are ``None``. Counts reads."""
        with self._lock:
            self.tick()
            if ids is not None:
                jobs = [self._jobs[job_id] for job_id in dict.fromkeys(ids) if job_id in self._jobs]
            elif reference is not None:
                jobs = self._by_reference.get((kind, reference), [])
            else:
                jobs = list(self._jobs.values())
            return [self._count_read(job) for job in jobs if job.kind is kind and reference in (None, job.reference)]

    def all_jobs(self) -> list[JobRecord]:
        """Return all jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def cancel(self, kind: JobKind, job_id: str) -> JobRecord:
        """Cancel a job: at once if it is queued, at its next epoch or image if it is running. Idempotent."""
        with self._lock:
            job = self.get(kind, job_id)
            if not job.is_terminal:
                job.stopped = True
                if job.state is JobState.QUEUED or not job.is_worked_on:
                    self._end(job, replace(CANCELLED, result=job.result))
                else:
                    self._store.save(job)
            return job

    def finish(self, kind: JobKind, job_id: str) -> JobRecord:
        """End a training early, with the model so far: after its first or next epoch, or at once if it is scripted.

        Idempotent.
        """
        with self._lock:
            job = self.get(kind, job_id)
            if not job.is_terminal:
                job.finishing = True
                if job.is_worked_on:
                    self._store.save(job)
                else:
                    self._end(job, self._simulated_outcome(job))
            return job

    def end(self, job_id: str) -> JobRecord:
        """End a job now, with the outcome of its script.

        :raises ApiError: 404, if there is no such job; 409, if a worker runs it.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                raise ApiError(404, f"Job {job_id} does not exist")
            if job.is_worked_on:
                raise ApiError(409, f"Job {job_id} is run by a worker and cannot be ended; cancel it instead")
            self._end(job, self._simulated_outcome(job))
            return job

    def uses_dataset(self, dataset_id: str) -> bool:
        """Whether an unfinished job uses the dataset."""
        with self._lock:
            return any(not job.is_terminal and dataset_id in dataset_ids_of(job.request) for job in self._jobs.values())

    def tick(self) -> None:
        """End the jobs whose time is up, and assign free devices to queued rentals."""
        with self._lock:
            for job in self.devices.expired(self._clock()):
                self._end(job, self._simulated_outcome(job))
            for job in self.devices.startable():
                outcome = self._simulated_outcome(job)
                if outcome.state is JobState.SUCCEEDED:
                    start_lease(job, outcome, self._clock())
                    self._store.save(job)
                else:
                    self._end(job, outcome)
            while self._due and self._due[0][0] <= self._clock():
                job = heapq.heappop(self._due)[2]
                self._end(job, self._simulated_outcome(job))

    def clear(self) -> None:
        """Cancel and remove all jobs, without sending webhooks."""
        with self._lock:
            for job in self._jobs.values():
                job.stopped = True
            self._jobs = {}
            self._by_reference = {}
            self._due = []
            self.devices.clear()

    def close(self) -> None:
        """Remove all jobs and stop the threads."""
        self.clear()
        self._closed.set()
        if self._ticker:
            self._ticker.join(5.0)
        self._pool.close()

    def _count_read(self, job: JobRecord) -> JobRecord:
        job.reads += 1
        if job.script.timing == "reads" and not job.is_terminal:
            self._start(job)
            if job.script.progress is None:
                job.progress = max(job.progress, min(1.0, job.reads / (job.script.reads + 1)))
            else:
                job.progress = job.script.progress
            job.history = [*(job.script.history or ())][: job.reads]
            if job.reads > job.script.reads:
                self._end(job, self._simulated_outcome(job))
        if job.script.counts_reads:
            self._store.save(job)
        return job

    def _add(self, job: JobRecord) -> None:
        self._jobs[job.id] = job
        if job.reference:
            self._by_reference.setdefault((job.kind, job.reference), []).append(job)
        if job.is_lease and not job.is_terminal:
            self.devices.add(job)
        if job.script.timing == "seconds" and not job.is_terminal:
            heapq.heappush(self._due, (job.created_at + job.script.seconds, next(self._order), job))

    def _start(self, job: JobRecord) -> bool:
        with self._lock:
            if job.state is not JobState.QUEUED or job.stopped:
                return False
            job.state, job.started_at = JobState.RUNNING, self._clock()
            return True

    def _end(self, job: JobRecord, outcome: JobOutcome) -> None:
        with self._lock:
            if job.is_terminal or job.id not in self._jobs:
                return
            with self._store.transaction():
                if outcome.effect:
                    outcome.effect()
                job.state = outcome.state
                job.message = outcome.message
                job.result = outcome.result
                job.invalid_data = outcome.invalid_data
                job.finished_at = min(self._clock(), job.lease_ends or math.inf)
                if job.state is JobState.SUCCEEDED:
                    job.progress = 1.0
                self._store.save(job)
            self.on_end(job)

    def _run(self, job: JobRecord) -> None:
        """Run one job on a worker thread."""
        if self._start(job):
            self._end(job, self._run_outcome(job))

    def _run_outcome(self, job: JobRecord) -> JobOutcome:
        try:
            if job.script.end not in (None, JobState.SUCCEEDED):
                return forced_outcome(job, job.script.end)
            return _apply_script(job, self._runner.run(job))
        except JobCancelled:
            return CANCELLED
        except (JobFailed, ApiError) as error:
            return JobOutcome(JobState.FAILED, str(error), invalid_data=isinstance(error, InvalidData))
        except Exception as error:
            if not job.stopped:
                log.exception("Unexpected error in %s job %s", job.kind, job.id)
            return JobOutcome(JobState.FAILED, f"{type(error).__name__}: {error}")

    def _simulated_outcome(self, job: JobRecord) -> JobOutcome:
        if job.is_terminal:
            return JobOutcome(job.state, job.message, job.result, invalid_data=job.invalid_data)
        if job.script.end not in (None, JobState.SUCCEEDED):
            return forced_outcome(job, job.script.end)
        if job.is_lease and job.state is JobState.RUNNING:
            return JobOutcome(message=job.message, result=job.result)
        try:
            return _apply_script(job, self._runner.simulate(job))
        except (JobFailed, ApiError) as error:
            return JobOutcome(JobState.FAILED, str(error), invalid_data=isinstance(error, InvalidData))

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._run_ticker, name="osai-clock", daemon=True)
            self._ticker.start()

    def _run_ticker(self) -> None:
        while not self._closed.wait(TICK):
            self.tick()


def _apply_script(job: JobRecord, outcome: JobOutcome) -> JobOutcome:
    """Return the outcome with the script's message and metrics merged into it.

    Scripted metrics do not agree with what was really measured, so the other measured fields are left out.
    """
    if job.script.metrics is None and job.script.message is None:
        return outcome
    result: dict[str, Any] = dict(outcome.result or {})
    if job.script.metrics is not None:
        metrics = {**(result.get("metrics") or {}), **job.script.metrics}
        result = {name: value for name, value in result.items() if name not in MEASURED} | {"metrics": metrics}
    message = job.script.message or outcome.message or "simulated: the metrics are set by a script"
    return replace(outcome, message=message, result=result)


def dataset_ids_of(request: JobRequest) -> list[str]:
    """Return the ids of the datasets that a job uses."""
    dataset_id = getattr(request, "dataset_id", None)
    return [dataset_id] if dataset_id else list(getattr(request, "dataset_ids", []))
