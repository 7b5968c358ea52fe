"""``osai-airflow sandbox``: run a sandbox until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox.server import Sandbox

__all__ = ["add_options", "main", "run"]

TOKEN_VARIABLE: Final = "OSAI_SANDBOX_TOKEN"  # noqa: S105 - a name
"""Environment variable with the access token. Unlike a command line, other users of the machine cannot see it."""
MAX_WORKERS: Final = 64
BASE_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+/?|/")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox with *arguments*, see :func:`run`."""
    parser = argparse.ArgumentParser(
        prog="osai-airflow sandbox",
        description="Run a local OSAI server that trains small models, until SIGTERM or Ctrl-C.",
    )
    add_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run a sandbox; print one line of JSON with ``base_url`` when it is ready.

    On a terminal the line also has ``access_token``; elsewhere, where output may become a log, only if the token was
    generated and there is no ready file. The ready file, readable by its owner only, always has both.

    :return: 0 after SIGTERM or Ctrl-C, 1 if the sandbox cannot run, with an error on the standard error.
    """
    # Not at the top: shell completion needs only the options.
    from airflow_provider_osai.api.errors import OsaiContractError
    from airflow_provider_osai.sandbox.persistence import FolderError

    token = options.access_token or os.environ.get(TOKEN_VARIABLE)
    try:
        return _run(options, token)
    except (FolderError, OsaiContractError, _StartError) as error:
        sys.stderr.write(f"osai-airflow sandbox: {error}\n")
        return 1


class _StartError(Exception):
    """The port or the ready file cannot be used. The message gives the reason and the remedy."""


def _run(options: argparse.Namespace, token: str | None) -> int:
    from airflow_provider_osai.api.contract import Contract  # as above
    from airflow_provider_osai.api.overrides import apply_overrides
    from airflow_provider_osai.sandbox.server import Sandbox

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    contract = apply_overrides(Contract(), str(options.contract.resolve())) if options.contract else None
    server = Sandbox(
        options.port,
        contract=contract,
        base_path=options.base_path.rstrip("/"),
        workers=options.workers,
        access_token=token,
        folder=options.folder,
    )
    with _running(server) as sandbox:
        details = {"base_url": sandbox.base_url, "access_token": sandbox.access_token}
        if options.ready_file:
            _write_atomically(options.ready_file, json.dumps(details))
        if not sys.stdout.isatty() and (token or options.ready_file):
            del details["access_token"]
        sys.stdout.write(json.dumps(details) + "\n")
        sys.stdout.flush()
        if sys.stderr.isatty():  # a command for a person to paste
            sys.stderr.write(
                f"export AIRFLOW_CONN_OSAI_DEFAULT='{_connection(sandbox)}'\nPortal: {sandbox.portal_url}/portal\n"
            )
        stopped.wait()
    return 0


@contextmanager
def _running(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Start a sandbox and stop it at the end; raise _StartError if it cannot listen."""
    try:
        sandbox.start()
    except OSError as error:
        port = urlsplit(sandbox.base_url).port
        in_use = "the port is in use; choose another one, or 0 for any free port"
        reason = in_use if error.errno == errno.EADDRINUSE else error.strerror
        raise _StartError(f"Cannot listen on port {port}: {reason}") from error
    try:
        yield sandbox
    finally:
        sandbox.stop()


def _connection(sandbox: Sandbox) -> str:
    """Return the connection in the JSON form of ``AIRFLOW_CONN_...`` variables."""
    extra = {"base_url": sandbox.base_url}
    return json.dumps({"conn_type": "osai", "password": sandbox.access_token, "extra": extra})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1; 0 (default) picks a free one")
    parser.add_argument("--workers", type=_workers, default=2, help="maximum number of concurrent jobs (default 2)")
    parser.add_argument(
        "--access-token",
        help="access token for signing in. Other users of this machine can see it on the command line, but not in the "
        f"environment variable {TOKEN_VARIABLE}; generated if neither is set",
    )
    parser.add_argument(
        "--folder", type=_folder, help="store datasets, models and jobs in this folder, and continue with its contents"
    )
    parser.add_argument("--contract", type=Path, help="contract document (YAML or JSON) of the API to serve")
    parser.add_argument(
        "--base-path", type=_base_path, default="/api", help="path of the API to serve, such as /v1 or / (default /api)"
    )
    parser.add_argument(
        "--ready-file", type=Path, help="file to write base_url and access_token to, as JSON, when the sandbox is ready"
    )


def _write_atomically(path: Path, text: str) -> None:
    """Write a file that is never visible half-written, and readable by its owner only."""
    temporary = path.parent / f"{path.name}.{os.getpid()}"
    try:
        temporary.touch(mode=0o600)
        temporary.write_text(text + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _StartError(f"--ready-file {path}: {error.strerror or error}") from error


def _folder(text: str) -> Path:
    if not text.strip():  # as a path it would be the current directory
        raise argparse.ArgumentTypeError(f"{text!r}: is empty. Does the variable have a value?")
    return Path(text)


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _base_path(text: str) -> str:
    if not BASE_PATH.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: must begin with a slash, such as /v1, or be only /")
    return text


def _workers(text: str) -> int:
    return _number(text, 1, MAX_WORKERS)


def _number(text: str, minimum: int, maximum: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = minimum - 1
    if not minimum <= number <= maximum:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from {minimum} to {maximum}")
    return number


if __name__ == "__main__":
    sys.exit(main())
