"""When a training is stopped before its end, and when not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiAuthError,
    OsaiJobLost,
    OsaiJobStopped,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.jobs.early_stopping import EarlyStopping, StopRules
from airflow_provider_osai.jobs.lifecycle import WaitOptions, wait
from airflow_provider_osai.jobs.polling import PollSchedule
from tests.jobs.conftest import FakeClient, job

NAN = math.nan


def epochs(*values: object, name: str = "valLoss", first: int | None = 1) -> list[dict[str, object]]:
    """Return a history with one figure; *first*: the number of its first epoch, ``None``: without numbers."""
    return [{name: value} | ({} if first is None else {"epoch": n + first}) for n, value in enumerate(values)]


class Watched:
    """Polls every 30 s by a clock of its own."""

    def __init__(self, **rules: object) -> None:
        self.warnings: list[str] = []
        self.stopping = EarlyStopping(StopRules.parse(rules), self.warnings.append)
        self.now = 1000.0

    def poll(self, word: str = "running", seconds: float = 30.0, **fields: object) -> str | None:
        self.now += seconds
        return self.stopping.check(job(word, **fields), self.now, 30.0)

    def polls(self, count: int, word: str = "running", **fields: object) -> str | None:
        """Return the reason of the first of *count* equal polls that has one."""
        return next((reason for _ in range(count) if (reason := self.poll(word, **fields))), None)


class TestStopRules:
    """An operator's ``stop_when``."""

    @pytest.mark.parametrize("value", [None, {}, {"nan_loss": False}, {"nan_loss": "false"}, {"patience": None}])
    def test_it_is_off_unless_a_rule_is_on(self, value):
        assert StopRules.parse(value) is None

    def test_numbers_may_be_text_of_a_template(self):
        rules = StopRules.parse(
            {"patience": "10", "no_progress_minutes": "0.5", "nan_loss": "True", "min_delta": "1e-3"}
        )
        assert (rules.patience, rules.no_progress_minutes, rules.nan_loss, rules.min_delta) == (10, 0.5, True, 0.001)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("patience", "stop_when = 'patience': must be a dict"),
            ([{"patience": 3}], "must be a dict"),
            ({"patience": 0}, "patience = 0: .*greater than or equal to 1"),
            ({"patience": 2.5}, "patience = 2.5"),
            ({"patience": True}, "patience = True: must be a number"),
            ({"patience": "None"}, "patience = 'None'"),
            ({"patience": ""}, "patience = ''"),
            ({"no_progress_minutes": -1}, "no_progress_minutes = -1"),
            ({"no_progress_minutes": "inf"}, "no_progress_minutes = 'inf'"),
            ({"no_progress_minutes": NAN}, "no_progress_minutes = nan"),
            ({"no_progress_minutes": False}, "no_progress_minutes = False"),
            ({"nan_loss": "sometimes"}, "nan_loss = 'sometimes'"),
            ({"patience": 3, "monitor": "f1"}, "monitor = 'f1': .*'val_loss'"),
            ({"patience": 3, "min_delta": -0.1}, "min_delta = -0.1"),
            ({"monitor": "loss"}, "monitor need.* patience"),
            ({"min_delta": 0.1, "monitor": "loss"}, "min_delta and monitor need patience"),
            ({"paitence": 3}, "paitence = 3: Extra inputs"),
            ({1: 2}, "stop_when: "),
        ],
    )
    def test_an_invalid_value_is_named_with_its_rule(self, value, message):
        with pytest.raises(OsaiArgumentError, match=message):
            StopRules.parse(value)

    def test_what_a_trigger_carries_is_read_back(self):
        rules = StopRules.parse({"patience": "3", "monitor": "accuracy"})
        assert rules.to_dict() == {"patience": 3, "monitor": "accuracy"}
        assert StopRules.parse_stored(rules.to_dict() | {"of_a_newer_version": 1}) == rules


