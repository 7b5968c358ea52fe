"""Waiting for a job, cancelling it, and what its end means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.jobs.lifecycle import WaitOptions, cancel, raise_for_state, wait
from airflow_provider_osai.jobs.polling import PollSchedule
from tests.jobs.conftest import FakeClient, job

TRAINING = JobKind.TRAINING
GONE = OsaiRequestError(404, "GET", "/Trainings/7", "")
DOWN = OsaiUnreachable("down", may_have_been_processed=False)
OPEN = OsaiUnreachable("timeout", may_have_been_processed=True)


def watch(client, **options):
    return WaitOptions(
        **{"since": client.now, "clock": client.clock, "schedule": PollSchedule(30, random_factor=lambda: 0.5)}
        | options
    )


class TestWait:
    """Until the end, the deadline, or the loss of sight."""

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_every_end_is_returned(self, client, calls, word):
        """Well or badly: what it means is decided elsewhere."""
        client.answers = {"training.get": [job("queued"), job("running"), job(word)]}
        assert client.run(wait(calls, TRAINING, "7", watch(client))).status == word
        assert len(client.slept) == 2

    def test_an_unknown_word_is_waited_out(self, client, calls):
        """It is not the end, and never success."""
        client.answers = {"training.get": [job("pausing")] * 5 + [job("succeeded")]}
        assert client.run(wait(calls, TRAINING, "7", watch(client))).state is JobState.SUCCEEDED

    @pytest.mark.parametrize("error", [OsaiUnreachable("down"), OsaiAuthError("no"), GONE], ids=repr)
    def test_an_old_job_is_not_lost_at_the_first_look(self, client, calls, error):
        """A new triggerer takes over a job that has run for a day, and OSAI stumbles just then."""
        client.answers = {"training.get": [error, job("succeeded")]}
        assert client.run(wait(calls, TRAINING, "7", watch(client, since=client.now - 86_400))).is_terminal

    def test_the_deadline_holds_to_the_second(self, client, calls):
        """The last pause is cut to fit."""
        client.answers = {"training.get": [job("running")]}
        with pytest.raises(OsaiJobTimeout):
            client.run(wait(calls, TRAINING, "7", watch(client, deadline=1100.0)))
        assert client.now == 1100.0
        assert "training.cancel" not in client.sent

    def test_a_job_that_ended_before_the_deadline_was_looked_at_counts(self, client, calls):
        """A late look finds the end, not the lateness."""
        client.answers = {"training.get": [job("succeeded")]}
        assert client.run(wait(calls, TRAINING, "7", watch(client, deadline=900.0))).state is JobState.SUCCEEDED

    def test_an_outage_shorter_than_the_limit_is_borne(self, client, calls):
        """And the count starts again after each sight of the job."""
        client.answers = {
            "training.get": [job("running"), *[DOWN] * 20, job("running"), *[DOWN] * 20, job("succeeded")]
        }
        assert client.run(wait(calls, TRAINING, "7", watch(client, unreachable_timeout=600))).is_terminal

    def test_a_longer_outage_loses_the_job_without_cancelling_it(self, client, calls):
        """It may run on; a retry adopts it."""
        client.answers = {"training.get": [DOWN]}
        with pytest.raises(OsaiJobLost, match="not cancelled"):
            client.run(wait(calls, TRAINING, "7", watch(client, unreachable_timeout=600)))
        assert set(client.sent) == {"training.get"}
        assert 600 <= client.now - 1000 <= 640

    def test_the_deadline_holds_in_an_outage_too(self, client, calls):
        """Whichever comes first."""
        client.answers = {"training.get": [DOWN]}
        with pytest.raises(OsaiJobTimeout):
            client.run(wait(calls, TRAINING, "7", watch(client, deadline=1050.0)))

    def test_a_404_right_after_submission_is_not_yet(self, client, calls):
        """A job may be visible a little later."""
        client.answers = {"training.get": [GONE, GONE, job("succeeded")]}
        assert client.run(wait(calls, TRAINING, "7", watch(client))).is_terminal

    def test_a_404_that_stays_is_a_lost_job(self, client, calls):
        """After a minute."""
        client.answers = {"training.get": [GONE]}
        with pytest.raises(OsaiJobLost, match="unknown to OSAI"):
            client.run(wait(calls, TRAINING, "7", watch(client)))
        assert client.now - 1000 < 120

    def test_a_retry_after_is_a_floor_for_the_next_look(self, client, calls):
        """The server knows best."""
        client.answers = {"training.get": [OsaiUnreachable("429", retry_after=55.0), job("succeeded")]}
        client.run(wait(calls, TRAINING, "7", watch(client)))
        assert 55.0 <= client.slept[0] <= 66.0

    def test_what_waiting_does_not_mend_ends_it(self, client, calls):
        """The task says what to mend."""
        client.answers = {"training.get": [OsaiContractError("no")]}
        with pytest.raises(OsaiContractError):
            client.run(wait(calls, TRAINING, "7", watch(client)))
        assert client.slept == []

    def test_a_refused_token_is_borne_for_a_while(self, client, calls):
        """Somebody may be about to replace it."""
        client.answers = {"training.get": [*[OsaiAuthError("no")] * 10, job("succeeded")]}
        assert client.run(wait(calls, TRAINING, "7", watch(client))).is_terminal

    def test_a_token_that_stays_refused_ends_it_after_ten_minutes(self, client, calls):
        """As a job that was lost, since a retry with a new token finds it."""
        client.answers = {"training.get": [OsaiAuthError("no")]}
        with pytest.raises(OsaiJobLost, match="no.*not cancelled"):
            client.run(wait(calls, TRAINING, "7", watch(client)))
        assert 600 <= client.now - 1000 <= 640

    def test_each_look_is_observed_with_the_pause_that_follows(self, client, calls):
        """For the log."""
        seen = []
        client.answers = {"training.get": [job("queued"), job("succeeded")]}
        client.run(wait(calls, TRAINING, "7", watch(client, on_poll=lambda j, s: seen.append((j.status, s)))))
        assert seen == [("queued", client.slept[0])]

    words = st.sampled_from(["queued", "running", "odd", "succeeded", "failed", "cancelled"])
    errors = st.sampled_from([DOWN, OPEN, GONE, OsaiUnreachable("429", retry_after=9.0)])

    @given(st.lists(words | errors, max_size=30))
    def test_any_sequence_ends_in_a_named_result_and_success_only_by_its_word(self, script):
        """Within the deadline, whatever the server says."""
        client = FakeClient(
            answers={"training.get": [*(job(s) if isinstance(s, str) else s for s in script), job("running")]}
        )
        ends = [s for s in script if s in ("succeeded", "failed", "cancelled")]
        try:
            done = client.run(wait(OsaiApi(), TRAINING, "7", watch(client, deadline=5000.0)))
        except (OsaiJobTimeout, OsaiJobLost):
            assert client.now <= 5000.0
        else:
            assert done.status == ends[0]


class TestCancel:
    """Only a job that has not ended is cancelled."""

    def test_a_live_job_is_cancelled(self, client, calls):
        """After a look at it."""
        client.answers = {"training.get": [job("running")], "training.cancel": [None]}
        assert not client.run(cancel(calls, TRAINING, "7")).is_terminal
        assert client.sent == ["training.get", "training.cancel"]

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_a_job_that_has_ended_is_left_alone(self, client, calls, word):
        """Cancelling may undo what it made."""
        client.answers = {"training.get": [job(word)]}
        assert client.run(cancel(calls, TRAINING, "7")).is_terminal
        assert client.sent == ["training.get"]

    def test_a_job_that_ends_meanwhile_is_no_error(self, client, calls):
        """409: too late."""
        late = OsaiRequestError(409, "POST", "/Trainings/7/Cancel", "")
        client.answers = {"training.get": [job("running"), job("succeeded")], "training.cancel": [late]}
        assert client.run(cancel(calls, TRAINING, "7")).is_terminal

    def test_an_api_that_cannot_cancel_says_so(self, poor_client):
        """The user must know that it goes on."""
        poor_client.answers = {"training.get": [job("running")]}
        with pytest.raises(OsaiContractError, match="null"):
            poor_client.run(cancel(poor_client.calls, TRAINING, "7"))


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("failed", OsaiJobFailed),
        ("cancelled", OsaiJobCancelled),
        ("running", OsaiJobLost),
        ("queued", OsaiJobLost),
        ("odd", OsaiJobLost),
    ],
)
def test_everything_but_succeeded_is_an_error_that_names_the_job(word, error):
    """With OSAI's own words."""
    with pytest.raises(error, match=r"training job 7: .*disk full"):
        raise_for_state(job(word, message="disk full"))


def test_succeeded_is_success():
    """The only word that is."""
    assert raise_for_state(job("succeeded", result={"modelId": 5, "metrics": {"accuracy": 0.9}})).references() == {
        "kind": "training",
        "job_id": "7",
        "state": "succeeded",
        "model_id": "5",
        "metrics": {"accuracy": 0.9},
    }
