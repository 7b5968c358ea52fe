"""A job's life: adopted or submitted once, waited for with patience, cancelled only if it lives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import Calls
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
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.lifecycle import Watch, cancel, find, outcome, submit, wait
from airflow_provider_osai.jobs.pace import Pace
from tests.jobs.conftest import Play, job

REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
TRAINING = JobKind.TRAINING
GONE = OsaiRequestError(404, "GET", "/Trainings/7", "")
DOWN = OsaiUnreachable("down", sent=False)
OPEN = OsaiUnreachable("timeout", sent=True)


def watch(play, **options):
    return Watch(**{"since": play.now, "clock": play.clock, "pace": Pace(30, chance=lambda: 0.5)} | options)


class TestSubmit:
    """Exactly one job, whatever the network does."""

    def test_a_clear_answer_is_taken(self, play, calls):
        """The ordinary case needs one request."""
        play.answers = {"training.submit": [job("queued")]}
        assert play.run(submit(calls, REQUEST, "ref")).id == "7"
        assert play.sent == ["training.submit"]

    def test_what_surely_was_not_sent_is_sent_again(self, play, calls):
        """No look-up is needed then."""
        play.answers = {"training.submit": [DOWN, DOWN, job("queued")]}
        assert play.run(submit(calls, REQUEST, "ref")).id == "7"
        assert play.sent == ["training.submit"] * 3

    def test_what_may_have_been_taken_is_looked_up_and_found(self, play, calls):
        """The connection broke after the server accepted."""
        play.answers = {"training.submit": [OPEN], "training.list": [[job("queued", reference="ref")]]}
        assert play.run(submit(calls, REQUEST, "ref")).id == "7"
        assert play.sent == ["training.submit", "training.list"]

    def test_what_was_not_taken_is_sent_again_after_the_look_up(self, play, calls):
        """The connection broke before the server accepted."""
        repeated = []
        play.answers = {"training.submit": [OPEN, job("queued")], "training.list": [[]]}
        flow = submit(calls, REQUEST, "ref", visibility=40.0, repeated=lambda: repeated.append(sum(play.slept)))
        assert play.run(flow).id == "7"
        assert play.sent == ["training.submit", *["training.list"] * 20, "training.submit", "training.list"]
        assert repeated == [40.0]

    def test_a_submission_that_arrives_late_is_found(self, play, calls):
        """A gateway held the request for longer than the client waited."""
        mine = job("queued", reference="ref")
        play.answers = {"training.submit": [OPEN], "training.list": [*[[]] * 12, [mine]]}
        assert play.run(submit(calls, REQUEST, "ref", visibility=40.0)).id == "7"
        assert play.sent.count("training.submit") == 1

    def test_of_two_jobs_under_one_key_one_is_kept_and_the_other_cancelled(self, play, calls):
        """The first submission arrived after the second was sent."""
        notes, late = [], job("running", id="8", reference="ref")
        play.answers = {
            "training.submit": [OPEN, job("queued", reference="ref")],
            "training.list": [*[[]] * 5, [job("queued", reference="ref"), late]],
            "training.get": [job("queued")],
            "training.cancel": [None],
        }
        assert play.run(submit(calls, REQUEST, "ref", note=notes.append)).id == "8"
        assert play.sent[-2:] == ["training.get", "training.cancel"]
        assert "keeping 8, cancelled 7" in notes[0]

    def test_where_the_api_cannot_tell_it_is_not_sent_again(self, play, poor_calls):
        """Better a failed task than two jobs that bill."""
        play.answers = {"training.submit": [OPEN]}
        with pytest.raises(OsaiUnreachable, match="cannot be told.*portal"):
            play.run(submit(poor_calls, REQUEST, "ref"))
        assert play.sent == ["training.submit"]

    def test_an_outage_ends_the_submission_at_last(self, play, calls):
        """After the time that the user gave it; the pauses grow, and the error says what happened."""
        play.answers = {"training.submit": [DOWN]}
        with pytest.raises(OsaiUnreachable, match="down"):
            play.run(submit(calls, REQUEST, "ref", patience=1800.0, chance=lambda: 0.5))
        assert play.slept == sorted(play.slept)
        assert 1700 <= sum(play.slept) <= 1800

    def test_an_osai_that_has_too_much_to_do_is_asked_again_and_not_looked_up(self, play, calls):
        """It surely did not take the job; the pauses grow up to a minute or two, and are never shorter than it says."""
        full = [OsaiUnreachable("429", sent=False, status=429)] * 9
        full[3] = OsaiUnreachable("429", sent=False, status=429, retry_after=300.0)
        play.answers = {"training.submit": [*full, job("queued")]}
        assert play.run(submit(calls, REQUEST, "ref", chance=lambda: 0.5)).id == "7"
        assert set(play.sent) == {"training.submit"}
        assert play.slept == [1.5 * pause for pause in (1, 2, 4, 300, 16, 32, 60, 60, 60)]

    def test_a_burst_of_submissions_does_not_come_back_together(self, play, calls):
        """Five hundred mapped tasks are sent away in the same second."""
        flows = [submit(calls, REQUEST, str(n)) for n in range(500)]
        for flow in flows:
            next(flow)
        full = OsaiUnreachable("409", sent=False, status=409, retry_after=10.0)
        seconds = [flow.throw(full).seconds for flow in flows]
        assert min(seconds) >= 10
        assert max(sum(at <= one < at + 1 for one in seconds) for at in seconds) < 100

    def test_an_osai_that_takes_no_job_at_all_ends_the_submission(self, play, calls):
        """After the time that the user gave it."""
        play.answers = {"training.submit": [OsaiUnreachable("429", sent=False, status=429)]}
        with pytest.raises(OsaiUnreachable, match="429"):
            play.run(submit(calls, REQUEST, "ref", patience=600.0))
        assert 400 <= sum(play.slept) <= 600

    def test_a_refusal_is_passed_on_at_once(self, play, calls):
        """A bad request does not get better."""
        play.answers = {"training.submit": [OsaiRequestError(400, "POST", "/Trainings", "no")]}
        with pytest.raises(OsaiRequestError):
            play.run(submit(calls, REQUEST, "ref"))
        assert play.sent == ["training.submit"]


class TestFind:
    """Whether a job is there that has our reference."""

    @pytest.mark.parametrize("status", [400, 404, 405, 501])
    def test_an_api_that_does_not_know_the_list_is_one_without(self, play, calls, status):
        """The operation is assumed."""
        play.answers = {"training.list": [OsaiRequestError(status, "GET", "/Trainings", "")]}
        assert play.run(find(calls, TRAINING, "ref")) is None

    def test_a_list_that_ignores_the_question_tells_nothing(self, play, calls):
        """Jobs of others, shown without a reference, are neither ours nor proof that ours is missing."""
        play.answers = {"training.list": [[job("running")]]}
        assert play.run(find(calls, TRAINING, "ref")) is None

    def test_jobs_of_others_are_never_ours(self, play, calls):
        """Also if the server's filter is broken."""
        play.answers = {"training.list": [[job("running", reference="other")]]}
        assert play.run(find(calls, TRAINING, "ref")) == []