class TestNoProgress:
    """The heartbeat of a running job."""

    def test_a_running_job_that_does_not_change_is_stopped(self):
        watched = Watched(no_progress_minutes=10)
        assert watched.polls(20, progress=0.4) is None
        reason = watched.poll(progress=0.4)
        assert reason.startswith("no progress for 10 min of polls, with progress 40% and 0 epochs")

    @pytest.mark.parametrize("word", ["queued", "paused"])
    def test_a_queued_or_paused_job_is_not(self, word):
        assert Watched(no_progress_minutes=10).polls(10_000, word, progress=0.0) is None

    def test_the_time_in_the_queue_does_not_count(self):
        watched = Watched(no_progress_minutes=10)
        watched.polls(100, "queued", progress=0.0)
        assert watched.polls(20, progress=0.0) is None
        assert watched.poll(progress=0.0)

    @pytest.mark.parametrize(
        "change",
        [
            {"progress": 0.5},
            {"progress": 0.3},
            {"history": epochs(1.0, 0.9)},
            {"history": epochs(1.0, first=None)},
            {"history": epochs(0.9)},
        ],
        ids=repr,
    )
    def test_any_change_is_progress(self, change):
        """Also a training that begins again, and figures of epochs without numbers."""
        watched = Watched(no_progress_minutes=10)
        watched.polls(20, progress=0.4, history=epochs(1.0))
        assert watched.polls(20, **{"progress": 0.4, "history": epochs(1.0)} | change) is None
        assert watched.polls(2, **{"progress": 0.4, "history": epochs(1.0)} | change)

    def test_what_a_list_leaves_out_is_no_change(self):
        watched = Watched(no_progress_minutes=10)
        fields = [{"progress": 0.4, "history": epochs(NAN)}, {"progress": 0.4}, {"history": epochs(NAN)}, {}]
        assert [reason for n in range(24) if (reason := watched.poll(**fields[n % 4]))]

    def test_an_outage_does_not_count(self):
        watched = Watched(no_progress_minutes=10)
        for _ in range(100):
            assert watched.poll(seconds=3600, progress=0.4) is None
            watched.stopping.missed()

    def test_a_clock_that_jumps_counts_as_one_late_poll(self):
        watched = Watched(no_progress_minutes=10)
        assert [watched.poll(seconds=s, progress=0.4) for s in (30, 86_400, -86_400, 30)] == [None] * 4

    def test_a_job_that_never_reports_progress_is_not_stopped_but_warned_of_once(self):
        watched = Watched(no_progress_minutes=10)
        assert watched.polls(1000) is None
        (warning,) = watched.warnings
        assert "no_progress_minutes of stop_when has no effect: OSAI reports neither progress nor epochs" in warning


class TestNanLoss:
    """Only what is certain."""

    @pytest.mark.parametrize("value", [NAN, "NaN", "nan", math.inf, "-Infinity"])
    @pytest.mark.parametrize("name", ["loss", "valLoss"])
    def test_a_loss_that_is_not_finite_stops_the_job(self, value, name):
        reason = Watched(nan_loss=True).poll(history=epochs(0.7, value, name=name))
        assert reason.endswith("after 2 epochs (nan_loss)")

    @pytest.mark.parametrize("value", [None, "", "n/a", 0.0, 1e300, {}, [NAN]])
    def test_a_missing_or_unreadable_loss_does_not(self, value):
        assert Watched(nan_loss=True).poll(history=epochs(0.7, value, name="loss")) is None

    def test_a_loss_that_has_recovered_does_not(self):
        assert Watched(nan_loss=True).poll(history=epochs(NAN, 0.7)) is None

    @pytest.mark.parametrize("word", ["queued", "paused"])
    def test_only_a_running_job_is_stopped(self, word):
        watched = Watched(nan_loss=True)
        assert watched.poll(word, history=epochs(NAN)) is None
        assert watched.poll(history=epochs(NAN))

    def test_a_nan_accuracy_is_no_loss(self):
        assert Watched(nan_loss=True).poll(history=epochs(NAN, name="accuracy")) is None


