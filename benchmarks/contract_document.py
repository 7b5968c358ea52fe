"""What a contract document costs: the CPU time of reading one list response of 100 jobs, with and without one.

``python -m benchmarks.contract_document`` reads the same jobs in the default names, and in the names, units and shapes
of three documents, in alternating rounds of one process. Each response is decoded from its bytes, as the client does.
The last line is JSON: ``ratio`` is the CPU time with units and shapes divided by that without a document,
``expression_ratio`` the same with JMESPath expressions, and ``names_ratio`` with other names only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from airflow_provider_osai.api.calls import OsaiApi, Received
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.limits import LIST_LIMIT, decode_json
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.wire_format import encode_response

__all__ = ["DOCUMENTS", "main", "responses"]

JOBS = 100
DOCUMENTS: dict[str, dict[str, Any]] = {
    "names": {"training.list": {"response": {"id": "trainingId", "status": "state", "items": "found"}}},
    "units": {
        "training.list": {
            "envelope": "data",
            "response": {
                "items": "found",
                "id": ["projectId", "trainingId"],
                "status": {"name": "state", "values": {"running": 1, "succeeded": 2}},
                "progress": {"name": "percent", "scale": 100},
                "createdAt": {"name": "times.created", "unit": "epoch_milliseconds"},
                "result.metrics": {"name": "scores", "shape": {"key": "name", "value": "value"}},
            },
        }
    },
    "expressions": {
        "training.list": {
            "response": {
                "items": "found",
                "status": {"name": "done && 'succeeded' || 'running'", "writes": {"running": {"done": False}}},
                "progress": {"name": "steps[0].done", "scale": 100},
                "message": {"name": "log[-1].text", "write": {"log": [{"text": "{value}"}]}},
            }
        }
    },
}


def job(number: int) -> dict[str, Any]:
    """Return a running job, under our names."""
    return {
        "id": str(1000 + number),
        "status": "running",
        "progress": number / JOBS,
        "createdAt": "2026-01-31T12:00:00.000Z",
        "message": f"epoch {number}",
        "reference": f"key-{number}",
        "result": {"metrics": {"accuracy": 0.5, "loss": 1.5}},
    }


def responses() -> dict[str, tuple[Callable[[Any], Any], bytes]]:
    """Return the parser and the bytes of a list response, by the name of the document."""
    sides = {}
    for name, document in {"default": {}, **DOCUMENTS}.items():
        contract = apply_overrides(Contract(), document)
        jobs = [job(number) for number in range(JOBS)]
        if name == "units":
            jobs = [{**each, "id": f"7/{each['id']}"} for each in jobs]
        wire = encode_response(contract["training.list"], jobs).document if document else jobs
        parse = OsaiApi(contract).list_jobs("training", [each["id"] for each in jobs]).parse
        assert parse is not None
        sides[name] = (parse, json.dumps(wire).encode())
    return sides


def read(parse: Callable[[Any], Any], content: bytes, *, has_document: bool) -> list[Any]:
    """Read one response as the client does."""
    document = decode_json(content, LIST_LIMIT.values)
    found: list[Any] = parse(Received(document, {}) if has_document else document)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="alternating rounds")
    parser.add_argument("--responses", type=int, default=10, help="responses in each round and side")
    options = parser.parse_args(arguments)
    sides = responses()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds + 1):
        for name, (parse, content) in sides.items():
            begin = time.process_time()
            for _ in range(options.responses):
                found = read(parse, content, has_document=name != "default")
            times[name].append(1000 * (time.process_time() - begin) / options.responses)
            assert len(found) == JOBS
    middle = {name: median(values[1:]) for name, values in times.items()}  # the first round warms up
    # Ratios of one round each, since the machine's speed changes between rounds.
    ratios = {
        name: median(one / default for one, default in zip(values[1:], times["default"][1:], strict=True))
        for name, values in times.items()
    }
    for name, milliseconds in middle.items():
        sys.stdout.write(f"{name:12} {milliseconds:7.2f} ms for {JOBS} jobs, {ratios[name]:.2f} of the default\n")
    line = {
        "jobs": JOBS,
        "ratio": round(ratios["units"], 2),
        "expression_ratio": round(ratios["expressions"], 2),
        "names_ratio": round(ratios["names"], 2),
        "default_ms": round(middle["default"], 3),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
