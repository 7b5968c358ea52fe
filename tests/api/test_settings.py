"""What a connection may say."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.settings import OsaiSettings, unknown_extras
from tests.conftest import CANARY


def test_nothing_but_a_token_means_the_eu():
    """The defaults of the connection form."""
    settings = OsaiSettings.from_connection(CANARY, {})
    assert (settings.base_url, settings.region) == ("https://app-eu.onestepai.com/api", "eu")
    assert settings.portal_url == "https://app-eu.onestepai.com"


def test_empty_fields_of_the_form_count_as_not_given():
    """The form stores null or an empty text for what the user leaves out."""
    extra = {"region": "US", "base_url": "", "timeout": None, "contract": "", "webhook_secret": ""}
    settings = OsaiSettings.from_connection(f" {CANARY} ", extra)
    assert (settings.base_url, settings.timeout) == ("https://app-us.onestepai.com/api", 30.0)
    assert settings.access_token.get_secret_value() == CANARY


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/api", "http://localhost/api/", "http://[::1]:1/api"])
def test_http_is_taken_on_this_machine(url):
    """For the sandbox."""
    assert OsaiSettings.from_connection(CANARY, {"base_url": url}).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"region": "ue"}, "no OSAI region 'ue': choose eu or us"),
        ({"base_url": "http://osai.example.com/api"}, "use https"),
        ({"base_url": "http://127.0.0.1.example.com/api"}, "use https"),
        ({"base_url": "osai.example.com"}, "whole address"),
        ({"base_url": "https://osai.example.com:port/api"}, "whole address"),
        ({"base_url": "https://osai.example.com/api?x=1"}, "whole address"),
        ({"base_url": "ftp://osai.example.com"}, "whole address"),
        ({"timeout": "soon"}, "timeout = 'soon'"),
        ({"timeout": 0}, "timeout = 0"),
        ({"timeout": "nan"}, "timeout = 'nan'"),
        ({"webhook_base_url": "http://airflow.example.com"}, "webhook_base_url"),
    ],
)
def test_a_bad_field_is_one_error_that_names_it(extra, said):
    """With its value and the remedy."""
    with pytest.raises(OsaiArgumentError, match=said):
        OsaiSettings.from_connection(CANARY, extra)


def test_a_login_in_the_address_is_refused_and_not_repeated():
    """Neither error messages nor logs show a password."""
    with pytest.raises(OsaiArgumentError, match=r"must not hold a login") as caught:
        OsaiSettings.from_connection(CANARY, {"base_url": "https://me:hunter2@osai.example.com/api"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", [None, "", "  "])
def test_a_missing_token_is_said_with_where_to_get_one(token):
    """Nothing works without it."""
    with pytest.raises(OsaiArgumentError, match="no access token.*Settings"):
        OsaiSettings.from_connection(token, {})


def test_a_bad_contract_is_said_when_the_connection_is_read():
    """Before anything is sent."""
    with pytest.raises(OsaiContractError, match="contract"):
        OsaiSettings.from_connection(CANARY, {"contract": "{"})


def test_unknown_extras_are_listed_with_the_allowed_ones():
    """A typing mistake in an extra is found."""
    assert unknown_extras({"region": "eu"}) is None
    assert "['regoin']" in unknown_extras({"regoin": "eu"})
    assert "webhook_base_url" in unknown_extras({"regoin": "eu"})


def test_no_secret_is_in_the_repr():
    """Settings may end up in a traceback."""
    settings = OsaiSettings.from_connection(CANARY, {"webhook_secret": "hush-hush-hush-hush"})
    assert CANARY not in repr(settings)
    assert "hush-hush" not in repr(settings)


@pytest.mark.parametrize("text", ["a" * 16, f"  {'a' * 16}  ", f"{'a' * 16} {'b' * 16}", f"{'a' * 16},{'b' * 16}"])
def test_one_or_two_webhook_secrets_are_taken(text):
    """The first signs; with two, they can be rotated."""
    settings = OsaiSettings.from_connection(
        CANARY, {"webhook_secret": text, "webhook_base_url": "https://a.example/x/"}
    )
    assert [secret.get_secret_value()[0] for secret in settings.webhook_secrets] == ["a", "b"][: 1 + ("b" in text)]
    assert settings.takes_webhooks


@pytest.mark.parametrize("text", ["short", f"{'a' * 16} short", " ".join("abc" * 16 for _ in range(3))])
def test_a_webhook_secret_that_could_be_guessed_is_refused_without_being_quoted(text):
    """So are three of them."""
    with pytest.raises(OsaiArgumentError, match="at least 16 characters") as caught:
        OsaiSettings.from_connection(CANARY, {"webhook_secret": text})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("extra", [{}, {"webhook_base_url": "https://a.example"}, {"webhook_secret": "a" * 16}])
def test_webhooks_need_both_address_and_secret(extra):
    """One alone is half a set-up."""
    assert not OsaiSettings.from_connection(CANARY, extra).takes_webhooks
