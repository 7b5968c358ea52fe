# PYTHON_ARGCOMPLETE_OK
"""The ``osai-airflow`` command line: check a connection, work with jobs and models, run the sandbox, run a demo."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_osai.cli.output import CommandError, one_line, open_closed_streams, redirect_stdout
from airflow_provider_osai.cli.parsers import COMMANDS, PROG, parser_for

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMANDS", "main", "run_command"]

TRACEBACK = "OSAI_AIRFLOW_TRACEBACK"
"""Environment variable; if it is set, an unexpected error is raised with its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``osai-airflow`` with *arguments* (default: ``sys.argv``). Without arguments, print the usage.

    :return: the exit code of the command: 0 = done, 1 = a problem was found or the command failed, 2 = unknown command
        or invalid arguments, 130 = Ctrl-C.
    """
    if "_ARGCOMPLETE" in os.environ and arguments is None:
        # Not at the top: only the shell's completion needs it.
        from airflow_provider_osai.cli.completion import complete

        complete()
    open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if words[0] == "--version":
        words[0] = "version"
    name = words[0]
    if name not in COMMANDS:
        matches = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        hint = f"; did you mean {matches[0]}?" if matches else "."
        sys.stderr.write(f"{PROG}: unknown command {name!r}{hint} '{PROG} --help' lists the commands.\n")
        return 2
    return run_command(name, parser_for(name).parse_args(words[1:]))


def run_command(name: str, options: argparse.Namespace) -> int:
    """Run a command with its parsed options; return the exit code.

    An error is printed as one line on the standard error.
    """
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the encoding may lack characters of OSAI's texts
            stream.reconfigure(errors="backslashreplace")
    module, function = COMMANDS[name].runner.split(":")
    try:
        with redirect_stdout(enabled=True):  # Airflow may log when it is imported
            run = getattr(importlib.import_module(module), function)
        code: int = run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, for instance head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if TRACEBACK in os.environ:
            raise
        code, problem = _described(error)
        command = getattr(options, "command", None)
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(f"{PROG} {f'{name} {command}' if command else name}: {one_line(problem)}\n")
    return code


def _described(error: Exception) -> tuple[int, str]:
    """Return the exit code and the message of an error that ended a command."""
    # Not at the top: a command that succeeds does not need it.
    from airflow_provider_osai.api.errors import OsaiError

    if isinstance(error, CommandError):
        return error.code, str(error)
    if isinstance(error, OsaiError):
        return 1, str(error)
    if isinstance(error, ModuleNotFoundError):
        return 1, f"{error}; install airflow-provider-osai[sandbox]"
    if isinstance(error, OSError):
        return 1, f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return 1, f"Unexpected error: {type(error).__name__}: {error}. Set {TRACEBACK}=1 to see where, and report it."


def _usage() -> str:
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {PROG} COMMAND [OPTION ...]", "", *lines, "", "COMMAND --help lists its options.", ""])


if __name__ == "__main__":
    sys.exit(main())
