"""The hook: creating clients from a connection, and the messages of the connection test."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import respx
import trustme
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_osai.api import contract_document
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.settings import REGIONS
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.conftest import CANARY


def test_blocking_client_of_a_connection_signs_in(connection):
    with OsaiHook().get_conn() as client:
        assert client.send(client.calls.get_user()).name


def test_asynchronous_client_of_a_connection_signs_in(connection):
    async def main():
        async with await OsaiHook().get_async_conn() as client:
            return await client.send(client.calls.get_user())

    assert asyncio.run(main()).name


def test_unknown_extras_are_logged_as_a_warning(connection, logged):
    connection(regoin="us")
    OsaiHook().settings()
    assert "unknown extra fields ['regoin']" in logged()


OTHER_TYPES = {
    "a database": {"conn_type": "postgres", "login": "root"},
    "http": {"conn_type": "http"},
    "nearly ours": {"conn_type": "OSAI "},
    "without a type": {},
}


@pytest.mark.parametrize("fields", OTHER_TYPES.values(), ids=OTHER_TYPES)
class TestOtherTypes:
    """A connection of another type is rejected: its password is for another service."""

    @pytest.fixture(autouse=True)
    def other(self, fields, sandbox, monkeypatch):
        document = {**fields, "password": CANARY, "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(document))

    @pytest.fixture(autouse=True)
    def no_request_is_sent(self, sandbox):
        yield
        assert sandbox.control.record()["requests"] == []

    def test_hook_raises_an_error_with_the_type_and_the_remedy(self, fields):
        for connect in (
            lambda: OsaiHook("other").get_conn(),
            lambda: asyncio.run(OsaiHook("other").get_async_conn()),
        ):
            with pytest.raises(OsaiArgumentError, match="instead of 'osai'. Check osai_conn_id") as caught:
                connect()
            assert str(caught.value).startswith("Connection 'other' has the type")
            assert CANARY not in str(caught.value)

    def test_connection_test_fails(self, fields):
        ok, message = OsaiHook("other").test_connection()
        assert (ok, "instead of 'osai'" in message) == (False, True)

    def test_operator_fails_without_a_retry(self, fields, ti):
        """A retry cannot fix a mistyped connection id."""
        for task in (
            OsaiCreateDatasetOperator(task_id="task", name="n", osai_conn_id="other"),
            OsaiTrainModelOperator(task_id="task", dataset_ids="1", model_name="m", osai_conn_id="other"),
            OsaiJobSensor(task_id="task", kind="training", job_id="1", osai_conn_id="other"),
        ):
            with pytest.raises(AirflowFailException, match="has the type"):
                task.execute({"ti": ti})

    def test_trigger_fires_an_event_with_the_error(self, fields):

        async def main():
            trigger = OsaiJobTrigger(osai_conn_id="other", kind="training", job_id="1", max_unreachable=0.1)
            return [event.payload async for event in trigger.run()]

        (payload,) = asyncio.run(main())
        assert "has the type" in payload["message"]


class TestConnectionTest:
    """The message is one line with the cause and the remedy."""

    def test_working_connection_returns_the_url_and_user(self, connection, sandbox):
        ok, message = OsaiHook().test_connection()
        assert ok
        assert message.startswith(f"Signed in to OSAI at {sandbox.base_url} as ")

    def test_rejected_token(self, sandbox, monkeypatch):
        extra = {"base_url": sandbox.base_url}
        monkeypatch.setenv(
            "AIRFLOW_CONN_OSAI_DEFAULT", json.dumps({"conn_type": "osai", "password": "x", "extra": extra})
        )
        ok, message = OsaiHook().test_connection()
        assert (ok, "rejected the access token" in message, "\n" in message) == (False, True, False)

    @respx.mock
    def test_wrong_region(self, monkeypatch):
        """The other region accepts the token."""
        respx.post(f"{REGIONS['eu']}/Users/SignIn").respond(401)
        respx.post(f"{REGIONS['us']}/Users/SignIn").respond(text="jwt")
        respx.get(f"{REGIONS['us']}/Users").respond(json={"id": 1})
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps({"conn_type": "osai", "password": CANARY}))
        ok, message = OsaiHook().test_connection()
        assert (ok, message.startswith("Wrong region"), "Set the connection's region to 'us'" in message) == (
            False,
            True,
            True,
        )

    def test_unreachable_server(self, connection):
        connection(base_url="http://127.0.0.1:9/api")
        ok, message = OsaiHook().test_connection()
        assert (ok, message.startswith("OSAI is unreachable")) == (False, True)

    def test_untrusted_certificate(self, connection):
        server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        connection(base_url=f"https://127.0.0.1:{server.server_port}/api")
        ok, message = OsaiHook().test_connection()
        server.server_close()
        assert (ok, message.startswith("TLS with https://127.0.0.1"), "certificate" in message) == (False, True, True)

    def test_server_without_the_osai_api(self, connection, sandbox):
        """Its sign-in URL returns 404."""
        connection(base_url=f"{sandbox.base_url}/nowhere")
        ok, message = OsaiHook().test_connection()
        assert (ok, message.startswith("There is no OSAI API at")) == (False, True)

    @pytest.mark.parametrize(
        ("extra", "part"),
        [({"region": "mars", "base_url": ""}, "'mars'"), ({"contract": "{"}, "contract"), ({"timeout": -1}, "timeout")],
    )
    def test_invalid_field_is_named_with_its_value(self, connection, extra, part):
        connection(**extra)
        ok, message = OsaiHook().test_connection()
        assert (ok, part in message) == (False, True)


def test_a_contract_file_is_read_by_both_clients_and_not_on_the_event_loop(connection, sandbox, tmp_path, mocker):
    path = tmp_path / "osai.yaml"
    path.write_text("training.list: null\n")
    threads = []
    read = contract_document._read_file
    mocker.patch.object(
        contract_document, "_read_file", lambda name: threads.append(threading.current_thread()) or read(name)
    )
    connection(contract=str(path))
    assert "training.list" not in OsaiHook().settings().contract

    async def settings():
        return await OsaiHook().async_settings()

    assert "training.list" not in asyncio.run(settings()).contract
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
