"""Operators for devices: rent one, release it, and both around the tasks that use it. See docs/devices.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypedDict

from airflow.providers.common.compat.sdk import TaskDeferred, TriggerRule, XComArg

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError
from airflow_provider_osai.api.misfits import rental_misfit
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES, DeviceRentalRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.device_release import release
from airflow_provider_osai.operators.base import OsaiClientOperator
from airflow_provider_osai.operators.job import OsaiJobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiReleaseDeviceOperator", "OsaiRentDeviceOperator", "ReleasedDevices", "rented_device"]

NOT_AN_ID: Final = ("[", "(", "{")
"""How a list or a dict that was rendered as text begins."""
RELEASE_RETRY_DEFAULTS: Final[Mapping[str, Any]] = {"retries": 10, "retry_delay": timedelta(seconds=30)}
"""Defaults of a release, whatever the Dag's ``default_args``: a device that is not released costs money."""


class OsaiRentDeviceOperator(OsaiJobOperator):
    """Rents a device and waits until it is ready. Also returns ``device_id``, ``expires_at`` and ``reference``.

    Use it through :func:`rented_device`, which releases the device in every case. That OSAI rents devices is documented
    (docs.onestepai.com/getting_started/three_main_actions); the request itself is assumed. If the task fails, or is
    killed, marked or cleared before the device is ready, it releases the device itself. Further arguments: see
    ``OsaiJobOperator``; ``wait_for_completion``, ``use_webhook`` and ``cancel_on_kill`` are rejected.

    :param device: the device. OSAI's names for devices are not documented.
    :param duration: maximum duration, as a timedelta or in seconds, rounded up to whole seconds; OSAI then ends the
        rental (assumed).
    """

    wait_for_ready = True
    fixed_arguments: ClassVar[Mapping[str, Any]] = {
        "wait_for_completion": True,
        "use_webhook": False,
        "cancel_on_kill": True,
    }

    template_fields = ("device", "duration", *OsaiJobOperator.template_fields)

    def __init__(self, *, device: str, duration: timedelta | float | str, **kwargs: Any) -> None:
        super().__init__(**self.fixed_arguments, **kwargs)
        self.device = device
        self.duration = duration

    def build_request(self) -> DeviceRentalRequest:
        """Return the request for the job."""
        return DeviceRentalRequest(device=self.device, duration=_whole_seconds(self.duration))

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the result, and warn if the rental ends much later or sooner than asked for."""
        expires = job.result.expires_at if job.result is not None else None
        if warning := rental_misfit(_whole_seconds(self.duration), job.started_at or job.created_at, expires):
            self.log.warning(warning)
        return super().build_result(client, job)

    def execute(self, context: Context) -> dict[str, Any]:
        """Rent the device, or reconnect to the rental of an earlier try."""
        with self._release_on_error(context):
            return self._with_key(super().execute(context), context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Continue after the trigger fired."""
        with self._release_on_error(context):
            return self._with_key(super().execute_complete(context, event), context)

    def _with_key(self, result: dict[str, Any], context: Context) -> dict[str, Any]:
        """Return the result with the idempotency key, unless the task was killed since the last poll."""
        self._raise_if_killed()
        return result | {"reference": self._pull_own_xcom(context, "reference")}

    def _on_key(self, context: Context, key: str) -> None:
        context["ti"].xcom_push(key="reference", value=key)

    @contextmanager
    def _release_on_error(self, context: Context) -> Iterator[None]:
        """Release the device if the block raises: no later task is guaranteed to run.

        A process that was asked to end while its task continues elsewhere leaves the rental to the next try.
        """
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException:
            if not self._is_left_to_next_try:
                self._release(context)
            raise

    def _release(self, context: Context) -> None:
        try:
            job_id = self._job[1] if self._job else self._own_job_id(context)
            key = self._pull_own_xcom(context, "reference")
            if job_id or key:
                with self.hook.get_conn() as client:
                    release(client, job_id, key, self.log.info)
        except Exception as error:  # the task's own error is the one to be raised
            reason = str(error) if isinstance(error, OsaiError) else type(error).__name__
            self.log.error("Releasing the device failed, it may cost until its duration is over: %s", reason)


class ReleasedDevices(TypedDict):
    """The result of a release. ``released``: ids of the rentals that it ended."""

    released: list[str]


