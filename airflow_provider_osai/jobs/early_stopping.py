"""Early stopping: rules by which a wait stops a training that is going wrong, and what they have seen of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from airflow_provider_osai.api.errors import OsaiArgumentError, sanitize_server_text
from airflow_provider_osai.api.models import Epoch, Job, JobState
from airflow_provider_osai.jobs.history import epochs_done, figures, format_figure
from airflow_provider_osai.jobs.remaining_time import format_duration

__all__ = ["EarlyStopping", "StopRules"]

MAX_DELAY: Final = 1.25
"""Factor by which a poll may be late before the rest of the time no longer counts as time without progress."""
MAXIMIZED: Final = frozenset({"accuracy", "val_accuracy"})
"""Monitored figures of which more is better."""


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - pydantic expects it
    return value


Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_reject_bool)]
Epochs = Annotated[int, Field(ge=1), BeforeValidator(_reject_bool)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_reject_bool)]


class StopRules(BaseModel):
    """When to stop a training before its end (``stop_when``). Each rule is off by default; any one that holds stops it.

    :param no_progress_minutes: minutes for which neither status, progress nor history of a running job has changed.
    :param nan_loss: stop if ``loss`` or ``val_loss`` of the latest epoch is NaN or infinite.
    :param patience: number of epochs without an improvement of *monitor*.
    :param monitor: the figure that has to improve: ``val_loss`` (default), ``loss``, ``val_accuracy`` or ``accuracy``.
    :param min_delta: minimum change of *monitor* that counts as an improvement, default 0; smaller ones do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    no_progress_minutes: Minutes | None = None
    nan_loss: bool = False
    patience: Epochs | None = None
    monitor: Literal["val_loss", "loss", "val_accuracy", "accuracy"] = "val_loss"
    min_delta: NotNegative = 0.0

    @model_validator(mode="after")
    def _check_patience(self) -> Self:
        unused = sorted(self.model_fields_set & {"monitor", "min_delta"})
        if self.patience is None and unused:
            raise ValueError(f"{' and '.join(unused)} need patience, the number of epochs without an improvement")
        return self

    @classmethod
    def parse(cls, value: Any) -> StopRules | None:
        """Return the rules of an operator's ``stop_when``; ``None`` if no rule is on.

        :param value: a dict, whose numbers may be text of a rendered template, or ``None``.
        :raises OsaiArgumentError: if it is invalid.
        """
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise OsaiArgumentError(f"stop_when = {value!r}: must be a dict such as {{'patience': 10}}, or None")
        try:
            rules = cls.model_validate(dict(value))
        except ValidationError as error:
            raise OsaiArgumentError.from_validation("stop_when", error) from None
        is_on = rules.no_progress_minutes is not None or rules.nan_loss or rules.patience is not None
        return rules if is_on else None

    @classmethod
    def parse_stored(cls, value: Any) -> StopRules | None:
        """Return the rules that a trigger carries: unknown ones, of a newer version, are ignored.

        :raises OsaiArgumentError: if the others are invalid.
        """
        if isinstance(value, Mapping):
            value = {name: rule for name, rule in value.items() if name in cls.model_fields}
        return cls.parse(value)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules that differ from their defaults as plain JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


