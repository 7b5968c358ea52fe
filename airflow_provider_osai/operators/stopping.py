"""How a job is stopped with the task that waits for it: when that is killed, and when its time is over."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_osai.api.errors import OsaiError, OsaiJobCancelled, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.jobs.flow import Flow, run
from airflow_provider_osai.jobs.lifecycle import cancel, end_at_deadline, persist
from airflow_provider_osai.jobs.wanted import ENDED, GONE, state_in
from airflow_provider_osai.operators.base import OsaiOperator
from airflow_provider_osai.operators.ledger import ledger_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job, JobKind
    from airflow_provider_osai.jobs.ledger import Ledger

__all__ = ["OsaiStoppingOperator"]

T = TypeVar("T")

KILL_TIMEOUT: Final = 5.0
"""Seconds that OSAI may fall silent during a kill; each of its two requests may last four times that."""
STATE_TIMEOUT: Final = 3.0
"""Seconds for which Airflow is asked whether the task was killed. Its supervisor ends this process after 5."""
DECISION_TIMEOUT: Final = 4.5
"""Seconds for which the task waits for that decision and for the cancellation, before it ends."""
SLICE: Final = 0.5
"""Seconds after which a sleeping task notices that it was killed."""
KILLED_STATES: Final = ENDED | {GONE, "restarting"}
"""States of a task, as Airflow tells them, in which nobody will reconnect to its job: marked, cleared, deleted.

