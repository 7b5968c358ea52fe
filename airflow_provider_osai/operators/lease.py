"""What a task does that takes a lease: it comes back when that runs, and holds nothing if it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.jobs.lease import release
from airflow_provider_osai.operators.job import OsaiJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["OsaiLeaseOperator"]


class OsaiLeaseOperator(OsaiJobOperator):
    """Takes a lease, comes back when it runs, and gives it back by itself if the task fails.

    Returns also ``reference``, which is pushed as an XCom before OSAI is asked: a release finds by it a lease whose id
    never came back. ``wait_for_completion``, ``use_webhook`` and ``cancel_on_kill`` mean nothing here and are refused:
    a lease completes when it is over, and one that nobody waits for is ended.

    :param kwargs: as for ``OsaiJobOperator``.
    """

    until_ready = True
    fixed_arguments: ClassVar[Mapping[str, Any]] = {
        "wait_for_completion": True,
        "use_webhook": False,
        "cancel_on_kill": True,
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**self.fixed_arguments, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Take a lease, or adopt that of an earlier try."""
        with self._released_if_failed(context):
            return self._taken(super().execute(context), context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on after the trigger fired."""
        with self._released_if_failed(context):
            return self._taken(super().execute_complete(context, event), context)

    def _taken(self, told: dict[str, Any], context: Context) -> dict[str, Any]:
        """Return what the task hands on, unless it was killed since the last look: the lease is over then."""
        self._go_on()
        return told | {"reference": self._recall(context, "reference")}

    def _announce(self, context: Context, reference: str) -> None:
        context["ti"].xcom_push(key="reference", value=reference)

    @contextmanager
    def _released_if_failed(self, context: Context) -> Iterator[None]:
        """Give back what was taken if this does not end well: nobody may come after who does.

        A process that was told to end while its task goes on, here or elsewhere, leaves the lease to the next try.
        """
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException:
            if not self._is_left_to_next_try:
                self._give_back(context)
            raise

    def _give_back(self, context: Context) -> None:
        try:
            job_id = self._job[1] if self._job else self._recall(context, "job_id")
            reference = self._recall(context, "reference")
            if job_id or reference:
                with self.hook.get_conn() as client:
                    run(release(client.calls, job_id, reference, self.log.info), client.send)
        except Exception as error:  # noqa: BLE001 - the task's own error is the one to be raised
            said = str(error) if isinstance(error, OsaiError) else type(error).__name__
            self.log.error("The lease may go on until its duration is over; look into the portal: %s", said)
