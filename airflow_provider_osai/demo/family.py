"""A command with all its descendants: in a session of their own, and never outliving this process."""

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

from airflow_provider_osai.demo import keeper
from airflow_provider_osai.demo.keeper import end_all, members

__all__ = ["Family"]


class Family:
    """One command under a keeper, from ``with`` (or :meth:`start`) to the end of its block (or :meth:`stop`).

    If this process ends, of whatever cause, the keeper ends the family.

    :param command: what to run.
    :param output: the file that what it prints is added to.
    :param env: its whole environment.
    :param grace: seconds between SIGTERM and SIGKILL at the end.
    :param folder: is removed if this process dies before it could do so itself.
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
        self._command, self._output, self._env = list(command), output, dict(env)
        self._grace, self._folder = grace, folder
        self._keeper: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def processes(self) -> list[int]:
        """The ids of its living processes; empty once it is stopped."""
        return members(self._leader) if self._leader else []

    @property
    def is_running(self) -> bool:
        """Whether the command runs, even if it is frozen."""
        return self._keeper is not None and self._keeper.poll() is None

    def start(self) -> Self:
        """Run the command."""
        # -P: this folder, which has an airflow.py, must not become the first place for imports.
        kept = [sys.executable, "-P", str(keeper.__file__), str(os.getpid()), str(self._grace), str(self._folder or "")]
        with self._output.open("ab") as output:
            self._keeper = subprocess.Popen(  # noqa: S603 - our own words
                [*kept, *self._command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
            )
        self._leader = self._keeper.pid
        return self

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to every process of the family."""
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def stop(self) -> list[int]:
        """End all processes and return the ids of those that survived even SIGKILL. Does nothing the second time."""
        kept, self._keeper = self._keeper, None
        if kept is None:
            return []
        try:
            if kept.stdin is not None:
                kept.stdin.close()
            kept.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            kept.kill()
            kept.wait()
        finally:
            left = end_all(self._leader, 0)
        return left

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
