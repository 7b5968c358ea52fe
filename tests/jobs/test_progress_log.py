"""The log lines of a wait: states, epochs, progress and heartbeats, few for each job."""

from __future__ import annotations

import logging
import math
import re
from itertools import pairwise

import pytest

from airflow_provider_osai.api.models import Epoch
from airflow_provider_osai.jobs.progress_log import MAX_LINES, PollLogger, is_due_at_age
from tests.jobs.conftest import job

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class Wait:
    """A wait whose clock is moved by hand; ``poll`` returns the lines of one poll."""

    def __init__(self, caplog):
        self.now = START
        self._caplog = caplog
        self._logger = PollLogger(logging.getLogger("test.progress"), since=START, clock=lambda: self.now)
        self.lines: list[str] = []

    def poll(self, word="running", *, after=10.0, epochs=None, **fields) -> list[str]:
        self.now += after
        self._caplog.clear()
        if epochs is not None:
            fields["history"] = epochs if isinstance(epochs, list) else numbered(epochs)
        self._logger(job(word, **fields), 10.0)
        self.lines += self._caplog.messages
        return list(self._caplog.messages)


def numbered(count, first=1):
    return [{"epoch": number, "loss": 1 / (number + 1)} for number in range(first, first + count)]


def logged_epochs(lines):
    return [int(match[1]) for line in lines if (match := re.search(r"epoch (\d+)", line))]


@pytest.fixture
def wait(caplog):
    caplog.set_level("INFO", "test.progress")
    return Wait(caplog)


def test_a_change_of_the_state_is_logged_at_once(wait):
    assert wait.poll("queued", after=0) == [
        "OSAI training job 7 is queued: waited 0 s, progress unknown, next poll in 10 s"
    ]
    assert wait.poll("queued") == []
    assert wait.poll(progress=0.25) == [
        "OSAI training job 7 is running: waited 20 s, progress 25%, next poll in 10 s",
    ]


def test_an_unchanged_job_has_a_heartbeat_after_ten_minutes_and_at_doubling_intervals(wait):
    """A changed state begins again at ten minutes."""
    wait.poll("queued", after=0)
    beats = [second for second in range(10, 5000, 10) if wait.poll("queued")]
    assert beats == [600, 1800, 4200]
    wait.poll("running")
    assert [second for second in range(10, 700, 10) if wait.poll("running")] == [600]


def test_an_unknown_status_is_warned_about_once_with_the_remedy(wait, caplog):
    lines = [line for _ in range(3) for line in wait.poll("Wird geprüft")]
    assert len(lines) == 2
    assert "'Wird geprüft'" in lines[1]
    assert "states" in lines[1]
    wait.poll("Angehalten")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_a_simulated_job_is_marked_in_the_line_of_its_state(wait):
    assert "is running (simulated): " in wait.poll(simulated=True)[0]


def test_a_new_epoch_is_logged_with_its_figures_the_estimated_total_and_the_remaining_time(wait):
    wait.poll("queued")
    epochs = [{"epoch": 1, "loss": 0.91234, "accuracy": 0.5}]
    wait.poll(epochs=epochs, progress=0.05, startedAt="2026-01-01T00:00:00Z")
    epochs.append({"epoch": 2, "loss": 0.5, "valLoss": 0.61, "accuracy": 0.7, "valAccuracy": 0.65})
    (line,) = wait.poll(after=40, epochs=epochs, progress=0.1, startedAt="2026-01-01T00:00:00Z")
    assert line == (
        "OSAI training job 7: epoch 2 of about 20: loss 0.5, val_loss 0.61, accuracy 0.7, val_accuracy 0.65, "
        "progress 10%, ETA 9 min"
    )


def test_epochs_between_two_polls_are_logged_without_the_progress_of_the_latest(wait):
    wait.poll(epochs=1, progress=0.1)
    lines = wait.poll(epochs=3, progress=0.3)
    assert logged_epochs(lines) == [2, 3]
    assert ["progress" in line for line in lines] == [False, True]


