"""The gate page: the decision as a table, the evaluations, the champion now, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.plugins.pages.rendering import format_number
from airflow_provider_osai.promotion.decision import ModelScore, Verdict, decide
from airflow_provider_osai.promotion.rule import PromotionPolicy

if TYPE_CHECKING:
    from airflow_provider_osai.plugins.pages.queries import TaskRecord
    from airflow_provider_osai.promotion.champion import Champion

__all__ = ["gate_values", "is_gate"]

OPERATOR: Final = "OsaiModelGateOperator"
REMEDIES: Final = (
    ("measured on", "Let the gate evaluate both models on one dataset: evaluation_dataset_id."),
    ("missing for the", "Compare a metric that OSAI reports for both models; the metrics below are those reported."),
    ("is a fraction", "State in the contract that OSAI reports this metric in percent."),
    ("a later run", "Nothing: a model with newer data was promoted in the meantime."),
    ("is missing at OSAI", "Roll back to a model that exists, on the page of the champion's history."),
)
"""What to do, by a phrase in the reasons of a decision."""


def is_gate(task: TaskRecord) -> bool:
    """Return whether the task is a gate: by its result, or by its operator if it has no result yet."""
    return task.result.get("decision") in list(Verdict) or task.operator == OPERATOR


def gate_values(task: TaskRecord, current: Champion | None) -> dict[str, Any]:
    """Return what the template shows of a gate.

    :param current: the champion now; ``None`` = no champion, or its asset may not be read.
    """
    result = task.result
    is_decided = result.get("decision") in list(Verdict)
    candidate, champion = _score(result.get("candidate")), _score(result.get("champion"))
    reasons = [str(reason) for reason in result.get("reasons") or ()]
    return {
        "decision": result.get("decision") if is_decided else None,
        "model_id": str(result.get("model_id") or ""),
        "reasons": reasons,
        "remedies": [] if result.get("decision") != Verdict.REJECTED else _remedies(reasons),
        "rows": _rows(result.get("rule"), candidate, champion) if candidate else [],
        "candidate": candidate,
        "champion": champion,
        "now": current,
        "evaluations": [(str(model), str(job)) for model, job in task.evaluation_jobs.items()],
    }


def _score(value: Any) -> ModelScore | None:
    if not isinstance(value, Mapping) or not value.get("model_id"):
        return None
    metrics = value.get("metrics")
    measured_on = value.get("measured_on")
    return ModelScore(
        str(value["model_id"]), metrics if isinstance(metrics, Mapping) else {}, measured_on and str(measured_on)
    )


def _rows(rule: Any, candidate: ModelScore, champion: ModelScore | None) -> list[dict[str, Any]]:
    """Return a row for each metric that the rule compares, then one for each of the other metrics."""
    rows = []
    try:
        policy = PromotionPolicy(**rule) if isinstance(rule, Mapping) else None
    except (OsaiArgumentError, TypeError):  # written by another version, or by hand
        policy = None
    comparisons = decide(policy, candidate, champion).comparisons if policy else ()
    for each in comparisons:
        requirement, is_met = each.requirement, each.is_met
        rows.append(_row(each.metric, each.champion, each.candidate, requirement, is_met=is_met))
    compared = {row["metric"] for row in rows}
    for name in candidate.metrics:
        if name not in compared:
            old = champion.metrics.get(name) if champion else None
            rows.append(_row(str(name), old, candidate.metrics[name], "", is_met=None))
    return rows


def _row(name: str, champion: Any, candidate: Any, requirement: str, *, is_met: bool | None) -> dict[str, Any]:
    change = ""
    new, old = (_decimal(value) for value in (candidate, champion))
    if new is not None and old is not None:
        change = f"{float(new - old):+.4g}" if new != old else "±0"
    return {
        "metric": name,
        "champion": "-" if champion is None else format_number(_plain(champion)),
        "candidate": "-" if candidate is None else format_number(_plain(candidate)),
        "change": change,
        "requirement": requirement,
        "is_met": is_met,
    }


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, Decimal):
        return value
    return Decimal(repr(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _remedies(reasons: list[str]) -> list[str]:
    found = [remedy for phrase, remedy in REMEDIES if any(phrase in reason for reason in reasons)]
    return found or ["Train with more or better data, or change the rule of the gate; the champion stays."]
