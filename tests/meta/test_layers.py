"""The house's import rules hold, and breaking them is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import rules of the checkout in *folder*."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": "."})


def test_the_import_rules_hold():
    """Arrows point down only; api, jobs and data know no Airflow; the sandbox knows the contract only."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout
    assert "5 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("api/models.py", "import airflow"),
        ("jobs/flow.py", "import httpx"),
        ("jobs/polling.py", "from airflow_provider_osai.hooks import osai"),
        ("sandbox/portal_page.py", "from airflow_provider_osai.api import client"),
    ],
)
def test_a_rule_that_is_broken_is_noticed(tmp_path, module, line):
    """The check can fail."""
    shutil.copytree(ROOT / "airflow_provider_osai", tmp_path / "airflow_provider_osai")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "airflow_provider_osai" / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert lint_imports(tmp_path).returncode == 1
