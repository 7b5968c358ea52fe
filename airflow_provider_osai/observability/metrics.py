"""The metrics of this package: their names, and one function for each event.

They go to Airflow's ``Stats``, so to StatsD, Datadog or OpenTelemetry, whichever ``[metrics]`` switches on. With none
of them, nothing is imported and nothing is counted. A backend that fails never fails its caller. No job id, no text of
a Dag and no secret is in a name or a tag, and each tag has a bounded number of values.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_osai.api.errors import OsaiContractError, OsaiError, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.text import parse_time

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.jobs.submission import Submission

__all__ = [
    "METRICS",
    "Metric",
    "count_async_polls",
    "count_capacity_wait",
    "count_error",
    "count_job_over",
    "count_kill",
    "count_misfit",
    "count_polls",
    "count_submission",
    "count_webhook_resume",
    "enabled",
    "prepare",
    "uncounted",
]

E = TypeVar("E", bound=OsaiError)

SWITCHES: Final = ("statsd_on", "statsd_datadog_enabled", "otel_on")
"""The options of ``[metrics]`` of which one must be true."""
PREPARE_TIMEOUT: Final = 5.0
"""Maximum seconds that an event loop's first user waits for the backend, which may have to resolve a host name."""
KINDS: Final = frozenset(JobKind)
POLLS: Final = frozenset({"get", "list"})
"""The operations of a kind of job that poll."""


class Metric(NamedTuple):
    """One metric.

    :param name: without the prefix that ``[metrics]`` adds, by default ``airflow``.
    :param type: ``counter``, or ``timer``, which Airflow sends in milliseconds.
    :param tags: the names of its tags.
    """

    name: str
    type: Literal["counter", "timer"]
    tags: tuple[str, ...] = ("kind",)


SUBMITTED: Final = Metric("osai.job.submitted", "counter")
RESUBMITTED: Final = Metric("osai.job.resubmitted", "counter")
RECONNECTED: Final = Metric("osai.job.reconnected", "counter")
REPEATED: Final = Metric("osai.submission.repeated", "counter")
SUCCEEDED: Final = Metric("osai.job.succeeded", "counter")
FAILED: Final = Metric("osai.job.failed", "counter")
CANCELLED: Final = Metric("osai.job.cancelled", "counter")
READY: Final = Metric("osai.job.ready", "counter")
TIMED_OUT: Final = Metric("osai.job.timed_out", "counter")
LOST: Final = Metric("osai.job.lost", "counter")
KILLED: Final = Metric("osai.job.cancelled_by_kill", "counter")
NOT_CANCELLED: Final = Metric("osai.job.cancel_failed", "counter")
DURATION: Final = Metric("osai.job.duration", "timer", ("kind", "state"))
QUEUED_DURATION: Final = Metric("osai.job.queued_duration", "timer")
WAIT_DURATION: Final = Metric("osai.job.wait_duration", "timer", ("kind", "state"))
POLLED: Final = Metric("osai.poll.requests", "counter", ("kind", "operation"))
POLL_FAILED: Final = Metric("osai.poll.failures", "counter", ("kind", "operation"))
CAPACITY_WAITS: Final = Metric("osai.capacity.waits", "counter", ("reason",))
CAPACITY_WAIT_TIME: Final = Metric("osai.capacity.wait_time", "timer", ("reason",))
WEBHOOK_RESUMED: Final = Metric("osai.webhook.resumed", "counter")
MISFIT: Final = Metric("osai.contract.misfits", "counter", ("operation", "problem"))
CONTRACT_ERROR: Final = Metric("osai.contract.errors", "counter", ())
METRICS: Final = (
    SUBMITTED,
    RESUBMITTED,
    RECONNECTED,
    REPEATED,
    SUCCEEDED,
    FAILED,
    CANCELLED,
    READY,
    TIMED_OUT,
    LOST,
    KILLED,
    NOT_CANCELLED,
    DURATION,
    QUEUED_DURATION,
    WAIT_DURATION,
    POLLED,
    POLL_FAILED,
    CAPACITY_WAITS,
    CAPACITY_WAIT_TIME,
    WEBHOOK_RESUMED,
    MISFIT,
    CONTRACT_ERROR,
)
"""All metrics. The outcome of a job is in the name, since plain StatsD drops tags."""
_loading: set[object] = set()
"""One object for each thread that loads the backend."""
ENDS: Final = {JobState.SUCCEEDED: SUCCEEDED, JobState.FAILED: FAILED, JobState.CANCELLED: CANCELLED}


@cache
def enabled() -> bool:
    """Return whether Airflow sends metrics. Read once in each process."""
    with suppress(Exception):  # an invalid value of an option, which Airflow itself reports
        return any(conf.getboolean("metrics", switch, fallback=False) for switch in SWITCHES)
    return False


async def prepare() -> None:
    """Load the backend in a thread, so that no later call of an event loop waits for a host name to be resolved.

    What happens before it is loaded is not counted.
    """
    if enabled():
        loading = object()
        _loading.add(loading)
        loaded = asyncio.get_running_loop().run_in_executor(None, _load, loading)
        await asyncio.wait({loaded}, timeout=PREPARE_TIMEOUT)


def count_submission(kind: JobKind, submission: Submission) -> None:
    """Count how a task got its job."""
    names = {"submitted": SUBMITTED, "resubmitted": RESUBMITTED, "reconnected": RECONNECTED, "repeated": REPEATED}
    _count(names[submission.value], kind=kind)