class TestWait:
    """Until the end, the deadline, or the loss of sight."""

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_every_end_is_returned(self, play, calls, word):
        """Well or badly: what it means is decided elsewhere."""
        play.answers = {"training.get": [job("queued"), job("running"), job(word)]}
        assert play.run(wait(calls, TRAINING, "7", watch(play))).status == word
        assert len(play.slept) == 2

    def test_an_unknown_word_is_waited_out(self, play, calls):
        """It is not the end, and never success."""
        play.answers = {"training.get": [job("pausing")] * 5 + [job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play))).state is JobState.SUCCEEDED

    @pytest.mark.parametrize("error", [OsaiUnreachable("down"), OsaiAuthError("no"), GONE], ids=repr)
    def test_an_old_job_is_not_lost_at_the_first_look(self, play, calls, error):
        """A new triggerer takes over a job that has run for a day, and OSAI stumbles just then."""
        play.answers = {"training.get": [error, job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play, since=play.now - 86_400))).is_terminal

    def test_the_deadline_holds_to_the_second(self, play, calls):
        """The last pause is cut to fit."""
        play.answers = {"training.get": [job("running")]}
        with pytest.raises(OsaiJobTimeout):
            play.run(wait(calls, TRAINING, "7", watch(play, deadline=1100.0)))
        assert play.now == 1100.0
        assert "training.cancel" not in play.sent

    def test_a_job_that_ended_before_the_deadline_was_looked_at_counts(self, play, calls):
        """A late look finds the end, not the lateness."""
        play.answers = {"training.get": [job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play, deadline=900.0))).state is JobState.SUCCEEDED

    def test_an_outage_shorter_than_the_limit_is_borne(self, play, calls):
        """And the count starts again after each sight of the job."""
        play.answers = {"training.get": [job("running"), *[DOWN] * 20, job("running"), *[DOWN] * 20, job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play, max_unreachable=600))).is_terminal

    def test_a_longer_outage_loses_the_job_without_cancelling_it(self, play, calls):
        """It may run on; a retry adopts it."""
        play.answers = {"training.get": [DOWN]}
        with pytest.raises(OsaiJobLost, match="not cancelled"):
            play.run(wait(calls, TRAINING, "7", watch(play, max_unreachable=600)))
        assert set(play.sent) == {"training.get"}
        assert 600 <= play.now - 1000 <= 640

    def test_the_deadline_holds_in_an_outage_too(self, play, calls):
        """Whichever comes first."""
        play.answers = {"training.get": [DOWN]}
        with pytest.raises(OsaiJobTimeout):
            play.run(wait(calls, TRAINING, "7", watch(play, deadline=1050.0)))

    def test_a_404_right_after_submission_is_not_yet(self, play, calls):
        """A job may be visible a little later."""
        play.answers = {"training.get": [GONE, GONE, job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play))).is_terminal

    def test_a_404_that_stays_is_a_lost_job(self, play, calls):
        """After a minute."""
        play.answers = {"training.get": [GONE]}
        with pytest.raises(OsaiJobLost, match="does not know it"):
            play.run(wait(calls, TRAINING, "7", watch(play)))
        assert play.now - 1000 < 120

    def test_a_retry_after_is_a_floor_for_the_next_look(self, play, calls):
        """The server knows best."""
        play.answers = {"training.get": [OsaiUnreachable("429", retry_after=55.0), job("succeeded")]}
        play.run(wait(calls, TRAINING, "7", watch(play)))
        assert 55.0 <= play.slept[0] <= 66.0

    def test_what_waiting_does_not_mend_ends_it(self, play, calls):
        """The task says what to mend."""
        play.answers = {"training.get": [OsaiContractError("no")]}
        with pytest.raises(OsaiContractError):
            play.run(wait(calls, TRAINING, "7", watch(play)))
        assert play.slept == []

    def test_a_refused_token_is_borne_for_a_while(self, play, calls):
        """Somebody may be about to replace it."""
        play.answers = {"training.get": [*[OsaiAuthError("no")] * 10, job("succeeded")]}
        assert play.run(wait(calls, TRAINING, "7", watch(play))).is_terminal

    def test_a_token_that_stays_refused_ends_it_after_ten_minutes(self, play, calls):
        """As a job that was lost, since a retry with a new token finds it."""
        play.answers = {"training.get": [OsaiAuthError("no")]}
        with pytest.raises(OsaiJobLost, match="no.*not cancelled"):
            play.run(wait(calls, TRAINING, "7", watch(play)))
        assert 600 <= play.now - 1000 <= 640

    def test_each_look_is_observed_with_the_pause_that_follows(self, play, calls):
        """For the log."""
        seen = []
        play.answers = {"training.get": [job("queued"), job("succeeded")]}
        play.run(wait(calls, TRAINING, "7", watch(play, observe=lambda j, s: seen.append((j.status, s)))))
        assert seen == [("queued", play.slept[0])]

    words = st.sampled_from(["queued", "running", "odd", "succeeded", "failed", "cancelled"])
    errors = st.sampled_from([DOWN, OPEN, GONE, OsaiUnreachable("429", retry_after=9.0)])

    @given(st.lists(words | errors, max_size=30))
    def test_any_sequence_ends_in_a_named_result_and_success_only_by_its_word(self, script):
        """Within the deadline, whatever the server says."""
        play = Play(answers={"training.get": [*(job(s) if isinstance(s, str) else s for s in script), job("running")]})
        ends = [s for s in script if s in ("succeeded", "failed", "cancelled")]
        try:
            done = play.run(wait(Calls(), TRAINING, "7", watch(play, deadline=5000.0)))
        except (OsaiJobTimeout, OsaiJobLost):
            assert play.now <= 5000.0
        else:
            assert done.status == ends[0]


