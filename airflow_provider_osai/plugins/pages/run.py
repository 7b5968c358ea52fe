"""The run page: a task's job with its state, metrics, curves, confusion matrix, parameters and links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.class_metrics import class_metrics
from airflow_provider_osai.api.models import JobResult, JobState
from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.jobs.idempotency import JobKey
from airflow_provider_osai.jobs.remaining_time import remaining_seconds
from airflow_provider_osai.plugins.pages.metrics import metric_cards

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.plugins.pages.job_cache import JobView
    from airflow_provider_osai.plugins.pages.queries import TaskAddress, TaskRecord

__all__ = [
    "Comparison",
    "belongs_to_another_task",
    "capacity_message",
    "job_values",
    "measured_on",
    "parameter_rows",
    "task_values",
]

CURVES: Final = (
    ("Loss", (("loss", "training"), ("val_loss", "validation"))),
    ("Accuracy", (("accuracy", "training"), ("val_accuracy", "validation"))),
)
"""Titles of the plots, and for each its series: field of an epoch, and label."""
REFERENCES: Final = {
    "model_id": "Model",
    "dataset_id": "Dataset",
    "conversion_id": "Conversion",
    "device_id": "Device",
}
ON_OTHER_DATA: Final = "champion, measured on other data"
HIDDEN_FIELDS: Final = frozenset({"osai_conn_id", "candidate", "champion"})
FAILED_IN_AIRFLOW: Final = frozenset({"failed", "upstream_failed", "skipped"})
RUNNING_IN_AIRFLOW: Final = frozenset(
    {"running", "deferred", "queued", "scheduled", "up_for_retry", "up_for_reschedule"}
)
CAPACITY_REASONS: Final = frozenset({"busy", "quota reached", "no credit"})
MAX_TIME: Final = 1e11
"""Upper limit of a time in seconds since the epoch: a larger number, or this one, cannot be shown as a date."""
MAX_EPOCHS: Final = 2_000
"""Maximum points of a curve."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the job's metrics are compared with.

    :param champion_id: the champion's model id; ``None`` = no champion, or its asset may not be read.
    :param champion: the champion's metrics.
    :param same_data: whether these were measured on the same data as the job's.
    :param previous: the metrics of the same task in an earlier run.
    """

    champion_id: str | None = None
    champion: Mapping[str, Any] | None = None
    same_data: bool = False
    previous: Mapping[str, Any] | None = None


def belongs_to_another_task(job: Job, address: TaskAddress) -> bool:
    """Return whether the job's idempotency key identifies another task.

    A user who may write the XComs of one Dag must not be able to read the jobs of other Dags.
    """
    key = JobKey.parse(job.reference)
    if key is None or key.owner is None:
        return False
    owner = key.owner
    return (owner.dag_id, owner.run_id, owner.task_id, owner.map_index) != (
        address.dag_id,
        address.run_id,
        address.task_id,
        address.map_index,
    )


def capacity_message(task: TaskRecord) -> str | None:
    """Return a sentence if the task waits, or waited in vain, for room at OSAI; ``None`` if it did not wait."""
    reason, since, waited = (task.capacity.get(name) for name in ("reason", "since", "waited"))
    if not isinstance(reason, str) or reason not in CAPACITY_REASONS:  # users may write XCom values of their own
        return None
    if isinstance(waited, (int, float)):
        return f"OSAI had no room for this task's job for {_minutes(waited)}: {reason}. The task's log has the details."
    if task.state != "running" or not isinstance(since, (int, float)) or not 0 <= since < MAX_TIME:
        return None
    at = datetime.fromtimestamp(since, UTC).strftime("%H:%M")
    return f"Waiting for room at OSAI since {at} UTC: {reason}. No retry is used; the task's log has the details."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def job_values(view: JobView, task: TaskRecord, comparison: Comparison, now: float) -> dict[str, Any]:
    """Return what the template shows of a job that was read from OSAI.

    :param now: the present time, in seconds since the epoch.
    """
    job = view.job
    result = job.result or JobResult()
    start = parse_time(job.started_at or job.created_at)
    end = parse_time(job.finished_at) if job.is_terminal else now
    return {
        "kind": job.kind.value,
        "job_id": job.id,
        "state": job.state.value,
        "status": job.status,
        "simulated": job.simulated,
        "is_terminal": job.is_terminal,
        "progress": None if job.is_terminal else job.progress,
        "message": job.message,
        "portal_url": view.portal_url,
        "notes": view.notes,
        "duration": None if start is None or end is None else end - start,
        "remaining": remaining_seconds(job, now),
        "queued": _seconds(job.created_at, job.started_at),
        "times": [
            ("Submitted", job.created_at),
            ("Started", job.started_at),
            ("Ended", job.finished_at),
            ("Rental ends", result.expires_at),
        ],
        "references": _references(result.model_dump()),
        "cards": _cards(result.metrics or {}, result.model_id, comparison),
        "is_champion": comparison.champion_id is not None and comparison.champion_id == result.model_id,
        "curves": _curves(job),
        "matrix": result.confusion_matrix,
        "class_metrics": class_metrics(result.confusion_matrix) if result.confusion_matrix else (),
        "samples": result.samples or (),
        "disagreement": _disagreement(job, task),
    }


def task_values(task: TaskRecord, comparison: Comparison) -> dict[str, Any]:
    """Return what the template shows of a job that cannot be read from OSAI now: what Airflow's database has."""
    assert task.job is not None  # noqa: S101 - for the type
    metrics = task.result.get("metrics")
    model_id = task.result.get("model_id")
    state = str(task.result.get("state") or task.job.state or "")
    return {
        "kind": task.job.kind.value,
        "job_id": task.job.job_id,
        "state": state if state in list(JobState) else "",
        "status": "",
        "simulated": task.job.simulated or task.result.get("simulated") is True,
        "is_terminal": False,
        "progress": None,
        "message": None,
        "portal_url": None,
        "notes": (),
        "duration": None,
        "remaining": None,
        "queued": None,
        "times": [("Task started", task.started_at), ("Task ended", task.ended_at)],
        "references": _references(task.result),
        "cards": _cards(metrics if isinstance(metrics, dict) else {}, model_id, comparison),
        "is_champion": comparison.champion_id is not None and comparison.champion_id == model_id,
        "curves": [],
        "matrix": None,
        "class_metrics": (),
        "samples": (),
        "disagreement": None,
    }


