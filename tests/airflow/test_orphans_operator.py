"""The operator that cancels orphaned jobs, against the sandbox and a fake Airflow."""

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
from airflow_provider_osai.jobs.idempotency import Bond, Deployment, TaskKey
from airflow_provider_osai.operators import orphans
from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator
from tests.conftest import CANARY, ROOT, settings_for

HERE, ELSEWHERE = Deployment("this Airflow"), Deployment("another Airflow")
RENTAL = DeviceRentalRequest(device="jetson", duration=600)
NO_TRAININGS = '{"training.list": null}'


@dataclass
class FakeAirflow:
    """States of tasks by (run, task, map index) of a Dag, XComs, and states of runs."""

    states: dict[str, dict[tuple[str, str, int], str | None]] = field(default_factory=dict)
    xcoms: dict[tuple[TaskKey, str], Any] = field(default_factory=dict)
    runs: dict[tuple[str, str], str] = field(default_factory=dict)
    is_down: bool = False

    def add_task(self, owner: TaskKey, state: str | None, **xcoms: Any) -> None:
        self.states.setdefault(owner.dag_id, {})[owner.run_id, owner.task_id, owner.map_index] = state
        self.xcoms |= {(owner, key): value for key, value in xcoms.items()}

    def get_task_states(self, dag_id, map_index=None, task_ids=None, run_ids=None):
        if self.is_down:
            raise ConnectionError
        states: dict[str, dict[str, str | None]] = {}
        for (run_id, task_id, index), state in self.states.get(dag_id, {}).items():
            if (task_ids is None or task_id in task_ids) and (run_ids is None or run_id in run_ids):
                states.setdefault(run_id, {})[task_id if index < 0 else f"{task_id}_{index}"] = state
        return states

    def get_dagrun_state(self, dag_id, run_id):
        return self.runs[dag_id, run_id]

    def get_one(self, *, key, dag_id, task_id, run_id, map_index):
        return self.xcoms.get((TaskKey(dag_id, run_id, task_id, map_index, -1), key))


