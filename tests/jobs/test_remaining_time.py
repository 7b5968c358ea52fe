"""The estimated remaining time of a job."""

from __future__ import annotations

import math

import pytest

from airflow_provider_osai.jobs.remaining_time import ProgressSample, format_duration, remaining_seconds
from tests.jobs.conftest import job

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    "started",
    [
        "2026-01-01T11:50:00Z",
        "2026-01-01T11:50:00",
        " 2026-01-01 11:50:00.0000000 ",
        "2026-01-01T13:50:00+02:00",
    ],
)
def test_the_time_since_the_start_is_extrapolated_and_without_a_zone_it_is_utc(started):
    assert remaining_seconds(job("running", startedAt=started, progress=0.25), NOON) == pytest.approx(1800)


GARBAGE = [None, "", "soon", "2026-13-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "12345"]


@pytest.mark.parametrize("started", [*GARBAGE, "2026-01-01T12:00:01Z"])
def test_without_a_usable_start_the_progress_between_two_polls_is_extrapolated(started):
    """A start in the future comes of a clock or a zone that is wrong."""
    running = job("running", startedAt=started, progress=0.5)
    assert remaining_seconds(running, NOON) is None
    assert remaining_seconds(running, NOON, ProgressSample(NOON - 60, 0.4)) == pytest.approx(300)


@pytest.mark.parametrize(
    "earlier",
    [
        ProgressSample(NOON, 0.4),
        ProgressSample(NOON + 60, 0.4),
        ProgressSample(NOON - 60, 0.5),
        ProgressSample(NOON - 60, 0.9),
        ProgressSample(math.nan, 0.4),
        ProgressSample(NOON - 60, math.nan),
    ],
)
def test_without_progress_between_two_polls_it_cannot_be_told(earlier):
    assert remaining_seconds(job("running", progress=0.5), NOON, earlier) is None


@pytest.mark.parametrize("progress", [None, 0, 1, 1e-9, -0.1, 1.5, "half", math.nan, math.inf])
def test_progress_that_says_nothing_gives_no_estimate(progress):
    """Beginning, end, invalid values, and so little that the estimate would be years."""
    running = job("running", startedAt="2026-01-01T11:50:00Z", progress=progress)
    assert remaining_seconds(running, NOON) is None


@pytest.mark.parametrize("word", ["queued", "succeeded", "failed", "cancelled"])
def test_a_job_that_does_not_run_has_no_remaining_time(word):
    assert remaining_seconds(job(word, startedAt="2026-01-01T11:50:00Z", progress=0.5), NOON) is None


def test_a_job_with_an_unknown_status_may_be_running():
    assert remaining_seconds(job("Pondering", startedAt="2026-01-01T11:50:00Z", progress=0.5), NOON) == 600


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 0.0])
def test_a_clock_without_sense_gives_no_estimate(now):
    assert remaining_seconds(job("running", startedAt="2026-01-01T11:50:00Z", progress=0.5), now) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (720, "12 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (2 * 3600, "2 h"),
        (3599.9 * 3, "3 h"),
        (50 * 3600, "2 d 2 h"),
        (72 * 3600, "3 d"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, text):
    assert format_duration(seconds) == text