def measured_on(task: TaskRecord) -> set[str]:
    """Return the names of the data on which the metrics of the task's job were measured, as gates compare them."""
    named = (task.result.get("measured_on"), task.result.get("data_digest"), task.fields.get("data_digest"))
    return {name for name in named if isinstance(name, str) and name}


def parameter_rows(task: TaskRecord) -> list[tuple[str, Any]]:
    """Return the arguments with which the task ran, by name; those of ``parameters`` one by one."""
    rows: list[tuple[str, Any]] = []
    for name, value in task.fields.items():
        if name in HIDDEN_FIELDS or value in (None, "", [], {}):
            continue
        if name == "parameters" and isinstance(value, dict):
            rows += [(str(key), item) for key, item in value.items()]
        else:
            rows.append((name, value))
    return rows


def _cards(metrics: Mapping[str, Any], model_id: Any, comparison: Comparison) -> list[Any]:
    others = {}
    if comparison.champion is not None and comparison.champion_id != model_id:
        others["champion" if comparison.same_data else ON_OTHER_DATA] = comparison.champion
    if comparison.previous is not None:
        others["previous run"] = comparison.previous
    return metric_cards(metrics, others, {ON_OTHER_DATA})


def _references(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(label, str(result[name])) for name, label in REFERENCES.items() if result.get(name)]


def _curves(job: Job) -> list[dict[str, Any]]:
    epochs = (job.history or ())[-MAX_EPOCHS:]
    x = [epoch.epoch if epoch.epoch is not None else number for number, epoch in enumerate(epochs, 1)]
    curves = []
    for title, fields in CURVES:
        series = [
            {"label": label, "values": [getattr(epoch, name) for epoch in epochs]}
            for name, label in fields
            if any(getattr(epoch, name) is not None for epoch in epochs)
        ]
        if series:
            curves.append({"title": title, "x": x, "series": series})
    return curves


def _seconds(start: Any, end: Any) -> float | None:
    begin, finish = parse_time(start), parse_time(end)
    return None if begin is None or finish is None else finish - begin


def _disagreement(job: Job, task: TaskRecord) -> str | None:
    """Return a sentence if the job and the task ended differently, with what to do."""
    if job.state is JobState.SUCCEEDED and task.state == "failed":
        return (
            "OSAI finished this job, but the Airflow task failed; its log has the reason. A retry finds this job "
            "again, while clearing the task submits, and pays for, a new one. The result is in the portal."
        )
    if job.state in (JobState.FAILED, JobState.CANCELLED) and task.state == "success":
        return f"The Airflow task is marked as success, but the job {job.state} at OSAI: there may be no result."
    if not job.is_terminal and task.state in (*FAILED_IN_AIRFLOW, "success", "removed") and not job.is_ready:
        return (
            "The Airflow task has ended, but the job has not: it may still cost money. If no other task waits for it, "
            "cancel it in the portal."
        )
    if job.is_terminal and task.state == "up_for_retry":
        return (
            "The Airflow task will be retried."
            if job.state is not JobState.SUCCEEDED
            else ("OSAI finished this job. The retry of the Airflow task finds it again, and submits no second one.")
        )
    return None
