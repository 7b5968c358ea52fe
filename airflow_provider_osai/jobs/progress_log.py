"""The log lines of a wait: states, epochs and progress of the job, few enough for a task's log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.models import Epoch, Job, JobState
from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.jobs.history import epoch_number, epochs_done, estimated_total, figures, format_figure
from airflow_provider_osai.jobs.remaining_time import ProgressSample, format_duration, remaining_seconds

__all__ = ["EPOCH_LINES", "HEARTBEAT_INTERVAL", "MAX_LINES", "PollLogger", "is_due_at_age"]

MAX_LINES: Final = 40
"""Maximum lines of one wait. The last one says that further progress is not logged."""
EPOCH_LINES: Final = 20
"""Lines about epochs of a job whose number of epochs can be estimated, spread evenly."""
FIRST_EPOCHS: Final = 10
"""Epochs that are logged one by one if their total is unknown; then the 20th, the 40th, the 80th, ..."""
PROGRESS_STEPS: Final = 10
"""Lines about the progress from 0 to 1 of a job without a history."""
HEARTBEAT_INTERVAL: Final = 600.0
"""Seconds without a line after which one is logged; doubled each time, until the state changes."""


class PollLogger:
    """Logs the polls of a job: each change of its state, its epochs or its progress, and heartbeats.

    - A change of the state is logged at once, and an unknown status also as a warning.
    - Of the epochs of the history, about :data:`EPOCH_LINES` are logged if their total can be estimated from the
      progress, else 1 to 10, 20, 40, 80 and so on.
    - Without a history, each 10 % of progress is logged.
    - If nothing was logged for ten minutes, a heartbeat is; the next ones after 20 and 40 minutes and so on.

    The first poll logs the state and the latest epoch only, so that the logger of a restarted trigger does not repeat
    what was logged before. There are never more than :data:`MAX_LINES` lines. Thousands of jobs have a logger each: it
    keeps a few numbers, and does nothing if the job has not changed.

    :param log: a logger, such as that of an Airflow operator or trigger.
    :param since: when the wait began, in seconds since the epoch.
    :param clock: returns the current time in seconds since the epoch.
    """

    __slots__ = (
        "_clock",
        "_done",
        "_epoch_lines",
        "_heartbeat_at",
        "_heartbeat_interval",
        "_lines_left",
        "_log",
        "_logged_epochs",
        "_logged_steps",
        "_mark",
        "_progress",
        "_sample",
        "_since",
        "_state",
        "_status",
    )

    def __init__(self, log: Any, *, since: float, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._since = since
        self._clock = clock
        self._lines_left = MAX_LINES
        self._state: str | None = None
        self._status: str | None = None
        self._mark: tuple[int, int | None] | None = None
        self._progress: float | None = None
        self._sample: ProgressSample | None = None
        self._done = 0
        self._logged_epochs = 0
        self._epoch_lines = 0
        self._logged_steps = 0
        self._heartbeat_interval = HEARTBEAT_INTERVAL
        self._heartbeat_at = 0.0

    def __call__(self, job: Job, pause: float) -> None:
        """Log what has changed since the last poll, if it is worth a line.

        :param pause: seconds until the next poll.
        """
        history = job.history
        mark = (len(history), history[-1].epoch) if history else None
        if (
            job.status == self._status
            and job.progress == self._progress
            and mark == self._mark
            and self._clock() < self._heartbeat_at
        ):
            return
        self._status, self._mark = job.status, mark
        if self._lines_left:
            self._log_changes(job, self._clock(), pause)

    def _log_changes(self, job: Job, now: float, pause: float) -> None:
        state = job.status if job.state is JobState.UNKNOWN else job.state
        # A response without a history, such as a list's, does not mean that the epochs are gone.
        done = epochs_done(job.history) if job.history else self._done
        lines_left, is_first = self._lines_left, self._state is None
        if job.progress != self._progress:
            self._take_sample(job.progress, now)
        if state != self._state:
            self._log_state(job, state, now, pause)
        if done != self._done:
            self._log_epochs(job, done, now, is_first=is_first)
        elif not done:
            self._log_progress(job, now)
        if self._lines_left == lines_left and now >= self._heartbeat_at:
            self._log_line(job, now, pause)
            self._heartbeat_interval *= 2
        if self._lines_left != lines_left and self._lines_left:
            self._heartbeat_at = now + self._heartbeat_interval

    def _take_sample(self, progress: float | None, now: float) -> None:
        """Keep the first progress of a job, from which its speed is measured; again if it went backwards."""
        if progress is not None and (self._sample is None or progress < (self._progress or 0.0)):
            self._sample = ProgressSample(now, progress)
        self._progress = progress

    def _log_state(self, job: Job, state: str, now: float, pause: float) -> None:
        self._state = state
        self._heartbeat_interval = HEARTBEAT_INTERVAL
        self._logged_steps = _progress_step(job)
        self._log_line(job, now, pause)
        if job.state is JobState.UNKNOWN:
            self._emit(
                self._log.warning,
                "%s has status %r, which the contract maps to no state. The job counts as not ended; map the status "
                "under 'states' in the connection's contract.",
                _name(job),
                sanitize_server_text(job.status, 100),
            )

    def _log_epochs(self, job: Job, done: int, now: float, *, is_first: bool) -> None:
        """Log the new epochs that are due; of the first poll, and of a training that began again, the latest only."""
        history, before, self._done = job.history or (), self._done, done
        last = len(history) - 1
        if is_first or 2 * done < before:
            self._logged_epochs = done
            self._log_epoch(job, last, now)
            return
        total = estimated_total(done, job.progress)
        for place in range(max(0, last + 1 - max(0, done - before)), last + 1):
            count = done - (last - place)
            if self._is_due(count, total):
                self._logged_epochs = count
                self._log_epoch(job, place, now)

    def _is_due(self, count: int, total: int | None) -> bool:
        """Return whether to log the epoch with which *count* of about *total* epochs are done."""
        logged = self._logged_epochs
        if count <= logged:
            return False
        if total is not None and self._epoch_lines < EPOCH_LINES:
            return not logged or count * EPOCH_LINES // total > logged * EPOCH_LINES // total
        due = FIRST_EPOCHS
        while due <= logged:
            due *= 2
        return count <= FIRST_EPOCHS or count >= due

    def _log_epoch(self, job: Job, place: int, now: float) -> None:
        """Log an epoch; the progress belongs to the latest one only."""
        history = job.history or ()
        total = estimated_total(self._done, job.progress)
        details = list(_figures(history[place]))
        if place == len(history) - 1:
            details += self._progress_details(job, now)
        self._epoch_lines += 1
        self._emit(
            self._log.info,
            "%s: epoch %d%s%s",
            _name(job),
            epoch_number(history, place),
            "" if total is None else f" of about {total}",
            f": {', '.join(details)}" if details else "",
        )

    def _log_progress(self, job: Job, now: float) -> None:
        step = _progress_step(job)
        if step > self._logged_steps:
            self._logged_steps = step
            self._emit(self._log.info, "%s: %s", _name(job), ", ".join(self._progress_details(job, now)))

    def _log_line(self, job: Job, now: float, pause: float) -> None:
        """Log the job's state and progress."""
        self._emit(
            self._log.info,
            "%s is %s%s: waited %s, %s, next poll in %.0f s",
            _name(job),
            job.state,
            " (simulated)" if job.simulated else "",
            format_duration(now - self._since),
            ", ".join(self._progress_details(job, now)) or "progress unknown",
            pause,
        )

    def _progress_details(self, job: Job, now: float) -> Iterator[str]:
        if job.progress is not None:
            yield f"progress {job.progress:.0%}"
        seconds = remaining_seconds(job, now, self._sample)
        if seconds is not None:
            yield f"ETA {format_duration(seconds)}"

    def _emit(self, log: Callable[..., None], message: str, *args: Any) -> None:
        """Log a line, or in place of the last one that no more follow."""
        if not self._lines_left:
            return
        self._lines_left -= 1
        if self._lines_left:
            log(message, *args)
        else:
            self._heartbeat_at = math.inf
            self._log.info("%s: further progress is not logged; the tab 'OSAI job' and the portal show it", args[0])


def is_due_at_age(job: Job, now: float, interval: float) -> bool:
    """Return whether to log a job whose earlier polls are not known: about when its age has doubled.

    So a log has few lines, without a state that a process would have to leave to the next one.

    :param job: the job; its age is that since ``started_at``, else ``created_at``. Without both it is not logged.
    :param now: the time of the poll in seconds since the epoch.
    :param interval: seconds between two polls; they may be late by a quarter of it.
    """
    began = parse_time(job.started_at) or parse_time(job.created_at)
    if began is None or interval <= 0 or now < began:
        return False
    age = (now - began) / interval
    return int(age).bit_length() != int(max(0.0, age - 1.25)).bit_length() or age < 1


def _name(job: Job) -> str:
    return f"OSAI {job.kind} job {sanitize_server_text(job.id, 100)}"


def _figures(epoch: Epoch) -> Iterator[str]:
    for name, value in figures(epoch).items():
        yield f"{name} {format_figure(value)}"


def _progress_step(job: Job) -> int:
    """Return how many tenths of the job are done, by its progress."""
    return 0 if job.progress is None else int(job.progress * PROGRESS_STEPS + 1e-9)
