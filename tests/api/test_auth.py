"""Sign-in: single-flight, renewal before expiry, and one retry after a 401."""

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


def token(lifetime: float | None = 3600.0, issued: bool = True, name: str = "a") -> str:
    """A JWT that is valid for *lifetime* seconds."""
    now = time.time()
    claims = (
        {"name": name} | ({"exp": now + lifetime} if lifetime is not None else {}) | ({"iat": now} if issued else {})
    )
    return jwt.encode(claims, "k" * 32, algorithm="HS256")


@pytest.fixture
def osai():
    """A mocked OSAI API with a sign-in and a user."""
    with respx.mock(base_url=BASE, assert_all_called=False) as router:
        router.post("/Users/SignIn", name="sign_in").respond(text=f'"{token()}"\n')
        router.get("/Users", name="me").respond(json={"id": 1})
        yield router


def test_access_token_is_sent_as_a_bare_json_string_in_the_body(osai, sender):
    """As documented, and never in a URL."""
    client = sender(settings_for(BASE))
    client.send(client.client.calls.get_user())
    request = osai["sign_in"].calls.last.request
    assert json.loads(request.content) == CANARY
    assert request.headers["content-type"] == "application/json"
    assert all(CANARY not in str(call.request.url) for call in osai.calls)


@pytest.mark.parametrize("form", ["{}", '"{}"', '  "{}" \r\n', "{}\n"])
def test_jwt_is_read_without_quotes_and_whitespace(osai, sender, form):
    jwt_text = token()
    osai["sign_in"].respond(text=form.format(jwt_text))
    client = sender(settings_for(BASE))
    client.send(client.client.calls.get_user())
    assert osai["me"].calls.last.request.headers["authorization"] == f"Bearer {jwt_text}"


def test_concurrent_requests_share_one_sign_in(osai, sender):
    client = sender(settings_for(BASE))
    client.send(*[client.client.calls.get_user()] * 20)
    client.send(client.client.calls.get_user())
    assert osai["sign_in"].call_count == client.client.auth.sign_ins == 1


