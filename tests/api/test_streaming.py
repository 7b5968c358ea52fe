"""Streamed responses: redirects, secrets, and errors."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError, OsaiUnreachable
from tests.conftest import settings_for
from tests.threaded_server import served

HEADERS = {"Range": "bytes=3-", "If-Range": '"x"', "Accept-Encoding": "identity"}


class Storage:
    """A storage service that records the request headers."""

    def __init__(self, response=None):
        self.response = response
        self.requests = []

    async def __call__(self, scope, receive, send):
        self.requests.append({name.decode().lower(): value.decode() for name, value in scope["headers"]})
        await (self.response or PlainTextResponse("model", media_type="application/octet-stream"))(scope, receive, send)


@pytest.fixture
def fetch():
    """Download from a server that returns *response* for downloads."""

    def run(response, headers=HEADERS):
        async def sign_in(_):
            return PlainTextResponse("jwt")

        async def download(_):
            return response

        app = Starlette(
            routes=[Route("/Users/SignIn", sign_in, methods=["POST"]), Route("/Models/{id}/Download", download)]
        )
        with served(app) as url, OsaiClient(settings_for(url, timeout=5)) as client:
            call = client.calls.download_model("m", "onnx", headers, lambda stream: b"".join(stream.chunks))
            return client.send(call)

    return run


def test_response_is_streamed_to_the_sink(fetch):
    """The consumer's result is the call's result."""
    assert fetch(Response(b"model", media_type="application/octet-stream")) == b"model"


def test_redirect_to_a_storage_forwards_the_range_but_no_secret(fetch, caplog):
    """The JWT is not sent, and logs from INFO on do not show the signed URL."""
    storage = Storage()
    with served(storage) as url:
        assert fetch(RedirectResponse(f"{url}/model?signature=s3cr3t")) == b"model"
    (request,) = storage.requests
    assert request.keys() & {"authorization", "cookie"} == set()
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= request.items()
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert messages
    assert not [line for line in messages if "s3cr3t" in line]


@pytest.mark.parametrize(("status", "error"), [(403, OsaiUnreachable), (416, OsaiRequestError)])
def test_error_of_a_storage_is_raised_without_its_text(fetch, status, error):
    """The text may contain the signed URL."""
    storage = Storage(PlainTextResponse("you sent ?signature=s3cr3t", status))
    with served(storage) as url, pytest.raises(error, match=str(status)) as refused:
        fetch(RedirectResponse(f"{url}/model?signature=s3cr3t"))
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://storage.example/x", "https://u:p@storage.example/x", "ftp://storage.example/x"]
)
def test_redirect_over_http_with_credentials_or_another_scheme_is_not_followed(fetch, url):
    with pytest.raises(OsaiContractError, match="redirected"):
        fetch(RedirectResponse(url))


def test_number_of_redirects_is_limited(fetch):
    storage = Storage()
    with served(storage) as url:
        storage.response = RedirectResponse(f"{url}/again")
        with pytest.raises(OsaiContractError, match="more than"):
            fetch(RedirectResponse(f"{url}/again"))


def test_unsuccessful_response_raises_the_ordinary_error(fetch):
    """With OSAI's text."""
    with pytest.raises(OsaiRequestError, match="no such model"):
        fetch(JSONResponse({"message": "no such model"}, 404))


@pytest.mark.parametrize(
    "response", [Response("<html>", media_type="text/html"), Response(status_code=204)], ids=["page", "nothing"]
)
def test_html_page_or_empty_response_is_rejected(fetch, response):
    with pytest.raises(OsaiUnreachable, match="instead of a file"):
        fetch(response)


@pytest.mark.parametrize("coding", ["gzip, gzip", "identity, br", "gzip, deflate"])
def test_unsupported_or_nested_content_encoding_is_rejected(fetch, coding):
    with pytest.raises(OsaiUnreachable, match="Content-Encoding '"):
        fetch(Response(b"model", media_type="application/octet-stream", headers={"Content-Encoding": coding}))
