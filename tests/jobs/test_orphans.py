"""The rules of docs/orphans.md for orphaned jobs, and the search for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.idempotency import Bond, Deployment, TaskKey
from airflow_provider_osai.jobs.orphans import OrphanSearch
from airflow_provider_osai.jobs.wanted import GONE, KnownJob, Wanted, check_wanted
from tests.jobs.conftest import job

OWNER = TaskKey("retrain", "manual__1", "train", -1, 0)
HERE = Deployment("secret of this Airflow")
REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
LONG_AGO = "2026-11-24T11:00:00Z"
WANTED, UNWANTED, UNKNOWN = Wanted.YES, Wanted.NO, Wanted.UNKNOWN
UNFINISHED = [
    *(None, "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"),
    *("awaiting_input", "a_state_of_a_later_airflow"),
]


HAS_7, HAS_8 = ({"osai_job": {"job_id": job_id}} for job_id in "78")


@dataclass
class FakeTasks:
    """Airflow's answers about tasks; those that are exceptions are raised."""

    task: Any = "running"
    xcoms: dict[str, Any] = field(default_factory=dict)
    run: Any = "running"
    owner: TaskKey | None = None
    known: list[KnownJob] | None = None

    def state(self, owner):
        return self._resolve(self.task)

    def xcom(self, owner, key):
        return self._resolve(self.xcoms.get(key))

    def run_state(self, owner):
        return self._resolve(self.run)

    def find_owner(self, key, kind, job_id):
        return self._resolve(self.owner)

    def known_jobs(self, kinds):
        return self.known

    @staticmethod
    def _resolve(value):
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else value


class TestCheckWanted:
    @pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed", GONE])
    @pytest.mark.parametrize(
        "bond,want",
        [(Bond.WAITS, UNWANTED), (Bond.SUBMITS, UNWANTED), (Bond.RENTS, UNWANTED), (Bond.KEEPS, WANTED)],
    )
    def test_a_failed_or_deleted_task_wants_no_job(self, state, bond, want):
        tasks = FakeTasks(task=state, xcoms=HAS_7)
        result = check_wanted(tasks, OWNER, bond, "7")
        assert result.wanted is want
        assert ("deleted" if state == GONE and want is UNWANTED else state) in result.reason

    @pytest.mark.parametrize(
        "bond,xcoms,run,want",
        [
            (Bond.WAITS, {}, "running", UNWANTED),
            (Bond.WAITS, {"osai_job": {"job_id": "7"}}, "running", UNWANTED),
            (Bond.WAITS, {"osai_job": {"job_id": "7"}, "return_value": {"job_id": "7"}}, "success", UNKNOWN),
            (Bond.WAITS, {"return_value": {"job_id": "8"}}, "success", UNWANTED),
            (Bond.WAITS, {"return_value": "7"}, "success", UNWANTED),
            (Bond.SUBMITS, {"osai_job": {"job_id": "7"}}, "failed", WANTED),
            (Bond.SUBMITS, {"osai_job": {"job_id": 7}}, "success", WANTED),
            (Bond.SUBMITS, {"osai_job": {"job_id": "8"}}, "running", UNWANTED),
            (Bond.SUBMITS, {}, "running", UNWANTED),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, "running", WANTED),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, "queued", WANTED),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, "success", UNWANTED),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, "failed", UNWANTED),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, None, UNKNOWN),
            (Bond.RENTS, {"osai_job": {"job_id": "7"}}, OSError(), UNKNOWN),
            (Bond.KEEPS, {}, "success", WANTED),
        ],
    )
    def test_a_succeeded_task_wants_the_job_by_its_bond(self, bond, xcoms, run, want):
        assert check_wanted(FakeTasks("success", xcoms, run), OWNER, bond, "7").wanted is want

    @pytest.mark.parametrize("state", UNFINISHED)
    @pytest.mark.parametrize("bond", list(Bond))
    @pytest.mark.parametrize(
        "xcom,want",
        [
            (None, WANTED),
            ({"job_id": "7"}, WANTED),
            ({"job_id": "8"}, UNWANTED),
            ({"job_id": ["7"]}, UNKNOWN),
            ({}, UNKNOWN),
            ("7", UNKNOWN),
            (OSError(), UNKNOWN),
        ],
    )
    def test_an_unfinished_task_wants_its_current_job(self, state, bond, xcom, want):
        assert check_wanted(FakeTasks(state, {"osai_job": xcom}), OWNER, bond, "7").wanted is want

    @pytest.mark.parametrize("bond", list(Bond))
    def test_an_unreadable_state_is_unknown(self, bond):
        result = check_wanted(FakeTasks(ConnectionError("no API server")), OWNER, bond, "7")
        assert result.wanted is UNKNOWN
        assert "ConnectionError" in result.reason