class TestPatience:
    """No improvement for a number of epochs."""

    def test_it_counts_epochs_since_the_best_one(self):
        watched = Watched(patience=3)
        values = [1.0, 0.8, 0.9, 0.8, 0.85]
        assert [watched.poll(history=epochs(*values[:n])) for n in range(1, 5)] == [None] * 4
        assert watched.poll(history=epochs(*values)) == (
            "no improvement of val_loss for 3 epochs, best 0.8 (patience = 3)"
        )

    def test_an_improvement_that_one_poll_brings_with_them_counts(self):
        assert Watched(patience=3).poll(history=epochs(1.0, 1.1, 1.1, 1.1, 1.1, 0.9)) is None

    def test_of_an_accuracy_more_is_better(self):
        rules = {"patience": 2, "monitor": "val_accuracy"}
        assert Watched(**rules).poll(history=epochs(0.5, 0.6, 0.7, name="valAccuracy")) is None
        assert Watched(**rules).poll(history=epochs(0.7, 0.6, 0.5, name="valAccuracy"))

    def test_changes_up_to_min_delta_do_not_count(self):
        history = epochs(1.0, 0.95, 0.9, 0.86)
        assert Watched(patience=3, min_delta=0.2).poll(history=history)
        assert Watched(patience=3, min_delta=0.12).poll(history=history) is None

    def test_nan_never_improves(self):
        assert Watched(patience=3).poll(history=epochs(NAN, NAN, NAN)).startswith("no improvement of val_loss for 3")
        assert Watched(patience=3).poll(history=epochs(1.0, NAN, math.inf, -math.inf))

    def test_epochs_without_the_figure_do_not_count(self):
        """A validation every third epoch."""
        assert Watched(patience=3).poll(history=epochs(1.0, None, None, 1.0, None, None, 1.0, None)) is None

    def test_a_figure_that_comes_later_than_its_epoch_counts(self):
        watched = Watched(patience=2)
        for n in range(1, 4):
            assert watched.poll(history=epochs(*[1.0] * (n - 1), None)) is None
        assert watched.poll(history=epochs(1.0, 1.0, 1.0))

    def test_a_history_of_the_last_epochs_only_is_enough(self):
        watched = Watched(patience=3)
        assert watched.poll(history=epochs(0.5, 0.6, first=1)) is None
        assert watched.poll(history=epochs(0.6, 0.6, first=2)) is None
        assert watched.poll(history=epochs(0.6, 0.6, first=3))

    def test_epochs_that_were_never_seen_do_not_count(self):
        watched = Watched(patience=3)
        assert watched.poll(history=epochs(0.5, first=1)) is None
        assert watched.poll(history=epochs(0.6, first=100)) is None

    def test_a_training_that_begins_again_is_followed_from_its_first_epoch(self):
        watched = Watched(patience=3)
        assert watched.poll(history=epochs(0.1, 0.2, 0.2)) is None
        assert watched.poll(history=epochs(0.9)) is None
        assert watched.poll(history=epochs(0.9, 0.8, 0.7, 0.6)) is None

    def test_a_stale_response_is_ignored(self):
        watched = Watched(patience=3)
        for n in (3, 2, 3, 2, 3):
            assert watched.poll(history=epochs(*[0.5] * n)) is None

    def test_a_new_process_reads_it_from_the_whole_history(self):
        assert (
            Watched(patience=3).poll(history=epochs(0.5, *[0.6] * 500)).startswith("no improvement of val_loss for 500")
        )

    def test_a_figure_that_osai_does_not_report_is_warned_of_once(self):
        watched = Watched(patience=3, monitor="val_accuracy")
        assert [watched.poll(history=epochs(*[0.5] * n)) for n in range(1, 9)] == [None] * 8
        assert len(watched.warnings) == 1
        assert "patience of stop_when has no effect: OSAI reports no val_accuracy in 3 epochs" in watched.warnings[0]

    def test_a_job_without_a_history_is_warned_of_once_for_each_rule(self):
        watched = Watched(patience=3, nan_loss=True)
        assert [watched.poll(progress=n / 100) for n in range(1, 100)] == [None] * 99
        assert ["nan_loss" in warning for warning in watched.warnings] == [True, False]


