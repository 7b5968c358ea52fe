"""``osai-airflow check``: what it says, and what it never says."""

from __future__ import annotations

import http.server
import threading

import pytest

from airflow_provider_osai.check import webhook_check
from airflow_provider_osai.cli import main
from airflow_provider_osai.plugins.app import create_app
from tests.conftest import settings_for
from tests.serving import served

SECRET = "canary-webhook-secret-1"


@pytest.fixture
def mounted(sandbox, connection):
    """An Airflow's receiver below a base path; its address."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    with served(Starlette(routes=[Mount("/team/osai", app=create_app())])) as url:
        yield f"{url}/team"


def test_a_connection_that_works_and_whose_webhook_is_reached(mounted, connection, logged, dagbag):
    """Two lines, and no secret in them."""
    connection(webhook_base_url=mounted, webhook_secret=SECRET)
    assert main(["check", "--webhook"]) == 0
    lines = [line for line in logged().splitlines() if line.startswith(("ok", "FAIL"))]
    assert lines[-2].startswith("ok   osai_default: Signed in to OSAI at http://127.0.0.1")
    assert lines[-1].startswith(f"ok   osai_default: POST {mounted}/osai/webhook/... reached this Airflow in ")
    assert SECRET not in "".join(lines)


def test_a_connection_without_webhooks_is_checked_without(connection, logged, dagbag):
    """The flag asks for more."""
    assert main(["check"]) == 0
    assert main(["check", "--webhook"]) == 1
    assert "FAIL osai_default: Webhooks are off: the connection has no webhook_base_url" in logged()


def test_a_connection_that_is_not_there(logged, dagbag):
    """One line, no traceback."""
    assert main(["check", "--conn-id", "osai_nowhere"]) == 1
    assert "FAIL osai_nowhere: the connection could not be read" in logged()


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers every POST alike."""

    status, body = 200, b""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.send_header("location", "https://login.example.com/")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, "that is not this Airflow"),
        (302, "wants a login"),
        (401, "wants a login"),
        (404, "no receiver, or one that knows another secret"),
        (502, "look into the log"),
    ],
)
def test_whatever_else_answers_there_has_its_remedy(status, said):
    """And is not taken for us."""
    handler = type("Handler", (Answering,), {"status": status, "body": b"osai"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    good, text = webhook_check(settings_for(url, webhook_base_url=url, webhook_secret=SECRET), "osai_default")
    server.shutdown()
    server.server_close()
    assert not good
    assert said in text
    assert f"POST {url}/osai/webhook/... was answered with {status}" in text


def test_an_address_where_nobody_listens():
    """With the reason."""
    url = "http://127.0.0.1:1"
    good, text = webhook_check(settings_for(url, webhook_base_url=url, webhook_secret=SECRET), "osai_default")
    assert not good
    assert "got no answer" in text


def test_a_receiver_with_another_secret_does_not_pass(mounted, connection):
    """It answers as if it were not there."""
    connection(webhook_base_url=mounted, webhook_secret="canary-of-somebody-else")
    settings = settings_for(mounted, webhook_base_url=mounted, webhook_secret=SECRET)
    good, text = webhook_check(settings, "osai_default")
    assert not good
    assert "another secret" in text
