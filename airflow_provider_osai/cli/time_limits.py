"""Time limits of probes: one for each of them, and one for all."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from airflow_provider_osai.cli.output import positive_seconds

__all__ = ["EACH", "TOTAL", "NotRun", "TimeLimits", "TookTooLong", "add_options"]

EACH: Final = 10.0
"""Default seconds for one probe."""
TOTAL: Final = 60.0
"""Default seconds for all probes of a command."""

T = TypeVar("T")


class TookTooLong(Exception):
    """A probe had no result within its time limit."""


class NotRun(Exception):
    """A probe was not started, since the time limit for all was used up."""


class TimeLimits:
    """Runs probes within time limits; the time for all starts when this is created.

    Each probe runs in a thread of its own, since neither DNS nor headers that arrive byte by byte can be interrupted.
    A probe that takes too long is left behind: its thread does not keep the process alive.

    :param each: maximum seconds of one probe.
    :param total: maximum seconds of all probes.
    """

    def __init__(self, each: float = EACH, total: float = TOTAL) -> None:
        self.each = each
        self.total = total
        self._end = time.monotonic() + total

    def run(self, probe: Callable[[], T]) -> T:
        """Return the result of *probe*, or raise what it raises.

        :raises TookTooLong: if there is no result within the limits.
        :raises NotRun: if no time is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise NotRun(f"Not run: the time limit of {self.total:g} s for all probes was used up (--total-timeout).")
        limit = min(self.each, left)
        result: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(result, probe), daemon=True).start()
        if not wait([result], limit).done:
            raise TookTooLong(f"No result within {limit:.3g} s.")
        return result.result()


def _fulfil(result: Future[T], probe: Callable[[], T]) -> None:
    try:
        result.set_result(probe())
    except BaseException as error:
        result.set_exception(error)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--timeout`` and ``--total-timeout``."""
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=EACH,
        metavar="SECONDS",
        help="time limit of each probe, default: %(default)g",
    )
    parser.add_argument(
        "--total-timeout",
        type=positive_seconds,
        default=TOTAL,
        metavar="SECONDS",
        help="time limit of all probes; the remaining ones are reported as not run, default: %(default)g",
    )
