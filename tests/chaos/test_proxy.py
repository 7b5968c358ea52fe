"""The proxy simulates network failures as documented."""

from __future__ import annotations

import http.server
import threading

import httpx
import pytest

from tests.chaos.proxy import Proxy
from tests.waiting import until

SHORT = 0.5
"""Seconds after which a client gives up that is to get no response."""


class Server(http.server.ThreadingHTTPServer):
    """Records the bodies that it receives."""

    daemon_threads = True

    def __init__(self):
        self.seen = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_):
        """Disconnecting clients are part of these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self):
        self.server.seen.append(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server):
    with Proxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        yield proxy


@pytest.fixture
def post(proxy):
    with httpx.Client(timeout=60, trust_env=False) as client:

        def post(text, timeout=60):
            try:
                return client.post(proxy.url, content=text, timeout=timeout).status_code
            except httpx.HTTPError as error:
                return type(error).__name__

        yield post


def test_a_refused_connection_fails_until_it_is_passed_on(proxy, post, server):
    assert post("before") == 200
    proxy.refuse()
    assert post("refused") == "ConnectError"
    proxy.pass_on()
    assert post("after") == 200
    assert server.seen == ["before", "after"]


def test_what_a_black_hole_swallowed_never_arrives(proxy, post, server):
    assert post("before") == 200
    proxy.blackhole()
    assert post("swallowed", SHORT) == "ReadTimeout"
    proxy.pass_on()
    assert post("after") == 200
    assert server.seen == ["before", "after"]


def test_a_held_request_arrives_although_its_client_gave_up(proxy, post, server):
    hold = proxy.hold(lambda request: b"held" in request, 8 * SHORT)
    assert post("before") == 200
    assert post("held", SHORT) == "ReadTimeout"
    assert post("free") == 200
    until(lambda: server.seen, ["before", "free", "held"])
    assert hold.held == 1


def test_a_request_is_delayed(proxy, post, server):
    proxy.delay(3600)
    assert post("too late", SHORT) == "ReadTimeout"
    assert server.seen == []
    proxy.delay(SHORT / 2)
    assert post("late") == 200
    assert server.seen == ["late"]


def test_after_a_cut_a_new_connection_is_made(proxy, post, server):
    assert post("before") == 200
    proxy.cut()
    assert 200 in (post("cut"), post("after"))
    assert proxy.connections >= 2
