"""Airflow's command line and our own."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_osai.cli import main

BIN = Path(sys.executable).parent


@pytest.fixture
def airflow(dagbag, connection, monkeypatch):
    """Run a command of Airflow's, with the connection in the environment."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*arguments):
        command = [str(BIN / "airflow"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return run


def test_airflow_lists_the_provider(airflow):
    """With its version."""
    assert "airflow-provider-osai" in airflow("providers", "get", "airflow-provider-osai")


def test_airflow_tests_the_connection(airflow, connection):
    """Well, and with a diagnosis."""
    assert "Connection success" in airflow("connections", "test", "osai_default")
    connection(base_url="http://127.0.0.1:9/api")
    assert "OSAI is unreachable" in airflow("connections", "test", "osai_default")


def test_our_command_line_says_what_it_can(capfd):
    """And refuses what it cannot."""
    assert main(["--help"]) == 0
    assert "sandbox" in capfd.readouterr().out
    assert main(["brew"]) == main([]) + 2 == 2


def test_our_command_line_runs_a_sandbox(tmp_path):
    """Until it is told to end; the address and token are one line of JSON."""
    command = [str(BIN / "osai-airflow"), "sandbox", "--access-token", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        line = json.loads(sandbox.stdout.readline())
        sandbox.terminate()
        assert sandbox.wait(30) == 0
    assert line["base_url"].startswith("http://127.0.0.1:")
    assert line["access_token"] == "t"


def test_our_command_line_writes_images(tmp_path, capfd):
    """A folder for each digit."""
    assert main(["digits", str(tmp_path / "images"), "--limit", "30"]) == 0
    assert "30 images" in capfd.readouterr().out
    assert len(list((tmp_path / "images").glob("*/*.png"))) == 30
    assert {path.name for path in (tmp_path / "images").iterdir()} == set("0123456789")


def test_in_a_terminal_the_sandbox_prints_the_connection_to_paste():
    """What is printed makes a connection that works; elsewhere than in a terminal, nothing but the line of JSON."""
    ours, theirs = pty.openpty()
    command = [str(BIN / "osai-airflow"), "sandbox", "--access-token", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as sandbox:
        os.close(theirs)
        line = json.loads(sandbox.stdout.readline())
        with os.fdopen(ours) as terminal:
            name, _, value = terminal.readline().strip().removeprefix("export ").partition("=")
            sandbox.terminate()
        assert sandbox.wait(30) == 0
    assert name == "AIRFLOW_CONN_OSAI_DEFAULT"
    (value,) = shlex.split(value)
    assert json.loads(value) == {"conn_type": "osai", "password": "t", "extra": {"base_url": line["base_url"]}}
