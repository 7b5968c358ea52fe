"""Who stands is a matter of the log alone: what was decided against a champion of before counts for nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.promotion.champion import Champion, Run, champion_of, extra_of
from airflow_provider_osai.promotion.decision import Contender, judge
from airflow_provider_osai.promotion.rule import Rule

RUN = Run("dag", "run", datetime(2026, 1, 1, tzinfo=UTC))


def promotion(model_id, replaces, run=RUN):
    """The extra of a promotion's event, as it is after a trip through JSON."""
    champion = Champion(Contender(replaces, {"accuracy": 0.1}, "a")) if replaces else None
    decision = judge(Rule(), Contender(model_id, {"accuracy": 0.9}, "a"), champion and champion.model)
    assert decision.is_promotion
    return json.loads(json.dumps(extra_of(decision.told(), champion, run)))


def test_no_event_is_no_champion():
    """Nor is one that names no model."""
    assert champion_of([]) is None
    assert champion_of([None, {}, {"model_id": ""}, {"digest": "x"}]) is None


def test_the_last_promotion_stands_with_its_figures_and_its_run():
    """A round trip through the event."""
    stands = champion_of([promotion("a", None), promotion("b", "a")])
    assert stands.model == Contender("b", {"accuracy": 0.9}, "a")
    assert stands.run == RUN


def test_of_two_that_were_decided_against_the_same_champion_the_first_stands():
    """The second did not see it."""
    assert champion_of([promotion("a", None), promotion("b", "a"), promotion("c", "a")]).model.model_id == "b"
    assert champion_of([promotion("a", None), promotion("b", None)]).model.model_id == "a"


def test_a_person_may_always_say_who_stands():
    """To roll back: an event with the model's id alone."""
    stands = champion_of([promotion("a", None), promotion("b", "a"), {"model_id": "a"}, promotion("c", "b")])
    assert stands == Champion(Contender("a"))


def test_a_log_whose_beginning_is_cut_off_begins_with_its_first_promotion():
    """Who was before it cannot be known."""
    assert champion_of([promotion("k", "j"), promotion("l", "k")]).model.model_id == "l"


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 5)), max_size=12))
def test_every_champion_beat_the_one_before_it(steps):
    """Whatever the order in which overlapping runs come to be heard."""
    log = [{"model_id": str(new), "replaces": None if old is None else str(old)} for new, old in steps]
    stood = [champion_of(log[:end]) for end in range(1, len(log) + 1)]
    for before, after, event in zip(stood, stood[1:], log[1:], strict=False):
        if after.model.model_id != before.model.model_id:
            assert event["replaces"] == before.model.model_id


@pytest.mark.parametrize(
    ("other", "is_before"),
    [
        (Run("dag", "later", datetime(2026, 1, 2, tzinfo=UTC)), True),
        (Run("dag", "earlier", datetime(2025, 1, 2, tzinfo=UTC)), False),
        (Run("dag", "run", datetime(2026, 1, 2, tzinfo=UTC)), False),
        (Run("another dag", "later", datetime(2026, 1, 2, tzinfo=UTC)), False),
        (Run("dag", "when?", None), False),
    ],
)
def test_only_runs_of_one_dag_have_an_order(other, is_before):
    """And only those whose time is known."""
    assert RUN.is_before(other) is is_before
