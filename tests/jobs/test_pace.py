"""How often a job is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.jobs.pace import SHORTEST, Pace

STEADY = Pace(30, chance=lambda: 0.5)


@pytest.mark.parametrize(("age", "wait"), [(0, 1), (5, 1), (50, 10), (140, 28), (10_000, 29.55)])
def test_the_pause_grows_with_the_age_up_to_the_longest(age, wait):
    """The end is noticed at most a fifth of the run time late."""
    assert STEADY.interval(age) == pytest.approx(wait)


@pytest.mark.parametrize(("progress", "wait"), [(0.5, 29.55), (0.9, 29.55), (0.98, 10.204), (1.0, 1)])
def test_near_the_end_the_pause_is_half_of_what_remains(progress, wait):
    """A job of 1,000 s at 98 % has about 20 s to go."""
    assert STEADY.interval(1000, progress) == pytest.approx(wait, rel=1e-3)


@given(st.floats(0, 1e7), st.none() | st.floats(0, 1), st.floats(0.5, 600), st.floats(0, 1))
def test_the_pause_is_always_between_its_bounds(age, progress, longest, chance):
    """Whatever the job says of itself, and spread so that no herd forms; the longest is never passed."""
    wait = Pace(longest, chance=lambda: chance).interval(age, progress)
    assert 0.8 * min(SHORTEST, longest) <= wait <= longest


def test_with_a_webhook_the_pause_is_long_from_the_start():
    """The webhook tells; the poll is a safety net."""
    assert Pace(600, shortest=600, chance=lambda: 0.5).interval(0, 0.99) == pytest.approx(591)


def test_two_waiters_do_not_look_in_step():
    """Real chance spreads them."""
    assert len({Pace(30).interval(1000) for _ in range(20)}) > 10
