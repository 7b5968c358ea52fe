"""The command line ``osai-airflow``: check a connection, cancel orphaned jobs, run a local OSAI, fly a demo on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

COMMANDS: Final = {
    "check": (
        "airflow_provider_osai.check",
        "tell whether a connection works, and whether webhooks reach this Airflow",
    ),
    "contract": (
        "airflow_provider_osai.contract_command",
        "show what we take OSAI's API to be, and check it against the API's own definition",
    ),
    "demo": (
        "airflow_provider_osai.demo.__main__",
        "retrain a model end to end, in a whole Airflow against a local OSAI",
    ),
    "digits": ("airflow_provider_osai.demo.digits", "write handwritten digits to try things on, a folder for each"),
    "orphans": (
        "airflow_provider_osai.orphans_command",
        "find live jobs that no task of this Airflow wants any more, and cancel them",
    ),
    "sandbox": ("airflow_provider_osai.sandbox.__main__", "run a local OSAI that really trains, until Ctrl-C"),
}
"""Module with a ``main(arguments)``, and what it does. A module is imported only when its command is given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``osai-airflow`` with *arguments* (default: those of the process) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        return _help(wrong=bool(given) and given[0] not in ("-h", "--help"))
    module, _ = COMMANDS[given[0]]
    try:
        command = importlib.import_module(module).main
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"{missing}; install airflow-provider-osai[sandbox]\n")
        return 1
    code: int = command(given[1:])
    return code


def _help(*, wrong: bool) -> int:
    lines = [f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items()]
    text = "\n".join(["usage: osai-airflow COMMAND [OPTION ...]; COMMAND --help tells its options", "", *lines, ""])
    (sys.stderr if wrong else sys.stdout).write(text)
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
