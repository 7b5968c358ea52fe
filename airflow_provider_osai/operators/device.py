"""Devices: rent one, give it back, and both around the tasks that use it. See docs/devices.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import TriggerRule, XComArg

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.lease import release
from airflow_provider_osai.operators.base import OsaiFlowOperator
from airflow_provider_osai.operators.lease import OsaiLeaseOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.jobs.flow import Flow

__all__ = ["OsaiReleaseDeviceOperator", "OsaiRentDeviceOperator", "rented_device"]

NOTHING: Final = ("", "None", "null")
"""What a template leaves of a missing XCom."""
SEVERAL: Final = ("[", "(", "{")
"""How the text of a list begins that a template leaves."""
PERSISTENT: Final[Mapping[str, Any]] = {"retries": 10, "retry_delay": timedelta(seconds=30)}
"""How a release is retried if nothing else is said, whatever the Dag's defaults: what it leaves costs money."""


class OsaiRentDeviceOperator(OsaiLeaseOperator):
    """Rents a device, and comes back when it is ready. Returns also ``device_id``, ``expires_at`` and ``reference``.

    Use it through :func:`rented_device`, which gives the device back whatever happens. That OSAI rents devices is
    documented (docs.onestepai.com/getting_started/three_main_actions); the call itself is assumed. If the task fails,
    or is killed, marked or cleared before the device is ready, it gives the device back by itself. Further arguments:
    see ``OsaiJobOperator``; ``wait_for_completion``, ``use_webhook`` and ``cancel_on_kill`` are refused.

    :param device: which device. The names that OSAI knows are not described.
    :param duration: how long at the most, as a timedelta or in seconds, rounded up to whole ones; OSAI itself ends the
        lease then.
    """

    template_fields = ("device", "duration", *OsaiLeaseOperator.template_fields)

    def __init__(self, *, device: str, duration: timedelta | float | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device = device
        self.duration = duration

    def build_request(self) -> DeviceRentalRequest:
        """Return the rental to ask for."""
        return DeviceRentalRequest(device=self.device, duration=_whole_seconds(self.duration))


class OsaiReleaseDeviceOperator(OsaiFlowOperator):
    """Gives a device back. Returns ``released``: the ids of the rentals that it ended.

    Unless you set ``retries``, the task has 10 of them, half a minute apart, mapped or not and whatever a Dag's
    ``default_args`` say. Nothing to give back is a success, with a line in the log: over already, unknown to OSAI,
    never rented. A lease that goes on is none. That OSAI rents devices is documented
    (docs.onestepai.com/getting_started/three_main_actions); the call that ends a lease is assumed.

    :param job_id: the rental's id; may be missing if *reference* is there.
    :param reference: what it was rented under; all leases under it are ended.
    :raises OsaiUnreachable: if OSAI gives no answer.
    :raises OsaiJobLost: if a lease goes on a minute after it was told to end.
    :raises AirflowFailException: if this OSAI cannot end a lease (``device_rental.cancel`` is bound to null); the
        message says when it ends by itself.
    """

    task_defaults = PERSISTENT
    template_fields = ("job_id", "reference", *OsaiFlowOperator.template_fields)

    def __init__(
        self, *, job_id: str | XComArg | None = None, reference: str | XComArg | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.reference = reference

    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return the release."""
        job_id, reference = _given("job_id", self.job_id), _given("reference", self.reference)
        ended = yield from release(calls, job_id, reference, self.log.info)
        return {"released": ended}


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

    They are Airflow's setup and teardown. The release runs whatever becomes of the block and of the rent.

    :param device: which device.
    :param duration: how long at the most; the release comes sooner.
    :param name: of this rental, if a Dag or task group has several.
    :param osai_conn_id: the connection's id, for both tasks.
    :param rent: further arguments of ``OsaiRentDeviceOperator``, such as ``deferrable`` or ``retries``.
    :return: the rent's output: ``device["device_id"]``, ``device["job_id"]``, or as a whole a dict of both and more.
    """
    taking = OsaiRentDeviceOperator(
        task_id=f"rent_{name}", device=device, duration=duration, osai_conn_id=osai_conn_id, **rent
    )
    giving = OsaiReleaseDeviceOperator(
        task_id=f"release_{name}",
        job_id=XComArg(taking, "job_id"),
        reference=XComArg(taking, "reference"),
        osai_conn_id=osai_conn_id,
    )
    giving.as_teardown(setups=taking)
    # As teardowns are, it would not run if the rent failed; but a worker that is killed by SIGKILL releases nothing.
    giving.trigger_rule = TriggerRule.ALL_DONE
    before = set(taking.dag.task_dict)
    yield taking.output
    block = {task_id: task for task_id, task in taking.dag.task_dict.items() if task_id not in before}
    for task in block.values():
        if not block.keys() & task.upstream_task_ids:
            taking.set_downstream(task)
        if not block.keys() & task.downstream_task_ids:
            giving.set_upstream(task)


def _whole_seconds(duration: timedelta | float | str) -> int:
    try:
        return math.ceil(duration.total_seconds() if isinstance(duration, timedelta) else float(duration))
    except (TypeError, ValueError, OverflowError):
        msg = f"duration = {duration!r}: a timedelta or a number of seconds is needed"
        raise OsaiArgumentError(msg) from None


def _given(name: str, value: Any) -> str | None:
    """Return what a release goes by; ``None`` if it is missing.

    :raises OsaiArgumentError: if it is of several rentals, such as the XComs of a mapped rent.
    """
    text = str(value).strip()
    if not isinstance(value, (str, int, type(None))) or text.startswith(SEVERAL):
        raise OsaiArgumentError(f"{name} = {value!r}: that of one rental is needed; map the release like the rent")
    return None if text in NOTHING else text
