"""Test scenarios of the sandbox: scripted jobs (:class:`Script`) and fault injection (:class:`Fault`)."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airflow_provider_osai.api.models import TERMINAL_STATES, JobKind, JobState

__all__ = ["Fault", "FaultKind", "Script", "Timing"]

Timing = Literal["work", "immediate", "reads", "seconds"]
FaultKind = Literal[
    "status",
    "delay",
    "reset",
    "reset_before",
    "unknown_state",
    "expired_token",
    "duplicate_webhook",
    "malformed",
    "html",
    "huge",
    "drip",
    "cut",
]


class Script(BaseModel):
    """How jobs that are submitted from now on run and end. Jobs with any timing but ``work`` are marked as simulated.

    So are jobs with a scripted end other than ``succeeded``, or with scripted *metrics*.

    :param kind: the kind of job; default: all kinds.
    :param timing: ``work`` really runs the job; a device rental gets its device after *reads* reads. ``immediate`` ends
        the job at submission, ``reads`` keeps it running for *reads* reads, ``seconds`` for *seconds* of the sandbox's
        clock.
    :param reads: number of reads, see *timing*.
    :param seconds: see *timing*.
    :param end: the final state; any but ``succeeded``, the default, ends the job without running it.
    :param message: the message of the ended job.
    :param invalid_data: whether the data or arguments of a job that *end* lets fail are the reason.
    :param metrics: merged into the metrics of the result; a simulated job has no others.
    :param word: a status word to return in place of the real one.
    :param word_reads: number of reads that return *word*; default: all.
    :param progress: the progress to report until the job ends, for a job that stalls; needs the timing ``reads``.
    :param history: the epochs to report, one more at each read; needs the timing ``reads``. JSON has no NaN: use text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: JobKind | None = None
    timing: Timing = "work"
    reads: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    end: JobState | None = None
    message: str | None = None
    invalid_data: bool = False
    metrics: dict[str, Any] | None = None
    word: str | None = None
    word_reads: int | None = Field(default=None, ge=0)
    progress: float | None = Field(default=None, ge=0, le=1)
    history: list[dict[str, Any]] | None = None

    @property
    def counts_reads(self) -> bool:
        """Whether a job's state or status word depends on the number of its reads."""
        return self.timing == "reads" or self.reads > 0 or self.word_reads is not None

    @property
    def is_simulated(self) -> bool:
        """Whether a job's end, result or metrics come from the script."""
        return self.timing != "work" or self.end not in (None, JobState.SUCCEEDED) or self.metrics is not None

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.end is not None and self.end not in TERMINAL_STATES:
            msg = f"end must be one of {', '.join(sorted(TERMINAL_STATES))}; use 'word' for any other status word"
            raise ValueError(msg)
        if self.timing != "reads" and (self.progress is not None or self.history is not None):
            msg = "progress and history need the timing 'reads'"
            raise ValueError(msg)
        try:
            json.dumps(self.history, allow_nan=False)
        except (TypeError, ValueError):
            msg = "history must be JSON, which has no NaN; write it as text ('NaN')"
            raise ValueError(msg) from None
        return self


class Fault(BaseModel):
    """A fault to inject into requests to an endpoint.

    :param kind: a response with a ``status``, a ``delay``, a connection dropped after (``reset``) or before
        (``reset_before``) the request is handled, an unknown status word (``unknown_state``), all JWTs expired
        (``expired_token``), a webhook sent twice (``duplicate_webhook``), truncated JSON (``malformed``), an HTML page
        instead of JSON (``html``), the real response after 64 MiB of spaces (``huge``) or byte by byte (``drip``), or a
        file whose connection breaks in the middle (``cut``).
    :param endpoint: the endpoint's name or a pattern such as ``training.*``; webhooks are called ``<kind>.webhook``.
    :param times: number of requests to affect.
    :param after: number of requests to skip first.
    :param status: for ``status``: the HTTP status.
    :param retry_after: for ``status``: the ``Retry-After`` header.
    :param body: for ``status``: the response body; text, or an object that is sent as JSON.
    :param seconds: for ``delay``: the delay; for ``drip``: the time between two bytes of the body. Headers are sent at
        once.
    :param keep: for ``cut``: bytes of the body that are sent.
    :param word: for ``unknown_state``: the status word.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FaultKind
    endpoint: str = "*"
    times: int = Field(default=1, ge=1)
    after: int = Field(default=0, ge=0)
    status: int = Field(default=503, ge=200, le=599)
    retry_after: str | None = None
    body: Any = None
    seconds: float = Field(default=0.0, ge=0)
    keep: int = Field(default=0, ge=0)
    word: str = "Pondering"
