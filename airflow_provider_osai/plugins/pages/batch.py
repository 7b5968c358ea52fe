"""The page of a batch: its jobs, and how each ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.plugins.pages.metrics import main_metric

if TYPE_CHECKING:
    from airflow_provider_osai.plugins.pages.queries import TaskRecord

__all__ = ["MAX_ROWS", "batch_values", "is_batch"]

OPERATOR: Final = "OsaiJobBatchOperator"
MAX_ROWS: Final = 1_000
"""Maximum jobs on a page."""


def is_batch(task: TaskRecord) -> bool:
    """Return whether the task submits a batch of jobs: by its XCom, or by its operator if it has none yet."""
    return bool(task.batch) or task.operator == OPERATOR


def batch_values(task: TaskRecord) -> dict[str, Any]:
    """Return what the template shows of a batch: the results if the task has returned, else the ids of its jobs."""
    ids = task.batch.get("job_ids")
    ids = ids if isinstance(ids, list) else []
    results = [result for result in task.results if isinstance(result, Mapping)]
    known = [{"index": index, "job_id": job_id, "state": "submitted"} for index, job_id in enumerate(ids) if job_id]
    rows = [_row(result) for result in results or known]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return {
        "kind": task.batch.get("kind"),
        "counts": counts,
        "total": max(len(ids), len(rows)),
        "rows": rows[:MAX_ROWS],
        "more": max(0, len(rows) - MAX_ROWS),
        "has_ended": bool(results),
        "simulated": any(result.get("simulated") is True for result in results),
    }


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    metrics = result.get("metrics")
    made = next((result[name] for name in ("model_id", "conversion_id", "dataset_id") if result.get(name)), "")
    return {
        "index": result.get("index"),
        "job_id": result.get("job_id"),
        "state": str(result.get("state") or ""),
        "made": made,
        "metric": main_metric(metrics) if isinstance(metrics, dict) else None,
        "message": result.get("message") or "",
    }
