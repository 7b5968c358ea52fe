"""The metrics of a job beside those of other models."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_osai.promotion.decision import parse_metric

__all__ = ["Difference", "MetricCard", "main_metric", "metric_cards"]

HIGHER_IS_BETTER: Final = ("accuracy", "f1", "precision", "recall", "map", "iou", "auc", "score")
LOWER_IS_BETTER: Final = ("loss", "error", "latency", "mse", "mae", "rmse")
MAX_CARDS: Final = 24
"""Maximum metrics on a page."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference to the metric of another model.

    :param label: what it is compared with.
    :param text: the difference with its sign.
    :param trend: ``better``, ``worse``, ``same``, or ``unknown`` if the metric's direction is not known.
    """

    label: str
    text: str
    trend: str


@dataclass(frozen=True, slots=True)
class MetricCard:
    """A metric, and its differences to other models."""

    name: str
    value: Any
    differences: tuple[Difference, ...] = ()


def metric_cards(
    metrics: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], on_other_data: Container[str] = ()
) -> list[MetricCard]:
    """Return a card for each metric, those with a known direction first.

    :param metrics: the job's metrics by name.
    :param others: the metrics of other models, by a label such as ``champion``.
    :param on_other_data: the labels of those that were measured on other data, so that none is better or worse.
    """
    names = sorted(metrics, key=lambda name: _direction(name) == 0)
    return [
        MetricCard(
            name,
            metrics[name],
            tuple(
                difference
                for label, other in others.items()
                if (difference := _difference(label, name, metrics[name], other.get(name), on_other_data)) is not None
            ),
        )
        for name in names[:MAX_CARDS]
    ]


def main_metric(metrics: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the metric to show where there is room for one: the first with a known direction, or the first number."""
    numbers = [name for name, value in metrics.items() if parse_metric(value) is not None]
    known = [name for name in numbers if _direction(name) > 0] or [name for name in numbers if _direction(name)]
    return next(((name, metrics[name]) for name in known or numbers), None)


def _difference(label: str, name: str, value: Any, other: Any, on_other_data: Container[str]) -> Difference | None:
    new, old = parse_metric(value), parse_metric(other)
    if new is None or old is None:
        return None
    change = new - old
    if not change:
        return Difference(label, "±0", "same")
    direction = 0 if label in on_other_data else _direction(name)
    trend = "unknown" if not direction else "better" if (change > 0) == (direction > 0) else "worse"
    return Difference(label, f"{float(change):+.4g}", trend)


def _direction(name: str) -> int:
    """Return 1 if more of the metric is better, -1 if less is, 0 if that is unknown."""
    words = str(name).lower().replace("-", "_").split("_")
    if any(word in LOWER_IS_BETTER for word in words):
        return -1
    return 1 if any(word in HIGHER_IS_BETTER for word in words) else 0
