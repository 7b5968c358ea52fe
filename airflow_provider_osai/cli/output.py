"""What several commands share: options, errors, questions, and an output without the lines that Airflow logs."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = [
    "USAGE",
    "CommandError",
    "confirm",
    "one_line",
    "open_closed_streams",
    "positive_seconds",
    "redirect_stdout",
    "seconds",
    "write_json",
    "write_note",
]

STDOUT: Final = 1
STDERR: Final = 2
MAX_ERROR: Final = 2_000
"""Maximum characters of an error."""
USAGE: Final = 2
"""The exit code for invalid arguments."""


class CommandError(Exception):
    """A command cannot go on. The message says what failed and the remedy.

    :param code: the exit code.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


def open_closed_streams() -> None:
    """Discard what is written to a standard stream that the shell has closed, for which Python has ``None``."""
    for name, descriptor in (("stdout", STDOUT), ("stderr", STDERR)):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, os.fdopen(descriptor, "w"))


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


def one_line(text: str) -> str:
    """Return *text* as one printable line, without what would control a terminal."""
    head = text[: 2 * MAX_ERROR]
    return " ".join("".join(c if c.isprintable() else " " for c in head).split())[:MAX_ERROR]


def write_json(document: Mapping[str, Any]) -> None:
    """Write the JSON document of a command to the standard output; NaN and infinities become text."""
    sys.stdout.write(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def write_note(text: str) -> None:
    """Write a line to the standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def confirm(question: str, *, yes: bool) -> bool:
    """Return whether to go on: *yes*, or the answer of the person at the terminal.

    :raises CommandError: if there is no terminal to ask, with the exit code 2.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError(f"{question} There is no terminal to ask; add --yes.", USAGE)
    sys.stderr.write(f"{one_line(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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
