"""What a test can tell the sandbox to do: how jobs go (:class:`Script`) and what goes wrong (:class:`Fault`)."""

from __future__ import annotations

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
    """How jobs go that are submitted from now on. Everything but ``work`` is simulated, and the job says so.

    :param kind: the kind of job; all kinds if left out.
    :param timing: ``work`` does the real work, or lends a device, for which a rental waits *reads* reads first;
        ``immediate`` ends at submission, ``reads`` keeps the job running for so many reads of it, ``seconds`` for so
        many seconds of the sandbox's clock.
    :param end: the state it ends in, without doing the work; ``succeeded`` if left out.
    :param message: what an ended job says.
    :param metrics: laid over the metrics of the result.
    :param word: a status word that reads show in place of the true one ...
    :param word_reads: ... for so many reads; for ever if left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: JobKind | None = None
    timing: Timing = "work"
    reads: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    end: JobState | None = None
    message: str | None = None
    metrics: dict[str, Any] | None = None
    word: str | None = None
    word_reads: int | None = Field(default=None, ge=0)

    @property
    def counts_reads(self) -> bool:
        """Whether how a job goes or looks depends on how often it was read."""
        return self.timing == "reads" or self.reads > 0 or self.word_reads is not None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.end is not None and self.end not in TERMINAL_STATES:
            msg = f"end must be one of {', '.join(sorted(TERMINAL_STATES))}; 'word' shows any other status word"
            raise ValueError(msg)
        return self


class Fault(BaseModel):
    """Something that goes wrong with requests to an endpoint.

    :param kind: what: an answer with a ``status``, a ``delay``, a connection dropped after (``reset``) or before
        (``reset_before``) the request is handled, an ``unknown_state`` word, all JWTs expired (``expired_token``), a
        webhook sent twice (``duplicate_webhook``), truncated JSON (``malformed``), a page instead of JSON (``html``),
        the true answer behind 64 MiB of blanks (``huge``) or byte by byte (``drip``), a file whose
        connection breaks in its middle (``cut``).
    :param endpoint: the endpoint's name or a pattern like ``training.*``; webhooks are called ``<kind>.webhook``.
    :param times: so many requests are hit; ``after``: so many are spared first.
    :param status: with ``status``: the HTTP status; ``retry_after`` and ``body`` join its answer.
    :param seconds: with ``delay``: how long; with ``drip``: between two bytes of the body, its headers come at once.
    :param keep: with ``cut``: so many bytes of the body come before.
    :param word: with ``unknown_state``: the status word.
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
