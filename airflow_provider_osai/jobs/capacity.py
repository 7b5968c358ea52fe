"""Wait for room at OSAI: what is reported while a submission is refused because OSAI is busy or a quota is reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_osai.api.errors import OsaiBusy, OsaiUnreachable

__all__ = ["CapacityReport", "CapacityWait"]

FIRST_REMINDER: Final = 60.0
"""Seconds of a wait after which it is logged again; then after twice as long, and so on."""
REMEDIES: Final = {
    "no credit": "Add credit to the OSAI account",
    "quota reached": "Run the tasks in a pool with include_deferred and as many slots as the quota, or raise the quota",
    "busy": "Run fewer jobs at the same time, for example in a pool with include_deferred",
}
"""What to do if there was no room for too long, by the reason."""


@dataclass(frozen=True, slots=True)
class CapacityReport:
    """A wait for room at OSAI.

    :param reason: why there is no room: ``busy``, ``quota reached`` or ``no credit``.
    :param since: when the wait began, in seconds since the epoch.
    :param until: when the task gives up, in seconds since the epoch.
    :param waited: how long the wait lasted, in seconds; ``None`` = it goes on.
    """

    reason: str
    since: float
    until: float
    waited: float | None = None


class CapacityWait:
    """Logs and reports one submission's wait for room.

    The first refusal is logged, then each new reason, and otherwise reminders after 1, 2, 4, 8 minutes and so on.

    :param timeout: maximum seconds of the wait.
    :param log: called with messages for the task log.
    :param on_change: called with a report when the wait begins, when its reason changes, and when it ends.
    :param clock: returns the seconds since the epoch.
    """

    def __init__(
        self,
        timeout: float,
        log: Callable[[str], object],
        on_change: Callable[[CapacityReport], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._timeout = timeout
        self._log = log
        self._on_change = on_change
        self._clock = clock
        self._report: CapacityReport | None = None
        self._logged_reasons: set[str | None] = set()
        self._next_reminder = FIRST_REMINDER

    def refused(self, error: OsaiUnreachable, waited: float) -> None:
        """Log and report a submission that OSAI certainly did not take.

        :param waited: seconds since the first refusal.
        """
        reason = _reason(error)
        if reason not in self._logged_reasons:
            self._logged_reasons.add(reason)
            self._log(self._first_message(error, reason, waited))
        elif waited >= self._next_reminder:
            state = "is still unreachable" if reason is None else f"still has no room ({reason})"
            self._log(f"OSAI {state} after {waited:.0f} s. Retrying for up to {self._timeout:.0f} s: {error}")
        while self._next_reminder <= waited:
            self._next_reminder *= 2
        if reason is not None and (self._report is None or self._report.reason != reason):
            now = self._clock()
            since = self._report.since if self._report else now
            self._report = CapacityReport(reason, since, now + max(0.0, self._timeout - waited))
            self._on_change(self._report)

    def ended(self, waited: float, *, is_submitted: bool = False) -> None:
        """Log and report the end of the wait, if there was one.

        :param waited: seconds since the first refusal.
        :param is_submitted: whether there was room at last.
        """
        if self._report is None:
            return
        if is_submitted:
            self._log(f"OSAI had room after {waited:.0f} s ({self._report.reason} until then)")
        self._on_change(replace(self._report, waited=round(waited, 1)))
        self._report = None

    def raise_if_full(self, error: OsaiUnreachable, waited: float) -> None:
        """Raise an error with the reason and the remedy, unless OSAI is unreachable rather than full.

        :param error: the last refusal, when the time is over.
        :param waited: seconds since the first refusal.
        :raises OsaiBusy: if it is a lack of room.
        """
        reason = _reason(error)
        if reason is None:
            return
        remedy = REMEDIES.get(reason, REMEDIES["busy"])
        msg = (
            f"OSAI had no room ({reason}) for {waited:.0f} s, and the unreachable_timeout is {self._timeout:.0f} s: "
            f"{error}. No job was submitted. {remedy}, or raise unreachable_timeout; see docs/capacity.md"
        )
        raise OsaiBusy(msg, reason=reason, status=error.status or 429, retry_after=error.retry_after) from error

    def _first_message(self, error: OsaiUnreachable, reason: str | None, waited: float) -> str:
        left = max(0.0, self._timeout - waited)
        if reason is None:
            return f"{error}. Retrying the submission for up to {left:.0f} s"
        return f"OSAI has no room ({reason}): {error}. Waiting for up to {left:.0f} s, no retry is used"


def _reason(error: OsaiUnreachable) -> str | None:
    """Return why OSAI has no room; ``None`` if it is unreachable instead."""
    if isinstance(error, OsaiBusy):
        return error.reason
    return "busy" if error.is_busy else None
