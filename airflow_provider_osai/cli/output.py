"""What several commands share: options, and an output without the lines that Airflow logs."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterator
from typing import Final

__all__ = ["positive_seconds", "redirect_stdout", "seconds"]

STDOUT: Final = 1
STDERR: Final = 2


@contextlib.contextmanager
def redirect_stdout(*, enabled: bool) -> Iterator[None]:
    """Redirect the standard output, to which Airflow logs, to the standard error."""
    if not enabled:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, STDOUT)
        os.close(saved)


def seconds(text: str) -> float:
    """Parse an option that is a number of seconds, 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, 0 or more")
    return value


def positive_seconds(text: str) -> float:
    """Parse an option that is a number of seconds, more than 0 and at most an hour."""
    value = _number(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, more than 0 and at most 3600")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
