"""Precision, recall and F1 of each category."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.class_metrics import ClassMetrics, class_metrics
from airflow_provider_osai.api.models import ConfusionMatrix


def test_figures_of_each_category_in_the_order_of_the_labels():
    found = class_metrics(ConfusionMatrix(labels=("cat", "dog"), rows=((6, 2), (1, 3))))
    assert found == [
        ClassMetrics("cat", 8, pytest.approx(6 / 7), pytest.approx(6 / 8), pytest.approx(12 / 15)),
        ClassMetrics("dog", 4, pytest.approx(3 / 5), pytest.approx(3 / 4), pytest.approx(6 / 9)),
    ]


def test_category_that_was_never_predicted_has_no_precision():
    found = class_metrics(ConfusionMatrix(labels=("a", "b"), rows=((2, 0), (3, 0))))
    assert found[1] == ("b", 3, None, 0.0, 0.0)


def test_category_without_images_has_no_recall():
    found = class_metrics(ConfusionMatrix(labels=("a", "b"), rows=((2, 1), (0, 0))))
    assert found[1] == ("b", 0, 0.0, None, 0.0)


def test_category_that_does_not_occur_has_no_figures():
    found = class_metrics(ConfusionMatrix(labels=("a", "b"), rows=((0, 0), (0, 0))))
    assert found == [("a", 0, None, None, None), ("b", 0, None, None, None)]


def test_one_category():
    assert class_metrics(ConfusionMatrix(labels=("a",), rows=((7,),))) == [("a", 7, 1.0, 1.0, 1.0)]


def test_labels_that_occur_twice_are_rows_of_their_own():
    found = class_metrics(ConfusionMatrix(labels=("a", "a"), rows=((1, 1), (0, 2))))
    assert [(each.label, each.support) for each in found] == [("a", 2), ("a", 2)]


def test_largest_counts_do_not_overflow():
    most = 2**53
    found = class_metrics(ConfusionMatrix(labels=tuple(map(str, range(100))), rows=((most,) * 100,) * 100))
    assert (found[0].precision, found[0].recall, found[0].f1) == (0.01, 0.01, 0.01)
