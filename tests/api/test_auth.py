"""Signing in: once, early enough, and again when it must be."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import jwt
import pytest
import respx
from pydantic import SecretStr

from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiUnreachable
from tests.conftest import CANARY, settings_for

BASE = "https://osai.example.com/api"


def token(life: float | None = 3600.0, issued: bool = True, name: str = "a") -> str:
    """A JWT that is good for *life* seconds."""
    now = time.time()
    claims = {"name": name} | ({"exp": now + life} if life is not None else {}) | ({"iat": now} if issued else {})
    return jwt.encode(claims, "k" * 32, algorithm="HS256")


@pytest.fixture
def osai():
    """An OSAI of which only the answers matter."""
    with respx.mock(base_url=BASE, assert_all_called=False) as router:
        router.post("/Users/SignIn", name="sign_in").respond(text=f'"{token()}"\n')
        router.get("/Users", name="me").respond(json={"id": 1})
        yield router


def test_the_access_token_travels_as_a_bare_json_string_in_the_body(osai, sender):
    """As documented; never in a URL."""
    one = sender(settings_for(BASE))
    one.send(one.client.calls.me())
    request = osai["sign_in"].calls.last.request
    assert json.loads(request.content) == CANARY
    assert request.headers["content-type"] == "application/json"
    assert all(CANARY not in str(call.request.url) for call in osai.calls)


@pytest.mark.parametrize("form", ["{}", '"{}"', '  "{}" \r\n', "{}\n"])
def test_the_jwt_is_read_with_or_without_quotes(osai, sender, form):
    """The answer is text; white space and quotes around it go."""
    jwt_text = token()
    osai["sign_in"].respond(text=form.format(jwt_text))
    one = sender(settings_for(BASE))
    one.send(one.client.calls.me())
    assert osai["me"].calls.last.request.headers["authorization"] == f"Bearer {jwt_text}"


def test_one_sign_in_serves_all_requests(osai, sender):
    """Also when twenty start at once."""
    one = sender(settings_for(BASE))
    one.send(*[one.client.calls.me()] * 20)
    one.send(one.client.calls.me())
    assert osai["sign_in"].call_count == one.client.auth.sign_ins == 1


def test_threads_share_one_sign_in(osai):
    """A client may be used by several threads."""
    with OsaiClient(settings_for(BASE)) as client:
        threads = [threading.Thread(target=client.send, args=(client.calls.me(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.auth.sign_ins == 1


def test_a_refused_jwt_is_renewed_and_the_request_sent_once_more(osai, sender):
    """A server may forget a JWT before its time."""
    osai["me"].side_effect = [httpx.Response(401), httpx.Response(200, json={"id": 1})]
    osai["sign_in"].side_effect = [httpx.Response(200, text=token(name=n)) for n in "ab"]
    one = sender(settings_for(BASE))
    assert one.send(one.client.calls.me())[0].id == "1"
    assert (osai["sign_in"].call_count, osai["me"].call_count) == (2, 2)


def test_many_requests_refused_at_once_sign_in_once_more_only(osai, sender):
    """Single flight holds for the renewal too."""
    good = token(name="good")
    osai["sign_in"].side_effect = [httpx.Response(200, text=t) for t in (token(name="old"), good)]

    def answer(request):
        is_good = request.headers["authorization"] == f"Bearer {good}"
        return httpx.Response(200, json={"id": 1}) if is_good else httpx.Response(401)

    osai["me"].side_effect = answer
    one = sender(settings_for(BASE))
    one.send(*[one.client.calls.me()] * 20)
    assert osai["sign_in"].call_count == 2


def test_a_request_refused_twice_is_an_auth_error(osai, sender):
    """One replay, not more."""
    osai["me"].respond(401)
    osai["sign_in"].side_effect = lambda _: httpx.Response(200, text=token(name=str(time.time_ns())))
    one = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="GET /Users"):
        one.send(one.client.calls.me())
    assert osai["me"].call_count == 2


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_access_token_is_an_auth_error_without_the_servers_text(osai, sender, status):
    """The server may repeat the token in its answer."""
    osai["sign_in"].respond(status, text=f"no such token {CANARY}")
    one = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="refused the access token.*Settings") as caught:
        one.send(one.client.calls.me())
    assert CANARY not in str(caught.value)


def test_an_address_without_a_sign_in_is_no_osai(osai, sender):
    """404 at the one documented address says so."""
    osai["sign_in"].respond(404, html="<h1>Not found</h1>")
    one = sender(settings_for(BASE))
    with pytest.raises(OsaiContractError, match="no OSAI at https://osai.example.com/api"):
        one.send(one.client.calls.me())


@pytest.mark.parametrize("text", ["", '""', "<html>Hello</html>", "not a token"])
def test_an_answer_that_is_no_token_is_no_osai(osai, sender, text):
    """A login page answers 200 too."""
    osai["sign_in"].respond(text=text)
    one = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="not the address of an OSAI API"):
        one.send(one.client.calls.me())


def test_a_sign_in_that_is_down_means_try_later_and_nothing_was_sent(osai, sender):
    """Whatever the request was, OSAI did not take it."""
    osai["sign_in"].respond(503)
    one = sender(settings_for(BASE), patience=0)
    with pytest.raises(OsaiUnreachable) as caught:
        one.send(one.client.calls.create_dataset("d"))
    assert (caught.value.sent, caught.value.status) == (False, 503)


@pytest.mark.parametrize(
    ("life", "issued", "passed", "sign_ins"),
    [
        (100, True, 80, 1),  # young
        (100, True, 95, 2),  # renewed before it expires
        (100, False, 95, 2),  # exp alone is enough
        (None, False, 10**9, 1),  # no exp: a 401 tells
        (-500, False, 80, 1),  # expired on arrival: our clock is wrong, and signing in at every request mends nothing
    ],
)
def test_a_jwt_is_renewed_before_it_expires(osai, life, issued, passed, sign_ins):
    """By its own ``exp`` and ``iat``."""
    now = [0.0]
    osai["sign_in"].respond(text=token(life, issued))
    with OsaiClient(settings_for(BASE)) as client:
        client.auth._clock = lambda: now[0]
        client.send(client.calls.me())
        now[0] = passed
        client.send(client.calls.me())
        assert client.auth.sign_ins == sign_ins


def test_a_clock_that_is_hours_off_does_not_matter(osai):
    """The life is counted from ``iat``, which is the server's clock like ``exp``."""
    now = time.time() - 7200
    osai["sign_in"].respond(text=jwt.encode({"iat": now, "exp": now + 3600}, "k" * 32))
    with OsaiClient(settings_for(BASE)) as client:
        for _ in range(3):
            client.send(client.calls.me())
        assert client.auth.sign_ins == 1


