"""Precision, recall and F1 of each category, from a confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import ConfusionMatrix

__all__ = ["ClassMetrics", "class_metrics"]


class ClassMetrics(NamedTuple):
    """How well a model predicts one category; the figures are from 0 to 1, or ``None`` where they are undefined.

    :param label: the category.
    :param support: the number of images of the category.
    :param precision: the share of the category in the images that were predicted as it; undefined if there are none.
    :param recall: the share of the images of the category that were predicted as it; undefined if there are none.
    :param f1: the harmonic mean of precision and recall, or 0 if only one of them is defined; undefined if none is.
    """

    label: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_metrics(matrix: ConfusionMatrix) -> list[ClassMetrics]:
    """Return the metrics of each category, in the order of the matrix's labels."""
    predicted = [sum(column) for column in zip(*matrix.rows, strict=True)]
    found = []
    for index, (label, row) in enumerate(zip(matrix.labels, matrix.rows, strict=True)):
        hits = row[index]
        support = sum(row)
        figures = (_share(hits, predicted[index]), _share(hits, support), _share(2 * hits, predicted[index] + support))
        found.append(ClassMetrics(label, support, *figures))
    return found


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
