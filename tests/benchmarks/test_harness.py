"""The benchmarks' harness: its counts are correct. Speed is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from benchmarks.import_time import modules
from benchmarks.peer_process import Plan, Side, SideError, prove, wait_until_seen
from benchmarks.scaling import picture
from benchmarks.service import Service
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
    """Return the last line of a short run."""
    arguments = ["--jobs", str(JOBS), "--interval", "0.5", "--seconds", "2", "--rounds", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "deferred_jobs.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(result.stdout.splitlines()[-1])


def test_last_line_begins_with_the_documented_figures(line):
    assert list(line)[: len(KEYS)] == KEYS
    assert all(isinstance(line[key], (int, float)) for key in KEYS)
    assert line["jobs"] == JOBS


def test_all_sides_polled_and_noticed_the_end_of_a_job(line):
    """A side that does not work would seem to cost nothing."""
    assert all(line[f"{side}_requests"] > 0 for side in ("peer", "ours", "fallback", "dbt"))
    assert all(line[f"{side}_pace"] > 0 for side in ("peer", "ours", "fallback", "dbt"))
    assert line["fired"] == dict.fromkeys(SIDES, 1)
    assert line["dead"] == dict.fromkeys(SIDES, 0)
    assert line["sign_ins"] >= 1


@pytest.mark.parametrize("side", ["http", "single"])
def test_trigger_that_does_not_notice_the_end_raises(side):
    """Here, a job ends that no trigger waits for."""
    with Service(2) as service, Side(side, 0.2, service) as process:
        process.ask("add", ["1"])
        wait_until_seen(side, service, 1)
        plan = Plan(jobs=2, interval=0.2, seconds=0.2, proof=0.5, patience=1.0)
        with pytest.raises(SideError, match="1 triggers of 1 ended jobs did not fire"):
            prove(process, side, ["2"], plan, service)


def test_side_that_never_polls_raises():
    """Otherwise it would seem to cost nothing."""
    with Service(1) as service, pytest.raises(SideError, match="no trigger has sent a poll"):
        wait_until_seen("http", service, 1, patience=0.2)


def test_import_time_includes_all_public_modules():
    """All modules of hooks, operators, sensors and triggers."""
    folder = ROOT / "airflow_provider_osai"
    files = [path for face in ("hooks", "operators", "sensors", "triggers") for path in (folder / face).glob("*.py")]
    assert len(modules()) == len([path for path in files if path.name != "__init__.py"]) > 10


def test_chart_shows_every_side_and_marks_saturated_ones():
    """Also with a value of 0, which a logarithmic axis cannot show."""
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
