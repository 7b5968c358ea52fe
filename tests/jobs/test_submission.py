"""Submitting a job or reconnecting to it: with a checkpoint and without, wherever an earlier try may have ended."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_osai.api.errors import (
    OsaiAuthError,
    OsaiContractError,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.batch_checkpoint import BatchCheckpoints
from airflow_provider_osai.jobs.checkpoint import Generation, JobCheckpoint, NullCheckpointStore
from airflow_provider_osai.jobs.idempotency import TaskKey, fingerprint
from airflow_provider_osai.jobs.lifecycle import backoff
from airflow_provider_osai.jobs.submission import (
    VISIBILITY_TIMEOUT,
    SubmissionPlan,
    find_jobs,
    submit,
    submit_or_reconnect,
)
from tests.jobs.conftest import FakeClient, job

REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
OWNER = TaskKey("dag", "run", "task", -1, 2)
NOW = Generation(max_tries=2, retries=1, clears=1)
"""The task was cleared after its first try."""
BEFORE = {"max_tries": 1, "retries": 1, "clears": 0}
"""The same task before it was cleared."""
RUN = "2026-11-24"
GONE = OsaiRequestError(404, "GET", "/Trainings/7", "")
TRAINING = JobKind.TRAINING
DOWN = OsaiUnreachable("down", may_have_been_processed=False)
OPEN = OsaiUnreachable("timeout", may_have_been_processed=True)


def forbidden() -> OsaiRequestError:
    return OsaiRequestError(403, "GET", "/Trainings", "no")


class Memory:
    """A store in memory that keeps every entry it was given."""

    remembers = True

    def __init__(self, entry: JobCheckpoint | None = None) -> None:
        self.entries = [entry] if entry else []

    def read(self):
        return self.entries[-1] if self.entries else None

    def write(self, entry):
        self.entries.append(entry)


OTHER = TrainingRequest(dataset_ids=["1"], model_name="other")


def reference(failed=0, generation=NOW, request=REQUEST) -> str:
    """The key of this task's job."""
    return SubmissionPlan(request, OWNER, run=RUN).key(f"{RUN}#{generation.number}", failed)


def entry(request=REQUEST, **fields) -> JobCheckpoint:
    """What an earlier try of this task may have left."""
    known = {"kind": "training", "reference": reference(request=request), "job_id": "7"}
    return JobCheckpoint(
        **known | {"request": fingerprint(request), "max_tries": 2, "retries": 1, "clears": 1} | fields
    )


def plan(store, **options) -> SubmissionPlan:
    return SubmissionPlan(
        REQUEST, OWNER, store, **{"generation": NOW, "run": RUN, "unreachable_timeout": 60.0} | options
    )


