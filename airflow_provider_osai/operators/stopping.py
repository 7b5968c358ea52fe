"""How a job is stopped with the task that waits for it: when that is killed, and when its time is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_osai.api.errors import OsaiError, OsaiJobCancelled, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.jobs.flow import Flow, run
from airflow_provider_osai.jobs.lifecycle import cancel
from airflow_provider_osai.operators.base import OsaiOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job, JobKind

__all__ = ["OsaiStoppingOperator"]

T = TypeVar("T")

KILL_TIMEOUT = 5.0
"""Seconds that OSAI may fall silent during a kill; each of its two requests may last four times that."""
SLICE = 0.5
"""Seconds after which a sleeping task notices that it was killed."""


class OsaiStoppingOperator(OsaiOperator):
    """Runs flows about one job at a time, and stops that job if the task is killed.

    :param cancel_on_kill: whether it does.
    """

    def __init__(self, *, cancel_on_kill: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self._job: tuple[JobKind, str] | None = None
        self._client: OsaiClient | None = None
        self._killed = False

    def on_kill(self) -> None:
        """Cancel the job, if there is one and it has not ended.

        It may run in a signal handler, amid whatever the task was doing. So it uses a client of its own, is brief, and
        asks Airflow for nothing: the task may have been asking just then.
        """
        self._killed = True
        if self._job is None or self._client is None or not self.cancel_on_kill:
            return
        try:
            with self._client.sibling(KILL_TIMEOUT) as client:
                run(cancel(client.calls, *self._job), client.send)
        except OsaiError as error:
            self.log.error("Could not cancel OSAI %s job %s, look into the portal: %s", *self._job, error)

    def _connected(self) -> OsaiClient:
        self._client = self.hook.get_conn()
        return self._client

    def _stop(self, client: OsaiClient, kind: JobKind, job_id: str) -> Job:
        """Stop a job whose time is over and raise OsaiJobTimeout; return the job if it ended just before."""
        try:
            job = self._run(client, cancel(client.calls, kind, job_id))
        except OsaiError as error:
            fate = f"it could not be stopped and may go on and cost money, look into the portal: {error}"
        else:
            if job.is_terminal:
                return job
            fate = "it was told to stop"
        msg = f"it had not ended when the task's execution_timeout of {self.execution_timeout} was over; {fate}"
        raise OsaiJobTimeout(msg, kind=kind, job_id=job_id)

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
        kind, job_id = self._job
        if self.cancel_on_kill:
            raise OsaiJobCancelled("the task was killed, and the job told to stop", kind=kind, job_id=job_id)
        raise OsaiJobLost("the task was killed; the job goes on, and a retry adopts it", kind=kind, job_id=job_id)
