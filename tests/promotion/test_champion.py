"""The champion follows from the log of promotions; one decided against a former champion is ignored."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.promotion.champion import Champion, Run, current_champion, promotion_extra
from airflow_provider_osai.promotion.decision import ModelScore, decide
from airflow_provider_osai.promotion.rule import PromotionPolicy

RUN = Run("dag", "run", datetime(2026, 1, 1, tzinfo=UTC))


def promotion(model_id, replaces, run=RUN):
    """The extra of a promotion's event, after a round trip through JSON."""
    replaced = Champion(ModelScore(replaces, {"accuracy": 0.1}, "a")) if replaces else None
    decision = decide(PromotionPolicy(), ModelScore(model_id, {"accuracy": 0.9}, "a"), replaced and replaced.model)
    assert decision.is_promotion
    return json.loads(json.dumps(promotion_extra(decision.to_dict(), replaced, run)))


def test_log_without_a_promotion_has_no_champion():
    assert current_champion([]) is None
    assert current_champion([None, {}, {"model_id": ""}, {"digest": "x"}]) is None


def test_last_promotion_is_the_champion_with_its_metrics_and_run():
    champion = current_champion([promotion("a", None), promotion("b", "a")])
    assert champion.model == ModelScore("b", {"accuracy": 0.9}, "a")
    assert champion.run == RUN


def test_first_of_two_promotions_against_the_same_champion_counts():
    assert current_champion([promotion("a", None), promotion("b", "a"), promotion("c", "a")]).model.model_id == "b"
    assert current_champion([promotion("a", None), promotion("b", None)]).model.model_id == "a"


def test_event_with_only_a_model_id_always_counts():
    """For a manual rollback."""
    champion = current_champion([promotion("a", None), promotion("b", "a"), {"model_id": "a"}, promotion("c", "b")])
    assert champion == Champion(ModelScore("a"))


def test_first_promotion_of_a_truncated_log_counts():
    assert current_champion([promotion("k", "j"), promotion("l", "k")]).model.model_id == "l"


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 5)), max_size=12))
def test_each_champion_was_decided_against_the_previous_one(steps):
    """For events in any order, as overlapping runs may create them."""
    log = [{"model_id": str(new), "replaces": None if old is None else str(old)} for new, old in steps]
    champions = [current_champion(log[:end]) for end in range(1, len(log) + 1)]
    for before, after, event in zip(champions, champions[1:], log[1:], strict=False):
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
def test_only_runs_of_the_same_dag_with_known_times_are_ordered(other, is_before):
    assert RUN.is_before(other) is is_before
