"""Run a command and all its descendants in a separate session that ends with this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_provider_osai.demo import supervisor
from airflow_provider_osai.demo.supervisor import end_session, session_processes

__all__ = ["ProcessGroup"]


class ProcessGroup:
    """One command under a supervisor process, as a context manager or with :meth:`start` and :meth:`stop`.

    If this process ends for any reason, the supervisor ends the command and all its descendants.

    :param command: the command to run.
    :param output: file to append its output to.
    :param env: its complete environment.
    :param grace: seconds between SIGTERM and SIGKILL at the end.
    :param folder: folder for the supervisor to delete if this process dies.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        env: Mapping[str, str],
        *,
        grace: float = 15.0,
        folder: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._output = output
        self._env = dict(env)
        self._grace = grace
        self._folder = folder
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._session_id = 0

    @property
    def processes(self) -> list[int]:
        """The ids of its running processes; empty once it is stopped."""
        return session_processes(self._session_id) if self._session_id else []

    @property
    def is_running(self) -> bool:
        """Whether the command is running, even if it is frozen."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> Self:
        """Start the command."""
        # -P: keeps this folder, whose modules could shadow others, out of the import path.
        prefix = [
            sys.executable,
            "-P",
            str(supervisor.__file__),
            str(os.getpid()),
            str(self._grace),
            str(self._folder or ""),
        ]
        with self._output.open("ab") as output:
            self._supervisor = subprocess.Popen(  # noqa: S603 - our own arguments
                [*prefix, *self._command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
            )
        self._session_id = self._supervisor.pid
        return self

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def stop(self) -> list[int]:
        """Stop all processes and return the ids of those that survive SIGKILL. Idempotent."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return []
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            remaining = end_session(self._session_id, 0)
        return remaining

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
