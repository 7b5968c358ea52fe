"""The measuring itself: what it counts is what happened. How fast anything is, is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from benchmarks.growth import picture
from benchmarks.import_time import modules
from benchmarks.service import Service
from benchmarks.side import Plan, Side, SideError, prove, wait_until_seen
from tests.conftest import ROOT

KEYS = [
    "jobs",
    "peer_cpu",
    "ours_cpu",
    "cpu_ratio",
    "request_ratio",
    "lag_p99_ms",
    "peer_lag_p99_ms",
    "kb_per_job",
    "fallback_cpu_ratio",
    "sign_ins",
]
SIDES = ["http", "dbt", "ours", "single"]
JOBS = 20


@pytest.fixture(scope="module")
def line():
    """The last line of one short run."""
    arguments = ["--jobs", str(JOBS), "--interval", "0.5", "--seconds", "2", "--rounds", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "deferred_jobs.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(result.stdout.splitlines()[-1])


def test_the_last_line_has_the_figures_that_are_promised(line):
    """First those that a reader compares, all of them numbers."""
    assert list(line)[: len(KEYS)] == KEYS
    assert all(isinstance(line[key], (int, float)) for key in KEYS)
    assert line["jobs"] == JOBS


def test_all_sides_were_really_asking_and_noticed_the_end_of_a_job(line):
    """A side that does not work would seem to cost nothing."""
    assert all(line[f"{side}_requests"] > 0 for side in ("peer", "ours", "fallback", "dbt"))
    assert all(line[f"{side}_pace"] > 0 for side in ("peer", "ours", "fallback", "dbt"))
    assert line["fired"] == dict.fromkeys(SIDES, 1)
    assert line["dead"] == dict.fromkeys(SIDES, 0)
    assert line["sign_ins"] >= 1


@pytest.mark.parametrize("side", ["http", "single"])
def test_a_trigger_that_does_not_notice_the_end_is_an_error(side):
    """The proof can fail: here a job ends that no trigger waits for."""
    with Service(2) as service, Side(side, 0.2, service) as process:
        process.ask("add", ["1"])
        wait_until_seen(side, service, 1)
        plan = Plan(jobs=2, interval=0.2, seconds=0.2, proof=0.5, patience=1.0)
        with pytest.raises(SideError, match="1 of 1 ended jobs were not noticed"):
            prove(process, side, ["2"], plan, service)


def test_a_side_that_never_asks_is_an_error():
    """Rather than a side that costs nothing."""
    with Service(1) as service, pytest.raises(SideError, match="no trigger ever asked"):
        wait_until_seen("http", service, 1, patience=0.2)


def test_all_faces_are_imported():
    """The import time is that of all operators, the sensor, the hook and the trigger."""
    folder = ROOT / "airflow_provider_osai"
    files = [path for face in ("hooks", "operators", "sensors", "triggers") for path in (folder / face).glob("*.py")]
    assert len(modules()) == len([path for path in files if path.name != "__init__.py"]) > 10


def test_the_picture_shows_every_side_and_says_who_was_full():
    """Also where a value is 0, which a logarithmic axis has no place for."""
    point = {"cpu": 0.1, "requests": 0.0, "lag_p99_ms": 2.0, "jobs": 100, "saturated": False}
    found = [
        {**point, "side": "ours"},
        {**point, "side": "ours", "jobs": 1000, "requests": 1.0},
        {**point, "side": "http", "requests": 10.0, "saturated": True},
    ]
    drawing = picture(found, interval=10.0)
    root = ElementTree.fromstring(drawing)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"OsaiJobTrigger", "HttpSensorTrigger", "full", "CPU, % of one core"} <= set(texts)