class TestSinglePoll:
    """A list of jobs may leave out their histories."""

    def needs(self, watched, word="running", **fields):
        watched.poll(word, **fields)
        return watched.stopping.needs_single_poll(job(word, **fields))

    def test_a_running_job_is_polled_by_itself_until_its_first_epoch(self):
        watched = Watched(patience=3)
        assert [self.needs(watched, word) for word in ("queued", "running", "running")] == [False, True, True]
        assert not self.needs(watched, history=epochs(1.0))
        assert not self.needs(watched, history=epochs(1.0, 0.9))

    def test_and_from_then_on_if_the_list_leaves_its_history_out(self):
        watched = Watched(nan_loss=True)
        assert not self.needs(watched, history=epochs(1.0))
        assert self.needs(watched)
        assert self.needs(watched, history=epochs(1.0))

    def test_without_a_rule_about_epochs_the_list_is_enough(self):
        assert not self.needs(Watched(no_progress_minutes=1))

    def test_a_job_that_was_warned_of_is_not_polled_by_itself_in_vain(self):
        watched = Watched(patience=3)
        needed = [self.needs(watched, progress=progress) for progress in (0.1, 0.4, 0.5, 0.6)]
        assert needed == [True, True, False, False]


odd = st.sampled_from([None, "NaN", NAN, math.inf, -math.inf, "x", 0.5, 0.4, 1e308, True, -1])
history = st.none() | st.lists(
    st.fixed_dictionaries({"epoch": st.none() | st.integers(-3, 9) | st.just(2**62), "loss": odd, "valLoss": odd}),
    max_size=6,
)
poll = st.fixed_dictionaries(
    {"word": st.sampled_from(["queued", "running", "odd"]), "progress": st.none() | st.floats(0, 1), "history": history}
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "no_progress_minutes": st.floats(0.1, 5),
        "nan_loss": st.just(value=True),
        "patience": st.integers(1, 5),
    },
).filter(bool)


@given(rules, st.lists(poll, max_size=12))
def test_any_sequence_of_polls_stops_running_jobs_only_and_for_a_rule_that_is_on(chosen, polls):
    watched = Watched(**chosen)
    for fields in polls:
        reason = watched.poll(**fields)
        if reason is not None:
            assert fields["word"] == "running"
            assert any(f"({rule}" in reason for rule in chosen)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
def test_patience_is_the_distance_to_the_first_best_epoch(values, patience):
    """Whether the epochs are seen at once or one by one."""
    stops = len(values) - 1 - values.index(min(values)) >= patience
    assert (Watched(patience=patience).poll(history=epochs(*values)) is not None) is stops
    watched = Watched(patience=patience)
    reasons = [watched.poll(history=epochs(*values[:n])) for n in range(1, len(values) + 1)]
    assert (reasons[-1] is not None) is stops


def run_wait(client: FakeClient, *, deadline: float = 86_400, warn: object = lambda _: None, **rules: object) -> Job:
    watch = WaitOptions(
        since=client.now,
        deadline=client.now + deadline,
        clock=client.clock,
        schedule=PollSchedule(30, random_factor=lambda: 0.5),
        stop_rules=StopRules.parse(rules),
        warn=warn,
    )
    return client.run(wait(client.calls, JobKind.TRAINING, "7", watch))


class TestWait:
    """The flow of workers and the triggerer."""

    def test_a_stalled_job_ends_the_wait_with_the_rule(self, client):
        client.answers = {"training.get": [job("queued"), job("running", progress=0.1)]}
        with pytest.raises(OsaiJobStopped, match=r"training job 7: no progress for 15 min") as caught:
            run_wait(client, no_progress_minutes=15)
        assert 900 <= client.now - 1000 <= 990
        assert caught.value.retryable
        assert client.sent == ["training.get"] * len(client.sent)  # the caller cancels it

    def test_an_outage_is_not_a_stalled_job(self, client):
        """The job did not change between three polls, but OSAI was down most of the time."""
        down = [OsaiUnreachable("down")] * 50
        running = job("running", progress=0.1)
        client.answers = {"training.get": [running, *down, running, *down, running, job("succeeded")]}
        assert run_wait(client, no_progress_minutes=15).is_terminal
        assert client.now - 1000 > 2400

    def test_a_job_that_has_ended_is_not_stopped(self, client):
        client.answers = {"training.get": [job("succeeded", history=epochs(NAN))]}
        assert run_wait(client, nan_loss=True).is_terminal


