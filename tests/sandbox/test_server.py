"""Run a sandbox, in a thread and as a process."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from airflow_provider_osai.sandbox import Sandbox, SandboxState, create_app
from tests.conftest import CANARY


def test_sandbox_listens_on_a_free_loopback_port(sandbox):
    with Sandbox() as other:
        assert urlsplit(sandbox.base_url).hostname == "127.0.0.1"
        assert other.base_url != sandbox.base_url
        assert other.access_token != sandbox.access_token
        assert sandbox.base_url == f"{sandbox.portal_url}/api"


def test_port_in_use_raises_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Sandbox(port=taken.getsockname()[1]).start()


def test_stopped_sandbox_leaves_neither_threads_nor_files():
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        sandbox.control.script(timing="seconds", seconds=1)
        folder = sandbox.state.folder
        token = httpx.post(f"{sandbox.base_url}/Users/SignIn", json=sandbox.access_token).text.strip('"')
        body = {"device": "jetson", "duration": 1}
        httpx.post(f"{sandbox.base_url}/DeviceRentals", json=body, headers={"Authorization": f"Bearer {token}"})
    remaining = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("osai-")]
    assert not folder.exists()
    assert remaining == []


def test_given_state_is_not_closed_with_the_server():
    with SandboxState(access_token="mine") as state:
        with Sandbox(state=state) as sandbox:
            assert sandbox.access_token == "mine"
        assert state.folder.exists()


def test_importing_the_sandbox_does_not_import_heavy_libraries():
    """They are imported with the first job that needs them."""
    heavy = {"sklearn", "numpy", "PIL", "airflow"}
    code = f"import sys, airflow_provider_osai.sandbox; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.strip() == "[]"


def test_process_prints_its_address_and_ends_on_sigterm(tmp_path):
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "airflow_provider_osai.sandbox", "--access-token", "t", "--ready-file", str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        details = json.loads(process.stdout.readline())
        response = httpx.post(f"{details['base_url']}/Users/SignIn", json="t")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert response.status_code == 200
    assert json.loads(ready.read_text()) == {**details, "access_token": "t"}
    assert ready.stat().st_mode & 0o077 == 0


@contextmanager
def process(*arguments, variable=None, terminal=False):
    """Run a sandbox as a process and yield the JSON that it prints, to a pipe or to a terminal."""
    env = os.environ | ({"OSAI_SANDBOX_TOKEN": variable} if variable is not None else {})
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "airflow_provider_osai.sandbox", *arguments]
    out = theirs if terminal else subprocess.PIPE
    with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=env) as running:
        os.close(theirs)
        with os.fdopen(ours) as terminal_output:
            try:
                yield json.loads((terminal_output if terminal else running.stdout).readline())
            finally:
                running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            assert running.stderr.read() == ""


class TestAccessToken:
    """Where the access token comes from, and where it is visible."""

    def test_token_from_the_environment_is_accepted_and_not_printed(self):
        with process(variable=CANARY) as details:
            assert set(details) == {"base_url"}
            assert httpx.post(f"{details['base_url']}/Users/SignIn", json=CANARY).status_code == 200

    def test_command_line_overrides_the_environment(self):
        with process("--access-token", "mine", variable=CANARY) as details:
            assert httpx.post(f"{details['base_url']}/Users/SignIn", json="mine").status_code == 200
            assert httpx.post(f"{details['base_url']}/Users/SignIn", json=CANARY).status_code == 401
            assert set(details) == {"base_url"}

    def test_token_is_printed_on_a_terminal(self):
        with process(variable="mine", terminal=True) as details:
            assert details["access_token"] == "mine"

    @pytest.mark.parametrize("variable", [None, ""])
    def test_generated_token_is_printed_without_a_ready_file(self, variable):
        with process(variable=variable) as details:
            assert httpx.post(f"{details['base_url']}/Users/SignIn", json=details["access_token"]).status_code == 200

    def test_generated_token_is_only_in_the_ready_file_if_there_is_one(self, tmp_path):
        ready = tmp_path / "ready.json"
        with process("--ready-file", str(ready)) as details:
            contents = json.loads(ready.read_text())
            assert contents.pop("access_token") not in str(details)
            assert contents == details
            assert ready.stat().st_mode & 0o777 == 0o600


class TestWebPages:
    """The control routes need no sign-in, so they must reject requests of web pages in a browser."""

    @pytest.mark.parametrize(
        "host",
        [
            *("evil.example", "evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1.evil.example"),
            *("192.168.1.7:{port}", "0.0.0.0:{port}", "2130706433:{port}", "localhost@evil.example", "[::2]:{port}"),
            *("evil.example#@localhost", "evil.example\\@localhost", "localhost:{port}/x", ""),
        ],
    )
    @pytest.mark.parametrize("route", ["record", "reset"])
    def test_foreign_host_is_rejected(self, sandbox, host, route):
        """DNS rebinding: the page's own name resolves to 127.0.0.1."""
        port = urlsplit(sandbox.base_url).port
        method = "GET" if route == "record" else "POST"
        before = sandbox.state.datasets.create("kept")
        url, headers = f"{sandbox.portal_url}/sandbox/{route}", {"Host": host.format(port=port)}
        assert httpx.request(method, url, headers=headers).status_code in (400, 403)
        assert sandbox.state.datasets.get(before.id)

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://localhost:{other}", "http://127.0.0.1", "file://", "x"]
    )
    def test_foreign_origin_is_rejected(self, sandbox, origin):
        """Also this machine at another port."""
        port = urlsplit(sandbox.base_url).port
        before = sandbox.state.datasets.create("kept")
        headers = {"Origin": origin.format(other=port + 1)}
        response = httpx.post(f"{sandbox.portal_url}/sandbox/reset", headers=headers)
        assert response.status_code == 403
        assert "Origin" in response.json()["message"]
        assert sandbox.state.datasets.get(before.id)

    @pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost", "[::1]:{port}", "127.8.8.8"])
    @pytest.mark.parametrize("with_origin", [True, False])
    def test_loopback_host_is_accepted(self, sandbox, host, with_origin):
        """Without a browser, or from a page of the sandbox itself."""
        name = host.format(port=urlsplit(sandbox.base_url).port)
        headers = {"Host": name} | ({"Origin": f"http://{name}"} if with_origin else {})
        assert httpx.get(f"{sandbox.portal_url}/sandbox/record", headers=headers).status_code == 200

    def test_host_of_the_server_itself_is_accepted(self, state):
        """As the server reports it, which a client cannot influence."""
        with TestClient(create_app(state), base_url="http://sandbox.internal:8099") as client:
            assert client.get("/sandbox/record").status_code == 200
            assert client.get("/sandbox/record", headers={"Host": "evil.example"}).status_code == 403
