"""Sign-in and JWTs."""

from __future__ import annotations

import jwt
import pytest

from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.models import ApiError
from tests.sandbox.client import Api


def test_sign_in_returns_a_quoted_jwt_as_text(sandbox):
    """The documented form: the request body is a bare JSON string, the response is text."""
    with Api(sandbox, signed_in=False) as api:
        response = api.post("/Users/SignIn", json=sandbox.access_token)
    claims = jwt.decode(response.text.strip('"'), options={"verify_signature": False})
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.startswith('"')
    assert claims["exp"] - claims["iat"] == 3600


def test_sign_in_returns_an_unquoted_jwt_if_configured():
    """Clients must accept both."""
    with Sandbox(quoted_jwt=False) as sandbox, Api(sandbox, signed_in=False) as api:
        assert api.post("/Users/SignIn", json=sandbox.access_token).text.startswith("ey")


@pytest.mark.parametrize(("body", "status"), [(b'"wrong"', 401), (b"wrong", 400), (b'{"token": "a"}', 400), (b"", 400)])
def test_sign_in_with_an_invalid_token_or_body_fails_with_a_message(sandbox, body, status):
    """An invalid token is 401, a body that is not a JSON string 400."""
    with Api(sandbox, signed_in=False) as api:
        response = api.post("/Users/SignIn", content=body)
    assert response.status_code == status
    assert response.json()["message"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic abc"])
def test_request_without_a_valid_jwt_returns_401(api, header):
    api.headers.pop("Authorization")
    for method, path in (("GET", "/Users"), ("POST", "/Trainings"), ("DELETE", "/Datasets/1")):
        assert api.request(method, path, headers={"Authorization": header} if header else {}).status_code == 401


def test_jwt_of_another_sandbox_is_rejected(api):
    with Sandbox() as other, Api(other) as stranger:
        assert api.get("/Users", headers={"Authorization": stranger.headers["Authorization"]}).status_code == 401


def test_jwt_expires_after_its_lifetime(state, clock):
    token = f"Bearer {state.accounts.sign_in('right')}"
    clock.now += 3599
    state.accounts.check(token)
    clock.now += 1
    with pytest.raises(ApiError, match="expired"):
        state.accounts.check(token)


def test_new_sign_in_revokes_earlier_jwts_only_with_single_session():
    for single, status in ((True, 401), (False, 200)):
        with Sandbox(single_session=single) as sandbox, Api(sandbox) as older, Api(sandbox):
            assert older.get("/Users").status_code == status