class TestStopOperation:
    """The API has an operation that ends a training and keeps its model."""

    FLAT = job("running", history=epochs(0.5, 0.5, 0.5))

    @pytest.fixture
    def client(self):
        return FakeClient(OsaiApi(apply_overrides(Contract(), {"training.stop": {}})))

    def test_a_training_that_does_not_improve_ends_with_its_model(self, client):
        ended = job("succeeded", result={"modelId": "12"})
        client.answers = {"training.get": [self.FLAT, self.FLAT, ended], "training.stop": [None]}
        warnings: list[str] = []
        assert run_wait(client, patience=2, warn=warnings.append) is ended
        assert client.sent == ["training.get", "training.stop", "training.get", "training.get"]
        (warning,) = warnings
        assert "no improvement of val_loss for 2 epochs" in warning
        assert warning.endswith("requested its end, which keeps the model")

    @pytest.mark.parametrize(
        ("answers", "rules"),
        [
            ([job("running", history=epochs(0.5, NAN))], {"nan_loss": True, "patience": 5}),
            ([job("running", progress=0.2)], {"no_progress_minutes": 1}),
        ],
        ids=["nan", "stalled"],
    )
    def test_a_model_of_no_use_is_not_waited_for(self, client, answers, rules):
        client.answers = {"training.get": answers}
        with pytest.raises(OsaiJobStopped):
            run_wait(client, **rules)
        assert "training.stop" not in client.sent

    @pytest.mark.parametrize(
        "error",
        [OsaiRequestError(404, "POST", "/Trainings/7/Stop", ""), OsaiUnreachable("down"), OsaiAuthError("rejected")],
        ids=["404", "unreachable", "token"],
    )
    def test_a_failed_request_leaves_the_job_to_the_cancellation(self, client, error):
        client.answers = {"training.get": [self.FLAT], "training.stop": [error]}
        warnings: list[str] = []
        with pytest.raises(OsaiJobStopped, match="patience = 2"):
            run_wait(client, patience=2, warn=warnings.append)
        assert client.sent == ["training.get", "training.stop"]
        assert "training.stop failed" in warnings[0]

    def test_a_job_that_goes_on_is_left_to_the_cancellation_after_ten_minutes(self, client):
        client.answers = {"training.get": [self.FLAT], "training.stop": [None]}
        with pytest.raises(OsaiJobStopped, match="patience = 2"):
            run_wait(client, patience=2)
        assert client.sent.count("training.stop") == 1
        assert client.now == 1600

    def test_the_deadline_of_the_task_comes_first(self, client):
        client.answers = {"training.get": [self.FLAT], "training.stop": [None]}
        with pytest.raises(OsaiJobStopped):
            run_wait(client, patience=2, deadline=100)
        assert client.now == 1100

    def test_an_api_that_cancels_it_has_stopped_it(self, client):
        client.answers = {"training.get": [self.FLAT, job("cancelled")], "training.stop": [None]}
        with pytest.raises(OsaiJobStopped, match="patience = 2"):
            run_wait(client, patience=2)

    def test_a_job_that_fails_meanwhile_has_its_own_end(self, client):
        client.answers = {"training.get": [self.FLAT, job("failed")], "training.stop": [None]}
        assert run_wait(client, patience=2).status == "failed"

    def test_an_outage_after_the_request_is_not_the_end(self, client):
        down = [OsaiUnreachable("down")] * 3
        client.answers = {"training.get": [self.FLAT, *down, job("succeeded")], "training.stop": [None]}
        assert run_wait(client, patience=2).status == "succeeded"

    def test_a_job_that_is_gone_is_lost(self, client):
        gone = OsaiRequestError(410, "GET", "/Trainings/7", "")
        client.answers = {"training.get": [self.FLAT, gone], "training.stop": [None]}
        with pytest.raises(OsaiJobLost):
            run_wait(client, patience=2)