All others mean that Airflow runs the task on, here or elsewhere: a supervisor that lost touch with the API server, was
evicted, or was superseded by the next try ends its task's process too.
"""
UNREADABLE: Final = "unreadable"


class OsaiStoppingOperator(OsaiOperator):
    """Runs flows about one job at a time, and stops that job if the task is killed.

    :param cancel_on_kill: whether it does.
    """

    until_ready: ClassVar[bool] = False
    """Whether the task comes back when a device is ready, and not when the job has ended."""
    max_unreachable: float

    def __init__(self, *, cancel_on_kill: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self._context: Context | None = None
        self._job: tuple[JobKind, str] | None = None
        self._client: OsaiClient | None = None
        self._killed = False
        self._decision: threading.Thread | None = None
        self._is_cancelled = False

    def on_kill(self) -> None:
        """Cancel the job, if there is one that has not ended and this try still owns it.

        Airflow calls this in a signal handler, amid whatever the task was doing, which may be a question to Airflow.
        So a thread finds out whether the task was killed, or only this process; the job of a task that Airflow runs on
        is left to the next try. At the task's ``execution_timeout`` Airflow calls this too, outside of a handler.
        """
        try:
            if self._job is not None and self._client is not None and self.cancel_on_kill:
                self._stop_killed(self._client, *self._job)
        finally:
            self._killed = True

    def _stop_killed(self, client: OsaiClient, kind: JobKind, job_id: str) -> None:
        ti = self._context["ti"] if self._context else None
        if isinstance(sys.exception(), AirflowTaskTimeout):
            with suppress(OsaiJobTimeout), client.sibling(KILL_TIMEOUT) as sibling:
                self._stop(sibling, kind, job_id, run_flow=partial(run, send=sibling.send))
        elif not hasattr(ti, "get_task_states"):  # no Airflow runs this task
            self._cancel_killed("killed", kind, job_id, patience=0.0)
        elif self._decision is None or not self._decision.is_alive():
            # Also at a second signal: the task may have been marked or cleared since the first one.
            self._decision = threading.Thread(target=self._cancel_if_killed, args=(ti, kind, job_id), daemon=True)
            self._decision.start()

    @property
    def _is_left_to_next_try(self) -> bool:
        """Whether this process was told to end although nobody killed the task."""
        return self._killed and self._decision is not None and not self._is_cancelled

    def _cancel_if_killed(self, ti: Any, kind: JobKind, job_id: str) -> None:
        state = self._state_in_airflow(ti)
        if state in KILLED_STATES and not self._is_superseded(ti):
            if state == "restarting":
                # The next try is a retry, as far as Airflow tells, and must not reconnect if OSAI does not answer now.
                with suppress(Exception):
                    self._note_cancelled(job_id)
            self._cancel_killed(state, kind, job_id, patience=float(self.max_unreachable))
        else:
            said = "OSAI %s job %s goes on: this process was told to end, and Airflow says that its task is %s"
            self.log.warning(said, kind, job_id, state)

    def _cancel_killed(self, state: str, kind: JobKind, job_id: str, patience: float) -> None:
        """Cancel the job of a task that was killed, for as long as this process lives."""
        assert self._client is not None  # noqa: S101 - for the type
        self._is_cancelled = True
        said = "OSAI %s job %s may still run, its cancellation did not get through: %s"
        try:
            with self._client.sibling(KILL_TIMEOUT) as client:
                flow = persist(
                    partial(cancel, client.calls, kind, job_id),
                    patience=patience,
                    note=lambda text: self.log.warning(said, kind, job_id, text),
                )
                job = run(flow, client.send)
            fate = f"has ended as {job.state}" if job.is_terminal else "was told to stop"
            self.log.info("OSAI %s job %s %s: its task is %s", kind, job_id, fate, state)
        except OsaiError as error:
            self.log.error("Could not cancel OSAI %s job %s, look into the portal: %s", kind, job_id, error)

    def _state_in_airflow(self, ti: Any) -> str:
        """Return the task's state as Airflow knows it now, ``"gone"`` if it does not know the task."""
        map_index = -1 if ti.map_index is None else ti.map_index
        until = time.monotonic() + STATE_TIMEOUT
        while time.monotonic() < until:
            try:
                known = ti.get_task_states(
                    dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
                )
                return str(state_in(known, ti.run_id, ti.task_id, map_index))
            except Exception:  # noqa: BLE001 - the API server may be away, which is no kill
                time.sleep(SLICE)
        return UNREADABLE

    def _is_superseded(self, ti: Any) -> bool:
        """Whether a later try of the task has taken the job over."""
        try:
            entry = self._ledger(self._context).read() if self._context else None
        except Exception:  # noqa: BLE001 - what the state says is enough then
            return False
        return entry is not None and entry.try_number is not None and entry.try_number > ti.try_number

    def _ledger(self, context: Context) -> Ledger:
        return ledger_of(context)

    def _connected(self) -> OsaiClient:
        self._client = self.hook.get_conn()
        return self._client

    def _stop(self, client: OsaiClient, kind: JobKind, job_id: str, run_flow: Any = None) -> Job:
        """Stop a job whose time is over and raise OsaiJobTimeout; return the job if it ended just before."""
        flow = end_at_deadline(
            client.calls,
            kind,
            job_id,
            patience=float(self.max_unreachable),
            note=lambda text: self.log.warning("OSAI %s job %s may still run: %s", kind, job_id, text),
            until_ready=self.until_ready,
        )
        try:
            job: Job = run_flow(flow) if run_flow else self._run(client, flow)
        except OsaiError as error:
            self._timed_out(kind, job_id, f"it could not be stopped and may go on and cost money: {error}")
        if not job.is_terminal and not (self.until_ready and job.is_ready):
            self._timed_out(kind, job_id, "it was told to stop")
        return job

    def _timed_out(self, kind: JobKind, job_id: str, fate: str) -> NoReturn:
        """Have a retry leave the job alone, and raise OsaiJobTimeout."""
        self._is_cancelled = True
        try:
            self._note_cancelled(job_id)
        except Exception as error:  # noqa: BLE001 - Airflow may be out of reach; the timeout is what counts
            self.log.warning("The cancellation of OSAI job %s could not be kept: %s", job_id, type(error).__name__)
        msg = f"it had not ended when the task's execution_timeout of {self.execution_timeout} was over; {fate}"
        raise OsaiJobTimeout(msg, kind=kind, job_id=job_id)

    def _note_cancelled(self, job_id: str) -> None:
        if self._context is None:
            return
        ledger = self._ledger(self._context)
        entry = ledger.read()
        if entry is not None and entry.job_id == job_id:
            ledger.write(entry.model_copy(update={"cancelled": True}))

    def _run(self, client: OsaiClient, flow: Flow[T]) -> T:
        return run(flow, client.send, self._sleep)

    def _sleep(self, seconds: float) -> None:
        """Sleep in slices, since a signal's handler does not end a sleep."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
            self._go_on()

    def _go_on(self) -> None:
        if not self._killed or self._job is None:
            return
        if self._decision is not None:
            self._decision.join(DECISION_TIMEOUT)
        kind, job_id = self._job
        if self._is_cancelled or (self.cancel_on_kill and self._decision is None):
            raise OsaiJobCancelled("the task was killed, and the job told to stop", kind=kind, job_id=job_id)
        msg = "this process was told to end; the job goes on, and a retry of the task adopts it"
        raise OsaiJobLost(msg, kind=kind, job_id=job_id)
