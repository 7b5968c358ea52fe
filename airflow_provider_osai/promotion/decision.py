"""Compare a candidate with the champion by a promotion policy: a verdict with reasons and a table of the metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, TypedDict

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.api.misfits import is_percent
from airflow_provider_osai.jobs.log_group import table_lines
from airflow_provider_osai.promotion.rule import PromotionPolicy

__all__ = [
    "Decision",
    "DecisionRecord",
    "MetricComparison",
    "ModelScore",
    "ScoreRecord",
    "Verdict",
    "best_candidate",
    "decide",
    "parse_metric",
]


class Verdict(StrEnum):
    """The value of a decision."""

    PROMOTED = "promoted"
    REJECTED = "rejected"


class ScoreRecord(TypedDict):
    """A model's score as plain JSON."""

    model_id: str
    metrics: dict[str, Any]
    measured_on: str | None


class DecisionRecord(TypedDict):
    """A decision as plain JSON. ``decision`` is ``promoted`` or ``rejected``."""

    decision: str
    reasons: list[str]
    rule: dict[str, Any]
    candidate: ScoreRecord
    champion: ScoreRecord | None


@dataclass(frozen=True, slots=True)
class ModelScore:
    """A model's metrics and the data they were measured on.

    ``measured_on`` is a digest of the data, or a dataset; ``None`` if unknown. ``source`` describes the origin of the
    metrics, for messages.
    """

    model_id: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    measured_on: str | None = None
    source: str = field(default="the model", compare=False)

    def to_dict(self) -> ScoreRecord:
        """Return the score as plain JSON; NaN and infinities become text."""
        metrics = {name: _json_value(value) for name, value in self.metrics.items()}
        return {"model_id": self.model_id, "metrics": metrics, "measured_on": self.measured_on}


class MetricComparison(NamedTuple):
    """One metric of the candidate and the champion; ``requirement`` describes what the candidate must achieve."""

    metric: str
    champion: Decimal | None
    candidate: Decimal | None
    requirement: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a candidate, with its reasons and inputs."""

    verdict: Verdict
    reasons: Sequence[str]
    policy: PromotionPolicy
    candidate: ModelScore
    champion: ModelScore | None
    comparisons: Sequence[MetricComparison] = ()

    @property
    def is_promotion(self) -> bool:
        """Whether the candidate becomes, or remains, the champion."""
        return self.verdict is Verdict.PROMOTED

    def to_dict(self) -> DecisionRecord:
        """Return the decision as plain JSON."""
        return {
            "decision": self.verdict.value,
            "reasons": list(self.reasons),
            "rule": self.policy.to_dict(),
            "candidate": self.candidate.to_dict(),
            "champion": self.champion.to_dict() if self.champion else None,
        }

    def table(self) -> str:
        """Return the compared metrics as a text table."""
        header = ("metric", "champion", "candidate", "change", "required", "")
        return "\n".join(table_lines([header, *map(_row, self.comparisons)]))


def parse_metric(value: Any) -> Decimal | None:
    """Return a metric's exact decimal value, or ``None`` if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return Decimal(repr(value))


def best_candidate(candidates: Sequence[ModelScore], policy: PromotionPolicy) -> ModelScore:
    """Return the candidate with the best value of the policy's metric; on a tie, the first one."""
    sign = 1 if policy.higher_is_better else -1

    def rank(candidate: ModelScore) -> Decimal:
        value = parse_metric(candidate.metrics.get(policy.metric))
        return Decimal("-Infinity") if value is None else sign * value

    return max(candidates, key=rank)


def decide(
    policy: PromotionPolicy, candidate: ModelScore, champion: ModelScore | None, missing: str | None = None
) -> Decision:
    """Decide whether *candidate* replaces *champion*. A tie, or a missing or non-numeric metric, rejects it.

    :param champion: ``None`` if there is none; then only the thresholds apply.
    :param missing: the id of a champion that is ignored because OSAI does not have it any more.
    """
    comparisons = [_compare_main_metric(policy, candidate, champion), *_compare_guardrails(policy, candidate, champion)]
    reasons = [
        reason
        for comparison in comparisons
        if not comparison.is_met
        for reason in _rejection_reasons(comparison, candidate, champion)
    ]
    reasons += _percent_reasons(policy, candidate)
    if champion is not None and not policy.allow_different_data and not _on_same_data(candidate, champion):
        reasons.insert(0, _different_data_reason(candidate, champion))
    verdict = Verdict.REJECTED if reasons else Verdict.PROMOTED
    if verdict is Verdict.PROMOTED and champion is not None:
        reasons = [f"{comparison.metric} {comparison.requirement}" for comparison in comparisons]
    if missing is not None:
        reasons.insert(0, f"champion model {missing} is missing at OSAI and was ignored, so only the thresholds apply")
    elif verdict is Verdict.PROMOTED and champion is None:
        reasons = ["there was no champion"]
    return Decision(verdict, reasons, policy, candidate, champion, comparisons)


