"""The README tells the truth."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.api.settings import EXTRAS
from tests.conftest import ROOT
from tests.dags import parse

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_commands_are_targets_of_the_makefile():
    """Two of them, and nothing else is needed."""
    commands = re.findall(r"^make (\w+)", blocks("sh")[0], re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        subprocess.run(["make", "--dry-run", command], cwd=ROOT, check=True, capture_output=True)


def test_its_dag_is_short_and_parses(dagbag_of):
    """At most fifteen lines, ready to copy."""
    (source,) = blocks("python")
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert list(dagbag_of(source).dags) == ["retrain_defects"]


@pytest.fixture
def dagbag_of(tmp_path):
    def dagbag(source: str):
        (tmp_path / "dag.py").write_text(source)
        return parse(tmp_path)

    return dagbag


def test_its_contract_example_is_a_contract():
    """It can be pasted into the connection."""
    (example,) = blocks("json")
    contract = rebind(Contract(), json.loads(example))
    assert contract["training.submit"].path == "/Models/Train"


@pytest.mark.parametrize("name", [*EXTRAS, *(n for n in errors.__all__ if n not in ("OsaiError", "OsaiJobError"))])
def test_each_extra_and_error_is_in_it(name):
    """A user finds what the connection takes and what may be raised."""
    assert f"`{name}`" in README