class Osai:
    """A fake OSAI with the given jobs by kind; a list that is an exception is raised."""

    def __init__(self, contract=None, **listed):
        self.calls = OsaiApi(contract)
        self.listed = listed
        self.cancel_errors: dict[str, Exception] = {}
        self.cancelled: list[str] = []

    def send(self, call):
        kind, _, verb = call.name.partition(".")
        jobs = self.listed.get(kind, [])
        if isinstance(jobs, Exception) and verb == "list":
            raise jobs
        if verb == "list":
            assert not call.query
            return jobs
        (job_id,) = call.subject
        if verb == "cancel":
            if job_id in self.cancel_errors:
                raise self.cancel_errors[job_id]
            self.cancelled.append(job_id)
            return None
        matches = [job for job in jobs if job.id == job_id]
        if not matches:
            raise OsaiRequestError(404, "GET", call.path, "no such job")
        return matches[0]


def ours(job_id="7", word="running", created=LONG_AGO, bond=Bond.WAITS, owner=OWNER, deployment=HERE, **fields):
    reference = owner.reference(REQUEST, deployment=deployment, bond=bond, **fields)
    return job(word, id=job_id, reference=reference, created_at=created)


@pytest.fixture
def messages():
    return []


@pytest.fixture
def search(messages):
    def create(osai, tasks, **options):
        return OrphanSearch(osai, HERE, tasks, log=messages.append, clock=lambda: NOW, **options)

    return create


