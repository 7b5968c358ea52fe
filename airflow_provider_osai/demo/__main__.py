"""``osai-airflow demo``: run the demo."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

__all__ = ["add_options", "main", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--keep", action="store_true", help="keep Airflow running afterwards, until Ctrl-C")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo with *arguments*, see :func:`run`."""
    parser = argparse.ArgumentParser(
        prog="osai-airflow demo",
        description="Three weeks of retraining on handwritten digits, in a complete local Airflow with the sandbox.",
    )
    add_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run the demo and return its exit code: 0 if all Dag runs and the gate's decisions were as expected."""
    # Not at the top: shell completion needs only the options.
    from airflow_provider_osai.demo.scenario import run_demo

    # So that SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return run_demo(keep=options.keep)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
