"""The operator that cancels jobs that no task wants any more: against the sandbox, with Airflow's answers made up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG
from airflow.utils.session import create_session
from sqlalchemy import delete, update

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.api.requests import DeviceRentalRequest, TrainingRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.reference import Bond, Deployment, Owner
from airflow_provider_osai.operators import orphans
from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator
from tests.conftest import CANARY, ROOT, settings_for

HERE, ELSEWHERE = Deployment("this Airflow"), Deployment("another Airflow")
RENTAL = DeviceRentalRequest(device="jetson", duration=600)
NO_TRAININGS = '{"training.list": null}'


@dataclass
class Airflow:
    """What a task is told of other tasks: states by (run, task, map index) of a Dag, XComs, and states of runs."""

    states: dict[str, dict[tuple[str, str, int], str | None]] = field(default_factory=dict)
    xcoms: dict[tuple[Owner, str], Any] = field(default_factory=dict)
    runs: dict[tuple[str, str], str] = field(default_factory=dict)
    is_away: bool = False

    def tells(self, owner: Owner, state: str | None, **xcoms: Any) -> None:
        self.states.setdefault(owner.dag_id, {})[owner.run_id, owner.task_id, owner.map_index] = state
        self.xcoms |= {(owner, key): value for key, value in xcoms.items()}

    def get_task_states(self, dag_id, map_index=None, task_ids=None, run_ids=None):
        if self.is_away:
            raise ConnectionError
        found: dict[str, dict[str, str | None]] = {}
        for (run_id, task_id, index), state in self.states.get(dag_id, {}).items():
            if (task_ids is None or task_id in task_ids) and (run_ids is None or run_id in run_ids):
                found.setdefault(run_id, {})[task_id if index < 0 else f"{task_id}_{index}"] = state
        return found

    def get_dagrun_state(self, dag_id, run_id):
        return self.runs[dag_id, run_id]

    def get_one(self, *, key, dag_id, task_id, run_id, map_index):
        return self.xcoms.get((Owner(dag_id, run_id, task_id, map_index, -1), key))


@pytest.fixture
def airflow(monkeypatch):
    told = Airflow()
    monkeypatch.setattr(orphans, "XCom", told)
    monkeypatch.setattr(orphans, "load_deployment", lambda name: Deployment(HERE.secret, name or ""))
    return told


@pytest.fixture
def osai(sandbox, connection):
    """A client of the sandbox, whose jobs go on until they are cancelled."""
    sandbox.control.script(timing="reads", reads=10**9)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        yield client


@pytest.fixture
def training(osai):
    """The request for a training on a dataset that is there."""
    dataset = osai.send(osai.calls.create_dataset("digits")).id
    return TrainingRequest(dataset_ids=[dataset], model_name="m")


@pytest.fixture
def submit(osai, training):
    """Submit a job as a task would; return its id."""

    def submitted(owner, bond=Bond.WAITS, request=training, deployment=HERE, reference=None):
        key = reference or owner.reference(request, deployment=deployment, bond=bond)
        return osai.send(osai.calls.submit_job(request, key)).id

    return submitted


@pytest.fixture
def search(airflow):
    """Run the operator; return what it returns."""

    def run(action="cancel", grace: Any = 0, **arguments):
        operator = OsaiCancelOrphanedJobsOperator(task_id="cancel", action=action, grace=grace, **arguments)
        return operator.execute({"ti": airflow})

    return run


@pytest.fixture
def states(sandbox):
    """The state of each job that OSAI has."""
    return lambda: {job["id"]: job["state"] for job in sandbox.control.record()["jobs"]}


def owner(task_id="train", dag_id="retrain", run_id="manual__2026-11-24T00:00:00", map_index=-1):
    return Owner(dag_id, run_id, task_id, map_index, -1)


def told_of(job_id, kind="training", conn_id="osai_default"):
    return {"kind": kind, "job_id": job_id, "conn_id": conn_id}


class TestWithAList:
    """Of all live jobs."""

    def test_by_default_orphans_are_reported_and_go_on(self, airflow, submit, states, logged):
        airflow.tells(owner(), "failed")
        job = submit(owner())
        operator = OsaiCancelOrphanedJobsOperator(task_id="report", grace=0)
        told = operator.execute({"ti": airflow})
        assert json.loads(json.dumps(told)) == told
        assert set(told) == {
            *("action", "checked", "orphans", "cancelled", "unknown", "not_cancelled", "unchecked_kinds")
        }
        assert (told["action"], told["checked"], told["cancelled"]) == ("report", 1, [])
        [orphan] = told["orphans"]
        assert (orphan["kind"], orphan["job_id"], orphan["reason"]) == ("training", job, "its task is failed")
        assert states() == {job: "running"}
        assert f"OSAI training job {job} (running) of task retrain.train in run manual__" in logged()

    def test_what_is_cancelled_and_what_is_not(self, airflow, submit, training, search, states, logged):
        """One of each, in one search."""
        kept, doomed = {}, {}
        airflow.tells(owner("failed"), "failed")
        doomed["failed"] = submit(owner("failed"))
        doomed["deleted"] = submit(owner(dag_id="deleted"))
        kept["keeps"] = submit(owner("failed"), Bond.KEEPS)
        kept["deleted, keeps"] = submit(owner(dag_id="deleted"), Bond.KEEPS)
        kept["elsewhere"] = submit(owner("failed"), deployment=ELSEWHERE)
        kept["staging"] = submit(owner("failed"), deployment=Deployment(HERE.secret, "staging"))
        kept["by hand"] = submit(owner("failed"), reference="by hand")
        kept["0.1"] = submit(owner("failed"), reference=owner("failed").legacy_reference(training))
        kept["deferred"] = submit(owner("deferred"))
        airflow.tells(owner("deferred"), "deferred", job_id=kept["deferred"])
        kept["submits"] = submit(owner("submits"), Bond.SUBMITS)
        airflow.tells(owner("submits"), "success", job_id=kept["submits"])
        doomed["marked success"] = submit(owner("marked"))
        airflow.tells(owner("marked"), "success", job_id=doomed["marked success"])
        doomed["mapped"] = submit(owner("mapped", map_index=1))
        airflow.tells(owner("mapped", map_index=1), "skipped")
        kept["mapped"] = submit(owner("mapped", map_index=2))
        airflow.tells(owner("mapped", map_index=2), None)
        told = search()
        assert set(told["cancelled"]) == set(doomed.values())
        assert {job for job, state in states().items() if state == "cancelled"} == set(doomed.values())
        assert told["checked"] == 9
        assert "4 of others" in logged()

    @pytest.mark.parametrize("run,state", [("running", "running"), ("success", "cancelled"), ("failed", "cancelled")])
    def test_a_device_is_wanted_until_the_dag_run_is_over(self, airflow, submit, search, states, run, state):
        """A release that never ran."""
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        airflow.tells(owner("rent"), "success", job_id=rented, return_value={"job_id": rented})
        airflow.runs[owner().dag_id, owner().run_id] = run
        search()
        assert states() == {rented: state}

    def test_a_young_job_is_left_alone(self, airflow, submit, search, states, logged):
        airflow.tells(owner(), "failed")
        job = submit(owner())
        told = search(grace=timedelta(minutes=10))
        assert (told["checked"], told["orphans"], states()) == (0, [], {job: "running"})
        assert "1 younger than the grace time" in logged()

    def test_airflow_that_does_not_answer_is_no_reason_to_cancel(self, airflow, submit, search, states):
        airflow.is_away = True
        job = submit(owner())
        told = search()
        assert [one["job_id"] for one in told["unknown"]] == [job]
        assert states() == {job: "running"}

    def test_a_key_without_names_is_reported_as_unknown(self, airflow, submit, search):
        job = submit(owner(dag_id="d" * 250))
        [unknown] = search()["unknown"]
        assert (unknown["job_id"], unknown["dag_id"]) == (job, None)

    def test_only_some_kinds_and_dags(self, airflow, submit, search):
        """As a template renders them, too."""
        airflow.tells(owner(), "failed")
        airflow.tells(owner(dag_id="other"), "failed")
        training, rental = submit(owner()), submit(owner(dag_id="other"), Bond.RENTS, RENTAL)
        assert search("report", kinds=["training"])["orphans"][0]["job_id"] == training
        assert search("report", kinds="device_rental, conversion")["orphans"][0]["job_id"] == rental
        assert search("report", dag_ids="other, third")["orphans"][0]["job_id"] == rental

    def test_the_xcoms_are_bounded_and_the_log_is_not(self, airflow, submit, search, monkeypatch, logged):
        monkeypatch.setattr(orphans, "LONGEST_LIST", 2)
        airflow.tells(owner(), "failed")
        jobs = [submit(owner(), Bond.WAITS) for _ in range(3)]
        told = search()
        assert (len(told["orphans"]), len(told["cancelled"])) == (2, 2)
        assert all(f"OSAI training job {job} " in logged() for job in jobs)


class TestFailures:
    """What fails does not hold up the rest."""

    def test_a_kind_that_cannot_be_listed(self, airflow, submit, search, sandbox, logged):
        sandbox.control.fault("status", "training.list", status=404, times=100)
        airflow.tells(owner("rent"), "failed")
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        told = search()
        assert (told["cancelled"], told["unchecked_kinds"]) == ([rented], ["training"])
        assert "Give dag_ids" in logged()

    def test_a_list_that_is_not_understood(self, airflow, submit, search, connection):
        airflow.tells(owner("rent"), "failed")
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        connection(contract='{"training.list": {"path": "/Users"}}')
        told = search()
        assert (told["cancelled"], told["unchecked_kinds"]) == ([rented], ["training"])

    def test_a_cancellation_that_may_work_later_is_for_the_retry(
        self, airflow, submit, search, sandbox, states, monkeypatch
    ):
        monkeypatch.setattr(OsaiHook, "get_conn", lambda hook: OsaiClient(hook.settings(), patience=0))
        airflow.tells(owner("rent"), "failed")
        airflow.tells(owner(), "failed")
        first, rented = submit(owner()), submit(owner("rent"), Bond.RENTS, RENTAL)
        sandbox.control.fault("status", "training.cancel", status=503)
        with pytest.raises(OsaiUnreachable):
            search()
        assert states() == {first: "running", rented: "cancelled"}
        assert search()["cancelled"] == [first]

    def test_an_osai_that_cannot_cancel(self, airflow, submit, search, connection, states):
        connection(contract='{"training.cancel": null}')
        airflow.tells(owner(), "failed")
        job = submit(owner())
        told = search()
        assert ([one["job_id"] for one in told["not_cancelled"]], told["cancelled"]) == ([job], [])
        assert "null" in told["not_cancelled"][0]["reason"]

    @pytest.mark.parametrize("kinds", [None, "training"])
    def test_osai_out_of_reach_is_for_retries(self, search, connection, monkeypatch, airflow, kinds):
        monkeypatch.setattr(OsaiHook, "get_conn", lambda hook: OsaiClient(hook.settings(), patience=0))
        connection(base_url="http://127.0.0.1:9/api")
        with pytest.raises(OsaiUnreachable):
            search(kinds=kinds)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"action": "delete"},
            {"grace": -1},
            {"grace": "soon"},
            {"grace": float("nan")},
            {"kinds": "training,brewing"},
            {"kinds": []},
            {"dag_ids": " , "},
            {"dag_ids": [1]},
        ],
    )
    def test_a_bad_argument_is_not_for_retries(self, search, osai, arguments):
        with pytest.raises(AirflowFailException, match=next(iter(arguments)).removesuffix("s")) as failed:
            search(**arguments)
        assert isinstance(failed.value.__cause__, OsaiArgumentError)


class TestWithoutAList:
    """From what the named Dags' tasks have told."""

    def test_without_dag_ids_the_kind_is_not_checked(self, airflow, submit, search, connection, states, logged):
        connection(contract=NO_TRAININGS)
        job = submit(owner())
        assert search()["unchecked_kinds"] == ["training"]
        assert states() == {job: "queued"}
        assert "osai-airflow orphans" in logged()

    def test_with_dag_ids_the_jobs_of_ended_tasks_are_read(self, airflow, submit, search, connection, states, logged):
        connection(contract=NO_TRAININGS)
        doomed, kept, numbered, other_conn, elsewhere = (
            *(submit(owner("a")), submit(owner("b")), submit(owner("c", map_index=3)), submit(owner("e"))),
            submit(owner("f"), deployment=ELSEWHERE),
        )
        airflow.tells(owner("a"), "failed", osai_job=told_of(doomed))
        airflow.tells(owner("b"), "running", osai_job=told_of(kept))
        airflow.tells(owner("c", map_index=3), "skipped", osai_job=told_of(numbered))
        airflow.tells(owner("d"), "failed", osai_job="something else")
        airflow.tells(owner("e"), "failed", osai_job=told_of(other_conn, conn_id="osai_other"))
        airflow.tells(owner("f"), "failed", osai_job=told_of(elsewhere))
        told = search(dag_ids=["retrain", "deleted"])
        assert set(told["cancelled"]) == {doomed, numbered}
        assert told["unchecked_kinds"] == []
        assert {job for job, state in states().items() if state == "cancelled"} == {doomed, numbered}
        assert "works from what Airflow still knows" in logged()

    def test_airflow_that_does_not_answer_leaves_the_jobs_alone(self, airflow, submit, search, connection, logged):
        connection(contract=NO_TRAININGS)
        airflow.is_away = True
        assert search(dag_ids=["retrain"])["checked"] == 0
        assert "Airflow does not tell the tasks of Dag retrain" in logged()

    def test_of_many_tasks_the_latest_are_read(self, airflow, submit, search, connection, monkeypatch, logged):
        monkeypatch.setattr(orphans, "MOST_TASKS", 1)
        connection(contract=NO_TRAININGS)
        old, new = owner(run_id="scheduled__2026-01-01T00:00:00"), owner(run_id="manual__2026-02-01T00:00:00")
        jobs = [submit(old), submit(new)]
        for one, job in zip((old, new), jobs, strict=True):
            airflow.tells(one, "failed", osai_job=told_of(job))
        assert search(dag_ids=["retrain"])["cancelled"] == [jobs[1]]
        assert "Dag retrain has 2 ended tasks" in logged()


