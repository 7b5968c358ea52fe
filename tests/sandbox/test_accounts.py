"""Signing in, and what a JWT is good for."""

from __future__ import annotations

import jwt
import pytest

from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.records import Refused
from tests.sandbox.client import Api


def test_sign_in_with_the_right_token_answers_a_jwt_in_quotes_as_text(sandbox):
    """The documented form: the body is a bare JSON string, the answer is text."""
    with Api(sandbox, signed_in=False) as api:
        answer = api.post("/Users/SignIn", json=sandbox.access_token)
    claims = jwt.decode(answer.text.strip('"'), options={"verify_signature": False})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith('"')
    assert claims["exp"] - claims["iat"] == 3600


def test_sign_in_without_quotes_when_it_is_set_so():
    """Whether the text is quoted is a setting, since clients must take both."""
    with Sandbox(quoted_jwt=False) as sandbox, Api(sandbox, signed_in=False) as api:
        assert api.post("/Users/SignIn", json=sandbox.access_token).text.startswith("ey")


@pytest.mark.parametrize(("body", "status"), [(b'"wrong"', 401), (b"wrong", 400), (b'{"token": "a"}', 400), (b"", 400)])
def test_sign_in_with_anything_else_is_refused_with_a_message(sandbox, body, status):
    """A wrong token is 401, a body that is no JSON string 400."""
    with Api(sandbox, signed_in=False) as api:
        answer = api.post("/Users/SignIn", content=body)
    assert answer.status_code == status
    assert answer.json()["message"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic abc"])
def test_every_other_route_without_a_good_jwt_is_401(api, header):
    """All of the API but the sign-in needs ``Authorization: Bearer``."""
    api.headers.pop("Authorization")
    for method, path in (("GET", "/Users"), ("POST", "/Trainings"), ("DELETE", "/Datasets/1")):
        assert api.request(method, path, headers={"Authorization": header} if header else {}).status_code == 401


def test_a_jwt_of_another_sandbox_is_not_taken(api):
    """Each sandbox signs with a key of its own."""
    with Sandbox() as other, Api(other) as stranger:
        assert api.get("/Users", headers={"Authorization": stranger.headers["Authorization"]}).status_code == 401


def test_a_jwt_ends_when_its_life_is_over(state, clock):
    """The injected clock decides, to the second."""
    token = f"Bearer {state.accounts.sign_in('right')}"
    clock.now += 3599
    state.accounts.check(token)
    clock.now += 1
    with pytest.raises(Refused, match="expired"):
        state.accounts.check(token)


def test_signing_in_anew_ends_older_jwts_only_with_a_single_session():
    """Some servers keep one session per token; others keep all."""
    for single, status in ((True, 401), (False, 200)):
        with Sandbox(single_session=single) as sandbox, Api(sandbox) as older, Api(sandbox):
            assert older.get("/Users").status_code == status
