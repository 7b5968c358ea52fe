"""Who follows the page "Getting started" gets from nothing to a trained model."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/getting-started.md").read_text()
SECTION = PAGE.partition("## In five minutes")[2].partition("\n## ")[0]
BIN = Path(sys.executable).parent


@pytest.mark.e2e
def test_the_first_dag_runs_as_it_is_written(tmp_path):
    """Each command in its order in one shell, but for the installation; only the folders and the port are others."""
    installation, commands = (textwrap.dedent(block) for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL))
    version, pip, folder = installation.splitlines()
    assert version.startswith("VERSION=")
    assert pip.startswith('pip install "airflow-provider-osai[sandbox]==$VERSION" --constraint ')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (dag,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    script = f"{folder}\ncp {tmp_path}/dag.py ~/airflow/dags/retrain_defects.py\n{commands}"
    script = script.replace("/tmp/defects", f"{tmp_path}/defects").replace("8099", str(port))
    (tmp_path / "dag.py").write_text(textwrap.dedent(dag).replace("/tmp/defects", f"{tmp_path}/defects"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "NO_PROXY": "127.0.0.1",
    }
    with (tmp_path / "printed").open("w+") as printed:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script], env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            code = shell.wait(600)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)  # the sandbox that the commands leave running
        printed.seek(0)
        told = printed.read()
    assert code == 0, told[-3000:]
    assert "300 images" in told
    assert "FAIL" not in told
    assert re.search(r"DagRun Finished: dag_id=retrain_defects.*state=success", told), told[-3000:]
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail("the sandbox outlives its group")