def test_each_jwt_is_told_so_that_it_can_be_masked(osai, sender):
    """The hook hands it to Airflow's masker."""
    told = []
    one = sender(settings_for(BASE), on_secret=told.append)
    one.send(one.client.calls.me())
    assert len(told) == 1
    assert told[0].count(".") == 2


def test_what_is_told_of_a_secret_is_awaited_before_the_jwt_is_used(osai):
    """In the triggerer masking takes a while, and nothing may be logged before it is done."""
    order = []

    async def mask(_):
        await asyncio.sleep(0)
        order.append("masked")

    def answer(_):
        order.append("used")
        return httpx.Response(200, json={"id": 1})

    async def main():
        async with await AsyncOsaiClient.open(settings_for(BASE), on_secret=mask) as client:
            await client.send(client.calls.me())

    osai["me"].side_effect = answer
    asyncio.run(main())
    assert order == ["masked", "used"]


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_sign_in_that_breaks_means_that_the_request_was_not_sent(osai, sender, error):
    """However the sign-in itself broke, OSAI did not take what was to follow it."""
    osai["sign_in"].side_effect = error("boom")
    one = sender(settings_for(BASE), patience=0)
    with pytest.raises(OsaiUnreachable) as caught:
        one.send(one.client.calls.create_dataset("d"))
    assert caught.value.sent is False


def test_a_sibling_starts_with_the_token_and_the_sign_in_of_now(osai):
    """A kill after the credentials were rotated needs the new ones."""
    renewed = settings_for(BASE).model_copy(update={"access_token": SecretStr("canary-of-the-new-token")})
    osai["me"].side_effect = [httpx.Response(401), httpx.Response(401), *[httpx.Response(200, json={"id": 1})] * 2]
    osai["sign_in"].side_effect = lambda _: httpx.Response(200, text=token(name=str(time.time_ns())))
    with OsaiClient(settings_for(BASE), renew=lambda: renewed) as client:
        client.send(client.calls.me())
        before = osai["sign_in"].call_count
        with client.sibling(1.0) as other:
            other.send(other.calls.me())
            assert osai["sign_in"].call_count == before
            osai["me"].side_effect = [httpx.Response(401), httpx.Response(200, json={"id": 1})]
            other.send(other.calls.me())
    assert json.loads(osai["sign_in"].calls.last.request.content) == "canary-of-the-new-token"
