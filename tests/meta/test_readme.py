"""What the README and the pages it points to show is true."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.settings import EXTRAS
from tests.conftest import ROOT
from tests.dags import parse

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_make_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        subprocess.run(["make", "--dry-run", command], cwd=ROOT, check=True, capture_output=True)


def test_its_dag_is_short_and_parses(dagbag_of):
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
    (example,) = blocks("json")
    contract = apply_overrides(Contract(), json.loads(example))
    assert contract["training.submit"].path == "/Models/Train"


@pytest.mark.parametrize("name", EXTRAS)
def test_each_connection_extra_is_in_the_connection_page(name):
    assert f"`{name}`" in (ROOT / "docs/connection.md").read_text()


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in ("OsaiError", "OsaiJobError")])
def test_each_error_that_may_be_raised_is_in_the_table_of_errors(name):
    assert f"`{name}`" in (ROOT / "docs/reference/errors.md").read_text()
