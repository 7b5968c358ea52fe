"""Whether a live job is still wanted, by the rules of docs/orphans.md, and how orphans are looked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.orphans import Search
from airflow_provider_osai.jobs.reference import Bond, Deployment, Owner
from airflow_provider_osai.jobs.wanted import GONE, KnownJob, Want, judge
from tests.jobs.conftest import job

OWNER = Owner("retrain", "manual__1", "train", -1, 0)
HERE = Deployment("secret of this Airflow")
REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
LONG_AGO = "2026-11-24T11:00:00Z"
WANTED, UNWANTED, UNKNOWN = Want.WANTED, Want.UNWANTED, Want.UNKNOWN
UNFINISHED = [
    *(None, "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"),
    *("awaiting_input", "a_state_of_a_later_airflow"),
]


@dataclass
class Told:
    """What Airflow says; an exception is raised."""

    task: Any = "running"
    xcoms: dict[str, Any] = field(default_factory=dict)
    run: Any = "running"
    owner: Owner | None = None
    known: list[KnownJob] | None = None

    def state(self, owner):
        return self._told(self.task)

    def xcom(self, owner, key):
        return self._told(self.xcoms.get(key))

    def run_state(self, owner):
        return self._told(self.run)

    def owner_of(self, key, kind, job_id):
        return self._told(self.owner)

    def known_jobs(self, kinds):
        return self.known

    @staticmethod
    def _told(value):
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else value


class TestJudge:
    """The rules."""

    @pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed", GONE])
    @pytest.mark.parametrize(
        "bond,want",
        [(Bond.WAITS, UNWANTED), (Bond.SUBMITS, UNWANTED), (Bond.RENTS, UNWANTED), (Bond.KEEPS, WANTED)],
    )
    def test_a_task_that_has_ended_badly_or_is_gone_wants_nothing(self, state, bond, want):
        told = Told(task=state, xcoms={"job_id": "7"})
        verdict = judge(told, OWNER, bond, "7")
        assert verdict.want is want
        assert ("deleted" if state == GONE and want is UNWANTED else state) in verdict.reason

    @pytest.mark.parametrize(
        "bond,xcoms,run,want",
        [
            (Bond.WAITS, {}, "running", UNWANTED),
            (Bond.WAITS, {"job_id": "7"}, "running", UNWANTED),
            (Bond.WAITS, {"job_id": "7", "return_value": {"job_id": "7"}}, "success", UNKNOWN),
            (Bond.WAITS, {"return_value": {"job_id": "8"}}, "success", UNWANTED),
            (Bond.WAITS, {"return_value": "7"}, "success", UNWANTED),
            (Bond.SUBMITS, {"job_id": "7"}, "failed", WANTED),
            (Bond.SUBMITS, {"job_id": 7}, "success", WANTED),
            (Bond.SUBMITS, {"job_id": "8"}, "running", UNWANTED),
            (Bond.SUBMITS, {}, "running", UNWANTED),
            (Bond.RENTS, {"job_id": "7"}, "running", WANTED),
            (Bond.RENTS, {"job_id": "7"}, "queued", WANTED),
            (Bond.RENTS, {"job_id": "7"}, "success", UNWANTED),
            (Bond.RENTS, {"job_id": "7"}, "failed", UNWANTED),
            (Bond.RENTS, {"job_id": "7"}, None, UNKNOWN),
            (Bond.RENTS, {"job_id": "7"}, OSError(), UNKNOWN),
            (Bond.KEEPS, {}, "success", WANTED),
        ],
    )
    def test_a_task_that_has_succeeded(self, bond, xcoms, run, want):
        assert judge(Told("success", xcoms, run), OWNER, bond, "7").want is want

    @pytest.mark.parametrize("state", UNFINISHED)
    @pytest.mark.parametrize("bond", list(Bond))
    @pytest.mark.parametrize(
        "told,want", [(None, WANTED), ("7", WANTED), ("8", UNWANTED), (["7"], UNKNOWN), (OSError(), UNKNOWN)]
    )
    def test_a_task_that_has_not_ended_wants_the_job_that_it_has(self, state, bond, told, want):
        assert judge(Told(state, {"job_id": told}), OWNER, bond, "7").want is want

    @pytest.mark.parametrize("bond", list(Bond))
    def test_a_state_that_cannot_be_read_is_no_reason_to_cancel(self, bond):
        verdict = judge(Told(ConnectionError("no API server")), OWNER, bond, "7")
        assert verdict.want is UNKNOWN
        assert "ConnectionError" in verdict.reason


class Osai:
    """Lists what it is given, by kind; answers that are errors are raised. Cancels what it is told to."""

    def __init__(self, contract=None, **listed):
        self.calls = Calls(contract)
        self.listed = listed
        self.refuses: dict[str, Exception] = {}
        self.cancelled: list[str] = []

    def send(self, call):
        kind, _, what = call.name.partition(".")
        answer = self.listed.get(kind, [])
        if isinstance(answer, Exception) and what == "list":
            raise answer
        if what == "list":
            assert not call.query
            return answer
        (job_id,) = call.subject
        if what == "cancel":
            if job_id in self.refuses:
                raise self.refuses[job_id]
            self.cancelled.append(job_id)
            return None
        found = [one for one in answer if one.id == job_id]
        if not found:
            raise OsaiRequestError(404, "GET", call.path, "no such job")
        return found[0]


def ours(job_id="7", word="running", created=LONG_AGO, bond=Bond.WAITS, owner=OWNER, deployment=HERE, **fields):
    reference = owner.reference(REQUEST, deployment=deployment, bond=bond, **fields)
    return job(word, id=job_id, reference=reference, created_at=created)


@pytest.fixture
def notes():
    return []


@pytest.fixture
def search(notes):
    def made(osai, told, **options):
        return Search(osai, HERE, told, note=notes.append, clock=lambda: NOW, **options)

    return made


class TestSearch:
    """Which live jobs are compared, and what becomes of them."""

    def test_an_orphan_is_only_reported_by_default(self, search, notes):
        osai = Osai(training=[ours()])
        report = search(osai, Told("failed")).run()
        [orphan] = report.orphans
        assert (orphan.kind, orphan.job_id, orphan.state) == ("training", "7", "running")
        assert (orphan.dag_id, orphan.task_id, orphan.map_index, orphan.run_id) == ("retrain", "train", -1, "manual__1")
        assert report.cancelled == osai.cancelled == []
        assert notes == [f"{orphan}; not cancelled, only reported"]

    def test_an_orphan_is_cancelled_if_it_shall_be(self, search, notes):
        osai = Osai(training=[ours()])
        report = search(osai, Told("failed")).run(cancels=True)
        assert report.cancelled == osai.cancelled == ["7"]
        expected = "OSAI training job 7 (running) of task retrain.train in run manual__1: its task is failed; cancelled"
        assert notes == [expected]

    def test_what_is_of_others_is_left_alone_and_counted(self, search):
        others = [
            job("running", id="1", created_at=LONG_AGO),
            job("running", id="2", reference="made by hand", created_at=LONG_AGO),
            job("running", id="3", reference=OWNER.legacy_reference(REQUEST), created_at=LONG_AGO),
            ours("4", deployment=Deployment("secret of another Airflow")),
            ours("5", deployment=Deployment(HERE.secret, "staging")),
        ]
        forged = ours().reference.replace("/train/", "/other/")
        others.append(job("running", id="6", reference=forged, created_at=LONG_AGO))
        osai = Osai(training=others)
        report = search(osai, Told(GONE)).run(cancels=True)
        assert (report.checked, report.others, report.orphans, osai.cancelled) == (0, 6, [], [])

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_a_job_that_has_ended_is_nothing(self, search, word):
        report = search(Osai(training=[ours(word=word)]), Told("failed")).run(cancels=True)
        assert (report.checked, report.others, report.orphans) == (0, 0, [])

    @pytest.mark.parametrize("word", ["queued", "a new word"])
    def test_a_job_whose_state_is_not_an_end_lives(self, search, word):
        assert search(Osai(training=[ours(word=word)]), Told("failed")).run(cancels=True).cancelled == ["7"]

    @pytest.mark.parametrize(
        "created,cancelled",
        [
            ("2026-11-24T11:49:59Z", ["7"]),
            ("2026-11-24T11:50:01Z", []),
            ("2026-11-24T12:49:59+01:00", ["7"]),
            ("2026-11-24T11:50:01", []),
            ("2026-11-24T13:00:00Z", []),
        ],
    )
    def test_a_young_job_is_left_alone(self, search, created, cancelled):
        report = search(Osai(training=[ours(created=created)]), Told("failed"), grace=600).run(cancels=True)
        assert report.cancelled == cancelled
        assert report.young == (not cancelled)

    @pytest.mark.parametrize("created", [None, "yesterday", "24.11.2026"])
    def test_a_job_of_unknown_age_is_taken_for_old_and_that_is_said(self, search, notes, created):
        assert search(Osai(training=[ours(created=created)]), Told("failed")).run(cancels=True).cancelled == ["7"]
        assert f"its creation time {created!r} is not understood" in notes[0]

    def test_a_task_that_wants_the_job_again_keeps_it(self, search):
        """Cleared, for instance, between the look and the cancellation."""
        states = iter(["failed", "queued"])
        osai = Osai(training=[ours()])
        report = search(osai, Told(lambda: next(states))).run(cancels=True)
        assert (report.orphans, osai.cancelled) == ([], [])

    def test_airflow_that_falls_silent_before_the_cancellation_keeps_the_job(self, search):
        states = iter(["failed"])
        osai = Osai(training=[ours()])
        report = search(osai, Told(lambda: next(states))).run(cancels=True)
        assert ([one.job_id for one in report.unknown], osai.cancelled) == (["7"], [])

    def test_a_job_that_has_ended_meanwhile_is_not_cancelled(self, search, notes):
        osai = Osai(training=[ours()])
        listed, osai.send = osai.send, None

        def send(call):
            answer = listed(call)
            osai.listed["training"] = [ours(word="succeeded")]
            return answer

        osai.send = send
        report = search(osai, Told("failed")).run(cancels=True)
        assert (report.orphans, osai.cancelled) == ([], [])
        assert "has ended meanwhile as succeeded" in notes[-1]

    def test_a_second_job_under_the_key_of_the_tasks_job_is_an_orphan(self, search):
        """A submission that arrived after its client gave up."""
        late = ours("8", created="2026-11-24T11:30:00Z")
        report = search(Osai(training=[ours(), late]), Told("running", {"job_id": "7"})).run(cancels=True)
        assert report.cancelled == ["8"]

    def test_a_job_of_before_a_clear_is_an_orphan(self, search):
        new = ours("8", created="2026-11-24T11:30:00Z", run="cleared")
        report = search(Osai(training=[ours(), new]), Told("running", {"job_id": "8"})).run(cancels=True)
        assert report.cancelled == ["7"]

    def test_the_next_job_of_a_task_that_has_one_after_the_other_is_left_alone(self, search):
        """A gate has each model evaluated; its worker may be killed before it told of the second job."""
        first, second = ours(word="succeeded"), ours("8", created="2026-11-24T11:30:00Z", run="the next")
        report = search(Osai(training=[first, second]), Told("up_for_retry", {"job_id": "7"})).run(cancels=True)
        assert (report.cancelled, [one.job_id for one in report.unknown]) == ([], ["8"])

    def test_only_jobs_of_the_given_dags(self, search):
        other = Owner("other", "manual__1", "train", -1, 0)
        report = search(Osai(training=[ours(), ours("8", owner=other)]), Told("failed"), dag_ids=["other"]).run()
        assert [one.job_id for one in report.orphans] == ["8"]

    @pytest.mark.parametrize("owner", [None, OSError()])
    def test_a_key_without_names_whose_task_is_not_found_is_left_alone(self, search, owner):
        long = Owner("d" * 250, "r", "t", -1, 0)
        osai = Osai(training=[ours(owner=long)])
        report = search(osai, Told("failed", owner=owner)).run(cancels=True)
        assert ([one.dag_id for one in report.unknown], osai.cancelled) == ([None], [])
        assert "an unknown task" in str(report.unknown[0])

    def test_a_key_without_names_whose_task_is_found_is_compared(self, search):
        long = Owner("d" * 250, "r", "t", 3, 0)
        report = search(Osai(training=[ours(owner=long)]), Told("failed", owner=long)).run(cancels=True)
        assert report.cancelled == ["7"]
        assert "t[3] in run r" in str(report.orphans[0])


class TestFailures:
    """One that fails does not stop the others."""

    @pytest.mark.parametrize(
        "error", [OsaiContractError("not a list"), OsaiRequestError(404, "GET", "/", ""), OsaiUnreachable("502")]
    )
    def test_of_a_kind_to_list(self, search, notes, error):
        osai = Osai(training=error, conversion=[ours("8").model_copy(update={"kind": JobKind.CONVERSION})])
        report = search(osai, Told("failed")).run(cancels=True)
        assert set(report.unchecked) == {JobKind.TRAINING}
        assert report.failures == ([error] if error.retryable else [])
        assert [one.job_id for one in report.orphans] == ["8"]
        assert str(error) in "".join(notes)

    def test_osai_out_of_reach_is_an_error(self, search):
        down = OsaiUnreachable("down")
        with pytest.raises(OsaiUnreachable):
            search(Osai(**dict.fromkeys(JobKind, down)), Told("failed")).run()

    def test_a_refused_token_is_an_error(self, search):
        with pytest.raises(OsaiAuthError):
            search(Osai(training=OsaiAuthError("refused")), Told("failed")).run()

    @pytest.mark.parametrize("error", [OsaiRequestError(403, "POST", "/", "no"), OsaiUnreachable("502")])
    def test_of_a_job_to_cancel(self, search, notes, error):
        osai = Osai(training=[ours(), ours("8")])
        osai.refuses["7"] = error
        report = search(osai, Told("failed")).run(cancels=True)
        assert report.cancelled == osai.cancelled == ["8"]
        assert [(one.job_id, one.reason) for one in report.not_cancelled] == [("7", str(error))]
        assert report.failures == ([error] if error.retryable else [])
        assert "could not be cancelled and may go on" in notes[0]

    def test_osai_out_of_reach_amid_cancelling_is_not_asked_for_hours(self, search):
        osai = Osai(training=[ours(str(n)) for n in range(9)])
        osai.refuses = {str(n): OsaiUnreachable("down") for n in range(9)}
        report = search(osai, Told("failed")).run(cancels=True)
        assert len(report.failures) == 2
        assert len(report.orphans) == len(report.not_cancelled) == 9

    def test_a_list_of_jobs_without_references_is_not_understood(self, search):
        """Not taken for a list of jobs by hand."""
        report = search(Osai(training=[job("running", id="1")]), Told(GONE)).run()
        assert "shows a reference" in report.unchecked[JobKind.TRAINING]


class TestWithoutAList:
    """From what Airflow still knows."""

    CONTRACT = rebind(Contract(), {"training.list": None})

    def known(self, state="failed", owner=OWNER, kind=JobKind.TRAINING):
        return KnownJob(kind, "7", "osai_default", owner, state)

    def osai(self, one):
        return Osai(self.CONTRACT, training=[one])

    def test_nothing_is_checked_if_airflow_cannot_be_asked(self, search, notes):
        report = search(self.osai(ours()), Told("failed")).run()
        assert set(report.unchecked) == {JobKind.TRAINING}
        assert "dag_ids" in notes[-1]

    def test_the_jobs_that_ended_tasks_have_told_of_are_read(self, search, notes):
        osai = self.osai(ours())
        report = search(osai, Told("failed", known=[self.known()])).run(cancels=True)
        assert (report.cancelled, report.unchecked) == (["7"], {})
        assert "works from what Airflow still knows" in "".join(notes)

    @pytest.mark.parametrize(
        "one",
        [
            ours(deployment=Deployment("another")),
            ours(owner=Owner("other", "manual__1", "train", -1, 0)),
            job("running", reference="by hand", created_at=LONG_AGO),
        ],
    )
    def test_a_job_that_shows_another_key_is_left_alone(self, search, one):
        osai = self.osai(one)
        report = search(osai, Told("failed", known=[self.known()])).run(cancels=True)
        assert (report.others, osai.cancelled) == (1, [])

    @pytest.mark.parametrize("state,cancelled", [("failed", ["7"]), ("success", [])])
    def test_a_job_that_shows_no_key_is_that_of_the_task(self, search, notes, state, cancelled):
        """It may have been submitted without waiting."""
        told = Told(state, {"job_id": "7"}, known=[self.known(state)])
        report = search(self.osai(job("running", created_at=LONG_AGO)), told).run(cancels=True)
        assert report.cancelled == cancelled
        assert "shows no reference" in "".join(notes)

    def test_a_key_without_names_is_recognised_by_the_task(self, search):
        long = Owner("d" * 250, "r", "t", -1, 0)
        report = search(self.osai(ours(owner=long)), Told("failed", known=[self.known(owner=long)])).run(cancels=True)
        assert report.cancelled == ["7"]

    def test_a_job_that_osai_does_not_know_is_nothing(self, search):
        osai = Osai(self.CONTRACT, training=[])
        assert search(osai, Told("failed", known=[self.known()])).run(cancels=True).checked == 0

    def test_a_job_whose_task_returned_it_is_not_even_read(self, search):
        osai = Osai(self.CONTRACT, training=AssertionError())
        osai.send = None
        told = Told("success", {"return_value": {"job_id": "7"}}, known=[self.known("success")])
        assert search(osai, told).run([JobKind.TRAINING]).checked == 0
