"""The history of a model's champions: promotions, rejections and rollbacks, with their metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.plugins.pages.metrics import main_metric
from airflow_provider_osai.promotion.champion import current_champion
from airflow_provider_osai.promotion.decision import Verdict, parse_metric

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_osai.plugins.pages.queries import EventRecord, TaskAddress

__all__ = ["HistoryEntry", "chart_values", "history", "metric_names", "shown_metric"]

PROMOTED: Final = "promoted"
REJECTED: Final = "rejected"
ROLLED_BACK: Final = "rolled back"
SET_BY_HAND: Final = "set by hand"
IGNORED: Final = "ignored"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One decision about a model.

    :param at: when it was made.
    :param outcome: ``promoted``, ``rejected``, ``rolled back``, ``set by hand``, or ``ignored``: a promotion that
        replaced a champion which had been replaced already.
    :param model_id: the model.
    :param metrics: its metrics.
    :param reasons: why.
    :param source: the gate that decided; ``None`` if a person did.
    :param is_champion: whether the model is the champion now.
    :param extra: what an event that promotes this model again has to carry; empty if the model was never promoted.
    """

    at: datetime
    outcome: str
    model_id: str
    metrics: Mapping[str, Any]
    reasons: Sequence[str] = ()
    source: TaskAddress | None = None
    is_champion: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def history(
    events: Sequence[EventRecord], results: Iterable[tuple[TaskAddress, datetime, Mapping[str, Any]]]
) -> list[HistoryEntry]:
    """Return the decisions about a champion asset, oldest first.

    :param events: the events of the asset, oldest first.
    :param results: task, time and result of its gates.
    """
    entries: list[HistoryEntry] = []
    seen: set[str] = set()
    extras: list[Mapping[str, Any]] = []
    latest: int | None = None
    for event in events:
        before = current_champion(extras)
        extras.append(event.extra)
        after = current_champion(extras)
        model_id = str(event.extra.get("model_id") or "")
        if not model_id or current_champion([event.extra]) is None:
            continue
        decision = event.extra.get("decision")
        is_effective = after is not None and after.model.model_id == model_id and after != before
        if isinstance(decision, Mapping):
            outcome = PROMOTED if is_effective else IGNORED
        else:
            outcome = ROLLED_BACK if model_id in seen else SET_BY_HAND
        if is_effective or before is None:
            seen.add(model_id)
            latest = len(entries)
        metrics, measured_on = _mapping(event.extra.get("metrics")), event.extra.get("measured_on")
        reasons = [str(reason) for reason in _mapping(decision).get("reasons") or ()]
        extra = {"model_id": model_id, "metrics": dict(metrics), "measured_on": measured_on and str(measured_on)}
        entries.append(HistoryEntry(event.at, outcome, model_id, metrics, reasons, event.source, extra=extra))
    if latest is not None:
        entries[latest] = replace(entries[latest], is_champion=True)
    for source, at, result in results:
        if result.get("decision") == Verdict.REJECTED:
            reasons = [str(reason) for reason in result.get("reasons") or ()]
            model_id = str(result.get("model_id") or "")
            entries.append(HistoryEntry(at, REJECTED, model_id, _mapping(result.get("metrics")), reasons, source))
    return sorted(entries, key=lambda entry: entry.at)


def metric_names(entries: Iterable[HistoryEntry]) -> list[str]:
    """Return the names of all numeric metrics in the history, in the order of their appearance."""
    names = (name for entry in entries for name, value in entry.metrics.items() if parse_metric(value) is not None)
    return list(dict.fromkeys(map(str, names)))


def shown_metric(entries: Sequence[HistoryEntry], events: Sequence[EventRecord], wanted: str | None) -> str | None:
    """Return the metric of the chart: the wanted one, else the one that the gate compares, else the main one."""
    names = metric_names(entries)
    if wanted in names:
        return wanted
    rules = (_mapping(_mapping(event.extra.get("decision")).get("rule")).get("metric") for event in reversed(events))
    compared = next((str(name) for name in rules if name in names), None)
    if compared is not None:
        return compared
    main = next((found for entry in reversed(entries) if (found := main_metric(entry.metrics))), None)
    return main[0] if main else None


def chart_values(entries: Sequence[HistoryEntry], metric: str) -> dict[str, Any]:
    """Return the chart of a metric by time: the champion's value as a line, and a point for each decision."""
    x: list[float] = []
    champion: list[float | None] = []
    series: dict[str, list[float | None]] = {PROMOTED: [], REJECTED: [], ROLLED_BACK: []}
    labels: list[str] = []
    value_now: float | None = None
    for entry in entries:
        number = parse_metric(entry.metrics.get(metric))
        value = None if number is None else float(number)
        kind = {SET_BY_HAND: ROLLED_BACK}.get(entry.outcome, entry.outcome)
        if kind in (PROMOTED, ROLLED_BACK):
            value_now = value
        x.append(entry.at.timestamp())
        champion.append(value_now)
        labels.append(f"{entry.model_id}: {entry.outcome}")
        for name, values in series.items():
            values.append(value if name == kind else None)
    points = [
        {"label": name, "values": values} for name, values in series.items() if any(v is not None for v in values)
    ]
    return {"title": metric, "x": x, "champion": champion, "points": points, "labels": labels}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