def test_threads_share_one_sign_in(osai):
    with OsaiClient(settings_for(BASE)) as client:
        threads = [threading.Thread(target=client.send, args=(client.calls.get_user(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.auth.sign_ins == 1


def test_401_renews_the_jwt_and_retries_the_request_once(osai, sender):
    """A server may revoke a JWT before it expires."""
    osai["me"].side_effect = [httpx.Response(401), httpx.Response(200, json={"id": 1})]
    osai["sign_in"].side_effect = [httpx.Response(200, text=token(name=n)) for n in "ab"]
    client = sender(settings_for(BASE))
    assert client.send(client.client.calls.get_user())[0].id == "1"
    assert (osai["sign_in"].call_count, osai["me"].call_count) == (2, 2)


def test_concurrent_401s_cause_one_new_sign_in(osai, sender):
    good = token(name="good")
    osai["sign_in"].side_effect = [httpx.Response(200, text=t) for t in (token(name="old"), good)]

    def answer(request):
        is_good = request.headers["authorization"] == f"Bearer {good}"
        return httpx.Response(200, json={"id": 1}) if is_good else httpx.Response(401)

    osai["me"].side_effect = answer
    client = sender(settings_for(BASE))
    client.send(*[client.client.calls.get_user()] * 20)
    assert osai["sign_in"].call_count == 2


def test_second_401_is_an_auth_error(osai, sender):
    osai["me"].respond(401)
    osai["sign_in"].side_effect = lambda _: httpx.Response(200, text=token(name=str(time.time_ns())))
    client = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="GET /Users"):
        client.send(client.client.calls.get_user())
    assert osai["me"].call_count == 2


@pytest.mark.parametrize("status", [400, 401, 403])
def test_rejected_access_token_is_an_auth_error_without_the_server_text(osai, sender, status):
    """The server text may contain the token."""
    osai["sign_in"].respond(status, text=f"no such token {CANARY}")
    client = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="rejected the access token.*Settings") as caught:
        client.send(client.client.calls.get_user())
    assert CANARY not in str(caught.value)


def test_404_at_the_sign_in_is_a_contract_error(osai, sender):
    osai["sign_in"].respond(404, html="<h1>Not found</h1>")
    client = sender(settings_for(BASE))
    with pytest.raises(OsaiContractError, match="no OSAI API at https://osai.example.com/api"):
        client.send(client.client.calls.get_user())


@pytest.mark.parametrize("text", ["", '""', "<html>Hello</html>", "not a token"])
def test_sign_in_response_that_is_not_a_token_is_an_auth_error(osai, sender, text):
    """A login page may return 200 too."""
    osai["sign_in"].respond(text=text)
    client = sender(settings_for(BASE))
    with pytest.raises(OsaiAuthError, match="probably not that of an OSAI API"):
        client.send(client.client.calls.get_user())


def test_unavailable_sign_in_is_retryable_and_nothing_was_processed(osai, sender):
    osai["sign_in"].respond(503)
    client = sender(settings_for(BASE), retry_budget=0)
    with pytest.raises(OsaiUnreachable) as caught:
        client.send(client.client.calls.create_dataset("d"))
    assert (caught.value.may_have_been_processed, caught.value.status) == (False, 503)


@pytest.mark.parametrize(
    ("lifetime", "issued", "passed", "sign_ins"),
    [
        (100, True, 80, 1),  # still valid
        (100, True, 95, 2),  # renewed before it expires
        (100, False, 95, 2),  # exp without iat
        (None, False, 10**9, 1),  # no exp: renewed after a 401
        (-500, False, 80, 1),  # expired on arrival: the local clock is wrong
    ],
)
def test_jwt_is_renewed_before_it_expires(osai, lifetime, issued, passed, sign_ins):
    now = [0.0]
    osai["sign_in"].respond(text=token(lifetime, issued))
    with OsaiClient(settings_for(BASE)) as client:
        client.auth._clock = lambda: now[0]
        client.send(client.calls.get_user())
        now[0] = passed
        client.send(client.calls.get_user())
        assert client.auth.sign_ins == sign_ins


def test_wrong_local_clock_does_not_matter(osai):
    """The lifetime is ``exp`` minus ``iat``, both by the server's clock."""
    now = time.time() - 7200
    osai["sign_in"].respond(text=jwt.encode({"iat": now, "exp": now + 3600}, "k" * 32))
    with OsaiClient(settings_for(BASE)) as client:
        for _ in range(3):
            client.send(client.calls.get_user())
        assert client.auth.sign_ins == 1


def test_on_secret_is_called_with_each_jwt(osai, sender):
    secrets = []
    client = sender(settings_for(BASE), on_secret=secrets.append)
    client.send(client.client.calls.get_user())
    assert len(secrets) == 1
    assert secrets[0].count(".") == 2


def test_on_secret_is_awaited_before_the_jwt_is_used(osai):
    """In the triggerer, masking is asynchronous."""
    order = []

    async def mask(_):
        await asyncio.sleep(0)
        order.append("masked")

    def answer(_):
        order.append("used")
        return httpx.Response(200, json={"id": 1})

    async def main():
        async with await AsyncOsaiClient.open(settings_for(BASE), on_secret=mask) as client:
            await client.send(client.calls.get_user())

    osai["me"].side_effect = answer
    asyncio.run(main())
    assert order == ["masked", "used"]


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError])
def test_broken_sign_in_means_the_request_was_not_processed(osai, sender, error):
    osai["sign_in"].side_effect = error("boom")
    client = sender(settings_for(BASE), retry_budget=0)
    with pytest.raises(OsaiUnreachable) as caught:
        client.send(client.client.calls.create_dataset("d"))
    assert caught.value.may_have_been_processed is False


def test_clone_starts_with_the_current_access_token_and_jwt(osai):
    """Cancelling a job after the credentials were rotated needs the new ones."""
    renewed = settings_for(BASE).model_copy(update={"access_token": SecretStr("canary-of-the-new-token")})
    osai["me"].side_effect = [httpx.Response(401), httpx.Response(401), *[httpx.Response(200, json={"id": 1})] * 2]
    osai["sign_in"].side_effect = lambda _: httpx.Response(200, text=token(name=str(time.time_ns())))
    with OsaiClient(settings_for(BASE), renew=lambda: renewed) as client:
        client.send(client.calls.get_user())
        sign_ins = osai["sign_in"].call_count
        with client.clone(1.0) as other:
            other.send(other.calls.get_user())
            assert osai["sign_in"].call_count == sign_ins
            osai["me"].side_effect = [httpx.Response(401), httpx.Response(200, json={"id": 1})]
            other.send(other.calls.get_user())
    assert json.loads(osai["sign_in"].calls.last.request.content) == "canary-of-the-new-token"
