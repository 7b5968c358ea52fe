"""The comparison of two models by a rule: a verdict with its reasons, and a table to read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from airflow_provider_osai.promotion.rule import Rule

__all__ = ["Contender", "Decision", "Line", "Verdict", "best", "figure", "judge"]


class Verdict(StrEnum):
    """What becomes of a candidate."""

    PROMOTED = "promoted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Contender:
    """A model with its figures, and what they were measured on: a digest of data, or a dataset; ``None``: unknown."""

    model_id: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    measured_on: str | None = None

    def told(self) -> dict[str, Any]:
        """Return it as plain JSON; a figure that is no number there (NaN) becomes text."""
        metrics = {name: _plain(value) for name, value in self.metrics.items()}
        return {"model_id": self.model_id, "metrics": metrics, "measured_on": self.measured_on}


class Line(NamedTuple):
    """One metric's part in a decision. ``wanted`` says in words what the candidate's figure has to be."""

    metric: str
    champion: Decimal | None
    candidate: Decimal | None
    wanted: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict on a candidate, and all that it rests on."""

    verdict: Verdict
    reasons: Sequence[str]
    rule: Rule
    candidate: Contender
    champion: Contender | None
    lines: Sequence[Line] = ()

    @property
    def is_promotion(self) -> bool:
        """Whether the candidate is the champion from now on."""
        return self.verdict is Verdict.PROMOTED

    def told(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        return {
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "rule": self.rule.told(),
            "candidate": self.candidate.told(),
            "champion": self.champion.told() if self.champion else None,
        }

    def table(self) -> str:
        """Return the figures as lines of text."""
        head = ("metric", "champion", "candidate", "change", "wanted", "")
        rows = [head, *(_row(line) for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def figure(value: Any) -> Decimal | None:
    """Return a metric's value exactly as it is written, or ``None`` if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return Decimal(repr(value))


def best(candidates: Sequence[Contender], rule: Rule) -> Contender:
    """Return the candidate with the best figure in the rule's metric; of equal ones, the first."""
    sign = 1 if rule.higher_is_better else -1

    def worth(candidate: Contender) -> Decimal:
        value = figure(candidate.metrics.get(rule.metric))
        return Decimal("-Infinity") if value is None else sign * value

    return max(candidates, key=worth)


def judge(rule: Rule, candidate: Contender, champion: Contender | None) -> Decision:
    """Decide whether *candidate* replaces *champion*. What is missing, or is no number, or a tie, speaks against it.

    :param champion: ``None``: there is none yet, and the floors alone decide.
    """
    lines = [_main(rule, candidate, champion), *_guards(rule, candidate, champion)]
    reasons = [f"{line.metric} is {_text(line.candidate)}, wanted: {line.wanted}" for line in lines if not line.is_met]
    if champion is not None and not rule.any_data and not _on_same_data(candidate, champion):
        reasons.insert(0, _other_data(candidate, champion))
    if reasons:
        return Decision(Verdict.REJECTED, reasons, rule, candidate, champion, lines)
    reasons = ["there was no champion"] if champion is None else [f"{line.metric} {line.wanted}" for line in lines]
    return Decision(Verdict.PROMOTED, reasons, rule, candidate, champion, lines)


def _main(rule: Rule, candidate: Contender, champion: Contender | None) -> Line:
    new = figure(candidate.metrics.get(rule.metric))
    old = figure(champion.metrics.get(rule.metric)) if champion else None
    sign = 1 if rule.higher_is_better else -1
    wanted = [*_floor(rule.min_value, rule.higher_is_better)]
    is_met = new is not None and _reaches(new, rule.min_value, sign)
    if champion is not None:
        margin = Decimal(repr(rule.min_improvement))
        least = f"better by at least {rule.min_improvement:g}" if margin else "better"
        wanted.append(f"{least} than {_text(old)}")
        gain = None if new is None or old is None else sign * (new - old)
        is_met = is_met and gain is not None and gain > 0 and gain >= margin
    return Line(rule.metric, old, new, " and ".join(wanted) or "a number", is_met)


def _guards(rule: Rule, candidate: Contender, champion: Contender | None) -> Iterator[Line]:
    for name, guard in rule.guard_metrics.items():
        new = figure(candidate.metrics.get(name))
        old = figure(champion.metrics.get(name)) if champion else None
        sign = 1 if guard.higher_is_better else -1
        wanted = [*_floor(guard.min_value, guard.higher_is_better)]
        is_met = new is not None and _reaches(new, guard.min_value, sign)
        if champion is not None:
            borne = f" by more than {guard.max_drop:g}" if guard.max_drop else ""
            wanted.append(f"not worse{borne} than {_text(old)}")
            is_met = is_met and old is not None and new is not None
            is_met = is_met and sign * (new - old) >= -Decimal(repr(guard.max_drop))  # type: ignore[operator]  # both are there
        yield Line(name, old, new, " and ".join(wanted) or "a number", is_met)


def _reaches(value: Decimal, floor: float | None, sign: int) -> bool:
    return floor is None or sign * (value - Decimal(repr(floor))) >= 0


def _floor(floor: float | None, higher_is_better: bool) -> Iterator[str]:
    if floor is not None:
        yield f"at {'least' if higher_is_better else 'most'} {floor:g}"


def _on_same_data(candidate: Contender, champion: Contender) -> bool:
    return candidate.measured_on is not None and candidate.measured_on == champion.measured_on


def _other_data(candidate: Contender, champion: Contender) -> str:
    ours, theirs = candidate.measured_on or "unknown data", champion.measured_on or "unknown data"
    return (
        f"the figures cannot be compared: the candidate's were measured on {ours}, the champion's on {theirs}. "
        "Let the gate evaluate both on one dataset (same_holdout=True), or say that it does not matter (any_data=True)"
    )


def _row(line: Line) -> tuple[str, ...]:
    change = "" if line.champion is None or line.candidate is None else f"{line.candidate - line.champion:+}"
    verdict = "ok" if line.is_met else "no"
    return (line.metric, _text(line.champion), _text(line.candidate), change, line.wanted, verdict)


def _text(value: Decimal | None) -> str:
    return "-" if value is None else str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
