"""The demo's verdict can be bad."""

from __future__ import annotations

import pytest

from airflow_provider_osai.demo.digits import write_digits
from airflow_provider_osai.demo.story import exit_code
from airflow_provider_osai.demo.weeks import write_weeks

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
def test_only_right_verdicts_and_a_good_model_count(outcome, code):
    """``make demo`` fails otherwise."""
    assert exit_code(outcome) == code


def test_the_digits_are_all_written_once(tmp_path):
    """1,797 real images in ten folders."""
    assert write_digits(tmp_path) == 1797
    assert sorted(folder.name for folder in tmp_path.iterdir()) == list("0123456789")
    assert len(list(tmp_path.glob("*/*.png"))) == 1797


def test_what_models_are_compared_on_comes_in_no_week(tmp_path):
    """Nor does the second week bring more than the third, which differs in its labels only."""
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
