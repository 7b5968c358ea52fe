"""Settings from a connection, and the errors of invalid fields."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.settings import OsaiSettings, unknown_extras
from tests.conftest import CANARY


def test_default_region_is_eu():
    settings = OsaiSettings.from_connection(CANARY, {})
    assert (settings.base_url, settings.region) == ("https://app-eu.onestepai.com/api", "eu")
    assert settings.portal_url == "https://app-eu.onestepai.com"


def test_empty_fields_count_as_missing():
    """The connection form stores null or an empty string for them."""
    extra = {"region": "US", "base_url": "", "timeout": None, "contract": "", "webhook_secret": ""}
    settings = OsaiSettings.from_connection(f" {CANARY} ", extra)
    assert (settings.base_url, settings.timeout) == ("https://app-us.onestepai.com/api", 30.0)
    assert settings.access_token.get_secret_value() == CANARY


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/api", "http://localhost/api/", "http://[::1]:1/api"])
def test_http_is_accepted_for_loopback(url):
    assert OsaiSettings.from_connection(CANARY, {"base_url": url}).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"region": "ue"}, "region = 'ue': must be eu or us"),
        ({"base_url": "http://osai.example.com/api"}, "use https"),
        ({"base_url": "http://127.0.0.1.example.com/api"}, "use https"),
        ({"base_url": "osai.example.com"}, "complete URL"),
        ({"base_url": "https://osai.example.com:port/api"}, "complete URL"),
        ({"base_url": "https://osai.example.com/api?x=1"}, "complete URL"),
        ({"base_url": "ftp://osai.example.com"}, "complete URL"),
        ({"base_url": "https://osai..example.com/api"}, "complete URL"),
        ({"base_url": f"https://{'a' * 64}.example.com/api"}, "complete URL"),
        ({"base_url": "https://xn--/api"}, "complete URL"),
        ({"base_url": "https://osai.example.com/\x07"}, "complete URL"),
        ({"base_url": "https://osai.example.com/\ud800"}, "complete URL"),
        ({"timeout": "soon"}, "timeout = 'soon'"),
        ({"timeout": 0}, "timeout = 0"),
        ({"timeout": "nan"}, "timeout = 'nan'"),
        ({"webhook_base_url": "http://airflow.example.com"}, "webhook_base_url"),
    ],
)
def test_invalid_field_is_an_error_that_names_it(extra, message):
    with pytest.raises(OsaiArgumentError, match=message):
        OsaiSettings.from_connection(CANARY, extra)


def test_credentials_in_the_url_are_rejected_and_not_shown():
    with pytest.raises(OsaiArgumentError, match=r"must not contain credentials") as caught:
        OsaiSettings.from_connection(CANARY, {"base_url": "https://me:hunter2@osai.example.com/api"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", [None, "", "  "])
def test_missing_token_is_an_error_with_the_remedy(token):
    with pytest.raises(OsaiArgumentError, match="no access token.*Settings"):
        OsaiSettings.from_connection(token, {})


@pytest.mark.parametrize("token", ["canary\ud800", "canary\n2", "canary\0", "\x1bcanary"])
def test_invalid_token_is_an_error_that_does_not_show_it(token):
    with pytest.raises(OsaiArgumentError, match="token contains an invalid character") as caught:
        OsaiSettings.from_connection(token, {})
    assert "canary" not in str(caught.value)


def test_invalid_contract_is_an_error():
    with pytest.raises(OsaiContractError, match="contract"):
        OsaiSettings.from_connection(CANARY, {"contract": "{"})


def test_unknown_extras_are_listed_with_the_allowed_ones():
    assert unknown_extras({"region": "eu"}) is None
    assert "['regoin']" in unknown_extras({"regoin": "eu"})
    assert "webhook_base_url" in unknown_extras({"regoin": "eu"})


def test_no_secret_is_in_the_repr():
    settings = OsaiSettings.from_connection(CANARY, {"webhook_secret": "hush-hush-hush-hush"})
    assert CANARY not in repr(settings)
    assert "hush-hush" not in repr(settings)


@pytest.mark.parametrize("text", ["a" * 16, f"  {'a' * 16}  ", f"{'a' * 16} {'b' * 16}", f"{'a' * 16},{'b' * 16}"])
def test_one_or_two_webhook_secrets_are_accepted(text):
    """The second one allows rotation."""
    settings = OsaiSettings.from_connection(
        CANARY, {"webhook_secret": text, "webhook_base_url": "https://a.example/x/"}
    )
    assert [secret.get_secret_value()[0] for secret in settings.webhook_secrets] == ["a", "b"][: 1 + ("b" in text)]
    assert settings.takes_webhooks


@pytest.mark.parametrize("text", ["short", f"{'a' * 16} short", " ".join("abc" * 16 for _ in range(3))])
def test_short_or_too_many_webhook_secrets_are_an_error_that_does_not_show_them(text):
    with pytest.raises(OsaiArgumentError, match="at least 16 characters") as caught:
        OsaiSettings.from_connection(CANARY, {"webhook_secret": text})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("extra", [{}, {"webhook_base_url": "https://a.example"}, {"webhook_secret": "a" * 16}])
def test_webhooks_need_both_url_and_secret(extra):
    assert not OsaiSettings.from_connection(CANARY, extra).takes_webhooks