class TestSearch:
    """Which live jobs are compared with their tasks, and which are cancelled."""

    def test_an_orphan_is_only_reported_by_default(self, search, messages):
        osai = Osai(training=[ours()])
        report = search(osai, FakeTasks("failed")).run()
        [orphan] = report.orphans
        assert (orphan.kind, orphan.job_id, orphan.state) == ("training", "7", "running")
        assert (orphan.dag_id, orphan.task_id, orphan.map_index, orphan.run_id) == ("retrain", "train", -1, "manual__1")
        assert report.cancelled == osai.cancelled == []
        assert messages == [f"{orphan}; not cancelled, only reported"]

    def test_an_orphan_is_cancelled_on_request(self, search, messages):
        osai = Osai(training=[ours()])
        report = search(osai, FakeTasks("failed")).run(cancels=True)
        assert report.cancelled == osai.cancelled == ["7"]
        expected = "OSAI training job 7 (running) of task retrain.train in run manual__1: its task is failed; cancelled"
        assert messages == [expected]

    def test_jobs_of_other_origin_are_ignored_and_counted(self, search):
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
        report = search(osai, FakeTasks(GONE)).run(cancels=True)
        assert (report.checked, report.ignored, report.orphans, osai.cancelled) == (0, 6, [], [])

    @pytest.mark.parametrize("word", ["succeeded", "failed", "cancelled"])
    def test_an_ended_job_is_ignored(self, search, word):
        report = search(Osai(training=[ours(word=word)]), FakeTasks("failed")).run(cancels=True)
        assert (report.checked, report.ignored, report.orphans) == (0, 0, [])

    @pytest.mark.parametrize("word", ["queued", "a new word"])
    def test_a_job_in_any_other_state_is_live(self, search, word):
        assert search(Osai(training=[ours(word=word)]), FakeTasks("failed")).run(cancels=True).cancelled == ["7"]

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
    def test_a_job_younger_than_the_grace_time_is_ignored(self, search, created, cancelled):
        report = search(Osai(training=[ours(created=created)]), FakeTasks("failed"), grace=600).run(cancels=True)
        assert report.cancelled == cancelled
        assert report.too_new == (not cancelled)

    @pytest.mark.parametrize("created", [None, "yesterday", "24.11.2026"])
    def test_a_job_of_unknown_age_counts_as_old_with_a_log_line(self, search, messages, created):
        assert search(Osai(training=[ours(created=created)]), FakeTasks("failed")).run(cancels=True).cancelled == ["7"]
        assert f"invalid creation time {created!r}" in messages[0]

    def test_a_job_that_is_wanted_again_is_not_cancelled(self, search):
        """Its task may be cleared between the two reads."""
        states = iter(["failed", "queued"])
        osai = Osai(training=[ours()])
        report = search(osai, FakeTasks(lambda: next(states))).run(cancels=True)
        assert (report.orphans, osai.cancelled) == ([], [])

    def test_a_task_that_becomes_unreadable_keeps_its_job(self, search):
        states = iter(["failed"])
        osai = Osai(training=[ours()])
        report = search(osai, FakeTasks(lambda: next(states))).run(cancels=True)
        assert ([orphan.job_id for orphan in report.unknown], osai.cancelled) == (["7"], [])

    def test_a_job_that_has_ended_since_is_not_cancelled(self, search, messages):
        osai = Osai(training=[ours()])
        original_send = osai.send

        def send(call):
            response = original_send(call)
            osai.listed["training"] = [ours(word="succeeded")]
            return response

        osai.send = send
        report = search(osai, FakeTasks("failed")).run(cancels=True)
        assert (report.orphans, osai.cancelled) == ([], [])
        assert "not cancelled, since it has ended as succeeded" in messages[-1]

    def test_a_second_job_under_the_key_of_the_tasks_job_is_an_orphan(self, search):
        """A submission may arrive after its client timed out."""
        late = ours("8", created="2026-11-24T11:30:00Z")
        report = search(Osai(training=[ours(), late]), FakeTasks("running", HAS_7)).run(cancels=True)
        assert report.cancelled == ["8"]

    def test_a_job_submitted_before_a_clear_is_an_orphan(self, search):
        new = ours("8", created="2026-11-24T11:30:00Z", run="cleared")
        report = search(Osai(training=[ours(), new]), FakeTasks("running", HAS_8)).run(cancels=True)
        assert report.cancelled == ["7"]

    def test_the_next_job_of_a_task_with_several_jobs_is_unknown(self, search):
        """A gate evaluates several models; its worker may be killed before it recorded the second job."""
        first, second = ours(word="succeeded"), ours("8", created="2026-11-24T11:30:00Z", run="the next")
        report = search(Osai(training=[first, second]), FakeTasks("up_for_retry", HAS_7)).run(cancels=True)
        assert (report.cancelled, [orphan.job_id for orphan in report.unknown]) == ([], ["8"])

    def test_dag_ids_limit_the_search(self, search):
        other = TaskKey("other", "manual__1", "train", -1, 0)
        report = search(Osai(training=[ours(), ours("8", owner=other)]), FakeTasks("failed"), dag_ids=["other"]).run()
        assert [orphan.job_id for orphan in report.orphans] == ["8"]

    @pytest.mark.parametrize("owner", [None, OSError()])
    def test_a_key_without_names_is_unknown_if_its_task_is_not_found(self, search, owner):
        long = TaskKey("d" * 250, "r", "t", -1, 0)
        osai = Osai(training=[ours(owner=long)])
        report = search(osai, FakeTasks("failed", owner=owner)).run(cancels=True)
        assert ([orphan.dag_id for orphan in report.unknown], osai.cancelled) == ([None], [])
        assert "an unknown task" in str(report.unknown[0])

    def test_a_key_without_names_is_compared_if_its_task_is_found(self, search):
        long = TaskKey("d" * 250, "r", "t", 3, 0)
        report = search(Osai(training=[ours(owner=long)]), FakeTasks("failed", owner=long)).run(cancels=True)
        assert report.cancelled == ["7"]
        assert "t[3] in run r" in str(report.orphans[0])


