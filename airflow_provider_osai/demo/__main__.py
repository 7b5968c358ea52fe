"""``python -m airflow_provider_osai.demo [--keep]``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from airflow_provider_osai.demo.story import tell

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 0 only if its runs succeeded, with the right verdicts and a good model."""
    parser = argparse.ArgumentParser(
        prog="osai-airflow demo",
        description="Three weeks of retraining on handwritten digits: a whole Airflow against a local OSAI.",
    )
    parser.add_argument("--keep", action="store_true", help="leave Airflow running to look around, until Ctrl-C")
    given = parser.parse_args(arguments)
    # An end from outside is to tidy up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return tell(keep=given.keep)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
