"""A retry policy for OSAI tasks (Airflow 3.3 and newer): when to retry after which error, and when not to.

On Airflow 3.1 and 3.2 there are no retry policies: :func:`osai_retry_policy` returns ``None`` there, and the task's
``retries`` and ``retry_delay`` apply. Errors that no retry can fix fail an OSAI task at once on every version.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiBusy,
    OsaiError,
    OsaiJobCancelled,
    OsaiJobLost,
    OsaiUnreachable,
)

try:
    from airflow.sdk import RetryDecision, RetryPolicy

    HAS_RETRY_POLICIES = True
    """Whether this Airflow has retry policies (3.3 and newer)."""
except ImportError:  # before Airflow 3.3
    RetryPolicy = object  # type: ignore[assignment,misc]  # a base class that is never used then
    HAS_RETRY_POLICIES = False

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["HAS_RETRY_POLICIES", "OsaiRetryPolicy", "osai_retry_policy"]

SOON: Final = timedelta(minutes=1)
"""Default delay after a lost job, which may still run."""
LATER: Final = timedelta(minutes=15)
"""Default delay while OSAI has no room or is unreachable."""


class OsaiRetryPolicy(RetryPolicy):
    """Decides by the error of a task; see docs/retries.md. Made by :func:`osai_retry_policy`.

    Errors of others, and those of OSAI that a new job may not repeat, are left to the task's ``retry_delay``. There are
    never more retries than the task's ``retries``.
    """

    def __init__(self, *, lost: timedelta, busy: timedelta, retry_cancelled: bool) -> None:
        self.lost = lost
        self.busy = busy
        self.retry_cancelled = retry_cancelled

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return the decision for *exception*; only its class, and a ``Retry-After`` of OSAI, count."""
        if not isinstance(exception, OsaiError):
            return RetryDecision.default()
        name = type(exception).__name__
        if not exception.retryable:
            return RetryDecision.fail(f"{name}: a retry cannot fix this")
        if isinstance(exception, OsaiJobLost):
            return RetryDecision.retry(self.lost, f"{name}: the job may still run; the retry reconnects to it")
        if isinstance(exception, OsaiUnreachable):
            reason = f"has no room ({exception.reason})" if isinstance(exception, OsaiBusy) else "is unreachable"
            delay = max(self.busy, timedelta(seconds=exception.retry_after or 0.0))
            return RetryDecision.retry(delay, f"{name}: OSAI {reason}")
        if isinstance(exception, OsaiJobCancelled) and not self.retry_cancelled:
            return RetryDecision.fail(f"{name}: the job was cancelled on purpose; clear the task to submit a new one")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON."""
        return {
            "__type": type(self).__name__,
            "lost": self.lost.total_seconds(),
            "busy": self.busy.total_seconds(),
            "retry_cancelled": self.retry_cancelled,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> OsaiRetryPolicy:
        """Return the policy that :meth:`serialize` described."""
        delays = {name: timedelta(seconds=data[name]) for name in ("lost", "busy")}
        return cls(**delays, retry_cancelled=data["retry_cancelled"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OsaiRetryPolicy) and self.serialize() == other.serialize()

    def __hash__(self) -> int:
        return hash((self.lost, self.busy, self.retry_cancelled))

    def __repr__(self) -> str:
        return f"OsaiRetryPolicy(lost={self.lost!r}, busy={self.busy!r}, retry_cancelled={self.retry_cancelled!r})"


def osai_retry_policy(
    *, lost: timedelta = SOON, busy: timedelta = LATER, retry_cancelled: bool = False
) -> OsaiRetryPolicy | None:
    """Return the policy for ``default_args={"retry_policy": ...}``; ``None`` on Airflow 3.1 and 3.2, which have none.

    :param lost: delay after ``OsaiJobLost``, default one minute. The job may still run and cost money, and the retry
        reconnects to it.
    :param busy: delay after ``OsaiBusy`` and ``OsaiUnreachable``, default 15 minutes; longer if OSAI asks for it with
        ``Retry-After``.
    :param retry_cancelled: whether to submit a new job if the job was cancelled, in the portal for instance. Default:
        ``False``.
    :raises OsaiArgumentError: if a delay is not a ``timedelta`` of zero or more.
    """
    for name, delay in (("lost", lost), ("busy", busy)):
        if not isinstance(delay, timedelta) or delay < timedelta():
            raise OsaiArgumentError(f"{name} = {delay!r}: a timedelta of zero or more is needed")
    return OsaiRetryPolicy(lost=lost, busy=busy, retry_cancelled=retry_cancelled) if HAS_RETRY_POLICIES else None
