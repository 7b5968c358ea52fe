"""The demo's verdict can be bad."""

from __future__ import annotations

import pytest

from airflow_provider_osai.demo.digits import write_digits
from airflow_provider_osai.demo.story import exit_code


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"dag_run": "success", "accuracy": 0.97}, 0),
        ({"dag_run": "success", "accuracy": 0.89}, 1),
        ({"dag_run": "success"}, 1),
        ({"dag_run": "failed", "accuracy": 0.97}, 1),
        ({"dag_run": "not started"}, 1),
    ],
)
def test_only_a_successful_run_with_a_good_model_counts(outcome, code):
    """``make demo`` fails otherwise."""
    assert exit_code(outcome) == code


def test_the_digits_are_all_written_once(tmp_path):
    """1,797 real images in ten folders."""
    assert write_digits(tmp_path) == 1797
    assert sorted(folder.name for folder in tmp_path.iterdir()) == list("0123456789")
    assert len(list(tmp_path.glob("*/*.png"))) == 1797