class EarlyStopping:
    """Decides after each successful poll of a job whether to stop it.

    Only a job that is running is stopped: a queued job makes no progress, and a status that the contract maps to no
    state may be a pause. Only what is certain counts: a missing figure is not NaN, a response without a history does
    not mean that the epochs are gone, and a job that reports neither progress nor epochs is not stalled.

    Thousands of jobs have one each: it keeps a few numbers, and reads no history if the job has not changed.

    :param rules: the rules.
    :param warn: called with a message for the log, once for each rule that cannot work.
    """

    __slots__ = (
        "_best",
        "_done",
        "_followed",
        "_is_left_out",
        "_latest",
        "_limit",
        "_pause",
        "_polled_at",
        "_progress",
        "_rules",
        "_stalled",
        "_status",
        "_warn",
        "_warned",
        "_without_improvement",
        "keeps_model",
    )

    def __init__(self, rules: StopRules, warn: Callable[[str], object] = lambda _: None) -> None:
        self._rules = rules
        self._warn = warn
        self._warned: frozenset[str] = frozenset()
        self._limit = math.inf if rules.no_progress_minutes is None else 60 * rules.no_progress_minutes
        self._status: str | None = None
        self._progress: float | None = None
        self._latest: tuple[int, int | None, str] | None = None
        self._polled_at: float | None = None
        self._pause = 0.0
        self._stalled = 0.0
        self._done = 0
        self._best: float | None = None
        self._followed = 0
        self._is_left_out = False
        self._without_improvement = 0
        self.keeps_model = False
        """Whether the rule that held last leaves a model of use: the training only does not improve any more."""

    def missed(self) -> None:
        """Note that a poll failed: the time until the next successful one is an outage, not a lack of progress."""
        self._polled_at = None

    def check(self, job: Job, now: float, pause: float) -> str | None:
        """Return why to stop the job, or ``None``.

        :param job: as polled.
        :param now: the time of the poll, in seconds since the epoch.
        :param pause: seconds until the next poll.
        """
        elapsed = 0.0 if self._polled_at is None else min(max(0.0, now - self._polled_at), MAX_DELAY * self._pause)
        self._polled_at, self._pause = now, pause
        if self._has_changed(job):
            self._stalled = 0.0
            return self._check_epochs(job) if job.state is JobState.RUNNING else None
        if job.state is not JobState.RUNNING:
            return None
        self._stalled += elapsed
        return self._check_progress(job) if self._stalled >= self._limit else None

    def needs_single_poll(self, job: Job) -> bool:
        """Return whether to poll the job by itself next time, because a list of jobs may leave out the history.

        So it is until the first epoch, and on if a later response leaves out a history that was there before.

        :param job: as polled and checked.
        """
        if self._warned or not (self._rules.nan_loss or self._rules.patience) or job.state is not JobState.RUNNING:
            return False
        if not job.history and self._latest is not None:
            self._is_left_out = True
        return self._is_left_out or not job.history

    def _has_changed(self, job: Job) -> bool:
        """Return whether status, progress or history have changed; what a response leaves out has not."""
        progress = self._progress if job.progress is None else job.progress
        latest = self._latest
        if job.history:
            last = job.history[-1]
            latest = len(job.history), last.epoch, repr(figures(last))  # as text, since NaN does not equal NaN
        if (job.status, progress, latest) == (self._status, self._progress, self._latest):
            return False
        self._status, self._progress, self._latest = job.status, progress, latest
        return True

    def _check_progress(self, job: Job) -> str | None:
        if self._progress is None and self._latest is None:
            self._warn_once(job, "no_progress_minutes", "OSAI reports neither progress nor epochs")
            return None
        reported = "no progress" if self._progress is None else f"progress {self._progress:.0%}"
        return (
            f"no progress for {format_duration(self._stalled)} of polls, with {reported} and {self._done} epochs "
            f"(no_progress_minutes = {self._rules.no_progress_minutes:g})"
        )

    def _check_epochs(self, job: Job) -> str | None:
        if not job.history:
            if self._latest is None and (job.progress or 0.0) >= 0.5:
                rules = (("nan_loss", self._rules.nan_loss), ("patience", self._rules.patience))
                for rule in (name for name, is_on in rules if is_on):
                    self._warn_once(job, rule, "half of the job is done, and OSAI reports no epochs")
            return None
        done = epochs_done(job.history)
        if 2 * done < self._done:  # the training began again
            self._done, self._followed, self._best, self._without_improvement = 0, 0, None, 0
        self._done = max(done, self._done)
        if self._rules.patience is not None:
            self._follow(job.history, done)
        return self._nan_reason(job.history[-1]) or self._patience_reason(job)

    def _nan_reason(self, epoch: Epoch) -> str | None:
        for name, value in figures(epoch).items() if self._rules.nan_loss else ():
            if name in ("loss", "val_loss") and not math.isfinite(value):
                return f"{name} is {format_figure(value)} after {self._done} epochs (nan_loss)"
        return None

    def _follow(self, history: tuple[Epoch, ...], done: int) -> None:
        """Count the new epochs without an improvement.

        One without the monitored figure does not count; the latest may get it later. Neither do those that were never
        seen, because the history holds the last ones only.
        """
        sign = -1 if self._rules.monitor in MAXIMIZED else 1
        new = min(max(done - self._followed, 0), len(history))
        for number, epoch in enumerate(history[len(history) - new :], done - new + 1):
            value = getattr(epoch, self._rules.monitor)
            if value is None:
                continue
            self._followed = number
            is_better = self._best is None or sign * value < sign * self._best - self._rules.min_delta
            if math.isfinite(value) and is_better:
                self._best, self._without_improvement = value, 0
            else:
                self._without_improvement += 1

    def _patience_reason(self, job: Job) -> str | None:
        patience, monitor = self._rules.patience, self._rules.monitor
        if patience is None:
            return None
        if self._without_improvement >= patience:
            best = "no finite value" if self._best is None else f"best {format_figure(self._best)}"
            self.keeps_model = True
            return f"no improvement of {monitor} for {self._without_improvement} epochs, {best} (patience = {patience})"
        if not self._followed and self._done >= patience:
            self._warn_once(job, "patience", f"OSAI reports no {monitor} in {self._done} epochs")
        return None

    def _warn_once(self, job: Job, rule: str, reason: str) -> None:
        if rule not in self._warned:
            self._warned |= {rule}
            name = f"OSAI {job.kind} job {sanitize_server_text(job.id, 100)}"
            self._warn(f"{name}: the rule {rule} of stop_when has no effect: {reason}")
