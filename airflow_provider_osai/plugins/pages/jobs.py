"""The list of jobs, with its filter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.plugins.pages.metrics import main_metric
from airflow_provider_osai.plugins.pages.queries import JobFilter

if TYPE_CHECKING:
    from airflow_provider_osai.plugins.pages.queries import JobRecord

__all__ = ["PERIODS", "TASK_STATES", "job_rows", "parse_filter", "query_string"]

TASK_STATES: Final = ("success", "failed", "running", "deferred", "queued", "up_for_retry", "skipped", "removed")
PERIODS: Final = {"1": "last 24 hours", "7": "last 7 days", "30": "last 30 days"}
"""Choices of the period, by days."""
MAX_PAGE: Final = 10_000
MAX_DIGITS: Final = 6


def parse_filter(query: Mapping[str, str], now: datetime | None = None) -> JobFilter:
    """Return the filter of a request; an unknown value counts as none.

    :param query: the parameters ``kind``, ``state``, ``dag_id``, ``days`` and ``page`` (from 1).
    """
    kind, state, days, page = (query.get(name, "") for name in ("kind", "state", "days", "page"))
    now = now or datetime.now(UTC)
    return JobFilter(
        kind=kind if kind in list(JobKind) else None,
        state=state if state in TASK_STATES else None,
        dag_id=query.get("dag_id") or None,
        after=now - timedelta(days=int(days)) if days in PERIODS else None,
        page=min(max(int(page[:MAX_DIGITS]), 1), MAX_PAGE) - 1 if page.isascii() and page.isdigit() else 0,
    )


def query_string(query: Mapping[str, str], page: int) -> str:
    """Return the query of another page with the same filter.

    :param page: number of the page, from 1.
    """
    kept = {name: query[name] for name in ("kind", "state", "dag_id", "days") if query.get(name)}
    return urlencode({**kept, "page": page} if page > 1 else kept)


def job_rows(records: list[JobRecord], now: datetime) -> list[dict[str, Any]]:
    """Return what the template shows of each job."""
    rows = []
    for record in records:
        task = record.task
        metrics = task.result.get("metrics")
        end = task.ended_at or (now if task.state in ("running", "deferred") else None)
        rows.append(
            {
                "record": record,
                "state": str(task.result.get("state") or record.job.state or ""),
                "model_id": task.result.get("model_id") or "",
                "metric": main_metric(metrics) if isinstance(metrics, dict) else None,
                "duration": (end - record.submitted_at).total_seconds() if end else None,
                "simulated": record.job.simulated or task.result.get("simulated") is True,
            }
        )
    return rows