class TestInAirflow:
    """Through Airflow's own answers."""

    @pytest.fixture
    def left(self, run_dag, sandbox, training, connection, monkeypatch):
        """A run whose two mapped jobs go on; a second connection leads to the same OSAI as another deployment."""
        extra = {"base_url": sandbox.base_url, "deployment": "staging"}
        document = {"conn_type": "osai", "password": CANARY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_STAGING", json.dumps(document))
        ran = run_dag("orphans_left", dataset=training.dataset_ids[0])
        assert ran.state == "success", ran.tasks
        return ran

    def cancelled(self, ran):
        assert ran.state == "success", ran.tasks
        return [ran.xcom("cancel", "cancelled", index) for index in (0, 1)]

    def test_jobs_of_tasks_that_only_submit_go_on(self, left, run_dag):
        ran = run_dag("orphans_mapped")
        assert self.cancelled(ran) == [[], []]
        assert [ran.xcom("cancel", "checked", index) for index in (0, 1)] == [2, 0]

    def test_mapped_over_connections_it_cancels_those_of_each(self, left, run_dag, states):
        """The task that failed has map index 1."""
        failed = [TaskInstance.run_id == left.run.run_id, TaskInstance.map_index == 1]
        with create_session() as session:
            session.execute(update(TaskInstance).where(*failed).values(state="failed"))
        ran = run_dag("orphans_mapped")
        assert self.cancelled(ran) == [[left.xcom("train", "job_id", 1)], []]
        [orphan] = ran.xcom("cancel", "orphans", 0)
        assert (orphan["dag_id"], orphan["task_id"], orphan["map_index"]) == ("orphans_left", "train", 1)

    def test_it_works_after_the_run_was_deleted(self, left, run_dag, states):
        jobs = {left.xcom("train", "job_id", index) for index in (0, 1)}
        with create_session() as session:
            session.execute(delete(TaskInstance).where(TaskInstance.run_id == left.run.run_id))
            session.execute(delete(DagRun).where(DagRun.run_id == left.run.run_id))
        first, second = self.cancelled(run_dag("orphans_mapped"))
        assert (set(first), second) == (jobs, [])
        assert set(states().values()) == {"cancelled"}

    def test_the_example_runs(self, left, run_dag):
        """Its grace time is ten minutes, which these jobs are not old."""
        ran = run_dag("example_osai_cancel_orphans")
        assert ran.state == "success"
        assert ran.xcom("cancel_orphans", "checked") == 0
        assert run_dag("example_osai_cancel_orphans", grace=0).xcom("cancel_orphans", "checked") == 2


def test_the_snippets_of_its_page_are_operators():
    """As somebody would paste them."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/orphans.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        with DAG("snippet", schedule=None) as dag:
            exec(snippet, {"OsaiCancelOrphanedJobsOperator": OsaiCancelOrphanedJobsOperator})
        assert dag.task_ids == ["cancel_orphans"]
