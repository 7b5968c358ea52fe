"""The rule by which a model replaces another: what is missing, no number, or a tie speaks against it."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.promotion.decision import Contender, Verdict, best, figure, judge
from airflow_provider_osai.promotion.rule import Rule

FIGURES = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers(-10, 10))


def told(model_id="new", measured_on="a", **metrics):
    return Contender(model_id, metrics, measured_on)


def verdict(rule, new, old=None):
    return judge(rule, new, old).verdict


@pytest.mark.parametrize(
    ("new", "old", "rule", "wanted"),
    [
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {}, "promoted"),
        ({"accuracy": 0.90}, {"accuracy": 0.90}, {}, "rejected"),
        ({"accuracy": 0.89}, {"accuracy": 0.90}, {}, "rejected"),
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {"min_improvement": 0.01}, "promoted"),
        ({"accuracy": 0.9099}, {"accuracy": 0.90}, {"min_improvement": 0.01}, "rejected"),
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {"min_value": 0.92}, "rejected"),
        ({"loss": 0.1}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False}, "promoted"),
        ({"loss": 0.3}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False}, "rejected"),
        ({"loss": 0.1}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False, "min_value": 0.05}, "rejected"),
        ({"accuracy": math.nan}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": math.inf}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": 0.9}, {"accuracy": math.nan}, {}, "rejected"),
        ({"accuracy": "0.9"}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": True}, {"accuracy": 0.1}, {}, "rejected"),
        ({}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": 0.9}, {}, {}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.7}, {"accuracy": 0.8, "f1": 0.8}, {"guard_metrics": ["f1"]}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.7}, {"accuracy": 0.8, "f1": 0.8}, {"guard_metrics": {"f1": 0.1}}, "promoted"),
        ({"accuracy": 0.9, "f1": 0.8}, {"accuracy": 0.8, "f1": 0.8}, {"guard_metrics": "f1"}, "promoted"),
        ({"accuracy": 0.9}, {"accuracy": 0.8, "f1": 0.8}, {"guard_metrics": "f1"}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.9}, {"accuracy": 0.8}, {"guard_metrics": "f1"}, "rejected"),
        (
            {"accuracy": 0.9, "loss": 0.3},
            {"accuracy": 0.8, "loss": 0.2},
            {"guard_metrics": {"loss": {"higher_is_better": False}}},
            "rejected",
        ),
        (
            {"accuracy": 0.9, "f1": 0.7},
            {"accuracy": 0.8, "f1": 0.7},
            {"guard_metrics": {"f1": {"min_value": 0.75}}},
            "rejected",
        ),
    ],
)
def test_who_is_promoted(new, old, rule, wanted):
    """Direction, margin, floor and guards; a tie keeps the champion."""
    assert verdict(Rule(**rule), told(**new), told("old", **old)) == wanted


def test_a_margin_is_met_exactly_where_binary_fractions_say_it_is_not():
    """0.3 is better than 0.2 by 0.1, though 0.3 - 0.2 < 0.1 in binary."""
    assert 0.3 - 0.2 < 0.1
    assert verdict(Rule(min_improvement=0.1), told(accuracy=0.3), told("old", accuracy=0.2)) == "promoted"


class TestNoChampionYet:
    """The floors alone decide."""

    def test_any_figure_will_do_without_a_floor(self):
        """Also one that nobody knows the data of."""
        assert verdict(Rule(), told(measured_on=None, accuracy=0.01)) == "promoted"

    @pytest.mark.parametrize("metrics", [{}, {"accuracy": math.nan}, {"accuracy": 0.4}])
    def test_what_does_not_reach_the_floor_is_rejected(self, metrics):
        """Nothing, no number, too little."""
        assert verdict(Rule(min_value=0.5), told(**metrics)) == "rejected"

    def test_a_guard_without_a_figure_rejects(self):
        """It could not veto later."""
        assert verdict(Rule(guard_metrics="f1"), told(accuracy=0.9)) == "rejected"


@pytest.mark.parametrize(("ours", "theirs"), [("a", "b"), (None, "b"), ("a", None), (None, None)])
def test_figures_of_different_data_are_refused_unless_told_otherwise(ours, theirs):
    """With what to do about it."""
    new, old = told(measured_on=ours, accuracy=0.9), told("old", measured_on=theirs, accuracy=0.1)
    decision = judge(Rule(), new, old)
    assert decision.verdict is Verdict.REJECTED
    assert "same_holdout=True" in decision.reasons[0]
    assert verdict(Rule(any_data=True), new, old) == "promoted"


@given(new=FIGURES, old=FIGURES, higher=st.booleans(), floor=st.none() | st.floats(-5, 5), margin=st.floats(0, 5))
def test_what_is_promoted_is_better_whatever_the_figures_are(new, old, higher, floor, margin):
    """And the decision can be kept as strict JSON."""
    rule = Rule(higher_is_better=higher, min_value=floor, min_improvement=margin)
    decision = judge(rule, told(accuracy=new), told("old", accuracy=old))
    json.dumps(decision.told(), allow_nan=False)
    assert decision.reasons
    if decision.is_promotion:
        better, worse = (new, old) if higher else (old, new)
        assert figure(new) is not None
        assert figure(old) is not None
        assert better > worse
        assert floor is None or (new >= floor if higher else new <= floor)


def test_the_best_of_several_candidates_goes_on():
    """By the rule's metric and direction; one without a figure comes last."""
    several = [told("none"), told("low", accuracy=0.1), told("high", accuracy=0.9), told("too", accuracy=0.9)]
    assert best(several, Rule()).model_id == "high"
    assert best(several, Rule(higher_is_better=False)).model_id == "low"
    assert best([told("only")], Rule()).model_id == "only"


def test_a_table_shows_all_figures():
    """One line for each metric, with what was wanted."""
    rule = Rule(min_value=0.5, min_improvement=0.01, guard_metrics={"f1": 0.02})
    table = judge(rule, told(accuracy=0.93, f1=0.9), told("old", accuracy=0.9, f1=0.91)).table().splitlines()
    assert len(table) == 3
    assert re.split("  +", table[1]) == [
        "accuracy",
        "0.9",
        "0.93",
        "+0.03",
        "at least 0.5 and better by at least 0.01 than 0.9",
        "ok",
    ]
    assert re.split("  +", table[2]) == ["f1", "0.91", "0.9", "-0.01", "not worse by more than 0.02 than 0.91", "ok"]


@pytest.mark.parametrize(
    "bad",
    [
        {"metric": " "},
        {"min_improvement": -0.1},
        {"min_value": math.nan},
        {"min_improvement": "much"},
        {"guard_metrics": {"f1": -1}},
        {"guard_metrics": {"f1": {"most": 1}}},
        {"guard_metrics": 5},
        {"metrics": "accuracy"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(bad):
    """Before anything is compared."""
    with pytest.raises(OsaiArgumentError):
        Rule(**bad)


def test_a_rule_may_come_from_a_template():
    """As text."""
    rule = Rule(min_value="0.5", min_improvement="0.1", higher_is_better="true")
    assert (rule.min_value, rule.min_improvement, rule.higher_is_better) == (0.5, 0.1, True)