class TestSubmit:
    """Exactly one job, whatever the network does."""

    def test_a_clear_answer_is_taken(self, client):
        """The ordinary case needs one request."""
        client.answers = {"training.submit": [job("queued")]}
        assert submit(client, REQUEST, "ref").id == "7"
        assert client.sent == ["training.submit"]

    def test_what_surely_was_not_sent_is_sent_again(self, client):
        """No look-up is needed then."""
        client.answers = {"training.submit": [DOWN, DOWN, job("queued")]}
        assert submit(client, REQUEST, "ref").id == "7"
        assert client.sent == ["training.submit"] * 3

    def test_what_may_have_been_taken_is_looked_up_and_found(self, client):
        """The connection broke after the server accepted."""
        client.answers = {"training.submit": [OPEN], "training.list": [[job("queued", reference="ref")]]}
        assert submit(client, REQUEST, "ref").id == "7"
        assert client.sent == ["training.submit", "training.list"]

    def test_what_was_not_taken_is_sent_again_after_the_look_up(self, client, calls):
        """The connection broke before the server accepted."""
        repeated = []
        client.answers = {"training.submit": [OPEN, job("queued")], "training.list": [[]]}
        again = {"visibility": 40.0, "on_resubmit": lambda: repeated.append(sum(client.slept))}
        assert submit(client, REQUEST, "ref", **again).id == "7"
        assert client.sent == ["training.submit", *["training.list"] * 20, "training.submit", "training.list"]
        assert repeated == [40.0]

    def test_a_submission_that_arrives_late_is_found(self, client):
        """A gateway held the request for longer than the client waited."""
        mine = job("queued", reference="ref")
        client.answers = {"training.submit": [OPEN], "training.list": [*[[]] * 12, [mine]]}
        assert submit(client, REQUEST, "ref", visibility=40.0).id == "7"
        assert client.sent.count("training.submit") == 1

    def test_of_two_jobs_under_one_key_one_is_kept_and_the_other_cancelled(self, client):
        """The first submission arrived after the second was sent."""
        notes, late = [], job("running", id="8", reference="ref")
        client.answers = {
            "training.submit": [OPEN, job("queued", reference="ref")],
            "training.list": [*[[]] * 5, [job("queued", reference="ref"), late]],
            "training.get": [job("queued")],
            "training.cancel": [None],
        }
        assert submit(client, REQUEST, "ref", log=notes.append).id == "8"
        assert client.sent[-2:] == ["training.get", "training.cancel"]
        assert "kept 8, cancelled 7" in notes[0]

    def test_where_the_api_cannot_tell_it_is_not_sent_again(self, poor_client):
        """Better a failed task than two jobs that bill."""
        poor_client.answers = {"training.submit": [OPEN]}
        with pytest.raises(OsaiUnreachable, match="It is unknown whether.*portal"):
            submit(poor_client, REQUEST, "ref")
        assert poor_client.sent == ["training.submit"]

    def test_an_outage_ends_the_submission_at_last(self, client):
        """After the time that the user gave it; the pauses grow, and the error says what happened."""
        client.answers = {"training.submit": [DOWN]}
        with pytest.raises(OsaiUnreachable, match="down"):
            submit(client, REQUEST, "ref", unreachable_timeout=1800.0, random_factor=lambda: 0.5)
        assert client.slept == sorted(client.slept)
        assert 1700 <= sum(client.slept) <= 1800

    def test_an_osai_that_has_too_much_to_do_is_asked_again_and_not_looked_up(self, client):
        """It surely did not take the job; the pauses grow up to a minute or two, and are never shorter than it says."""
        full = [OsaiUnreachable("429", may_have_been_processed=False, status=429)] * 9
        full[3] = OsaiUnreachable("429", may_have_been_processed=False, status=429, retry_after=300.0)
        client.answers = {"training.submit": [*full, job("queued")]}
        assert submit(client, REQUEST, "ref", random_factor=lambda: 0.5).id == "7"
        assert set(client.sent) == {"training.submit"}
        assert client.slept == [1.5 * pause for pause in (1, 2, 4, 300, 16, 32, 60, 60, 60)]

    def test_a_burst_of_submissions_does_not_come_back_together(self):
        """Five hundred mapped tasks are sent away in the same second."""
        full = OsaiUnreachable("409", may_have_been_processed=False, status=409, retry_after=10.0)
        clients = [FakeClient(answers={"training.submit": [full, job("queued")]}) for _ in range(500)]
        for client in clients:
            submit(client, REQUEST, "ref")
        seconds = [client.now - 1000.0 for client in clients]
        assert min(seconds) >= 10
        assert max(sum(at <= one < at + 1 for one in seconds) for at in seconds) < 100

    def test_an_osai_that_takes_no_job_at_all_ends_the_submission(self, client):
        """After the time that the user gave it."""
        client.answers = {"training.submit": [OsaiUnreachable("429", may_have_been_processed=False, status=429)]}
        with pytest.raises(OsaiUnreachable, match="429"):
            submit(client, REQUEST, "ref", unreachable_timeout=600.0)
        assert 400 <= sum(client.slept) <= 600

    def test_a_refusal_is_passed_on_at_once(self, client):
        """A bad request does not get better."""
        client.answers = {"training.submit": [OsaiRequestError(400, "POST", "/Trainings", "no")]}
        with pytest.raises(OsaiRequestError):
            submit(client, REQUEST, "ref")
        assert client.sent == ["training.submit"]


class TestFind:
    """Whether a job is there that has our reference."""

    @pytest.mark.parametrize("status", [400, 404, 405, 501])
    def test_an_api_that_does_not_know_the_list_is_one_without(self, client, status):
        """The operation is assumed."""
        client.answers = {"training.list": [OsaiRequestError(status, "GET", "/Trainings", "")]}
        assert find_jobs(client, TRAINING, "ref") is None

    def test_a_list_that_ignores_the_question_tells_nothing(self, client):
        """Jobs of others, shown without a reference, are neither ours nor proof that ours is missing."""
        client.answers = {"training.list": [[job("running")]]}
        assert find_jobs(client, TRAINING, "ref") is None

    def test_jobs_of_others_are_never_ours(self, client):
        """Also if the server's filter is broken."""
        client.answers = {"training.list": [[job("running", reference="other")]]}
        assert find_jobs(client, TRAINING, "ref") == []


