"""Run all matrices. ``python -m tests.chaos [MATRIX ...]`` prints each, and last a line of JSON that counts violations.

Two run at a time, since those without an Airflow mostly sleep.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

LANES = (("whole", "fleet", "outsider", "combination"), ("crash", "faults", "batch", "leases"))
COUNTS = ("doubled", "lost", "left_running", "cancelled_wrongly", "wrong_result")


def run(matrix: str) -> tuple[dict[str, int], str]:
    """Run one matrix in a separate process; return its last line and its output."""
    command = [sys.executable, "-m", f"tests.chaos.{matrix}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines() or [""]
    try:
        return json.loads(lines[-1]), done.stdout
    except ValueError:
        return {"cases": 0, "broken": 1}, done.stdout


def lane(matrices: list[str]) -> Counter[str]:
    """Run matrices one after the other, print their output, and add up their counts."""
    total: Counter[str] = Counter()
    for matrix in matrices:
        counts, printed = run(matrix)
        sys.stdout.write(f"== {matrix}\n{printed}")
        sys.stdout.flush()
        total.update({name: count for name, count in counts.items() if name != "seconds"})
    return total


def main(arguments: list[str]) -> int:
    """Run all matrices, or the given ones; return 0 if all counts are 0, else 1."""
    started = time.monotonic()
    lanes = [[matrix for matrix in matrices if matrix in arguments or not arguments] for matrices in LANES]
    with ThreadPoolExecutor(len(lanes)) as pool:
        total = sum(pool.map(lane, lanes), Counter())
    # An error that stops a matrix is counted as a violation.
    total["wrong_result"] += total["not_killed"] + total["not_met"] + total["broken"]
    counts = {name: total[name] for name in COUNTS}
    line = {"cases": total["cases"], **counts, "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    return 1 if any(counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
