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
    settings = OsaiSettings.from_connection(CANARY, {"webhook_secret": "hush-hush"})
    assert CANARY not in repr(settings)
    assert "hush-hush" not in repr(settings)
