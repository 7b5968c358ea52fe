"""Answers that are read as they come: through redirects, without our secrets, and not for ever."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError, OsaiUnreachable
from tests.conftest import settings_for
from tests.serving import served

WANTED = {"Range": "bytes=3-", "If-Range": '"x"', "Accept-Encoding": "identity"}


class Storage:
    """Another server, which remembers the headers that it was sent."""

    def __init__(self, answer=None):
        self.answer, self.seen = answer, []

    async def __call__(self, scope, receive, send):
        self.seen.append({name.decode().lower(): value.decode() for name, value in scope["headers"]})
        await (self.answer or PlainTextResponse("model", media_type="application/octet-stream"))(scope, receive, send)


@pytest.fixture
def fetch():
    """Fetch what an OSAI gives that answers to downloads with *answer*."""

    def run(answer, headers=WANTED):
        async def sign_in(_):
            return PlainTextResponse("jwt")

        async def download(_):
            return answer

        app = Starlette(
            routes=[Route("/Users/SignIn", sign_in, methods=["POST"]), Route("/Models/{id}/Download", download)]
        )
        with served(app) as url, OsaiClient(settings_for(url, timeout=5)) as client:
            call = client.calls.download_model("m", "onnx", headers, lambda stream: b"".join(stream.pieces))
            return client.send(call)

    return run


def test_a_file_comes_in_pieces_to_the_sink(fetch):
    """And the sink's value is the call's."""
    assert fetch(Response(b"model", media_type="application/octet-stream")) == b"model"


def test_a_redirect_to_a_storage_takes_the_range_but_no_secret(fetch, caplog):
    """Neither the sign-in, nor does a log that is on by default show the signed address."""
    storage = Storage()
    with served(storage) as url:
        assert fetch(RedirectResponse(f"{url}/model?signature=s3cr3t")) == b"model"
    (seen,) = storage.seen
    assert seen.keys() & {"authorization", "cookie"} == set()
    assert {name.lower(): value for name, value in WANTED.items()}.items() <= seen.items()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert told
    assert not [line for line in told if "s3cr3t" in line]


@pytest.mark.parametrize(("status", "error"), [(403, OsaiUnreachable), (416, OsaiRequestError)])
def test_a_storage_that_refuses_is_asked_anew_and_its_words_are_not_shown(fetch, status, error):
    """It quotes what it was asked."""
    storage = Storage(PlainTextResponse("you sent ?signature=s3cr3t", status))
    with served(storage) as url, pytest.raises(error, match=str(status)) as refused:
        fetch(RedirectResponse(f"{url}/model?signature=s3cr3t"))
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://storage.example/x", "https://u:p@storage.example/x", "ftp://storage.example/x"]
)
def test_a_redirect_to_where_nobody_should_go_is_not_followed(fetch, url):
    """In the clear, with a login, or elsewhere than the web."""
    with pytest.raises(OsaiContractError, match="redirected"):
        fetch(RedirectResponse(url))


def test_redirects_end(fetch):
    """After a few."""
    storage = Storage()
    with served(storage) as url:
        storage.answer = RedirectResponse(f"{url}/again")
        with pytest.raises(OsaiContractError, match="more than"):
            fetch(RedirectResponse(f"{url}/again"))


def test_a_refusal_is_the_error_of_other_calls(fetch):
    """With OSAI's words."""
    with pytest.raises(OsaiRequestError, match="no such model"):
        fetch(JSONResponse({"message": "no such model"}, 404))


@pytest.mark.parametrize(
    "answer", [Response("<html>", media_type="text/html"), Response(status_code=204)], ids=["page", "nothing"]
)
def test_a_page_is_no_model(fetch, answer):
    """Nor is nothing."""
    with pytest.raises(OsaiUnreachable, match="no file"):
        fetch(answer)