class OsaiReleaseDeviceOperator(OsaiClientOperator):
    """Releases a rented device. Returns ``released``: the ids of the rentals that it ended.

    Unless you set ``retries``, the task has 10 retries, 30 seconds apart, mapped or not and whatever the Dag's
    ``default_args``. Nothing to release is a success with a line in the log: already ended, unknown to OSAI, never
    rented. A rental that does not end is a failure. That OSAI rents devices is documented
    (docs.onestepai.com/getting_started/three_main_actions); the request that ends a rental is assumed.

    :param job_id: the rental's job id; may be empty if *reference* is given.
    :param reference: the idempotency key of the rental; every rental with this key is ended.
    :raises OsaiUnreachable: if OSAI does not respond.
    :raises OsaiJobLost: if a rental has not ended a minute after it was cancelled.
    :raises AirflowFailException: if this OSAI cannot cancel a rental (``device_rental.cancel`` is null in the
        contract); the message says when the rental ends by itself.
    """

    task_defaults = RELEASE_RETRY_DEFAULTS
    template_fields = ("job_id", "reference", *OsaiClientOperator.template_fields)

    def __init__(
        self, *, job_id: str | XComArg | None = None, reference: str | XComArg | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.reference = reference

    def run_with_client(self, client: OsaiClient) -> ReleasedDevices:
        """Release the device."""
        job_id = _optional_id("job_id", self.job_id)
        key = _optional_id("reference", self.reference)
        return {"released": release(client, job_id, key, self.log.info)}


@contextmanager
def rented_device(
    device: str,
    *,
    duration: timedelta | float | str,
    name: str = "device",
    osai_conn_id: str = OsaiHook.default_conn_name,
    **rent: Any,
) -> Iterator[XComArg]:
    """Rent a device for the tasks of this block: ``rent_<name>`` before them, ``release_<name>`` after them.

    The two are setup and teardown. The release runs in every case, also if the block or the renting fails.

    :param device: the device.
    :param duration: maximum duration, as a timedelta or in seconds; the release comes sooner.
    :param name: name of this rental, needed if a Dag or task group has several. Default: ``device``.
    :param osai_conn_id: the connection's id, for both tasks.
    :param rent: further arguments of ``OsaiRentDeviceOperator``, such as ``deferrable`` or ``retries``.
    :return: the output of the rent task: ``device["device_id"]``, ``device["job_id"]``, or the whole dict.
    """
    rent_task = OsaiRentDeviceOperator(
        task_id=f"rent_{name}", device=device, duration=duration, osai_conn_id=osai_conn_id, **rent
    )
    release_task = OsaiReleaseDeviceOperator(
        task_id=f"release_{name}",
        job_id=XComArg(rent_task, "job_id"),
        reference=XComArg(rent_task, "reference"),
        osai_conn_id=osai_conn_id,
    )
    release_task.as_teardown(setups=rent_task)
    # A teardown does not run if its setup failed, but a worker that was killed by SIGKILL has released nothing.
    release_task.trigger_rule = TriggerRule.ALL_DONE
    before = set(rent_task.dag.task_dict)
    yield rent_task.output
    block = {task_id: task for task_id, task in rent_task.dag.task_dict.items() if task_id not in before}
    for task in block.values():
        if not block.keys() & task.upstream_task_ids:
            rent_task.set_downstream(task)
        if not block.keys() & task.downstream_task_ids:
            release_task.set_upstream(task)


def _whole_seconds(duration: timedelta | float | str) -> int:
    try:
        return math.ceil(duration.total_seconds() if isinstance(duration, timedelta) else float(duration))
    except (TypeError, ValueError, OverflowError):
        msg = f"duration = {duration!r}: a timedelta or a number of seconds is needed"
        raise OsaiArgumentError(msg) from None


def _optional_id(argument: str, value: Any) -> str | None:
    """Return the id or key; ``None`` if it is empty.

    :raises OsaiArgumentError: if it is of several rentals, such as the XComs of a mapped task.
    """
    text = str(value).strip()
    if not isinstance(value, (str, int, type(None))) or text.startswith(NOT_AN_ID):
        raise OsaiArgumentError(f"{argument} = {value!r}: pass that of one rental; map the release like the renting")
    return None if text in EMPTY_TEMPLATE_VALUES else text
