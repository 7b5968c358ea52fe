"""From a connection to a client, and what a test of the connection says."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import respx
import trustme

from airflow_provider_osai.api.settings import REGIONS
from airflow_provider_osai.hooks.osai import OsaiHook
from tests.conftest import CANARY


def test_the_connection_becomes_a_client_that_is_signed_in(connection):
    """The ordinary way."""
    with OsaiHook().get_conn() as client:
        assert client.send(client.calls.me()).name


def test_the_connection_becomes_an_awaiting_client(connection):
    """For the triggerer."""

    async def main():
        async with await OsaiHook().get_async_conn() as client:
            return await client.send(client.calls.me())

    assert asyncio.run(main()).name


def test_unknown_extras_are_warned_of(connection, logged):
    """With the list of those that are allowed."""
    connection(regoin="us")
    OsaiHook().settings()
    assert "unknown extra fields ['regoin']" in logged()


class TestDiagnosis:
    """One line that says what to do; each cause has its own."""

    def test_a_good_connection_says_who_we_are(self, connection, sandbox):
        """And where."""
        ok, said = OsaiHook().test_connection()
        assert ok
        assert said.startswith(f"Signed in to OSAI at {sandbox.base_url} as ")

    def test_a_refused_token(self, sandbox, monkeypatch):
        """Points to the portal's settings."""
        extra = {"base_url": sandbox.base_url}
        monkeypatch.setenv(
            "AIRFLOW_CONN_OSAI_DEFAULT", json.dumps({"conn_type": "osai", "password": "x", "extra": extra})
        )
        ok, said = OsaiHook().test_connection()
        assert (ok, "refused the access token" in said, "\n" in said) == (False, True, False)

    @respx.mock
    def test_the_wrong_region(self, monkeypatch):
        """The other region takes the token."""
        respx.post(f"{REGIONS['eu']}/Users/SignIn").respond(401)
        respx.post(f"{REGIONS['us']}/Users/SignIn").respond(text="jwt")
        respx.get(f"{REGIONS['us']}/Users").respond(json={"id": 1})
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps({"conn_type": "osai", "password": CANARY}))
        ok, said = OsaiHook().test_connection()
        assert (ok, said.startswith("Wrong region"), "set the connection's region to 'us'" in said) == (
            False,
            True,
            True,
        )

    def test_an_address_where_nobody_listens(self, connection):
        """Network, proxy or address."""
        connection(base_url="http://127.0.0.1:9/api")
        ok, said = OsaiHook().test_connection()
        assert (ok, said.startswith("OSAI is unreachable")) == (False, True)

    def test_a_certificate_that_is_not_trusted(self, connection):
        """TLS fails before anything is sent."""
        server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        connection(base_url=f"https://127.0.0.1:{server.server_port}/api")
        ok, said = OsaiHook().test_connection()
        server.server_close()
        assert (ok, said.startswith("TLS with https://127.0.0.1"), "certificate" in said) == (False, True, True)

    def test_a_server_that_is_no_osai(self, connection, sandbox):
        """Its sign-in address answers 404."""
        connection(base_url=f"{sandbox.base_url}/nowhere")
        ok, said = OsaiHook().test_connection()
        assert (ok, said.startswith("there is no OSAI at")) == (False, True)

    @pytest.mark.parametrize(
        ("extra", "part"),
        [({"region": "mars", "base_url": ""}, "'mars'"), ({"contract": "{"}, "contract"), ({"timeout": -1}, "timeout")],
    )
    def test_a_field_that_does_not_hold(self, connection, extra, part):
        """Named with its value."""
        connection(**extra)
        ok, said = OsaiHook().test_connection()
        assert (ok, part in said) == (False, True)
