"""The gate for secrets in logs can fail."""

from __future__ import annotations

import pytest

from tests.conftest import CANARY, SECRET

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("text", [f"token {CANARY} seen", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.x"])
def test_the_pattern_finds_the_token_and_any_jwt(text):
    """What all tests look for."""
    assert SECRET.search(text)


@pytest.mark.parametrize("how", ["logging.getLogger('x').debug('%s', CANARY)", "print(CANARY)"])
def test_a_test_that_logs_or_prints_the_token_fails(pytester, capfd, how):
    """Also at DEBUG, and when the test itself passes."""
    pytester.makeconftest("from tests.conftest import logged")
    pytester.makepyfile(f"import logging\nfrom tests.conftest import CANARY\ndef test_leak():\n    {how}")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    capfd.readouterr()  # the inner run shows what it printed; this test need not
    result.assert_outcomes(passed=1, errors=1)