def _percent_reasons(policy: PromotionPolicy, candidate: ModelScore) -> Iterator[str]:
    """Yield which metrics seem to be percent, while their threshold is a fraction: any percent would pass it."""
    thresholds = {policy.metric: policy.threshold}
    thresholds |= {name: guardrail.threshold for name, guardrail in policy.guardrail_metrics.items()}
    for name, threshold in thresholds.items():
        value = candidate.metrics.get(name)
        if threshold is not None and threshold <= 1 and is_percent(name, value):
            yield (
                f"{name} is {value} for the candidate, and its threshold {threshold:g} is a fraction; if OSAI reports "
                f"percent, add to the contract job.*: {{response: {{result.metrics.{name}: {{scale: 100}}}}}}"
            )


def _rejection_reasons(
    comparison: MetricComparison, candidate: ModelScore, champion: ModelScore | None
) -> Iterator[str]:
    """Yield why a metric rejects the candidate: a missing or non-numeric value, otherwise an insufficient one."""
    metric = comparison.metric
    is_comparable = True
    for role, score in (("candidate", candidate), ("champion", champion)):
        if score is None or parse_metric(score.metrics.get(metric)) is not None:
            continue
        is_comparable = False
        if metric in score.metrics:
            value = sanitize_server_text(repr(score.metrics[metric]), 100)
            yield f"{metric} is {value} for the {role}, not a number"
        else:
            names = sanitize_server_text(", ".join(map(str, score.metrics)), 1000)
            available = f"{names} only" if names else "no metrics"
            yield f"{score.source} has {available}; {metric} is missing for the {role}"
    if is_comparable:
        yield f"{metric} is {_format(comparison.candidate)}, required: {comparison.requirement}"


def _compare_main_metric(
    policy: PromotionPolicy, candidate: ModelScore, champion: ModelScore | None
) -> MetricComparison:
    new = parse_metric(candidate.metrics.get(policy.metric))
    old = parse_metric(champion.metrics.get(policy.metric)) if champion else None
    sign = 1 if policy.higher_is_better else -1
    requirements = [*_threshold_requirement(policy.threshold, policy.higher_is_better)]
    is_met = new is not None and _meets_threshold(new, policy.threshold, sign)
    if champion is not None:
        margin = Decimal(repr(policy.min_improvement))
        improvement = f"better by at least {policy.min_improvement:g}" if margin else "better"
        requirements.append(f"{improvement} than {_format(old)}")
        gain = None if new is None or old is None else sign * (new - old)
        is_met = is_met and gain is not None and gain > 0 and gain >= margin
    return MetricComparison(policy.metric, old, new, " and ".join(requirements) or "a number", is_met)


def _compare_guardrails(
    policy: PromotionPolicy, candidate: ModelScore, champion: ModelScore | None
) -> Iterator[MetricComparison]:
    for name, guardrail in policy.guardrail_metrics.items():
        new = parse_metric(candidate.metrics.get(name))
        old = parse_metric(champion.metrics.get(name)) if champion else None
        sign = 1 if guardrail.higher_is_better else -1
        requirements = [*_threshold_requirement(guardrail.threshold, guardrail.higher_is_better)]
        is_met = new is not None and _meets_threshold(new, guardrail.threshold, sign)
        if champion is not None:
            tolerance = f" by more than {guardrail.max_drop:g}" if guardrail.max_drop else ""
            requirements.append(f"not worse{tolerance} than {_format(old)}")
            gain = None if new is None or old is None else sign * (new - old)
            is_met = is_met and gain is not None and gain >= -Decimal(repr(guardrail.max_drop))
        yield MetricComparison(name, old, new, " and ".join(requirements) or "a number", is_met)


def _meets_threshold(value: Decimal, threshold: float | None, sign: int) -> bool:
    return threshold is None or sign * (value - Decimal(repr(threshold))) >= 0


def _threshold_requirement(threshold: float | None, higher_is_better: bool) -> Iterator[str]:
    if threshold is not None:
        yield f"at {'least' if higher_is_better else 'most'} {threshold:g}"


def _on_same_data(candidate: ModelScore, champion: ModelScore) -> bool:
    return candidate.measured_on is not None and candidate.measured_on == champion.measured_on


def _different_data_reason(candidate: ModelScore, champion: ModelScore) -> str:
    return (
        "the metrics cannot be compared: the candidate's were measured on "
        f"{candidate.measured_on or 'unknown data'}, the champion's on {champion.measured_on or 'unknown data'}. "
        "Let the gate evaluate both on one dataset (evaluation_dataset_id=...), or set allow_different_data=True"
    )


def _row(comparison: MetricComparison) -> tuple[str, ...]:
    new = comparison.candidate
    old = comparison.champion
    change = "" if old is None or new is None else f"{new - old:+}"
    result = "ok" if comparison.is_met else "no"
    return (comparison.metric, _format(old), _format(new), change, comparison.requirement, result)


def _format(value: Decimal | None) -> str:
    return "-" if value is None else str(value)


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