def count_job_over(job: Job, waited: float | None = None) -> None:
    """Count a job that has ended, or a device that is ready, and record how long it took.

    :param waited: seconds since the start of the task's try; ``None``: unknown.
    """
    if not enabled():
        return
    _count(ENDS.get(job.state, READY), kind=job.kind)
    created, started, finished = (parse_time(text) for text in (job.created_at, job.started_at, job.finished_at))
    state = job.state if job.is_terminal else "ready"
    if job.is_terminal:
        _time(DURATION, started, finished, kind=job.kind, state=state)
    _time(QUEUED_DURATION, created, started, kind=job.kind)
    _time(WAIT_DURATION, None if waited is None else 0.0, waited, kind=job.kind, state=state)


def count_error(error: OsaiError) -> None:
    """Count an error that ends a try of a task, once, if it is a lost job, a deadline, or a misfit of the contract."""
    if not enabled() or vars(error).get("is_counted"):
        return
    uncounted(error)
    if isinstance(error, OsaiJobLost):
        _count(LOST, kind=error.kind)
    elif isinstance(error, OsaiJobTimeout):
        _count(TIMED_OUT, kind=error.kind)
    elif isinstance(error, OsaiContractError):
        _count(CONTRACT_ERROR)


def uncounted(error: E) -> E:
    """Return *error* marked as one that :func:`count_error` ignores: nothing is wrong with its job."""
    vars(error)["is_counted"] = True
    return error


def count_capacity_wait(reason: str, waited: float | None = None) -> None:
    """Count a wait for room at OSAI that begins or changes its reason, or record how long it took.

    :param reason: ``busy``, ``quota reached`` or ``no credit``.
    :param waited: seconds; ``None``: it goes on.
    """
    tag = reason.replace(" ", "_")
    if waited is None:
        _count(CAPACITY_WAITS, reason=tag)
    elif enabled():
        _time(CAPACITY_WAIT_TIME, 0.0, waited, reason=tag)


def count_kill(kind: str, *, is_cancelled: bool) -> None:
    """Count a job whose task was killed before it had ended.

    :param is_cancelled: whether OSAI took the cancellation; otherwise the job may continue.
    """
    _count(KILLED if is_cancelled else NOT_CANCELLED, kind=kind)


def count_webhook_resume(kind: str) -> None:
    """Count a deferred task that a webhook resumed."""
    _count(WEBHOOK_RESUMED, kind=kind)


def count_misfit(operation: str, problem: str) -> None:
    """Count a response that differs from the contract, when it is seen first in a process.

    :param operation: the operation's name in the contract.
    :param problem: how it differs, see :data:`~airflow_provider_osai.api.evidence.ProblemKind`.
    """
    _count(MISFIT, operation=operation, problem=problem)


def count_polls(send: Callable[[Call[Any]], Any]) -> Callable[[Call[Any]], Any]:
    """Return *send*, which then counts the requests that poll; unchanged if metrics are off."""
    if not enabled():
        return send

    def counted(call: Call[Any]) -> Any:
        with _poll(call.name):
            return send(call)

    return counted


def count_async_polls(send: Callable[[Call[Any]], Awaitable[Any]]) -> Callable[[Call[Any]], Awaitable[Any]]:
    """Do the same as :func:`count_polls` on an event loop. A request for a hundred jobs is one."""
    if not enabled():
        return send

    async def counted(call: Call[Any]) -> Any:
        with _poll(call.name):
            return await send(call)

    return counted


@contextmanager
def _poll(name: str) -> Iterator[None]:
    kind, _, operation = name.partition(".")
    is_poll = operation in POLLS and kind in KINDS
    if is_poll:
        _count(POLLED, kind=kind, operation=operation)
    try:
        yield
    except OsaiError:
        if is_poll:
            _count(POLL_FAILED, kind=kind, operation=operation)
        raise


def _count(metric: Metric, **tags: str) -> None:
    if enabled() and not _loading:
        with suppress(Exception):
            _stats().incr(metric.name, tags=_bounded(tags))


def _time(metric: Metric, begin: float | None, end: float | None, **tags: str) -> None:
    """Record a time, unless one of its ends is unknown, or the clock was changed between them."""
    if begin is not None and end is not None and end >= begin and not _loading:
        with suppress(Exception):
            _stats().timing(metric.name, timedelta(seconds=end - begin), tags=_bounded(tags))


def _bounded(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags as plain text; a kind comes from a trigger's arguments and may be any text."""
    return {name: "unknown" if name == "kind" and value not in KINDS else str(value) for name, value in tags.items()}


def _load(loading: object) -> None:
    try:
        with suppress(Exception):
            _stats().timer()  # without a name: creates the backend and sends nothing
    finally:
        _loading.discard(loading)


def _stats() -> Any:
    """Return the ``Stats`` that this process has initialized.

    From Airflow 3.2 there are two: one of the Task SDK, which task processes initialize, and one of the core, which the
    triggerer and the API server do. The other one drops what it gets.
    """
    from airflow.providers.common.compat.sdk import Stats

    if not _is_initialized(Stats):
        with suppress(ImportError):  # before Airflow 3.2
            from airflow.observability.stats import Stats as CoreStats

            if _is_initialized(CoreStats):
                return CoreStats
    return Stats


def _is_initialized(stats: Any) -> bool:
    """Return whether a ``Stats`` has a backend: ``factory`` up to Airflow 3.2, a variable of its module from 3.3."""
    module = sys.modules[stats.__module__]
    return (getattr(stats, "factory", None) or getattr(module, "_factory", None)) is not None
