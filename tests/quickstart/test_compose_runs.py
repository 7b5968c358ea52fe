"""The Docker Compose quick start, from its files to a trained model; only the containers are missing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing

import pytest

from airflow_provider_osai import __version__
from airflow_provider_osai.demo.airflow_api import AirflowClient, Login
from tests.conftest import ROOT
from tests.quickstart.files import COMPOSE, blocks
from tests.quickstart.stack import Stack

EXAMPLE = "0.3.0.dev0"
"""The version in wheels/README.md."""


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder with the wheel of this working tree."""
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE, folder, ignore=shutil.ignore_patterns(".env", "*.whl"))
    wheels = folder / "wheels"
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=ROOT, check=True)
    shutil.copy(ROOT / "constraints.txt", wheels)
    subprocess.run(["sh", folder / "new-env.sh"], check=True)
    (settings,) = re.findall(r"```text\n(.*?)```", (wheels / "README.md").read_text(), re.DOTALL)
    with (folder / ".env").open("a") as env:
        env.write(settings.replace(EXAMPLE, __version__))
    return folder


@pytest.mark.e2e
def test_the_commands_of_the_page_lead_to_a_trained_model(folder, tmp_path):
    """Build, start, and what the page says to execute; the last command starts a run, which succeeds."""
    (commands,) = [block for block in blocks("sh", "Docker Compose") if "docker compose up" in block]
    after_start = commands.partition("docker compose up")[2].splitlines()
    executed = [shlex.split(line, comments=True)[2:] for line in after_start if line.startswith("docker compose exec")]
    stack = Stack(folder, tmp_path / "root")
    stack.build()
    with stack:
        stack.wait_until_healthy()
        outputs = [stack.execute(service, command) for _, service, *command in executed]
        assert "FAIL" not in outputs[0]
        assert "sign-in" in outputs[0]
        password = stack.variables["ADMIN_PASSWORD"]
        airflow = AirflowClient(f"http://127.0.0.1:{stack.ports[8080]}", Login("admin", password))
        listed = stack.execute("scheduler", ["airflow", "dags", "list-runs", "retrain_digits", "--output", "json"])
        (run,) = [each["run_id"] for each in json.loads(listed.splitlines()[-1])]
        with closing(airflow._http):
            state = airflow.wait("retrain_digits", run)
            assert state == "success", airflow.failures("retrain_digits", run)
            assert airflow.xcom("retrain_digits", run, "upload")["uploaded"] == 300
        printed = "\n".join(map(stack.log, stack.groups)) + "".join(outputs)
    secrets = [value for name, value in stack.variables.items() if name in {"ADMIN_PASSWORD", "OSAI_ACCESS_TOKEN"}]
    assert [secret for secret in secrets if secret in printed] == []
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(stack.venv)  # pytest keeps the folders of several runs, and this is most of a gigabyte
