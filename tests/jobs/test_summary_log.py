"""The log lines about a job that has ended."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import pytest

from airflow_provider_osai.jobs.log_group import group_lines, table_lines
from airflow_provider_osai.jobs.summary_log import format_metrics, log_job_message, log_summary
from tests.jobs.conftest import job

LOG = logging.getLogger("test.summary")


@pytest.fixture
def summary(caplog):
    caplog.set_level("INFO", "test.summary")

    def lines(word="succeeded", **fields) -> list[str]:
        log_summary(LOG, job(word, **fields))
        return caplog.messages

    return lines


def history(count, **values):
    return [{"epoch": number + 1, "loss": 1.0, **{k: v[number] for k, v in values.items()}} for number in range(count)]


def epochs_in(lines):
    return [line.split()[0] for line in lines[2:] if not line.startswith(("Metrics", "::"))]


def test_a_short_history_is_a_table_of_all_epochs_with_the_metrics_in_a_group(summary):
    epochs = [
        {"epoch": 1, "loss": 0.9, "valAccuracy": 0.5},
        {"epoch": 2, "loss": 0.45678, "valAccuracy": 0.75},
        {"epoch": 3, "loss": 0.4, "valAccuracy": 0.7},
    ]
    assert summary(history=epochs, result={"modelId": "m", "metrics": {"accuracy": 0.75, "epochs": 3}}) == [
        "::group::Summary of OSAI training job 7 (succeeded)",
        "epoch  loss    val_accuracy",
        "1      0.9     0.5",
        "2      0.4568  0.75          best val_accuracy",
        "3      0.4     0.7",
        "Metrics: accuracy 0.75, epochs 3",
        "::endgroup::",
    ]


def test_a_long_history_has_ten_epochs_with_the_first_the_best_ones_and_the_last(summary):
    accuracy = [0.1] * 1000
    loss = [1.0] * 1000
    accuracy[456], loss[777] = 0.99, 0.01
    lines = summary(history=history(1000, valAccuracy=accuracy, valLoss=loss))
    epochs = epochs_in(lines)
    assert len(epochs) == 10
    assert {"1", "457", "778", "1000"} <= set(epochs)
    gaps = [int(after) - int(before) for before, after in pairwise(epochs)]
    assert max(gaps) <= 150
    assert next(line for line in lines if "best" in line).endswith("best val_accuracy")


def test_an_epoch_that_is_best_in_both_figures_is_marked_with_both(summary):
    lines = summary(history=history(2, valAccuracy=[0.5, 0.9], valLoss=[0.5, 0.1]))
    assert lines[3].endswith("best val_accuracy, best val_loss")


@pytest.mark.parametrize("values", [[None] * 3, [math.nan] * 3, [math.inf, -math.inf, math.nan]])
def test_figures_that_are_no_finite_numbers_have_no_best_epoch(summary, values):
    assert not [line for line in summary(history=history(3, valLoss=values)) if "best" in line]


def test_a_job_without_history_has_no_table(summary):
    assert summary(result={"modelId": "m", "metrics": {"bytes": 12}}) == [
        "::group::Summary of OSAI training job 7 (succeeded)",
        "Metrics: bytes 12",
        "::endgroup::",
    ]


def test_a_job_with_neither_history_nor_metrics_has_no_summary(summary):
    assert summary() == []
    assert summary(history=[], result={"metrics": {}}) == []


def test_empty_epochs_without_numbers_are_counted(summary):
    assert epochs_in(summary("failed", history=[{}, {}])) == ["1", "2"]


def test_a_summary_is_bounded_and_its_text_cannot_end_the_group(summary):
    metrics = {f"m{number}\n::endgroup::": "x" * 900 for number in range(1000)}
    lines = summary(history=history(9999), result={"metrics": metrics})
    assert len(lines) <= 14
    assert [line for line in lines if "::endgroup::" in line] == ["::endgroup::"]
    assert all(line.isprintable() and len(line) < 5000 for line in lines)
    assert lines[-2].endswith(" and 980 more")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        ("nan", "nan"),
        (None, "None"),
        (True, "True"),
        ([[1, 2], [3, 4]], "(2 values)"),
        ({"a": 1}, "(1 values)"),
        pytest.param(10**5000, "(a number of more than 300 digits)", id="huge"),
        (2**1024 - 1, str(2**1024 - 1)[:60]),
    ],
)
def test_each_value_of_a_metric_has_a_short_text(value, shown):
    assert format_metrics({"m": value}) == f"m {shown}"


def test_a_jobs_message_is_logged_on_one_line_and_a_simulated_job_is_a_warning(caplog):
    """A message must not be able to forge log lines."""
    with caplog.at_level("INFO", "test.summary"):
        log_job_message(LOG, job("succeeded", message="ignored:\nframework"))
        log_job_message(LOG, job("succeeded"))
        log_job_message(LOG, job("succeeded", message="made\x1b[0m up", simulated=True))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[0] == "Message of OSAI training job 7: ignored: framework"
    assert "simulated" in caplog.messages[1]
    assert caplog.messages[1].isprintable()


@pytest.mark.parametrize("word", ["failed", "cancelled"])
def test_the_message_of_a_job_that_did_not_succeed_is_a_warning(caplog, word):
    log_job_message(LOG, job(word, message="out of\nmemory ::group::"))
    assert caplog.messages == [f"OSAI training job 7 {word}. OSAI's message: out of memory : :group::"]
    assert caplog.records[0].levelname == "WARNING"


def test_the_cells_of_a_table_are_aligned_and_sanitized():
    assert table_lines([["a", "b"], ["long", ""], ["x\ny", "::group::z"]]) == [
        "a     b",
        "long",
        "x y   : :group::z",
    ]


def test_a_group_has_a_sanitized_title():
    assert list(group_lines("a\n::endgroup::", [])) == ["::group::a : :endgroup::", "::endgroup::"]
