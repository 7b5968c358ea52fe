"""``python -m airflow_provider_osai.sandbox``: a sandbox that runs until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from airflow_provider_osai.sandbox.server import Sandbox
from airflow_provider_osai.sandbox.store import FolderRefused

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox; print one line of JSON with ``base_url`` and ``access_token`` when it is ready."""
    given = _parser().parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        made = Sandbox(given.port, workers=given.workers, access_token=given.access_token, folder=given.folder)
    except FolderRefused as refusal:
        sys.stderr.write(f"osai-airflow sandbox: {refusal}\n")
        return 1
    with made as sandbox:
        line = json.dumps({"base_url": sandbox.base_url, "access_token": sandbox.access_token})
        if given.ready_file:
            _write_at_once(given.ready_file, line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if sys.stderr.isatty():  # a person, to whom the token was just shown
            sys.stderr.write(f"export AIRFLOW_CONN_OSAI_DEFAULT='{_connection(sandbox)}'\n")
        stopped.wait()
    return 0


def _connection(sandbox: Sandbox) -> str:
    """Return the connection as Airflow reads it from its environment."""
    extra = {"base_url": sandbox.base_url}
    return json.dumps({"conn_type": "osai", "password": sandbox.access_token, "extra": extra})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="osai-airflow sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 (default) takes a free port")
    parser.add_argument("--workers", type=int, default=2, help="how many jobs are worked on at once (default 2)")
    parser.add_argument("--access-token", help="the token that signs in; made up if left out")
    parser.add_argument("--folder", type=Path, help="keep datasets, models and jobs here, and go on with what is here")
    parser.add_argument("--ready-file", type=Path, help="is written, with the same line, when the sandbox is ready")
    return parser


def _write_at_once(path: Path, text: str) -> None:
    """Write a file that nobody can read half-written, or as another user."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
