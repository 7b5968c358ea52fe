"""How long nobody asks after a failure."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.jobs.outage import LONGEST, Outage


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def outage(clock):
    return Outage(clock=lambda: clock[0], chance=lambda: 1.0)


@pytest.mark.parametrize(
    "error",
    [
        OsaiUnreachable("down"),
        OsaiUnreachable("503", status=503),
        OsaiUnreachable("a page", status=200),
        OsaiAuthError("no"),
    ],
    ids=repr,
)
def test_a_failure_of_osai_as_a_whole_is_told_for_a_second(outage, clock, error):
    """Then somebody may try."""
    outage.noted(error)
    assert str(outage.error()) == str(error)
    clock[0] += 1.01
    assert outage.error() is None


@pytest.mark.parametrize(
    "error",
    [OsaiRequestError(404, "GET", "/", ""), OsaiContractError("odd"), OsaiUnreachable("500", status=500)],
    ids=repr,
)
def test_a_failure_that_may_be_about_one_job_is_no_outage(outage, error):
    """Others go on."""
    outage.noted(error)
    assert outage.error() is None


def test_it_lasts_longer_each_time_up_to_half_a_minute(outage, clock):
    """Until OSAI answers."""
    lengths = []
    for _ in range(8):
        outage.noted(OsaiUnreachable("down"))
        begin = clock[0]
        while outage.error():
            clock[0] += 0.5
        lengths.append(clock[0] - begin)
    assert lengths == [1, 2, 4, 8, 16, LONGEST, LONGEST, LONGEST]
    outage.over()
    outage.noted(OsaiUnreachable("down"))
    clock[0] += 1.5
    assert outage.error() is None


def test_those_that_failed_together_count_once(outage, clock):
    """They were on their way at the same time."""
    for _ in range(10):
        outage.noted(OsaiUnreachable("down"))
    clock[0] += 1.5
    assert outage.error() is None


def test_retry_after_is_a_floor_and_counts_down(outage, clock):
    """Whoever asks later has to wait less."""
    outage.noted(OsaiUnreachable("429", sent=False, status=429, retry_after=40.0))
    outage.noted(OsaiUnreachable("503", status=503, retry_after=10.0))
    clock[0] += 5
    told = outage.error()
    assert isinstance(told, OsaiUnreachable)
    assert (told.status, told.retry_after) == (503, 35.0)
    clock[0] += 35
    assert outage.error() is None
