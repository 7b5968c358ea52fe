"""The circuit breaker: which errors open it, and for how long."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.jobs.circuit_breaker import MAX_PAUSE, CircuitBreaker


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def breaker(clock):
    return CircuitBreaker(clock=lambda: clock[0], random_factor=lambda: 1.0)


@pytest.mark.parametrize(
    "error",
    [
        OsaiUnreachable("down"),
        OsaiUnreachable("503", status=503),
        OsaiUnreachable("a web page", status=200),
        OsaiAuthError("no"),
    ],
    ids=repr,
)
def test_an_error_of_osai_as_a_whole_opens_it_for_a_second(breaker, clock, error):
    breaker.record_failure(error)
    assert str(breaker.open_error()) == str(error)
    clock[0] += 1.01
    assert breaker.open_error() is None


@pytest.mark.parametrize(
    "error",
    [OsaiRequestError(404, "GET", "/", ""), OsaiContractError("odd"), OsaiUnreachable("500", status=500)],
    ids=repr,
)
def test_an_error_that_may_concern_one_job_does_not_open_it(breaker, error):
    breaker.record_failure(error)
    assert breaker.open_error() is None


def test_each_failure_doubles_the_pause_up_to_half_a_minute(breaker, clock):
    """A success resets the backoff."""
    pauses = []
    for _ in range(8):
        breaker.record_failure(OsaiUnreachable("down"))
        begin = clock[0]
        while breaker.open_error():
            clock[0] += 0.5
        pauses.append(clock[0] - begin)
    assert pauses == [1, 2, 4, 8, 16, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]
    breaker.record_success()
    breaker.record_failure(OsaiUnreachable("down"))
    clock[0] += 1.5
    assert breaker.open_error() is None


def test_concurrent_failures_count_once(breaker, clock):
    """They were in flight at the same time."""
    for _ in range(10):
        breaker.record_failure(OsaiUnreachable("down"))
    clock[0] += 1.5
    assert breaker.open_error() is None


def test_retry_after_is_a_floor_and_counts_down(breaker, clock):
    """Later callers get a shorter ``retry_after``."""
    breaker.record_failure(OsaiUnreachable("429", may_have_been_processed=False, status=429, retry_after=40.0))
    breaker.record_failure(OsaiUnreachable("503", status=503, retry_after=10.0))
    clock[0] += 5
    error = breaker.open_error()
    assert isinstance(error, OsaiUnreachable)
    assert (error.status, error.retry_after) == (503, 35.0)
    clock[0] += 35
    assert breaker.open_error() is None