@pytest.fixture
def airflow(monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setattr(orphans, "XCom", fake)
    monkeypatch.setattr(orphans, "load_deployment", lambda name: Deployment(HERE.secret, name or ""))
    return fake


@pytest.fixture
def osai(sandbox, connection):
    """A client of the sandbox, whose jobs run until they are cancelled."""
    sandbox.control.script(timing="reads", reads=10**9)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        yield client


@pytest.fixture
def training(osai):
    """The request for a training on an existing dataset."""
    dataset = osai.send(osai.calls.create_dataset("digits")).id
    return TrainingRequest(dataset_ids=[dataset], model_name="m")


@pytest.fixture
def submit(osai, training):
    """Submit a job as a task would; return its id."""

    def submit_job(owner, bond=Bond.WAITS, request=training, deployment=HERE, reference=None):
        key = reference or owner.reference(request, deployment=deployment, bond=bond)
        return osai.send(osai.calls.submit_job(request, key)).id

    return submit_job


@pytest.fixture
def search(airflow):
    """Run the operator; return what it returns."""

    def run(action="cancel", grace: Any = 0, **arguments):
        operator = OsaiCancelOrphanedJobsOperator(task_id="cancel", action=action, grace=grace, **arguments)
        return operator.execute({"ti": airflow})

    return run


@pytest.fixture
def states(sandbox):
    """The state of each job in the sandbox."""
    return lambda: {job["id"]: job["state"] for job in sandbox.control.record()["jobs"]}


def owner(task_id="train", dag_id="retrain", run_id="manual__2026-11-24T00:00:00", map_index=-1):
    return TaskKey(dag_id, run_id, task_id, map_index, -1)


def job_xcom(job_id, kind="training", conn_id="osai_default"):
    return {"kind": kind, "job_id": job_id, "conn_id": conn_id}


class TestWithList:
    """OSAI can list jobs."""

    def test_by_default_orphans_are_only_reported(self, airflow, submit, states, logged):
        airflow.add_task(owner(), "failed")
        job = submit(owner())
        operator = OsaiCancelOrphanedJobsOperator(task_id="report", grace=0)
        result = operator.execute({"ti": airflow})
        assert json.loads(json.dumps(result)) == result
        assert set(result) == {
            *("action", "checked", "orphans", "cancelled", "unknown", "not_cancelled", "unchecked_kinds")
        }
        assert (result["action"], result["checked"], result["cancelled"]) == ("report", 1, [])
        [orphan] = result["orphans"]
        assert (orphan["kind"], orphan["job_id"], orphan["reason"]) == ("training", job, "its task is failed")
        assert states() == {job: "running"}
        assert f"OSAI training job {job} (running) of task retrain.train in run manual__" in logged()

    def test_only_orphans_are_cancelled(self, airflow, submit, training, search, states, logged):
        """One job of each case, in one search."""
        kept: dict[str, str] = {}
        doomed: dict[str, str] = {}
        airflow.add_task(owner("failed"), "failed")
        doomed["failed"] = submit(owner("failed"))
        doomed["deleted"] = submit(owner(dag_id="deleted"))
        kept["keeps"] = submit(owner("failed"), Bond.KEEPS)
        kept["deleted, keeps"] = submit(owner(dag_id="deleted"), Bond.KEEPS)
        kept["elsewhere"] = submit(owner("failed"), deployment=ELSEWHERE)
        kept["staging"] = submit(owner("failed"), deployment=Deployment(HERE.secret, "staging"))
        kept["by hand"] = submit(owner("failed"), reference="by hand")
        kept["0.1"] = submit(owner("failed"), reference=owner("failed").legacy_reference(training))
        kept["deferred"] = submit(owner("deferred"))
        airflow.add_task(owner("deferred"), "deferred", osai_job=job_xcom(kept["deferred"]))
        kept["submits"] = submit(owner("submits"), Bond.SUBMITS)
        airflow.add_task(owner("submits"), "success", osai_job=job_xcom(kept["submits"]))
        doomed["marked success"] = submit(owner("marked"))
        airflow.add_task(owner("marked"), "success", osai_job=job_xcom(doomed["marked success"]))
        doomed["mapped"] = submit(owner("mapped", map_index=1))
        airflow.add_task(owner("mapped", map_index=1), "skipped")
        kept["mapped"] = submit(owner("mapped", map_index=2))
        airflow.add_task(owner("mapped", map_index=2), None)
        result = search()
        assert set(result["cancelled"]) == set(doomed.values())
        assert {job for job, state in states().items() if state == "cancelled"} == set(doomed.values())
        assert result["checked"] == 9
        assert "4 of other origin" in logged()

    @pytest.mark.parametrize("run,state", [("running", "running"), ("success", "cancelled"), ("failed", "cancelled")])
    def test_a_device_is_wanted_until_the_dag_run_has_ended(self, airflow, submit, search, states, run, state):
        """The release may never have run."""
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        airflow.add_task(
            owner("rent"), "success", osai_job=job_xcom(rented, "device_rental"), return_value={"job_id": rented}
        )
        airflow.runs[owner().dag_id, owner().run_id] = run
        search()
        assert states() == {rented: state}

    def test_a_job_younger_than_the_grace_time_is_ignored(self, airflow, submit, search, states, logged):
        airflow.add_task(owner(), "failed")
        job = submit(owner())
        result = search(grace=timedelta(minutes=10))
        assert (result["checked"], result["orphans"], states()) == (0, [], {job: "running"})
        assert "1 younger than the grace time" in logged()

    def test_while_airflow_is_down_nothing_is_cancelled(self, airflow, submit, search, states):
        airflow.is_down = True
        job = submit(owner())
        result = search()
        assert [orphan["job_id"] for orphan in result["unknown"]] == [job]
        assert states() == {job: "running"}

    def test_a_key_without_names_is_reported_as_unknown(self, airflow, submit, search):
        job = submit(owner(dag_id="d" * 250))
        [unknown] = search()["unknown"]
        assert (unknown["job_id"], unknown["dag_id"]) == (job, None)

    def test_kinds_and_dag_ids_limit_the_search(self, airflow, submit, search):
        """Lists, or text as a template renders it."""
        airflow.add_task(owner(), "failed")
        airflow.add_task(owner(dag_id="other"), "failed")
        training, rental = submit(owner()), submit(owner(dag_id="other"), Bond.RENTS, RENTAL)
        assert search("report", kinds=["training"])["orphans"][0]["job_id"] == training
        assert search("report", kinds="device_rental, conversion")["orphans"][0]["job_id"] == rental
        assert search("report", dag_ids="other, third")["orphans"][0]["job_id"] == rental

    def test_the_xcoms_are_limited_and_the_log_is_not(self, airflow, submit, search, monkeypatch, logged):
        monkeypatch.setattr(orphans, "MAX_LIST_LENGTH", 2)
        airflow.add_task(owner(), "failed")
        jobs = [submit(owner(), Bond.WAITS) for _ in range(3)]
        result = search()
        assert (len(result["orphans"]), len(result["cancelled"])) == (2, 2)
        assert all(f"OSAI training job {job} " in logged() for job in jobs)


class TestFailures:
    """A failure does not stop the search."""

    def test_a_kind_that_cannot_be_listed(self, airflow, submit, search, sandbox, logged):
        sandbox.control.fault("status", "training.list", status=404, times=100)
        airflow.add_task(owner("rent"), "failed")
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        result = search()
        assert (result["cancelled"], result["unchecked_kinds"]) == ([rented], ["training"])
        assert "Set dag_ids" in logged()

    def test_an_invalid_list(self, airflow, submit, search, connection):
        airflow.add_task(owner("rent"), "failed")
        rented = submit(owner("rent"), Bond.RENTS, RENTAL)
        connection(contract='{"training.list": {"path": "/Users"}}')
        result = search()
        assert (result["cancelled"], result["unchecked_kinds"]) == ([rented], ["training"])

    def test_a_retryable_failure_to_cancel_fails_the_task(self, airflow, submit, search, sandbox, states, monkeypatch):
        monkeypatch.setattr(OsaiHook, "get_conn", lambda hook: OsaiClient(hook.settings(), retry_budget=0))
        airflow.add_task(owner("rent"), "failed")
        airflow.add_task(owner(), "failed")
        first, rented = submit(owner()), submit(owner("rent"), Bond.RENTS, RENTAL)
        sandbox.control.fault("status", "training.cancel", status=503)
        with pytest.raises(OsaiUnreachable):
            search()
        assert states() == {first: "running", rented: "cancelled"}
        assert search()["cancelled"] == [first]

    def test_a_job_without_a_cancel_endpoint(self, airflow, submit, search, connection, states):
        connection(contract='{"training.cancel": null}')
        airflow.add_task(owner(), "failed")
        job = submit(owner())
        result = search()
        assert ([orphan["job_id"] for orphan in result["not_cancelled"]], result["cancelled"]) == ([job], [])
        assert "null" in result["not_cancelled"][0]["reason"]

    @pytest.mark.parametrize("kinds", [None, "training"])
    def test_an_unreachable_osai_is_retryable(self, search, connection, monkeypatch, airflow, kinds):
        monkeypatch.setattr(OsaiHook, "get_conn", lambda hook: OsaiClient(hook.settings(), retry_budget=0))
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
    def test_an_invalid_argument_is_not_retryable(self, search, osai, arguments):
        with pytest.raises(AirflowFailException, match=next(iter(arguments)).removesuffix("s")) as failed:
            search(**arguments)
        assert isinstance(failed.value.__cause__, OsaiArgumentError)


class TestWithoutList:
    """OSAI cannot list jobs, so those recorded by the tasks of the named Dags are read."""

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
        airflow.add_task(owner("a"), "failed", osai_job=job_xcom(doomed))
        airflow.add_task(owner("b"), "running", osai_job=job_xcom(kept))
        airflow.add_task(owner("c", map_index=3), "skipped", osai_job=job_xcom(numbered))
        airflow.add_task(owner("d"), "failed", osai_job="something else")
        airflow.add_task(owner("e"), "failed", osai_job=job_xcom(other_conn, conn_id="osai_other"))
        airflow.add_task(owner("f"), "failed", osai_job=job_xcom(elsewhere))
        result = search(dag_ids=["retrain", "deleted"])
        assert set(result["cancelled"]) == {doomed, numbered}
        assert result["unchecked_kinds"] == []
        assert {job for job, state in states().items() if state == "cancelled"} == {doomed, numbered}
        assert "the latest job of each ended task" in logged()

    def test_while_airflow_is_down_no_job_is_checked(self, airflow, submit, search, connection, logged):
        connection(contract=NO_TRAININGS)
        airflow.is_down = True
        assert search(dag_ids=["retrain"])["checked"] == 0
        assert "Reading the tasks of Dag retrain failed" in logged()

    def test_of_many_tasks_the_latest_are_read(self, airflow, submit, search, connection, monkeypatch, logged):
        monkeypatch.setattr(orphans, "MAX_TASKS", 1)
        connection(contract=NO_TRAININGS)
        old, new = owner(run_id="scheduled__2026-01-01T00:00:00"), owner(run_id="manual__2026-02-01T00:00:00")
        jobs = [submit(old), submit(new)]
        for one, job in zip((old, new), jobs, strict=True):
            airflow.add_task(one, "failed", osai_job=job_xcom(job))
        assert search(dag_ids=["retrain"])["cancelled"] == [jobs[1]]
        assert "Dag retrain has 2 ended tasks" in logged()


class TestInAirflow:
    """With Airflow's own API server."""

    @pytest.fixture
    def submitted(self, run_dag, sandbox, training, connection, monkeypatch):
        """A run whose two mapped jobs still run; a second connection reaches the same OSAI as another deployment."""
        extra = {"base_url": sandbox.base_url, "deployment": "staging"}
        document = {"conn_type": "osai", "password": CANARY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_STAGING", json.dumps(document))
        ran = run_dag("orphans_left", dataset=training.dataset_ids[0])
        assert ran.state == "success", ran.tasks
        return ran

    def cancelled(self, ran):
        assert ran.state == "success", ran.tasks
        return [ran.result("cancel", "cancelled", index) for index in (0, 1)]

    def test_jobs_of_tasks_that_only_submit_are_kept(self, submitted, run_dag):
        ran = run_dag("orphans_mapped")
        assert self.cancelled(ran) == [[], []]
        assert [ran.result("cancel", "checked", index) for index in (0, 1)] == [2, 0]

    def test_mapped_over_connections_it_cancels_the_orphans_of_each(self, submitted, run_dag, states):
        """The task that failed has map index 1."""
        failed = [TaskInstance.run_id == submitted.run.run_id, TaskInstance.map_index == 1]
        with create_session() as session:
            session.execute(update(TaskInstance).where(*failed).values(state="failed"))
        ran = run_dag("orphans_mapped")
        assert self.cancelled(ran) == [[submitted.result("train", "job_id", 1)], []]
        [orphan] = ran.result("cancel", "orphans", 0)
        assert (orphan["dag_id"], orphan["task_id"], orphan["map_index"]) == ("orphans_left", "train", 1)

    def test_it_works_after_the_run_was_deleted(self, submitted, run_dag, states):
        jobs = {submitted.result("train", "job_id", index) for index in (0, 1)}
        with create_session() as session:
            session.execute(delete(TaskInstance).where(TaskInstance.run_id == submitted.run.run_id))
            session.execute(delete(DagRun).where(DagRun.run_id == submitted.run.run_id))
        first, second = self.cancelled(run_dag("orphans_mapped"))
        assert (set(first), second) == (jobs, [])
        assert set(states().values()) == {"cancelled"}

    def test_the_example_runs(self, submitted, run_dag):
        """Its grace time is ten minutes, and these jobs are younger."""
        ran = run_dag("example_osai_cancel_orphans")
        assert ran.state == "success"
        assert ran.result("cancel_orphans", "checked") == 0
        assert run_dag("example_osai_cancel_orphans", grace=0).result("cancel_orphans", "checked") == 2


def test_the_snippets_of_its_docs_page_are_valid():
    """Each can be pasted into a Dag."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/orphans.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        with DAG("snippet", schedule=None) as dag:
            exec(snippet, {"OsaiCancelOrphanedJobsOperator": OsaiCancelOrphanedJobsOperator})
        assert dag.task_ids == ["cancel_orphans"]
