"""The ``osai-airflow`` command line: check a connection, cancel orphaned jobs, run the sandbox, run a demo."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from airflow_provider_osai.cli.output import redirect_stdout

__all__ = ["main"]

COMMANDS: Final = {
    "check": (
        "airflow_provider_osai.cli.check",
        "check that a connection works and, with --webhook, that webhooks reach this Airflow",
    ),
    "contract": (
        "airflow_provider_osai.cli.contract",
        "show the endpoints that this provider uses, learn them from a recording, or compare them with a live OSAI",
    ),
    "demo": (
        "airflow_provider_osai.demo.__main__",
        "retrain a model end to end, in a complete local Airflow with the sandbox",
    ),
    "digits": ("airflow_provider_osai.demo.digits", "write sample images of handwritten digits, one folder per digit"),
    "orphans": (
        "airflow_provider_osai.cli.orphans",
        "find orphaned jobs (running, but no Airflow task needs them), and cancel them with --action cancel",
    ),
    "sandbox": ("airflow_provider_osai.sandbox.__main__", "run a local OSAI server that trains small models"),
}
"""Command name to module and help text. The module has a ``main(arguments)`` and is imported only for its command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``osai-airflow`` with *arguments* (default: ``sys.argv``). Without arguments, print the usage.

    :return: the exit code of the command; 2 for an unknown command, 1 if a file, folder or port cannot be used or a
        package is missing, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    name = words[0]
    if name not in COMMANDS:
        matches = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        hint = f"; did you mean {matches[0]}?" if matches else ""
        sys.stderr.write(f"osai-airflow: unknown command {name!r}{hint}\n{_usage()}")
        return 2
    try:
        with redirect_stdout(enabled=True):  # Airflow may log when it is imported
            command = importlib.import_module(COMMANDS[name][0])
        code: int = command.main(words[1:])
        sys.stdout.flush()
    except ModuleNotFoundError as missing:
        problem = f"{missing}; install airflow-provider-osai[sandbox]"
    except BrokenPipeError:  # the reader closed the pipe, for instance head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    except KeyboardInterrupt:
        return 130
    else:
        return code
    sys.stderr.write(f"osai-airflow {name}: {problem}\n")
    return 1


def _usage() -> str:
    lines = [f"  {name:<10}{description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join(
        ["usage: osai-airflow COMMAND [OPTION ...]", "", *lines, "", "COMMAND --help lists its options.", ""]
    )


if __name__ == "__main__":
    sys.exit(main())
