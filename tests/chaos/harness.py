"""Shared by the matrices: a sandbox in a separate process, and task instances whose state is in files.

Simulated here: Airflow's task instance and its state store, as files that survive a SIGKILL. Real: the operators, the
trigger, the hook, the HTTP exchange, the sandbox, and the kill.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_provider_osai.jobs import submission

HOME = tempfile.mkdtemp(prefix="osai-chaos-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
if "pytest" not in sys.modules:  # tests of the matrices' own code already have an Airflow home
    own = {"AIRFLOW_HOME": HOME, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__CORE__UNIT_TEST_MODE": "True"}
    os.environ |= own

TOKEN = "chaos-access-token"
LIVE = {"queued", "running"}


class Osai:
    """A sandbox in another process, controlled over HTTP."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        # A new connection for each request: the server closes an idle one, maybe just when the next request is sent.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=base_url.removesuffix("/api"), timeout=30.0, limits=limits)

    def post(self, path: str, document: dict[str, Any] | None = None) -> None:
        self._http.post(f"/sandbox/{path}", json=document).raise_for_status()

    def faults(self) -> list[dict[str, Any]]:
        return self._http.get("/sandbox/faults").raise_for_status().json()

    def clear_faults(self) -> None:
        self._http.delete("/sandbox/faults").raise_for_status()

    def jobs(self) -> list[dict[str, Any]]:
        return self._http.get("/sandbox/record").raise_for_status().json()["jobs"]

    def new_dataset(self) -> str:
        jwt = self._http.post("/api/Users/SignIn", json=TOKEN).text.strip('"')
        headers = {"Authorization": f"Bearer {jwt}"}
        return self._http.post("/api/Datasets", json={"name": "d"}, headers=headers).raise_for_status().json()["id"]


class Server:
    """A sandbox in a separate process that can be killed; with a folder, it keeps its jobs across restarts.

    :param folder: where it stores them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._kept = ["--folder", str(folder)] if folder else []
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.osai: Osai = self.start()

    def start(self) -> Osai:
        """Start it, at the same address as before."""
        command = [sys.executable, "-m", "airflow_provider_osai.sandbox", "--access-token", TOKEN, *self._kept]
        self._process = subprocess.Popen([*command, "--port", str(self._port)], stdout=subprocess.PIPE, text=True)
        base_url = json.loads(self._process.stdout.readline())["base_url"]
        self._port = urlsplit(base_url).port
        return Osai(base_url)

    def end(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Stop it."""
        with self._process as process:
            process.send_signal(signum)


@contextmanager
def sandbox(folder: Path | None = None):
    """Run a sandbox in a separate process, which lists jobs at once; the client's waits for that are shortened here."""
    submission.VISIBILITY_TIMEOUT = submission.VISIBILITY_POLL = 0.2  # simulated: ten seconds in production
    submission.HELD_TIMEOUTS = 0.0  # simulated: the time that a proxy may hold a request
    server = Server(folder)
    try:
        yield server.osai
    finally:
        server.end()


class Files:
    """A dict of JSON values, one file each, written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        path = self._folder / key
        return json.loads(path.read_text()) if path.exists() else default

    def set(self, key: str, value: Any) -> None:
        temporary = self._folder / f".{key}"
        temporary.write_text(json.dumps(value))
        temporary.replace(self._folder / key)

    def clear(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()


class TaskInstance:
    """The parts of Airflow's task instance that operators use. XComs are files, and are cleared before a new try."""

    task_id, dag_id, run_id, map_index = "task", "dag", "run", -1

    def __init__(self, folder: Path, *, try_number: int, max_tries: int, tick: Callable[[str], None]) -> None:
        self.try_number, self.max_tries, self._tick = try_number, max_tries, tick
        self.start_date = datetime.now(UTC)
        self._xcoms = Files(folder / "xcoms")
        self._xcoms.clear()

    def xcom_push(self, key: str, value: Any) -> None:
        self._xcoms.set(key, value)
        self._tick(f"after xcom.{key}")

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        return self._xcoms.get(key)


def verdict(jobs: list[dict[str, Any]], outcome: dict[str, Any], before: set[str] = frozenset()) -> Counter[str]:
    """Count violations after a task has ended: its jobs in OSAI, and its result.

    :param before: jobs that had ended before the task was cleared.
    """
    done = [job["id"] for job in jobs if job["state"] == "succeeded" and job["id"] not in before]
    return Counter(
        doubled=len(done) > 1,
        lost=not done,
        left_running=sum(job["state"] in LIVE for job in jobs),
        wrong_result=outcome.get("result", {}).get("job_id") not in done,
    )


def report(found: list[Counter[str]], started: float) -> int:
    """Print the line of JSON; return 0 if all counts are 0. A matrix may add counts of its own."""
    names = ("doubled", "lost", "left_running", "wrong_result", "not_killed")
    total: Counter[str] = Counter()
    for counts in found:
        total.update(counts)
    counts = {name: total[name] for name in (*names, *(total.keys() - names))}
    line = {"cases": len(found), **counts, "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return 1 if any(counts.values()) else 0
