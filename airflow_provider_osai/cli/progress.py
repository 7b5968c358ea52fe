"""Show the progress of a job on the standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

from airflow_provider_osai.api.models import Job
from airflow_provider_osai.cli.output import write_note
from airflow_provider_osai.cli.tables import console
from airflow_provider_osai.jobs.progress_log import PollLogger

__all__ = ["poll_display"]

BAR_WIDTH: Final = 20
"""Maximum columns of the bar."""


@contextlib.contextmanager
def poll_display(job: Job, since: float) -> Iterator[Callable[[Job, float], None]]:
    """Yield a function to call after each poll, with the job and the seconds until the next poll.

    :param job: the job at the first poll.
    :param since: when the watch began, in seconds since the epoch.
    """
    if not sys.stderr.isatty():
        yield PollLogger(_Lines(), since=since)
        return
    # Not at the top: lines do not need it.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as progress:
        shown = progress.add_task(_description(job), total=None)

        def show(job: Job, _: float) -> None:
            total = None if job.progress is None else 1.0
            progress.update(shown, description=_description(job), completed=job.progress or 0.0, total=total)

        show(job, 0.0)
        yield show


def _description(job: Job) -> str:
    return f"{job.kind} {job.id} {job.state}"


class _Lines:
    """Writes what is logged as bare lines to the standard error."""

    def info(self, message: str, *values: object) -> None:
        write_note(message % values)

    warning = info
