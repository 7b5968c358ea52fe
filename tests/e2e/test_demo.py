"""The demo's exit code and images."""

from __future__ import annotations

import pytest

from airflow_provider_osai.demo.datasets import write_weeks
from airflow_provider_osai.demo.digits import write_digits
from airflow_provider_osai.demo.scenario import exit_code

RIGHT = ["promoted", "rejected", "promoted"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"dag_run": "success", "accuracy": 0.97, "verdicts": RIGHT}, 0),
        ({"dag_run": "success", "accuracy": 0.89, "verdicts": RIGHT}, 1),
        ({"dag_run": "success", "verdicts": RIGHT}, 1),
        ({"dag_run": "success", "accuracy": 0.97, "verdicts": ["promoted"] * 3}, 1),
        ({"dag_run": "success", "accuracy": 0.97, "verdicts": RIGHT[:2]}, 1),
        ({"dag_run": "success", "accuracy": 0.97}, 1),
        ({"dag_run": "failed", "accuracy": 0.97, "verdicts": RIGHT}, 1),
        ({"dag_run": "not started"}, 1),
    ],
)
def test_exit_code_is_0_only_for_expected_decisions_and_an_accurate_model(outcome, code):
    assert exit_code(outcome) == code


def test_write_digits_writes_all_images_once(tmp_path):
    assert write_digits(tmp_path) == 1797
    assert sorted(folder.name for folder in tmp_path.iterdir()) == list("0123456789")
    assert len(list(tmp_path.glob("*/*.png"))) == 1797


def test_held_out_images_are_in_no_week(tmp_path):
    """The second week has the images of the third; only their labels differ."""
    data = write_weeks(tmp_path)
    names = [{image.name for image in folder.glob("*/*.png")} for folder in (data.holdout, *data.weeks)]
    holdout, few, wrong, many = names
    assert len(holdout) == 300
    assert not holdout & (few | wrong | many)
    assert few < many == wrong
    moved = sum(
        1 for image in data.weeks[1].glob("*/*.png") if not (data.weeks[2] / image.parent.name / image.name).exists()
    )
    assert moved == pytest.approx(len(many) / 2, abs=10)