class TestFailures:
    """A failure of one kind or job does not stop the search."""

    @pytest.mark.parametrize(
        "error", [OsaiContractError("not a list"), OsaiRequestError(404, "GET", "/", ""), OsaiUnreachable("502")]
    )
    def test_a_kind_that_cannot_be_listed(self, search, messages, error):
        osai = Osai(training=error, conversion=[ours("8").model_copy(update={"kind": JobKind.CONVERSION})])
        report = search(osai, FakeTasks("failed")).run(cancels=True)
        assert set(report.unchecked) == {JobKind.TRAINING}
        assert report.failures == ([error] if error.retryable else [])
        assert [orphan.job_id for orphan in report.orphans] == ["8"]
        assert str(error) in "".join(messages)

    def test_an_unreachable_osai_is_an_error(self, search):
        down = OsaiUnreachable("down")
        with pytest.raises(OsaiUnreachable):
            search(Osai(**dict.fromkeys(JobKind, down)), FakeTasks("failed")).run()

    def test_a_rejected_token_is_an_error(self, search):
        with pytest.raises(OsaiAuthError):
            search(Osai(training=OsaiAuthError("refused")), FakeTasks("failed")).run()

    @pytest.mark.parametrize("error", [OsaiRequestError(403, "POST", "/", "no"), OsaiUnreachable("502")])
    def test_a_job_that_cannot_be_cancelled(self, search, messages, error):
        osai = Osai(training=[ours(), ours("8")])
        osai.cancel_errors["7"] = error
        report = search(osai, FakeTasks("failed")).run(cancels=True)
        assert report.cancelled == osai.cancelled == ["8"]
        assert [(orphan.job_id, orphan.reason) for orphan in report.not_cancelled] == [("7", str(error))]
        assert report.failures == ([error] if error.retryable else [])
        assert "cancelling it failed" in messages[0]

    def test_after_two_unreachable_errors_no_more_jobs_are_cancelled(self, search):
        osai = Osai(training=[ours(str(n)) for n in range(9)])
        osai.cancel_errors = {str(n): OsaiUnreachable("down") for n in range(9)}
        report = search(osai, FakeTasks("failed")).run(cancels=True)
        assert len(report.failures) == 2
        assert len(report.orphans) == len(report.not_cancelled) == 9

    def test_a_list_without_references_is_a_contract_error(self, search):
        """Its jobs must not count as submitted by hand."""
        report = search(Osai(training=[job("running", id="1")]), FakeTasks(GONE)).run()
        assert "has a reference" in report.unchecked[JobKind.TRAINING]


class TestWithoutList:
    """OSAI cannot list jobs, so they are read one by one."""

    CONTRACT = apply_overrides(Contract(), {"training.list": None})

    def known(self, state="failed", owner=OWNER, kind=JobKind.TRAINING):
        return KnownJob(kind, "7", "osai_default", owner, state)

    def osai(self, listed):
        return Osai(self.CONTRACT, training=[listed])

    def test_without_known_jobs_the_kind_is_not_checked(self, search, messages):
        report = search(self.osai(ours()), FakeTasks("failed")).run()
        assert set(report.unchecked) == {JobKind.TRAINING}
        assert "dag_ids" in messages[-1]

    def test_the_recorded_jobs_of_ended_tasks_are_read(self, search, messages):
        osai = self.osai(ours())
        report = search(osai, FakeTasks("failed", known=[self.known()])).run(cancels=True)
        assert (report.cancelled, report.unchecked) == (["7"], {})
        assert "the latest job of each ended task" in "".join(messages)

    @pytest.mark.parametrize(
        "other",
        [
            ours(deployment=Deployment("another")),
            ours(owner=TaskKey("other", "manual__1", "train", -1, 0)),
            job("running", reference="by hand", created_at=LONG_AGO),
        ],
    )
    def test_a_job_with_another_key_is_ignored(self, search, other):
        osai = self.osai(other)
        report = search(osai, FakeTasks("failed", known=[self.known()])).run(cancels=True)
        assert (report.ignored, osai.cancelled) == (1, [])

    @pytest.mark.parametrize("state,cancelled", [("failed", ["7"]), ("success", [])])
    def test_a_job_without_a_key_is_assumed_to_belong_to_the_task(self, search, messages, state, cancelled):
        """It may have been submitted with ``wait_for_completion=False``."""
        tasks = FakeTasks(state, HAS_7, known=[self.known(state)])
        report = search(self.osai(job("running", created_at=LONG_AGO)), tasks).run(cancels=True)
        assert report.cancelled == cancelled
        assert "has no reference" in "".join(messages)

    def test_a_key_without_names_matches_its_task(self, search):
        long = TaskKey("d" * 250, "r", "t", -1, 0)
        tasks = FakeTasks("failed", known=[self.known(owner=long)])
        report = search(self.osai(ours(owner=long)), tasks).run(cancels=True)
        assert report.cancelled == ["7"]

    def test_a_job_unknown_to_osai_is_ignored(self, search):
        osai = Osai(self.CONTRACT, training=[])
        assert search(osai, FakeTasks("failed", known=[self.known()])).run(cancels=True).checked == 0

    def test_a_job_that_its_task_returned_is_not_read(self, search):
        osai = Osai(self.CONTRACT, training=AssertionError())
        osai.send = None
        tasks = FakeTasks("success", {"return_value": {"job_id": "7"}}, known=[self.known("success")])
        assert search(osai, tasks).run([JobKind.TRAINING]).checked == 0
