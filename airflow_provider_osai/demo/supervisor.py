"""Supervise a command and its descendants, so that none of them outlives the owner process.

Run as a script, it is the leader of a new session, starts one command in it and waits. When the owner closes the pipe
to its standard input, when the owner dies for any reason, or when the command ends, it ends all processes of the
session.

Why a separate process: nothing inside the owner can run after a SIGKILL of the owner, and the kernel's parent-death
signal reaches children only, not grandchildren. Why the session and not the process group: Airflow puts each task into
a process group of its own, which a signal to one group would miss.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

import psutil  # type: ignore[import-untyped, unused-ignore]  # its types are a package of their own

__all__ = ["end_session", "session_processes"]

PR_SET_CHILD_SUBREAPER: Final = 36
TICK: Final = 0.1
"""Seconds between checks of the owner, the command and the pipe."""
KILL_TIMEOUT: Final = 5.0


def session_processes(leader: int) -> list[int]:
    """Return the ids of the running processes of *leader*'s session, without the leader.

    If this process is the leader, also return its descendants in other sessions.
    """
    processes: dict[int, psutil.Process] = {}
    if leader == os.getpid():
        # Only for this process: the id of another one may be reused after it has ended.
        processes = {child.pid: child for child in psutil.Process().children(recursive=True)}
    for pid in psutil.pids():
        # The session is readable for existing processes only, and on some systems only for our own.
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader and pid not in processes:
                processes[pid] = psutil.Process(pid)
    return [pid for pid, process in processes.items() if pid != leader and _is_alive(process)]


def end_session(leader: int, grace: float) -> list[int]:
    """End every process of *leader*'s session but the leader; return the ids of those that survive SIGKILL.

    :param leader: the session id, which is the process id of its leader.
    :param grace: seconds between SIGTERM and SIGKILL.
    """
    _send(session_processes(leader), signal.SIGTERM)
    remaining = _wait(leader, grace)
    deadline = time.monotonic() + KILL_TIMEOUT
    while remaining and time.monotonic() < deadline:
        # Repeated, since a process may fork between listing and signalling.
        _send(remaining, signal.SIGKILL)
        remaining = _wait(leader, TICK)
    return remaining


def main(arguments: Sequence[str]) -> int:
    """Supervise one command until it or the owner ends.

    :param arguments: the owner's process id, grace in seconds, a folder to delete if the owner dies, and the command.
    """
    owner, grace, folder, *command = arguments
    signals: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, _: signals.append(number))
    _become_subreaper()
    stdin_from_devnull = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=stdin_from_devnull)
    code = None
    while code is None and not signals and os.getppid() == int(owner):
        code = _reap().get(child)
        if select.select([sys.stdin], [], [], TICK)[0]:
            break
    remaining = end_session(os.getpid(), float(grace))
    _reap_zombies()
    if folder and os.getppid() != int(owner):
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if remaining or code else 0


def _become_subreaper() -> None:
    # On Linux a descendant whose parent ends becomes a child of this process, even if it has its own session.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> dict[int, int]:
    exit_codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            exit_codes[result[0]] = os.waitstatus_to_exitcode(result[1])
    return exit_codes


def _reap_zombies() -> None:
    # In containers whose process 1 is not a real init, ended children would otherwise remain as zombies.
    deadline = time.monotonic() + 1.0
    while psutil.Process().children() and time.monotonic() < deadline:
        _reap()
        time.sleep(TICK / 10)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _send(pids: Sequence[int], signum: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _wait(leader: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while remaining := session_processes(leader):
        if time.monotonic() > deadline:
            break
        time.sleep(TICK / 2)
        if leader == os.getpid():
            _reap()
    return remaining


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
