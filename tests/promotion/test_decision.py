"""The promotion decision: a tie, or a missing or non-numeric metric, rejects the candidate."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.promotion.decision import ModelScore, Verdict, best_candidate, decide, parse_metric
from airflow_provider_osai.promotion.rule import PromotionPolicy

METRIC_VALUES = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers(-10, 10))


ONLY = "accuracy only; f1 is missing for the "


def score(model_id="new", measured_on="a", **metrics):
    return ModelScore(model_id, metrics, measured_on)


def verdict(policy, new, old=None):
    return decide(policy, new, old).verdict


@pytest.mark.parametrize(
    ("new", "old", "policy", "expected"),
    [
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {}, "promoted"),
        ({"accuracy": 0.90}, {"accuracy": 0.90}, {}, "rejected"),
        ({"accuracy": 0.89}, {"accuracy": 0.90}, {}, "rejected"),
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {"min_improvement": 0.01}, "promoted"),
        ({"accuracy": 0.9099}, {"accuracy": 0.90}, {"min_improvement": 0.01}, "rejected"),
        ({"accuracy": 0.91}, {"accuracy": 0.90}, {"threshold": 0.92}, "rejected"),
        ({"loss": 0.1}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False}, "promoted"),
        ({"loss": 0.3}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False}, "rejected"),
        ({"loss": 0.1}, {"loss": 0.2}, {"metric": "loss", "higher_is_better": False, "threshold": 0.05}, "rejected"),
        ({"accuracy": math.nan}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": math.inf}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": 0.9}, {"accuracy": math.nan}, {}, "rejected"),
        ({"accuracy": "0.9"}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": True}, {"accuracy": 0.1}, {}, "rejected"),
        ({}, {"accuracy": 0.1}, {}, "rejected"),
        ({"accuracy": 0.9}, {}, {}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.7}, {"accuracy": 0.8, "f1": 0.8}, {"guardrail_metrics": ["f1"]}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.7}, {"accuracy": 0.8, "f1": 0.8}, {"guardrail_metrics": {"f1": 0.1}}, "promoted"),
        ({"accuracy": 0.9, "f1": 0.8}, {"accuracy": 0.8, "f1": 0.8}, {"guardrail_metrics": "f1"}, "promoted"),
        ({"accuracy": 0.9}, {"accuracy": 0.8, "f1": 0.8}, {"guardrail_metrics": "f1"}, "rejected"),
        ({"accuracy": 0.9, "f1": 0.9}, {"accuracy": 0.8}, {"guardrail_metrics": "f1"}, "rejected"),
        (
            {"accuracy": 0.9, "loss": 0.3},
            {"accuracy": 0.8, "loss": 0.2},
            {"guardrail_metrics": {"loss": {"higher_is_better": False}}},
            "rejected",
        ),
        (
            {"accuracy": 0.9, "f1": 0.7},
            {"accuracy": 0.8, "f1": 0.7},
            {"guardrail_metrics": {"f1": {"threshold": 0.75}}},
            "rejected",
        ),
    ],
)
def test_verdict(new, old, policy, expected):
    """Direction, margin, thresholds and guardrails; a tie keeps the champion."""
    assert verdict(PromotionPolicy(**policy), score(**new), score("old", **old)) == expected


def test_margin_is_compared_as_decimal_numbers():
    """0.3 is better than 0.2 by 0.1, though 0.3 - 0.2 < 0.1 as floats."""
    assert 0.3 - 0.2 < 0.1
    assert verdict(PromotionPolicy(min_improvement=0.1), score(accuracy=0.3), score("old", accuracy=0.2)) == "promoted"


class TestWithoutChampion:
    """Only the thresholds apply."""

    def test_any_number_is_promoted_without_a_threshold(self):
        """Also if the data it was measured on is unknown."""
        assert verdict(PromotionPolicy(), score(measured_on=None, accuracy=0.01)) == "promoted"

    @pytest.mark.parametrize("metrics", [{}, {"accuracy": math.nan}, {"accuracy": 0.4}])
    def test_missing_or_insufficient_metric_is_rejected_by_the_threshold(self, metrics):
        assert verdict(PromotionPolicy(threshold=0.5), score(**metrics)) == "rejected"

    def test_missing_guardrail_metric_is_rejected(self):
        assert verdict(PromotionPolicy(guardrail_metrics="f1"), score(accuracy=0.9)) == "rejected"


@pytest.mark.parametrize(("new_data", "old_data"), [("a", "b"), (None, "b"), ("a", None), (None, None)])
def test_different_or_unknown_data_is_rejected_unless_allowed(new_data, old_data):
    new, old = score(measured_on=new_data, accuracy=0.9), score("old", measured_on=old_data, accuracy=0.1)
    decision = decide(PromotionPolicy(), new, old)
    assert decision.verdict is Verdict.REJECTED
    assert "evaluation_dataset_id=" in decision.reasons[0]
    assert verdict(PromotionPolicy(allow_different_data=True), new, old) == "promoted"


@pytest.mark.parametrize(
    ("new", "old", "reasons"),
    [
        (
            {"accuracy": 0.9, "f1": 0.9},
            {"accuracy": 0.8},
            ["the event has accuracy only; f1 is missing for the champion"],
        ),
        ({"accuracy": 0.9}, {"accuracy": 0.8, "f1": 1}, [f"the job has {ONLY}candidate"]),
        (
            {"accuracy": 0.7, "images": 3},
            {"accuracy": 0.8},
            [
                "accuracy is 0.7, required: better than 0.8",
                "the job has accuracy, images only; f1 is missing for the candidate",
                "the event has accuracy only; f1 is missing for the champion",
            ],
        ),
        ({"accuracy": 0.9, "f1": math.nan}, {"accuracy": 0.8, "f1": 1}, ["f1 is nan for the candidate, not a number"]),
        ({"accuracy": 0.9, "f1": "\nx"}, {"accuracy": 0.8, "f1": 1}, ["f1 is '\\nx' for the candidate, not a number"]),
        (
            {},
            {"accuracy": 0.8, "f1": 1},
            [
                "the job has no metrics; accuracy is missing for the candidate",
                "the job has no metrics; f1 is missing for the candidate",
            ],
        ),
    ],
)
def test_reason_names_the_missing_metric_and_the_available_ones(new, old, reasons):
    candidate, champion = ModelScore("b", new, "a", "the job"), ModelScore("a", old, "a", "the event")
    assert decide(PromotionPolicy(guardrail_metrics="f1"), candidate, champion).reasons == reasons


@given(
    new=METRIC_VALUES,
    old=METRIC_VALUES,
    higher=st.booleans(),
    threshold=st.none() | st.floats(-5, 5),
    margin=st.floats(0, 5),
)
def test_promoted_candidate_is_better_for_any_values(new, old, higher, threshold, margin):
    """And each decision serializes to strict JSON."""
    policy = PromotionPolicy(higher_is_better=higher, threshold=threshold, min_improvement=margin)
    decision = decide(policy, score(accuracy=new), score("old", accuracy=old))
    json.dumps(decision.to_dict(), allow_nan=False)
    assert decision.reasons
    if decision.is_promotion:
        better, worse = (new, old) if higher else (old, new)
        assert parse_metric(new) is not None
        assert parse_metric(old) is not None
        assert better > worse
        assert threshold is None or (new >= threshold if higher else new <= threshold)


def test_best_candidate_by_metric_and_direction():
    """A candidate without the metric comes last."""
    candidates = [score("none"), score("low", accuracy=0.1), score("high", accuracy=0.9), score("too", accuracy=0.9)]
    assert best_candidate(candidates, PromotionPolicy()).model_id == "high"
    assert best_candidate(candidates, PromotionPolicy(higher_is_better=False)).model_id == "low"
    assert best_candidate([score("only")], PromotionPolicy()).model_id == "only"


def test_table_has_one_row_for_each_metric():
    policy = PromotionPolicy(threshold=0.5, min_improvement=0.01, guardrail_metrics={"f1": 0.02})
    table = decide(policy, score(accuracy=0.93, f1=0.9), score("old", accuracy=0.9, f1=0.91)).table().splitlines()
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
        {"threshold": math.nan},
        {"min_improvement": "much"},
        {"guardrail_metrics": {"f1": -1}},
        {"guardrail_metrics": {"f1": {"most": 1}}},
        {"guardrail_metrics": 5},
        {"metrics": "accuracy"},
    ],
)
def test_invalid_policy_is_rejected(bad):
    with pytest.raises(OsaiArgumentError):
        PromotionPolicy(**bad)


def test_policy_accepts_rendered_text():
    policy = PromotionPolicy(threshold="0.5", min_improvement="0.1", higher_is_better="true")
    assert (policy.threshold, policy.min_improvement, policy.higher_is_better) == (0.5, 0.1, True)


class TestPercent:
    """A metric in percent passes any threshold that is a fraction, so it must not decide."""

    def test_percent_under_a_fraction_as_threshold_is_rejected(self):
        decision = decide(PromotionPolicy(threshold=0.9), score(accuracy=45.0), None)
        assert decision.verdict is Verdict.REJECTED
        assert "accuracy is 45.0 for the candidate, and its threshold 0.9 is a fraction" in decision.reasons[0]
        assert "{response: {result.metrics.accuracy: {scale: 100}}}" in decision.reasons[0]

    def test_a_guardrail_in_percent_too(self):
        policy = PromotionPolicy(guardrail_metrics={"recall": {"threshold": 0.5}})
        assert verdict(policy, score(accuracy=0.9, recall=60)) is Verdict.REJECTED

    @pytest.mark.parametrize(
        ("policy", "metrics"),
        [
            ({"threshold": 40}, {"accuracy": 45.0}),
            ({}, {"accuracy": 45.0}),
            ({"metric": "images", "threshold": 1}, {"images": 45}),
            ({"threshold": 0.9}, {"accuracy": 1.0}),
        ],
    )
    def test_anything_else_decides(self, policy, metrics):
        assert verdict(PromotionPolicy(**policy), score(**metrics)) is Verdict.PROMOTED
