"""Users' own tests: what the docs show is collected by a pytest of its own, and passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT

MINE = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator

with DAG("mine", schedule=None) as dag:
    OsaiCreateDatasetOperator(task_id="make", name="defects")
"""
IDLE = """
import sys

def test_nothing_is_started_unless_it_is_asked_for():
    assert "airflow_provider_osai.sandbox" not in sys.modules
"""


def test_the_docs_dag_test_is_ten_lines_and_passes(tmp_path):
    """Without any configuration: pytest finds the plugin by the package's entry point."""
    source, _ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sandbox.md").read_text(), re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    (tmp_path / "test_mine.py").write_text(source)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "mine.py").write_text(MINE)
    (tmp_path / "test_nothing.py").write_text(IDLE)
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "dags"), str(ROOT)]),
    }
    prepare = [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"]
    subprocess.run(prepare, env=environment, capture_output=True, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_nothing.py", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
