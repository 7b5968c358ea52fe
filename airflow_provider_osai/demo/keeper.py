"""Keeps a family of processes, and sees to it that none of it outlives its owner.

Run as a script, it leads a session of its own, starts one command in it and waits. When the owner closes the pipe to
its standard input, when the owner dies of whatever cause, or when the command ends, it ends everybody in the session.

Why a process of its own: nothing inside the owner can act after a SIGKILL of the owner, and the kernel's parent-death
signal reaches only children, not grandchildren. Why the session and not the process group alone: Airflow puts each task
into a group of its own, and a group-wide signal misses those.
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

__all__ = ["end_all", "members"]

PR_SET_CHILD_SUBREAPER: Final = 36
TICK: Final = 0.1
"""Seconds between two looks at the owner, the command and the pipe."""
KILL_PATIENCE: Final = 5.0


def members(leader: int) -> list[int]:
    """Return the ids of the living processes of *leader*'s session, without itself.

    If we are the leader, our descendants in other sessions count too.
    """
    found: dict[int, psutil.Process] = {}
    if leader == os.getpid():
        # Not for another's id: once that one has ended, the number may be a stranger's.
        found = {child.pid: child for child in psutil.Process().children(recursive=True)}
    for pid in psutil.pids():
        # The session can only be read of processes that still exist, and on some systems only of our own.
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader and pid not in found:
                found[pid] = psutil.Process(pid)
    return [pid for pid, process in found.items() if pid != leader and _lives(process)]


def end_all(leader: int, grace: float) -> list[int]:
    """End every process of *leader*'s session but itself, and return the ids of those that could not be ended.

    :param leader: the session's id, which is the process id of its first process.
    :param grace: seconds between SIGTERM and SIGKILL.
    """
    _send(members(leader), signal.SIGTERM)
    left = _wait(leader, grace)
    deadline = time.monotonic() + KILL_PATIENCE
    while left and time.monotonic() < deadline:
        # Again and again: a process may fork between our look and our signal.
        _send(left, signal.SIGKILL)
        left = _wait(leader, TICK)
    return left


def main(arguments: Sequence[str]) -> int:
    """Keep one command until the owner goes.

    :param arguments: owner's process id, grace in seconds, a folder to remove if the owner died, and the command.
    """
    owner, grace, folder, *command = arguments
    told: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda number, _: told.append(number))
    _adopt_orphans()
    nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=nothing)
    code = None
    while code is None and not told and os.getppid() == int(owner):
        code = _reap().get(child)
        if select.select([sys.stdin], [], [], TICK)[0]:
            break
    left = end_all(os.getpid(), float(grace))
    _bury()
    if folder and os.getppid() != int(owner):
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if left or code else 0


def _adopt_orphans() -> None:
    # On Linux a descendant whose parent ends becomes our child, so that even one with a session of its own is found.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> dict[int, int]:
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def _bury() -> None:
    # Those that ended but whom nobody has asked yet would stay on as zombies where the first process is no real init.
    deadline = time.monotonic() + 1.0
    while psutil.Process().children() and time.monotonic() < deadline:
        _reap()
        time.sleep(TICK / 10)


def _lives(process: psutil.Process) -> bool:
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
    while left := members(leader):
        if time.monotonic() > deadline:
            break
        time.sleep(TICK / 2)
        if leader == os.getpid():
            _reap()
    return left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
