"""How a task comes by its job: with a memory and without, at each point where a try may have ended."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiJobLost, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.claim import Claim, claim
from airflow_provider_osai.jobs.ledger import Entry, Forgetful, Generation
from airflow_provider_osai.jobs.lifecycle import SETTLING
from airflow_provider_osai.jobs.reference import Owner, fingerprint
from tests.jobs.conftest import job

REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
OWNER = Owner("dag", "run", "task", -1, 2)
NOW = Generation(max_tries=2, retries=1, clears=1)
"""The task was cleared after its first try."""
BEFORE = {"max_tries": 1, "retries": 1, "clears": 0}
"""The same task before it was cleared."""
RUN = "2026-11-24"
GONE = OsaiRequestError(404, "GET", "/Trainings/7", "")


class Memory:
    """A ledger in memory that keeps every entry it was given."""

    remembers = True

    def __init__(self, entry: Entry | None = None) -> None:
        self.entries = [entry] if entry else []

    def read(self):
        return self.entries[-1] if self.entries else None

    def write(self, entry):
        self.entries.append(entry)


OTHER = TrainingRequest(dataset_ids=["1"], model_name="other")


def reference(failed=0, generation=NOW, request=REQUEST) -> str:
    """The key of this task's job."""
    return Claim(request, OWNER, run=RUN).reference(f"{RUN}#{generation.number}", failed)


def entry(request=REQUEST, **fields) -> Entry:
    """What an earlier try of this task may have left."""
    known = {"kind": "training", "reference": reference(request=request), "job_id": "7"}
    return Entry(**known | {"request": fingerprint(request), "max_tries": 2, "retries": 1, "clears": 1} | fields)


def wish(ledger, **options) -> Claim:
    return Claim(REQUEST, OWNER, ledger, **{"generation": NOW, "run": RUN, "patience": 60.0} | options)


class TestFirstTry:
    """Nothing is known yet."""

    def test_the_intent_is_kept_before_the_submission_and_the_job_after(self, play, calls):
        """A crash in between leaves a trace."""
        ledger = Memory()
        seen = []
        play.answers = {"training.submit": [job("queued")]}
        send = play.send
        play.send = lambda call: seen.append((call.name, ledger.read() and ledger.read().job_id)) or send(call)
        play.run(claim(calls, wish(ledger)))
        assert seen == [("training.submit", None)]
        assert [e.job_id for e in ledger.entries] == [None, "7"]

    def test_without_a_list_it_submits_at_once(self, play, poor_calls):
        """There is nothing to ask."""
        play.answers = {"training.submit": [job("queued")]}
        play.run(claim(poor_calls, wish(Memory())))
        assert play.sent == ["training.submit"]

    def test_what_was_surely_not_taken_is_no_intent_any_more(self, play, poor_calls):
        """A retry may submit, even where OSAI cannot list."""
        ledger = Memory()
        play.answers = {"training.submit": [OsaiRequestError(400, "POST", "/Trainings", "no")]}
        with pytest.raises(OsaiRequestError):
            play.run(claim(poor_calls, wish(ledger)))
        play.answers = {"training.submit": [job("queued")]}
        assert play.run(claim(poor_calls, wish(ledger))).id == "7"


