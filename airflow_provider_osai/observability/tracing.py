"""Spans of OpenTelemetry around submitting, waiting and resuming, and their context for requests to OSAI.

They use the tracer provider that Airflow sets up with ``[traces] otel_on``, and are children of the span that Airflow
3.2 and newer start for the task or the trigger, in the trace of the task instance. With that option off, nothing is
imported. A tracer that fails never fails its caller. Messages of errors are in no span, only their types.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_osai.api.errors import OsaiError, OsaiJobError
from airflow_provider_osai.api.models import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["RESUME", "SPANS", "SUBMIT", "WAIT", "enabled", "span", "traced", "traceparent"]

P = ParamSpec("P")
T = TypeVar("T")

SUBMIT: Final = "osai.submit"
WAIT: Final = "osai.wait"
RESUME: Final = "osai.resume"
SPANS: Final = (SUBMIT, WAIT, RESUME)
TRACER: Final = "airflow_provider_osai"
NO_SPAN: Final = nullcontext()
"""What :func:`span` returns if tracing is off; one for all waits."""


@cache
def enabled() -> bool:
    """Return whether Airflow traces, and OpenTelemetry is installed. Read once in each process."""
    with suppress(Exception):  # an invalid value of the option, which Airflow itself reports
        if conf.getboolean("traces", "otel_on", fallback=False):
            import opentelemetry.trace  # noqa: F401 - only whether it is there

            return True
    return False


def span(name: str, kind: str | None = None, job_id: str | None = None) -> AbstractContextManager[object]:
    """Return a context manager that is a span; nothing if tracing is off.

    :param kind: the job's kind, if it is known.
    :param job_id: OSAI's id of the job, if it is known.
    """
    return _Span(name, kind, job_id) if enabled() else NO_SPAN


def traced(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that runs a function in a span, and adds the job that it returns."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def in_span(*args: P.args, **kwargs: P.kwargs) -> T:
            if not enabled():
                return function(*args, **kwargs)
            with _Span(name) as opened:
                result = function(*args, **kwargs)
                opened.describe(result)
                return result

        return in_span

    return decorate


def traceparent() -> str | None:
    """Return the current trace context as the W3C header ``traceparent``; ``None`` if there is none."""
    if not enabled():
        return None
    carrier: dict[str, str] = {}
    with suppress(Exception):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


class _Span:
    """A span that is current in its block."""

    def __init__(self, name: str, kind: str | None = None, job_id: str | None = None) -> None:
        self._name = name
        self._about = (kind, job_id, None)
        self._manager: Any = None
        self._span: Any = None

    def __enter__(self) -> _Span:
        with suppress(Exception):
            from opentelemetry import trace

            tracer = trace.get_tracer(TRACER)
            manager = tracer.start_as_current_span(self._name, record_exception=False, set_status_on_exception=False)
            self._span = manager.__enter__()
            self._manager = manager
            self._add(*self._about)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Exception):
            if isinstance(error, Exception):  # a deferral is none
                self._fail(error)
        if self._manager is not None:
            with suppress(Exception):
                self._manager.__exit__(None, None, None)

    def describe(self, result: object) -> None:
        """Add the job that is a result, or whose references are."""
        with suppress(Exception):
            if isinstance(result, Job):
                self._add(result.kind.value, result.id, result.state.value)
            elif isinstance(result, dict):
                self._add(result.get("kind"), result.get("job_id"), result.get("state"))

    def _fail(self, error: Exception) -> None:
        from opentelemetry.trace import Status, StatusCode

        cause = error.__cause__ if isinstance(error.__cause__, OsaiError) else error
        if isinstance(cause, OsaiJobError):
            self._add(str(cause.kind), cause.job_id, None)
        name = type(cause).__name__
        self._span.set_attribute("error.type", name)
        self._span.set_status(Status(StatusCode.ERROR, name))

    def _add(self, kind: str | None, job_id: str | None, state: str | None) -> None:
        for name, value in (("osai.job.kind", kind), ("osai.job.id", job_id), ("osai.job.state", state)):
            if value:
                self._span.set_attribute(name, str(value))
