"""Running a sandbox, in a thread and as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_osai.sandbox import Sandbox, SandboxState


def test_sandbox_listens_on_this_machine_only_and_on_a_free_port(sandbox):
    """Two of them do not meet."""
    with Sandbox() as other:
        assert urlsplit(sandbox.base_url).hostname == "127.0.0.1"
        assert other.base_url != sandbox.base_url
        assert other.access_token != sandbox.access_token
        assert sandbox.base_url == f"{sandbox.portal_url}/api"


def test_port_that_is_taken_is_an_error_at_once():
    """The error is the operating system's."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Sandbox(port=taken.getsockname()[1]).start()


def test_stopped_sandbox_leaves_neither_threads_nor_files():
    """A test suite may start hundreds."""
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        sandbox.control.script(timing="seconds", seconds=1)
        folder = sandbox.state.folder
        token = httpx.post(f"{sandbox.base_url}/Users/SignIn", json=sandbox.access_token).text.strip('"')
        body = {"device": "jetson", "duration": 1}
        httpx.post(f"{sandbox.base_url}/DeviceRentals", json=body, headers={"Authorization": f"Bearer {token}"})
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("osai-")]
    assert not folder.exists()
    assert left == []


def test_state_that_was_given_outlives_the_server():
    """Whoever made it closes it."""
    with SandboxState(access_token="mine") as state:
        with Sandbox(state=state) as sandbox:
            assert sandbox.access_token == "mine"
        assert state.folder.exists()


def test_importing_the_sandbox_does_not_import_what_only_jobs_need():
    """The heavy libraries come with the first job that needs them."""
    heavy = {"sklearn", "numpy", "PIL", "airflow"}
    code = f"import sys, airflow_provider_osai.sandbox; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "[]"


def test_process_says_where_it_is_and_ends_on_sigterm(tmp_path):
    """One line of JSON, the same in the file, and an orderly end."""
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "airflow_provider_osai.sandbox", "--access-token", "t", "--ready-file", str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        said = json.loads(process.stdout.readline())
        answer = httpx.post(f"{said['base_url']}/Users/SignIn", json=said["access_token"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert answer.status_code == 200
    assert json.loads(ready.read_text()) == said
    assert ready.stat().st_mode & 0o077 == 0
