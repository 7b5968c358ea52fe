"""Starts the parts of Airflow as one family. Run as a script by the Python that has the Airflow to be started.

Why not ``airflow standalone``, nor four commands: most of a start is importing Airflow, about 3 s of one core for each
command. Here one process imports once, migrates the database meanwhile, and forks the parts. From nothing to healthy on
2 cores with Airflow 3.3.2: standalone 16 to 20 s, migration and then four commands 17 s, this 9 s.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# No log servers: the API server reads the logs from the same disk, so that nothing but the API server listens.
PARTS: Final = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# Names differ between versions of Airflow. A missing one costs time, nothing else.
BASE: Final = ("airflow.cli.cli_parser", "airflow.utils.db")
REST: Final = (
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.dag_processor_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.executors.local_executor",
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.app",
)
# A fork of a process that has loaded much is only safe on Linux; macOS ends such children.
FORKS: Final = sys.platform == "linux"


def main(logs: Path, names: Sequence[str]) -> int:
    """Migrate the database, start the parts, and return a code other than 0 as soon as one of them ends.

    :param logs: folder for the parts' output, a file each.
    :param names: of PARTS.
    """
    keeper = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _warm(BASE)
    migration = _start("migration", ("db", "migrate"), logs)
    _warm(REST)
    code = os.waitstatus_to_exitcode(os.waitpid(migration, 0)[1])
    if code:
        print(f"airflow db migrate ended with code {code}", flush=True)
        return 1
    parts = {_start(name, PARTS[name], logs): name for name in names}
    while os.getppid() == keeper:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended in parts:
            print(f"airflow {parts[ended]} ended with code {os.waitstatus_to_exitcode(status)}", flush=True)
            return 1
        time.sleep(0.2)
    return 1


def _warm(modules: tuple[str, ...]) -> None:
    for module in modules if FORKS else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _start(name: str, arguments: tuple[str, ...], logs: Path) -> int:
    output = os.open(logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if not FORKS:
            command = [sys.executable, "-P", "-m", "airflow", *arguments]
            return subprocess.Popen(command, stdout=output, stderr=output).pid  # noqa: S603 - our own words
        pid = os.fork()
        if pid == 0:
            _become(arguments, output)
        return pid
    finally:
        os.close(output)


def _become(arguments: tuple[str, ...], output: int) -> None:
    code: object = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = ["airflow", *arguments]
        runpy.run_module("airflow", run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - the last line of a process of its own
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
