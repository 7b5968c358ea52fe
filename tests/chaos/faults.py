"""The fault matrix: every fault of the sandbox at every call of a task, blocking and deferrable; then the retry.

``python -m tests.chaos.faults [FAULT ...]`` prints what went wrong and, last, a line of JSON that counts what must not
be. The first try may fail by a named error; after its retry there is exactly one job that succeeded, and none runs.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import crash
from tests.chaos.world import TOKEN, Osai, report, sandbox, verdict

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "503, come back in 1 s": {"kind": "status", "status": 503, "retry_after": "1"},
    "429, come back at a date": {"kind": "status", "status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"},
    "429, nonsense": {"kind": "status", "status": 429, "retry_after": "soon"},
    "400": {"kind": "status", "status": 400},
    "404": {"kind": "status", "status": 404},
    "reset": {"kind": "reset"},
    "reset before": {"kind": "reset_before"},
    "malformed": {"kind": "malformed"},
    "html": {"kind": "html"},
    "expired token": {"kind": "expired_token"},
    "unknown state": {"kind": "unknown_state"},
    "too slow": {"kind": "delay", "seconds": 0.6},
}
CALLS = ("auth.sign_in", "training.submit", "training.list", "training.get")
TIMES = (1, 3)
NAMED = {
    "AirflowFailException",
    "OsaiJobCancelled",
    "OsaiJobFailed",
    "OsaiJobLost",
    "OsaiJobTimeout",
    "OsaiUnreachable",
}
"""What a task may end with, besides success. The first is what no retry can mend, with an OsaiError as its cause."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    fault: str
    call: str
    times: int
    deferrable: bool


def check(osai: Osai, case: Case, folder: Path) -> Counter[str]:
    """Run a task into the fault, then its retry without, and count what must not be."""
    osai.post("reset")
    osai.post("scripts", {"kind": "training", "timing": "reads", "reads": 2})
    extra = {"base_url": osai.base_url, "timeout": 0.4}
    connection = {"conn_type": "osai", "password": TOKEN, "extra": extra}
    os.environ["AIRFLOW_CONN_OSAI_DEFAULT"] = json.dumps(connection)
    dataset = osai.new_dataset()
    osai.post("faults", {"endpoint": case.call, "times": case.times, **FAULTS[case.fault]})
    task = crash.Case("", case.deferrable, remembers=True, lists=True, cleared=False)
    _, first = crash.forked(task, folder, dataset, die_at=None, try_number=1, max_tries=1)
    osai.clear_faults()
    _, second = crash.forked(task, folder, dataset, die_at=None, try_number=2, max_tries=1)
    found = verdict(osai.jobs(), second)
    if "error" in first and first["error"] not in NAMED:
        found["wrong_result"] += 1
    if "result" in first and first["result"]["job_id"] != second.get("result", {}).get("job_id"):
        found["wrong_result"] += 1
    return found


def main(arguments: list[str]) -> int:
    """Run the matrix, or the rows of some faults; return 0 only if nothing was doubled, lost, left running or wrong."""
    cells = [Case(*cell) for cell in itertools.product(arguments or FAULTS, CALLS, TIMES, (True, False))]
    found, ends = [], Counter()
    with tempfile.TemporaryDirectory(prefix="osai-faults-") as home, sandbox() as osai:
        started = time.monotonic()
        for number, case in enumerate(cells):
            folder = Path(home) / str(number)
            folder.mkdir()
            found.append(check(osai, case, folder))
            if found[-1].total():
                sys.stderr.write(f"{case}: {dict(found[-1])}\n{(folder / 'log').read_text()[-3000:]}\n")
            ends[case.call, bool(found[-1].total())] += 1
    for (call, bad), count in sorted(ends.items()):
        sys.stdout.write(f"{call:<20}{'BAD' if bad else 'ok':>4}{count:>5}\n")
    return report(found, started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