class TestFirstTry:
    """Nothing is known yet."""

    def test_the_intent_is_kept_before_the_submission_and_the_job_after(self, client):
        """A crash in between leaves a trace."""
        store = Memory()
        seen = []
        client.answers = {"training.submit": [job("queued")]}
        send = client.send
        client.send = lambda call, **_: seen.append((call.name, store.read() and store.read().job_id)) or send(call)
        submit_or_reconnect(client, plan(store))
        assert seen == [("training.submit", None)]
        assert [e.job_id for e in store.entries] == [None, "7"]

    def test_without_a_list_it_submits_at_once(self, poor_client):
        """There is nothing to ask."""
        poor_client.answers = {"training.submit": [job("queued")]}
        submit_or_reconnect(poor_client, plan(Memory()))
        assert poor_client.sent == ["training.submit"]

    def test_what_was_surely_not_taken_is_no_intent_any_more(self, poor_client):
        """A retry may submit, even where OSAI cannot list."""
        store = Memory()
        poor_client.answers = {"training.submit": [OsaiRequestError(400, "POST", "/Trainings", "no")]}
        with pytest.raises(OsaiRequestError):
            submit_or_reconnect(poor_client, plan(store))
        poor_client.answers = {"training.submit": [job("queued")]}
        assert submit_or_reconnect(poor_client, plan(store)).id == "7"


class TestDoubt:
    """Whether OSAI took the job is unknown, and then something else fails too."""

    @pytest.mark.parametrize(
        "error", [DOWN, OPEN, forbidden(), OsaiAuthError("no"), OsaiContractError("odd")], ids=repr
    )
    def test_a_search_that_fails_leaves_the_doubt(self, client, error):
        """The next try waits for the job to become visible, and finds it."""
        store = Memory()
        client.answers = {"training.submit": [OPEN], "training.list": [error]}
        with pytest.raises((OsaiUnreachable, OsaiJobLost)) as caught:
            submit_or_reconnect(client, plan(store, unreachable_timeout=5.0, clock=client.clock))
        assert caught.value.retryable
        assert (store.read().job_id, store.read().void) == (None, False)
        mine = job("queued", reference=reference())
        client.answers = {"training.list": [[], [mine]]}
        assert submit_or_reconnect(client, plan(store, clock=client.clock)).id == "7"
        assert client.sent.count("training.submit") == 1

    def test_a_job_that_is_there_is_not_lost_by_the_search_for_a_second_one(self, client):
        store = Memory()
        client.answers = {"training.submit": [OPEN, job("queued")], "training.list": [*[[]] * 5, forbidden()]}
        assert submit_or_reconnect(client, plan(store)).id == "7"
        assert store.read().job_id == "7"

    def test_a_rejection_after_a_doubt_that_was_cleared_up_is_one(self, client):
        store = Memory()
        client.answers = {"training.submit": [OPEN, forbidden()], "training.list": [[]]}
        with pytest.raises(OsaiRequestError):
            submit_or_reconnect(client, plan(store))
        assert store.read().void


@pytest.mark.parametrize("error", [forbidden(), OsaiContractError("odd")], ids=repr)
def test_a_job_that_cannot_be_read_is_left_to_a_retry(client, error):
    """A task that ended for good would leave it running."""
    client.answers = {"training.get": [error]}
    with pytest.raises(OsaiJobLost, match="cannot be read now") as caught:
        submit_or_reconnect(client, plan(Memory(entry())))
    assert caught.value.job_id == "7"
    assert client.sent == ["training.get"]


def test_an_outage_of_days_has_a_pause_of_a_minute():
    assert [backoff(tries) for tries in (0, 1, 5, 6, 10_000)] == [1, 2, 32, 60, 60]


def test_the_ids_of_a_batch_stay_unwritten_until_they_are_written():
    """Although intents of other jobs are written in between."""
    store = {}
    batch = BatchCheckpoints(SimpleNamespace(get=store.get, set=store.__setitem__))
    batch.prepare({index: entry(job_id=None, reference=f"k{index}") for index in range(3)})
    for index in range(3):
        batch.write(index, entry(job_id=None, reference=f"k{index}"))
        batch.write(index, entry(job_id=str(index), reference=f"k{index}"))
    batch.prepare({50: entry(job_id=None, reference="k50")})
    batch.flush()
    stored = BatchCheckpoints(SimpleNamespace(get=store.get, set=store.__setitem__)).known
    assert {index: each.job_id for index, each in stored.items()} == {0: "0", 1: "1", 2: "2", 50: None}


