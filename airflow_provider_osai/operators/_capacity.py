"""Show that a task waits for room at OSAI: an XCom for the task's page, and metrics of Airflow."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.observability import metrics

if TYPE_CHECKING:
    from airflow_provider_osai.jobs.capacity import CapacityReport

__all__ = ["CAPACITY", "report_capacity"]

CAPACITY: Final = "osai_capacity"
"""The XCom with the task's latest wait for room, for the task's page."""


def report_capacity(ti: Any, report: CapacityReport) -> None:
    """Push the XCom and emit the metric of a wait that begins, changes its reason, or ends. Never fails the task.

    :param ti: the task instance.
    """
    value = {"reason": report.reason, "since": report.since, "until": report.until}
    with suppress(Exception):  # the submission is what matters
        ti.xcom_push(key=CAPACITY, value=value if report.waited is None else {**value, "waited": report.waited})
    metrics.count_capacity_wait(report.reason, report.waited)
