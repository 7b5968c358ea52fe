"""Show that a task waits for room at OSAI: an XCom for the task's page, and metrics of Airflow."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from airflow_provider_osai.jobs.capacity import CapacityReport

__all__ = ["CAPACITY", "WAITS", "WAIT_TIME", "report_capacity"]

CAPACITY: Final = "osai_capacity"
"""The XCom with the task's latest wait for room, for the task's page."""
WAITS: Final = "osai.capacity.waits"
"""The counter of waits for room, with the tags ``reason`` and ``conn_id``."""
WAIT_TIME: Final = "osai.capacity.wait_time"
"""The timer of waits for room that are over, with the same tags."""


def report_capacity(ti: Any, osai_conn_id: str, report: CapacityReport) -> None:
    """Push the XCom and emit the metric of a wait that begins, changes its reason, or ends. Never fails the task.

    :param ti: the task instance.
    :param osai_conn_id: the connection of the submission.
    """
    value = {"reason": report.reason, "since": report.since, "until": report.until}
    tags = {"reason": report.reason.replace(" ", "_"), "conn_id": osai_conn_id}
    with suppress(Exception):  # the submission is what matters
        ti.xcom_push(key=CAPACITY, value=value if report.waited is None else {**value, "waited": report.waited})
    with suppress(Exception):
        if report.waited is None:
            Stats.incr(WAITS, tags=tags)
        else:
            Stats.timing(WAIT_TIME, timedelta(seconds=report.waited), tags=tags)
