"""How the cost grows with the number of waiting jobs, as figures and as a chart.

``python -m benchmarks.scaling`` measures CPU, requests per second and the p99 lag of the event loop for 100 to 10,000
jobs, like :mod:`benchmarks.deferred_jobs`, but with one short window each. A side that is saturated (its core, or less
than 80 % of the due polls sent) is not measured with more jobs. Writes ``docs/growth.json`` and ``docs/growth.svg``;
``--draw`` only redraws the chart. The last line is the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.deferred_jobs import say
from benchmarks.peer_process import Plan, measure
from benchmarks.service import Service
from benchmarks.svg import Line, Panel, draw

__all__ = ["main", "picture"]

SIZES = (100, 300, 1000, 5000, 10_000)
NAMES = {
    "ours": "OsaiJobTrigger",
    "single": "OsaiJobTrigger, API without list",
    "http": "HttpSensorTrigger",
    "dbt": "DbtCloudRunJobTrigger",
}
DOCS = Path(__file__).resolve().parents[1] / "docs"


def points(sides: list[str], sizes: list[int], interval: float, seconds: float) -> list[dict[str, Any]]:
    """Measure each side with each number of jobs, until it is saturated."""
    full: set[str] = set()
    found = []
    for jobs in sizes:
        with Service(jobs) as service:
            for side in sides:
                if side in full:
                    continue
                result = measure(side, Plan(jobs, interval, seconds, proof=0.0), service)
                say(result.line())
                found.append(json.loads(result.line()) | {"saturated": result.saturated})
                if result.saturated:
                    full.add(side)
    return found


def picture(found: list[dict[str, Any]], interval: float) -> str:
    """Return the chart with its three panels as SVG."""

    def panel(title: str, name: str, factor: float = 1.0, **limit: Any) -> Panel:
        lines = []
        for side, label in NAMES.items():
            own = [point for point in found if point["side"] == side]
            ends = "full" if any(point["saturated"] for point in own) else ""
            lines.append(Line(label, [(point["jobs"], factor * point[name]) for point in own], ends))
        return Panel(title, [line for line in lines if line.points], **limit)

    panels = [
        panel("CPU, % of one core", "cpu", 100.0, limit=100.0, limit_name="a whole core"),
        panel("requests a second", "requests"),
        panel("event loop's lag, p99, ms", "lag_p99_ms"),
    ]
    return draw(panels, "waiting jobs", f"What waiting jobs cost, each polled every {interval:g} s")


def main(arguments: list[str] | None = None) -> int:
    """Measure (unless ``--draw``), and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--sides", default=",".join(NAMES))
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of each window")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for growth.json and growth.svg")
    parser.add_argument("--draw", action="store_true", help="only draw the chart from growth.json")
    options = parser.parse_args(arguments)
    file: Path = options.out / "growth.json"
    if options.draw:
        document = json.loads(file.read_text())
    else:
        sizes = [int(size) for size in options.sizes.split(",")]
        found = points(options.sides.split(","), sizes, options.interval, options.seconds)
        document = {"interval": options.interval, "points": found}
        file.write_text(json.dumps(document, indent=1) + "\n")
    file.with_suffix(".svg").write_text(picture(document["points"], document["interval"]))
    say(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