class TestRetry:
    """The same generation, with the same arguments."""

    @pytest.mark.parametrize("word", ["queued", "running", "succeeded", "never heard of"])
    def test_a_known_job_that_lives_or_succeeded_is_adopted(self, play, poor_calls, word):
        """Also where OSAI cannot list."""
        noted = []
        play.answers = {"training.get": [job(word)]}
        assert play.run(claim(poor_calls, wish(Memory(entry()), note=noted.append))).status == word
        assert play.sent == ["training.get"]
        assert "adopted training job 7" in noted[0]

    @pytest.mark.parametrize("word", ["failed", "cancelled"])
    def test_after_a_job_that_ended_badly_a_new_one_is_submitted(self, play, calls, word):
        """Under the next reference."""
        ledger = Memory(entry())
        play.answers = {"training.get": [job(word)], "training.list": [[]], "training.submit": [job("queued", id="8")]}
        assert play.run(claim(calls, wish(ledger))).id == "8"
        assert (ledger.read().failed, ledger.read().reference) == (1, reference(1))

    def test_an_intent_whose_job_is_listed_is_adopted(self, play, calls):
        """The try ended between the POST and its answer."""
        mine = job("running", reference=reference())
        play.answers = {"training.list": [[mine]]}
        assert play.run(claim(calls, wish(Memory(entry(job_id=None))))).id == "7"
        assert "training.submit" not in play.sent

    def test_an_intent_without_a_job_is_carried_out(self, play, calls):
        """The try ended before the POST."""
        play.answers = {"training.list": [[]], "training.submit": [job("queued")]}
        assert play.run(claim(calls, wish(Memory(entry(job_id=None))))).id == "7"

    def test_an_intent_that_nobody_can_follow_is_not_repeated(self, play, poor_calls):
        """Better a task that asks for help than two jobs that bill."""
        with pytest.raises(OsaiJobLost, match=r"fell silent.*clear the task"):
            play.run(claim(poor_calls, wish(Memory(entry(job_id=None)))))
        assert play.sent == []

    def test_a_known_job_that_vanished_is_followed_by_a_new_one(self, play, calls):
        """Somebody deleted it."""
        play.answers = {"training.get": [GONE], "training.list": [[]], "training.submit": [job("queued", id="8")]}
        assert play.run(claim(calls, wish(Memory(entry())))).id == "8"

    @pytest.mark.parametrize("kept", [{}, {"job_id": None}], ids=["kept", "intended"])
    def test_a_job_that_osai_does_not_show_yet_is_waited_for(self, play, calls, kept):
        """Right after a submission neither the job nor the list need know of it; a second one would double it."""
        mine = job("queued", reference=reference())
        play.answers = {"training.get": [GONE], "training.list": [[], [], [mine]]}
        claimed = play.run(claim(calls, wish(Memory(entry(at=play.now - 3, **kept)), clock=play.clock)))
        assert claimed.id == "7"
        assert "training.submit" not in play.sent
        assert play.now < 1000 + SETTLING

    @pytest.mark.parametrize("age", [-100, 0, 9], ids=["clock set back", "new", "nearly old"])
    def test_a_job_that_osai_never_shows_is_waited_for_ten_seconds(self, play, calls, age):
        """Whatever the clocks of two workers say."""
        play.answers = {"training.list": [[]], "training.submit": [job("queued", id="8")]}
        found = wish(Memory(entry(job_id=None, at=play.now - age)), clock=play.clock)
        assert play.run(claim(calls, found)).id == "8"
        assert sum(play.slept) == min(SETTLING, SETTLING - age)

    def test_what_was_surely_not_taken_is_not_waited_for(self, play, calls):
        """Nothing can come of it."""
        play.answers = {"training.list": [[]], "training.submit": [job("queued", id="8")]}
        play.run(claim(calls, wish(Memory(entry(job_id=None, void=True, at=play.now)), clock=play.clock)))
        assert play.slept == []

    def test_an_outage_during_the_look_submits_nothing(self, play, calls):
        """The next try looks again."""
        play.answers = {"training.get": [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            play.run(claim(calls, wish(Memory(entry()))))
        assert "training.submit" not in play.sent


class TestCleared:
    """Another generation, or other arguments: the old job is stopped and never adopted."""

    @pytest.mark.parametrize("change", [BEFORE, {"request": OTHER}], ids=["cleared", "other arguments"])
    @pytest.mark.parametrize("word", ["queued", "running", "never heard of"])
    def test_a_live_job_of_before_is_stopped_first(self, play, calls, change, word):
        """It would bill for nobody."""
        play.answers = {
            "training.get": [job(word)],
            "training.cancel": [None],
            "training.list": [[]],
            "training.submit": [job("queued", id="8")],
        }
        assert play.run(claim(calls, wish(Memory(entry(**change))))).id == "8"
        assert play.sent.index("training.cancel") < play.sent.index("training.submit")

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_an_ended_job_of_before_is_left_alone_and_its_result_not_returned(self, play, calls, word):
        """A clear means: again."""
        play.answers = {"training.get": [job(word)], "training.list": [[]], "training.submit": [job("queued", id="8")]}
        assert play.run(claim(calls, wish(Memory(entry(**BEFORE))))).id == "8"
        assert "training.cancel" not in play.sent

    def test_a_job_of_before_that_cannot_be_stopped_is_noted(self, play, poor_calls):
        """And does not keep the task from its work."""
        noted = []
        play.answers = {"training.get": [job("running")], "training.submit": [job("queued", id="8")]}
        play.run(claim(poor_calls, wish(Memory(entry(**BEFORE)), note=noted.append)))
        assert "may go on" in noted[0]

    def test_an_intent_of_before_is_followed_up(self, play, calls):
        """The job that came of it is stopped."""
        old = entry(**BEFORE, job_id=None)
        play.answers = {
            "training.list": [[job("running", reference=old.reference)], []],
            "training.get": [job("running")],
            "training.cancel": [None],
            "training.submit": [job("queued", id="8")],
        }
        assert play.run(claim(calls, wish(Memory(old)))).id == "8"
        assert "training.cancel" in play.sent

    def test_without_a_memory_the_list_tells_of_older_generations(self, play, calls):
        """Airflow before 3.3."""
        older = reference(generation=Generation(1, 1))
        play.answers = {
            "training.list": [[job("running", reference=older)], []],
            "training.get": [job("running")],
            "training.cancel": [None],
            "training.submit": [job("queued", id="8")],
        }
        assert play.run(claim(calls, wish(Forgetful()))).id == "8"
        assert play.sent.index("training.cancel") < play.sent.index("training.submit")

    def test_an_outage_while_stopping_submits_nothing(self, play, calls):
        """The next try stops it."""
        play.answers = {"training.get": [job("running")], "training.cancel": [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            play.run(claim(calls, wish(Memory(entry(**BEFORE)))))
        assert "training.submit" not in play.sent


def test_a_job_of_another_kind_of_before_is_stopped_as_what_it_was(play, calls):
    """The task's operator may have been exchanged."""
    old = entry(**BEFORE, kind=JobKind.CONVERSION)
    play.answers = {
        "conversion.get": [job("running")],
        "conversion.cancel": [None],
        "training.list": [[]],
        "training.submit": [job("queued", id="8")],
    }
    play.run(claim(calls, wish(Memory(old))))
    assert "conversion.cancel" in play.sent
