"""How often a job is polled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.jobs.polling import MIN_INTERVAL, PollSchedule

STEADY = PollSchedule(30, random_factor=lambda: 0.5)


@pytest.mark.parametrize(("age", "interval"), [(0, 1), (5, 1), (50, 10), (140, 28), (10_000, 29.55)])
def test_the_interval_grows_with_the_age_up_to_the_maximum(age, interval):
    """The end is noticed at most a fifth of the run time late."""
    assert STEADY.next_interval(age) == pytest.approx(interval)


@pytest.mark.parametrize(("progress", "interval"), [(0.5, 29.55), (0.9, 29.55), (0.98, 10.204), (1.0, 1)])
def test_near_the_end_the_interval_is_half_of_the_remaining_time(progress, interval):
    """A job that is 1,000 s old and at 98 % has about 20 s left."""
    assert STEADY.next_interval(1000, progress) == pytest.approx(interval, rel=1e-3)


@given(st.floats(0, 1e7), st.none() | st.floats(0, 1), st.floats(0.5, 600), st.floats(0, 1))
def test_the_interval_is_always_within_its_limits(age, progress, max_interval, random_factor):
    """Whatever age and progress are; jitter never exceeds the maximum."""
    interval = PollSchedule(max_interval, random_factor=lambda: random_factor).next_interval(age, progress)
    assert 0.8 * min(MIN_INTERVAL, max_interval) <= interval <= max_interval


def test_with_a_webhook_the_interval_is_long_from_the_start():
    """The poll is only the fallback."""
    assert PollSchedule(600, min_interval=600, random_factor=lambda: 0.5).next_interval(0, 0.99) == pytest.approx(591)


def test_the_default_schedule_has_jitter():
    assert len({PollSchedule(30).next_interval(1000) for _ in range(20)}) > 10