@pytest.mark.parametrize("total", [1, 3, 19, 20, 21, 30, 100, 777, 5000])
def test_a_job_with_a_known_number_of_epochs_has_about_twenty_lines_spread_evenly(wait, total):
    wait.poll("queued")
    for done in range(1, total + 1):
        wait.poll(after=1, epochs=done, progress=round(done / total, 4))
    shown = logged_epochs(wait.lines)
    assert shown[0] == 1
    assert min(total, 15) <= len(shown) <= 20
    gaps = [after - before for before, after in pairwise(shown)]
    assert max(gaps, default=0) <= math.ceil(total / 20) + 1
    assert shown[-1] >= total * 0.9 - 1


def test_epochs_of_an_unknown_number_are_logged_up_to_ten_and_then_at_doubling_numbers(wait):
    wait.poll("queued")
    for done in range(1, 200):
        wait.poll(after=1, epochs=done)
    assert logged_epochs(wait.lines) == [*range(1, 11), 20, 40, 80, 160]


def test_the_logger_of_a_restarted_trigger_logs_the_state_and_the_latest_epoch_only(wait):
    lines = wait.poll(epochs=57, progress=0.57)
    assert len(lines) == 2
    assert logged_epochs(lines) == [57]
    assert wait.poll(epochs=57, progress=0.571) == []
    assert logged_epochs(wait.poll(epochs=60, progress=0.6)) == [60]


def test_a_job_without_a_history_has_a_line_for_each_tenth_of_progress(wait):
    wait.poll("queued")
    for percent in range(101):
        wait.poll(progress=percent / 100)
    shown = [line for line in wait.lines if "job 7: progress" in line]
    assert [re.search(r"progress (\d+)%", line)[1] for line in shown] == [str(n) for n in range(10, 101, 10)]
    assert shown[0] == "OSAI training job 7: progress 10%, ETA 15 min"
    assert shown[-1] == "OSAI training job 7: progress 100%"


def test_progress_that_goes_backwards_and_forwards_again_is_logged_once(wait):
    for progress in [0.0, 0.5, 0.1, 0.5, 0.1, 0.5, None, 0.5, 0.62]:
        wait.poll(progress=progress)
    assert len(wait.lines) == 3
    assert "progress 62%" in wait.lines[-1]


def test_a_history_that_is_missing_in_some_responses_is_not_logged_again(wait):
    """As in a list of jobs."""
    wait.poll(epochs=3)
    for _ in range(5):
        assert wait.poll() == []
        assert wait.poll(epochs=3) == []
    assert logged_epochs(wait.poll(epochs=4)) == [4]


def test_a_training_that_begins_again_has_its_epochs_logged_again(wait):
    wait.poll(epochs=9)
    wait.poll("queued")
    assert logged_epochs(wait.poll(epochs=1)) == [1]
    assert logged_epochs(wait.poll(epochs=3)) == [2, 3]


def test_a_history_that_is_slightly_shorter_for_a_moment_is_not_logged_again(wait):
    wait.poll(epochs=9)
    assert wait.poll(epochs=7) == []
    assert wait.poll(epochs=9) == []
    assert logged_epochs(wait.poll(epochs=10)) == [10]


def test_epochs_without_numbers_are_counted(wait):
    wait.poll("queued")
    wait.poll(epochs=[{"loss": 1}])
    assert logged_epochs(wait.poll(epochs=[{"loss": 1}, {"loss": 0.5}])) == [2]
    assert logged_epochs(wait.lines) == [1, 2]


def test_epochs_that_are_numbered_from_0_keep_their_numbers(wait):
    wait.poll("queued")
    for done in range(1, 5):
        wait.poll(epochs=numbered(done, first=0), progress=done / 4)
    assert logged_epochs(wait.lines) == [0, 1, 2, 3]


def test_a_history_of_the_last_epochs_only_is_followed_by_their_numbers(wait):
    wait.poll(epochs=numbered(5, first=16))
    assert logged_epochs(wait.poll(epochs=numbered(5, first=36))) == [40]


