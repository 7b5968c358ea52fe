"""Who follows the README gets from nothing to a trained model."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECTION = (ROOT / "README.md").read_text().partition("## Your first Dag")[2].partition("\n## ")[0]
BIN = Path(sys.executable).parent


@pytest.mark.e2e
def test_the_first_dag_of_the_readme_runs_as_it_is_written(tmp_path):
    """Each command in its order in one shell, but for the installation; only the folder and the port are others."""
    (commands,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    installation, _, commands = commands.partition("\n")
    assert installation.startswith("pip install 'airflow-provider-osai[sandbox]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (dag,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    dags = tmp_path / "home" / "dags"
    dags.mkdir(parents=True)
    (dags / "retrain_defects.py").write_text(dag.replace("/data/defects", f"{tmp_path}/defects"))
    script = commands.replace("/tmp/defects", f"{tmp_path}/defects").replace("8099", str(port))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "NO_PROXY": "127.0.0.1",
    }
    with (tmp_path / "printed").open("w+") as printed:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script], env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            code = shell.wait(240)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)  # the sandbox that the commands leave running
        printed.seek(0)
        told = printed.read()
    assert code == 0, told[-3000:]
    assert "300 images" in told
    assert "FAIL" not in told
    assert re.search(r"DagRun Finished: dag_id=retrain_defects.*state=success", told), told[-3000:]
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail("the sandbox outlives its group")
