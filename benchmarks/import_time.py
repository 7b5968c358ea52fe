"""The import time that the provider adds to the start of a task: all hooks, operators, sensors and triggers.

``python -m benchmarks.import_time`` starts new interpreters, alternating between those with and without the provider's
modules, after ``import airflow.sdk, httpx, pydantic``, which every task of such a Dag imports anyway. One unmeasured
start of each warms the bytecode and file caches. The time is taken inside the interpreter, from before the first import
to after the last; figures are medians of the runs. The last line is JSON: ``added_ms`` is the difference.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

__all__ = ["main", "modules"]

BASE = ["airflow.sdk", "httpx", "pydantic"]
FACES = ("hooks", "operators", "sensors", "triggers")


def modules() -> list[str]:
    """Return the names of all modules of hooks, operators, sensors and triggers, without importing them."""
    spec = find_spec("airflow_provider_osai")
    paths = (spec and spec.submodule_search_locations) or []
    return [
        found.name
        for face in FACES
        for found in pkgutil.walk_packages([str(Path(path) / face) for path in paths], f"airflow_provider_osai.{face}.")
    ]


def milliseconds(names: list[str], environment: dict[str, str]) -> float:
    """Return the milliseconds that a new interpreter takes to import *names*."""
    lines = [
        "import time; begin = time.perf_counter()",
        *(f"import {name}" for name in names),
        "end = time.perf_counter(); print(1000 * (end - begin))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def dearest(names: list[str], environment: dict[str, str], count: int = 15) -> list[str]:
    """Return the lines of ``-X importtime`` (microseconds) for the *count* slowest modules by their own time.

    Modules that :data:`BASE` imports are excluded.
    """
    lines = [*(f"import {name}" for name in BASE), "import sys; sys.stderr.write('####\\n')"]
    command = [sys.executable, "-X", "importtime", "-c", "\n".join([*lines, *(f"import {name}" for name in names)])]
    report = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    added = [line for line in report.partition("####\n")[2].splitlines() if line.startswith("import time:")]
    return sorted(added, key=lambda line: -int(line.removeprefix("import time:").split("|")[0]))[:count]


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the slowest modules and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11, help="number of interpreters of each kind")
    options = parser.parse_args(arguments)
    ours = modules()
    with tempfile.TemporaryDirectory() as home:
        env = {key: value for key, value in os.environ.items() if "AIRFLOW" not in key}
        env |= {"AIRFLOW_HOME": home, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        kinds = {"base": BASE, "all": [*BASE, *ours]}
        for names in kinds.values():
            milliseconds(names, env)
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(options.runs):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                times[kind].append(milliseconds(kinds[kind], env))
        sys.stdout.write("\n".join(["import time: self [us] | cumulative | module", *dearest(ours, env)]) + "\n")
    base, everything = median(times["base"]), median(times["all"])
    line = {"modules": len(ours), "base_ms": base, "all_ms": everything, "added_ms": everything - base}
    sys.stdout.write(json.dumps({name: round(value, 1) for name, value in line.items()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