class TestCancel:
    """Only what lives is told to stop."""

    def test_a_live_job_is_cancelled(self, play, calls):
        """After a look at it."""
        play.answers = {"training.get": [job("running")], "training.cancel": [None]}
        assert not play.run(cancel(calls, TRAINING, "7")).is_terminal
        assert play.sent == ["training.get", "training.cancel"]

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_a_job_that_has_ended_is_left_alone(self, play, calls, word):
        """Cancelling may undo what it made."""
        play.answers = {"training.get": [job(word)]}
        assert play.run(cancel(calls, TRAINING, "7")).is_terminal
        assert play.sent == ["training.get"]

    def test_a_job_that_ends_meanwhile_is_no_error(self, play, calls):
        """409: too late."""
        late = OsaiRequestError(409, "POST", "/Trainings/7/Cancel", "")
        play.answers = {"training.get": [job("running"), job("succeeded")], "training.cancel": [late]}
        assert play.run(cancel(calls, TRAINING, "7")).is_terminal

    def test_an_api_that_cannot_cancel_says_so(self, play, poor_calls):
        """The user must know that it goes on."""
        play.answers = {"training.get": [job("running")]}
        with pytest.raises(OsaiContractError, match="null"):
            play.run(cancel(poor_calls, TRAINING, "7"))


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
        outcome(job(word, message="disk full"))


def test_succeeded_is_success():
    """The only word that is."""
    assert outcome(job("succeeded", result={"modelId": 5, "metrics": {"accuracy": 0.9}})).references() == {
        "kind": "training",
        "job_id": "7",
        "state": "succeeded",
        "model_id": "5",
        "metrics": {"accuracy": 0.9},
    }


def test_the_references_after_failures_never_repeat():
    """Each new job has one of its own."""
    from airflow_provider_osai.jobs.reference import Owner

    owner = Owner("dag", "run", "task", -1, 0)
    names = [owner.reference(REQUEST, failed) for failed in itertools.islice(itertools.count(), 50)]
    assert len(set(names)) == 50