def test_a_batch_that_is_given_up_has_no_job_to_reconnect_to():
    """Neither one that was submitted, nor one whose submission is going on, nor one that was only prepared."""
    store = {}
    batch = BatchCheckpoints(SimpleNamespace(get=store.get, set=store.__setitem__))
    batch.prepare({index: entry(job_id=None, reference=f"k{index}") for index in range(3)})
    batch.write(0, entry(job_id="7", reference="k0"))
    batch.give_up()
    batch.write(1, entry(job_id="8", reference="k1"))
    batch.flush()
    stored = BatchCheckpoints(SimpleNamespace(get=store.get, set=store.__setitem__)).known
    assert {index: (each.job_id, each.cancelled) for index, each in stored.items()} == {
        0: ("7", True),
        1: ("8", True),
        2: (None, True),
    }


class TestRetry:
    """The same generation, with the same arguments."""

    @pytest.mark.parametrize("word", ["queued", "running", "succeeded", "never heard of"])
    def test_a_known_job_that_lives_or_succeeded_is_adopted(self, poor_client, word):
        """Also where OSAI cannot list."""
        noted = []
        poor_client.answers = {"training.get": [job(word)]}
        assert submit_or_reconnect(poor_client, plan(Memory(entry()), log=noted.append)).status == word
        assert poor_client.sent == ["training.get"]
        assert "Reconnected to training job 7" in noted[0]

    @pytest.mark.parametrize("word", ["failed", "cancelled"])
    def test_after_a_job_that_ended_badly_a_new_one_is_submitted(self, client, word):
        """Under the next reference."""
        store = Memory(entry())
        client.answers = {
            "training.get": [job(word)],
            "training.list": [[]],
            "training.submit": [job("queued", id="8")],
        }
        assert submit_or_reconnect(client, plan(store)).id == "8"
        assert (store.read().failed, store.read().reference) == (1, reference(1))

    def test_an_intent_whose_job_is_listed_is_adopted(self, client):
        """The try ended between the POST and its answer."""
        mine = job("running", reference=reference())
        client.answers = {"training.list": [[mine]]}
        assert submit_or_reconnect(client, plan(Memory(entry(job_id=None)))).id == "7"
        assert "training.submit" not in client.sent

    def test_an_intent_without_a_job_is_carried_out(self, client):
        """The try ended before the POST."""
        client.answers = {"training.list": [[]], "training.submit": [job("queued")]}
        assert submit_or_reconnect(client, plan(Memory(entry(job_id=None)))).id == "7"

    def test_an_intent_that_nobody_can_follow_is_not_repeated(self, poor_client):
        """Better a task that asks for help than two jobs that bill."""
        with pytest.raises(OsaiJobLost, match=r"recorded no result.*clear the task"):
            submit_or_reconnect(poor_client, plan(Memory(entry(job_id=None))))
        assert poor_client.sent == []

    def test_a_known_job_that_vanished_is_followed_by_a_new_one(self, client):
        """Somebody deleted it."""
        client.answers = {"training.get": [GONE], "training.list": [[]], "training.submit": [job("queued", id="8")]}
        assert submit_or_reconnect(client, plan(Memory(entry()))).id == "8"

    @pytest.mark.parametrize("kept", [{}, {"job_id": None}], ids=["kept", "intended"])
    def test_a_job_that_osai_does_not_show_yet_is_waited_for(self, client, kept):
        """Right after a submission neither the job nor the list need know of it; a second one would double it."""
        mine = job("queued", reference=reference())
        client.answers = {"training.get": [GONE], "training.list": [[], [], [mine]]}
        claimed = submit_or_reconnect(client, plan(Memory(entry(at=client.now - 3, **kept)), clock=client.clock))
        assert claimed.id == "7"
        assert "training.submit" not in client.sent
        assert client.now < 1000 + VISIBILITY_TIMEOUT

    @pytest.mark.parametrize("age", [-100, 0, 9], ids=["clock set back", "new", "nearly old"])
    def test_a_job_that_osai_never_shows_is_waited_for_ten_seconds(self, client, age):
        """Whatever the clocks of two workers say."""
        client.answers = {"training.list": [[]], "training.submit": [job("queued", id="8")]}
        found = plan(Memory(entry(job_id=None, at=client.now - age)), clock=client.clock)
        assert submit_or_reconnect(client, found).id == "8"
        assert sum(client.slept) == min(VISIBILITY_TIMEOUT, VISIBILITY_TIMEOUT - age)

    def test_what_was_surely_not_taken_is_not_waited_for(self, client):
        """Nothing can come of it."""
        client.answers = {"training.list": [[]], "training.submit": [job("queued", id="8")]}
        submit_or_reconnect(client, plan(Memory(entry(job_id=None, void=True, at=client.now)), clock=client.clock))
        assert client.slept == []

    def test_an_outage_during_the_look_submits_nothing(self, client):
        """The next try looks again."""
        client.answers = {"training.get": [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            submit_or_reconnect(client, plan(Memory(entry())))
        assert "training.submit" not in client.sent


class TestCleared:
    """Another generation, or other arguments: the old job is stopped and never adopted."""

    @pytest.mark.parametrize("change", [BEFORE, {"request": OTHER}], ids=["cleared", "other arguments"])
    @pytest.mark.parametrize("word", ["queued", "running", "never heard of"])
    def test_a_live_job_of_before_is_stopped_first(self, client, change, word):
        """It would bill for nobody."""
        client.answers = {
            "training.get": [job(word)],
            "training.cancel": [None],
            "training.list": [[]],
            "training.submit": [job("queued", id="8")],
        }
        assert submit_or_reconnect(client, plan(Memory(entry(**change)))).id == "8"
        assert client.sent.index("training.cancel") < client.sent.index("training.submit")

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_an_ended_job_of_before_is_left_alone_and_its_result_not_returned(self, client, word):
        """A clear means: again."""
        client.answers = {
            "training.get": [job(word)],
            "training.list": [[]],
            "training.submit": [job("queued", id="8")],
        }
        assert submit_or_reconnect(client, plan(Memory(entry(**BEFORE)))).id == "8"
        assert "training.cancel" not in client.sent

    def test_a_job_of_before_that_cannot_be_stopped_is_noted(self, poor_client):
        """And does not keep the task from its work."""
        noted = []
        poor_client.answers = {"training.get": [job("running")], "training.submit": [job("queued", id="8")]}
        submit_or_reconnect(poor_client, plan(Memory(entry(**BEFORE)), log=noted.append))
        assert "may continue" in noted[0]

    def test_an_intent_of_before_is_followed_up(self, client):
        """The job that came of it is stopped."""
        old = entry(**BEFORE, job_id=None)
        client.answers = {
            "training.list": [[job("running", reference=old.reference)], []],
            "training.get": [job("running")],
            "training.cancel": [None],
            "training.submit": [job("queued", id="8")],
        }
        assert submit_or_reconnect(client, plan(Memory(old))).id == "8"
        assert "training.cancel" in client.sent

    def test_without_a_memory_the_list_tells_of_older_generations(self, client):
        """Airflow before 3.3."""
        older = reference(generation=Generation(1, 1))
        client.answers = {
            "training.list": [[job("running", reference=older)], []],
            "training.get": [job("running")],
            "training.cancel": [None],
            "training.submit": [job("queued", id="8")],
        }
        assert submit_or_reconnect(client, plan(NullCheckpointStore())).id == "8"
        assert client.sent.index("training.cancel") < client.sent.index("training.submit")

    def test_an_outage_while_stopping_submits_nothing(self, client):
        """The next try stops it."""
        client.answers = {"training.get": [job("running")], "training.cancel": [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            submit_or_reconnect(client, plan(Memory(entry(**BEFORE))))
        assert "training.submit" not in client.sent


def test_a_job_of_another_kind_of_before_is_stopped_as_what_it_was(client):
    """The task's operator may have been exchanged."""
    old = entry(**BEFORE, kind=JobKind.CONVERSION)
    client.answers = {
        "conversion.get": [job("running")],
        "conversion.cancel": [None],
        "training.list": [[]],
        "training.submit": [job("queued", id="8")],
    }
    submit_or_reconnect(client, plan(Memory(old)))
    assert "conversion.cancel" in client.sent


def test_the_keys_after_failed_jobs_never_repeat():
    keys = {reference(failed) for failed in range(50)}
    assert len(keys) == 50
