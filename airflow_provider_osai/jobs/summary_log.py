"""The log lines about a job that has ended: the table of its epochs, its metrics, and its message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.models import Job, JobState
from airflow_provider_osai.jobs.history import FIGURES, best_epochs, epoch_number, format_figure, select_epochs
from airflow_provider_osai.jobs.log_group import group_lines, table_lines

__all__ = ["MAX_EPOCHS", "MAX_METRICS", "format_metrics", "log_job_message", "log_summary"]

MAX_EPOCHS: Final = 10
"""Maximum epochs in the table."""
MAX_METRICS: Final = 20
"""Maximum metrics in the log; the XCom has all."""
MAX_METRIC: Final = 60
"""Maximum characters of a metric's name, and of its value."""
MAX_INT_BITS: Final = 1024
"""Longer integers are not converted to text, which Python refuses."""


def log_summary(log: Any, job: Job) -> None:
    """Log the epochs and the metrics of a job as a group that the log viewer folds; nothing if there are neither.

    At most ten epochs are shown, evenly spread: always the first, the last, and the best ones by validation accuracy
    and loss.

    :param log: a logger, such as that of an Airflow operator.
    :param job: the job that has ended.
    """
    lines = [*_epoch_table(job)]
    if job.result is not None and job.result.metrics:
        lines.append(f"Metrics: {format_metrics(job.result.metrics)}")
    if lines:
        name = f"OSAI {job.kind} job {sanitize_server_text(job.id, 100)}"
        for line in group_lines(f"Summary of {name} ({job.state})", lines):
            log.info("%s", line)


def log_job_message(log: Any, job: Job) -> None:
    """Log a job's message, and a warning if the job was simulated.

    :param log: a logger, such as that of an Airflow operator.
    :param job: the job that is returned or has ended.
    """
    message = sanitize_server_text(job.message or "")
    if job.simulated:
        log.warning(
            "OSAI %s job %s is simulated (by the sandbox, for instance): its result is made up.%s",
            job.kind,
            job.id,
            f" Message: {message}" if message else "",
        )
    elif message and job.state in (JobState.FAILED, JobState.CANCELLED):
        log.warning("OSAI %s job %s %s. OSAI's message: %s", job.kind, job.id, job.state, message)
    elif message and job.state is JobState.SUCCEEDED:
        log.info("Message of OSAI %s job %s: %s", job.kind, job.id, message)


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Return metrics as one printable line: names with values, at most :data:`MAX_METRICS` of them."""
    shown = [
        f"{sanitize_server_text(str(name), MAX_METRIC)} {_format_value(value)}"
        for name, value in list(metrics.items())[:MAX_METRICS]
    ]
    more = f" and {len(metrics) - MAX_METRICS} more" if len(metrics) > MAX_METRICS else ""
    return ", ".join(shown) + more


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return format_figure(value)
    if isinstance(value, (list, dict)):
        return f"({len(value)} values)"
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return "(a number of more than 300 digits)"
    return sanitize_server_text(str(value), MAX_METRIC)


def _epoch_table(job: Job) -> Iterator[str]:
    history = job.history or ()
    if not history:
        return
    best = best_epochs(history)
    places = select_epochs(len(history), best, MAX_EPOCHS)
    names = [name for name in FIGURES if any(getattr(history[place], name) is not None for place in places)]
    rows = [["epoch", *names, ""]]
    for place in places:
        values = [getattr(history[place], name) for name in names]
        cells = ["-" if value is None else format_figure(value) for value in values]
        rows.append([str(epoch_number(history, place)), *cells, best.get(place, "")])
    yield from table_lines(rows)