@pytest.mark.parametrize(
    ("epoch", "shown"),
    [
        ({}, "epoch 1"),
        ({"loss": math.nan, "valLoss": math.inf}, "epoch 1: loss nan, val_loss inf"),
        ({"loss": 1e300, "accuracy": None}, "epoch 1: loss 1e+300"),
        ({"epoch": 2**62, "loss": 0.1234567}, f"epoch {2**62}: loss 0.1235"),
        ({"epoch": -3, "loss": 0}, "epoch -3: loss 0"),
    ],
)
def test_odd_values_of_an_epoch_are_logged_as_they_are(wait, epoch, shown):
    wait.poll("queued")
    assert wait.poll(epochs=[epoch])[1] == f"OSAI training job 7: {shown}"


def test_progress_of_1_before_the_end_gives_neither_a_total_nor_a_remaining_time(wait):
    wait.poll("queued")
    for done in range(1, 50):
        lines = wait.poll(epochs=done, progress=1.0, startedAt="2026-01-01T00:00:00Z")
        assert not [line for line in lines if "of about" in line or "ETA" in line]
    assert logged_epochs(wait.lines) == [*range(1, 11), 20, 40]


def test_tiny_progress_does_not_silence_the_epochs_that_follow(wait):
    wait.poll("queued")
    wait.poll(epochs=1, progress=1e-12)
    for done in range(2, 21):
        wait.poll(epochs=done, progress=done / 20)
    assert logged_epochs(wait.lines) == list(range(1, 21))


@pytest.mark.parametrize(
    "words", [["queued", "running"], ["Step 1", "Step 2", "Step 3"]], ids=["flapping state", "words that change"]
)
def test_no_wait_has_more_lines_than_the_maximum_and_the_last_one_says_so(wait, words):
    for number in range(300):
        wait.poll(words[number % len(words)], epochs=number % 7, progress=number % 11 / 11)
    assert len(wait.lines) == MAX_LINES
    assert "further progress is not logged" in wait.lines[-1]
    assert not [line for line in wait.lines[:-1] if "further progress" in line]


def test_a_month_of_epochs_with_a_fluctuating_progress_stays_within_the_maximum(wait):
    for hour in range(1, 24 * 30):
        wait.poll(after=3600, epochs=hour, progress=0.1 + hour % 5 / 10)
    assert len(wait.lines) <= MAX_LINES


def test_text_of_the_server_cannot_forge_lines_or_hide_them_in_the_log_viewer(wait):
    lines = wait.poll("odd\n::endgroup:: ::group::x")
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if "::group::" in line or "::endgroup::" in line]


def test_a_logger_keeps_neither_the_job_nor_its_history(wait):
    """Thousands of jobs have one each."""
    wait.poll(epochs=500, progress=0.5)
    kept = [getattr(wait._logger, name) for name in PollLogger.__slots__]
    assert not hasattr(wait._logger, "__dict__")
    assert not [value for value in kept if isinstance(value, (list, dict, Epoch))]
    assert max(len(value) for value in kept if isinstance(value, (str, tuple))) < 50


class TestSingleProcesses:
    """A sensor that is rescheduled polls in a process of its own each time."""

    @pytest.mark.parametrize("field", ["startedAt", "createdAt"])
    def test_lines_come_about_when_the_age_of_the_job_has_doubled(self, field):
        polled = job("running", **{field: "2026-01-01T00:00:00"})
        logged = [n for n in range(2000) if is_due_at_age(polled, START + n * 66, 60.0)]
        assert logged[0] == 0
        assert 8 <= len(logged) <= 20

    @pytest.mark.parametrize("text", [None, "", "yesterday", "2027-01-01T00:00:00Z"])
    def test_a_job_of_an_unknown_age_is_not_logged(self, text):
        assert not is_due_at_age(job("running", startedAt=text), START, 60.0)
