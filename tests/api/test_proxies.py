"""Which requests use the proxy of the environment, tested with a recording proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.proxies import proxy_for
from tests.conftest import CANARY, settings_for
from tests.raw_server import RawServer, document, http

VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
JOB = {"id": 7, "status": "running"}


class Proxy:
    """Records the first bytes of each connection, and responds with 502."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.requests.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def proxy(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.mark.parametrize("variable", VARIABLES[:6])
@pytest.mark.parametrize("form", ["http://{}", "http://user:secret@{}", "{}"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost"])
def test_loopback_requests_bypass_the_proxy(monkeypatch, proxy, sender, variable, form, host):
    """The proxy would receive the token unencrypted."""
    monkeypatch.setenv(variable, form.format(proxy.address))
    with RawServer(lambda _: [document(JOB)]) as server:
        client = sender(settings_for(server.base_url.replace("127.0.0.1", host)), retry_budget=0)
        assert client.send(client.client.calls.get_job(JobKind.TRAINING, "7"))[0].id == "7"
    assert proxy.requests == []


@pytest.mark.parametrize("variable", VARIABLES[:6])
def test_redirect_to_loopback_bypasses_the_proxy(monkeypatch, proxy, variable):
    """A signed URL is a secret too."""
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    file = http(b"model", Content_Type="application/octet-stream")
    with RawServer(lambda _: [file]) as storage:
        redirect = http(b"", 302, Location=f"{storage.base_url}/file?signature=s3cr3t")
        with (
            RawServer(lambda _: [redirect]) as server,
            OsaiClient(settings_for(server.base_url), retry_budget=0) as client,
        ):
            call = client.calls.download_model("m", None, {}, lambda stream: b"".join(stream.chunks))
            assert client.send(call) == b"model"
    assert proxy.requests == []


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("form", ["http://{}", "{}"])
def test_https_to_another_host_is_tunnelled_through_the_proxy(monkeypatch, proxy, sender, variable, form):
    """The proxy receives the host, but not the token."""
    monkeypatch.setenv(variable, form.format(proxy.address))
    client = sender(settings_for("https://osai.example.com/api"), retry_budget=0)
    with pytest.raises(OsaiUnreachable, match="502"):
        client.send(client.client.calls.get_user())
    assert [line.split(b"\r\n")[0] for line in proxy.requests] == [b"CONNECT osai.example.com:443 HTTP/1.1"]
    assert CANARY.encode() not in proxy.requests[0]


@pytest.mark.parametrize(
    "url", ["http://127.9.9.9:1/api", "http://[::1]/api", "https://[::1]/api", "http://[::ffff:127.0.0.1]/api",
            "https://localhost/api", "https://127.0.0.1:8443/api"],
)  # fmt: skip
def test_no_loopback_address_has_a_proxy(monkeypatch, proxy, url):
    for variable in VARIABLES[:6]:
        monkeypatch.setenv(variable, f"http://{proxy.address}")
    assert settings_for(url).base_url == url
    assert proxy_for(url) is None


def test_no_proxy_variable_is_respected(monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    assert proxy_for("https://osai.example.com/api") == f"http://{proxy.address}"
    monkeypatch.setenv("NO_PROXY", ".example.com")
    assert proxy_for("https://osai.example.com/api") is None


@pytest.mark.parametrize(
    "value", ["ftp://u:hunter2@proxy:1", "http://u:hunter2@proxy:port", "://hunter2", "gopher://x"]
)
def test_invalid_proxy_is_an_error_that_does_not_show_its_value(monkeypatch, proxy, value):
    """The value may contain credentials."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    settings = settings_for("https://osai.example.com/api")
    for make in (OsaiClient, lambda options: asyncio.run(AsyncOsaiClient.open(options))):
        with pytest.raises(OsaiArgumentError, match="HTTPS_PROXY is not a valid proxy URL") as caught:
            make(settings)
        assert "hunter2" not in str(caught.value)
