"""A worker's process that gets a signal cancels the job only if its task was killed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_osai.api.errors import OsaiJobCancelled, OsaiJobLost
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs import submission
from airflow_provider_osai.operators import job as job_operator
from airflow_provider_osai.operators.batch import OsaiJobBatchOperator
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance, run_when, trigger_of
from tests.waiting import until


class SupervisedTaskInstance(FakeTaskInstance):
    """A task instance that can ask Airflow for states, as real ones can."""

    answer: Any = None

    def get_task_states(self, dag_id, task_ids, run_ids, map_index):
        assert (dag_id, task_ids, run_ids, map_index) == (self.dag_id, [self.task_id], [self.run_id], self.map_index)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(state: str | None) -> dict:
    """Airflow's answer about a task in a state."""
    return {"run": {"task": state}}


@pytest.fixture
def ti():
    return SupervisedTaskInstance()


@pytest.fixture
def ended(connection, sandbox, ti, jobs, monkeypatch):
    """Run a task whose process gets SIGTERM as soon as its job is there; return the error that it ends with."""
    monkeypatch.setattr(job_operator, "STATE_TIMEOUT", 0.2)
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    training = {"dataset_ids": dataset, "model_name": "m", "poll_interval": 0.05}

    def end(
        answer, operator=OsaiTrainModelOperator, context=None, arguments=training, kind="training", arguments_more=()
    ):
        sandbox.control.script(kind, "reads", reads=10**6)
        ti.answer = answer
        task = operator(task_id="task", **{**arguments, **dict(arguments_more)})
        with (
            run_when(lambda: jobs() and task._job, task.on_kill),
            pytest.raises((OsaiJobLost, OsaiJobCancelled)) as caught,
        ):
            task.execute(context or {"ti": ti})
        return caught.type

    return end


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "restarting", "removed"])
def test_a_task_that_was_marked_or_cleared_takes_its_job_with_it(ended, jobs, state):
    assert ended(told(state)) is OsaiJobCancelled
    assert jobs()[0]["state"] == "cancelled"


@pytest.mark.parametrize("answer", [{"run": {}}, {}])
def test_a_task_whose_run_or_dag_was_deleted_takes_its_job_with_it(ended, jobs, answer):
    """Airflow answers, and does not know the task."""
    assert ended(answer) is OsaiJobCancelled
    assert jobs()[0]["state"] == "cancelled"


@pytest.mark.parametrize("state", ["running", "queued", "scheduled", "up_for_retry", "deferred", "thinking", None])
def test_a_superseded_or_evicted_try_leaves_the_job_to_the_next(ended, jobs, logged, state):
    """Its supervisor lost touch with the API server, or the next try runs elsewhere; nobody killed the task."""
    assert ended(told(state)) is OsaiJobLost
    assert jobs()[0]["state"] == "running"
    assert "continues: this process was asked to end" in logged()


def test_a_second_signal_asks_again(connection, sandbox, ti, jobs):
    """The worker was evicted first; the task was marked while its process was still ending."""
    sandbox.control.script("training", "reads", reads=10**6)
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    ti.answer = told("running")
    task = OsaiTrainModelOperator(task_id="task", dataset_ids=dataset, model_name="m", poll_interval=0.05)
    with run_when(lambda: task._job, task.on_kill), pytest.raises(OsaiJobLost):
        task.execute({"ti": ti})
    ti.answer = told("failed")
    task.on_kill()
    task._decision.join()
    assert jobs()[0]["state"] == "cancelled"


def test_a_process_that_is_told_to_end_does_so_although_osai_does_not_answer(connection, sandbox, ti, jobs):
    """Else a clear that comes meanwhile looks like a retry to the next try."""
    sandbox.control.script("training", "reads", reads=10**6)
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id
    ti.answer = told("running")
    task = OsaiTrainModelOperator(task_id="task", dataset_ids=dataset, model_name="m", poll_interval=0.05)
    asked = []

    def count():
        return sandbox.control.record()["counts"].get("training.get", 0)

    def kill():
        sandbox.control.fault("status", "training.get", times=10**6)
        seen = count()
        while count() == seen:
            time.sleep(0.01)
        task.on_kill()
        asked.append(count())

    with run_when(lambda: task._job and count(), kill), pytest.raises(OsaiJobLost):
        task.execute({"ti": ti})
    assert count() - asked[0] <= 1
    assert jobs()[0]["state"] in ("queued", "running")  # nobody has read it since it was submitted, or once


def test_where_airflow_does_not_answer_the_job_lives(ended, jobs):
    """The API server may be away, which is why the process was ended; the second line is behind it."""
    assert ended(RuntimeError("no API server")) is OsaiJobLost
    assert jobs()[0]["state"] == "running"


def test_a_try_whose_successor_has_taken_the_job_over_leaves_it_alone(ended, ti, jobs):
    """A frozen worker thaws after the next try has reconnected and was done with the task: not its job any more."""
    store = FakeStateStore()
    ti.try_number = 1

    def taken_over(key, default=None):
        entry = FakeStateStore.get(store, key, default)
        return entry and entry | {"try_number": 2}

    store.get = taken_over
    assert ended(told("success"), context={"ti": ti, "task_state_store": store}) is OsaiJobLost
    assert jobs()[0]["state"] == "running"


@pytest.mark.parametrize(("state", "lease"), [("up_for_retry", "running"), ("failed", "cancelled")])
def test_a_lease_goes_to_the_next_try_too(ended, jobs, state, lease):
    device = {"device": "jetson", "duration": 600, "poll_interval": 0.05}
    ended(told(state), operator=OsaiRentDeviceOperator, arguments=device, kind="device_rental")
    assert jobs()[0]["state"] in (lease, "queued") if lease == "running" else jobs()[0]["state"] == lease


def test_a_task_that_was_cleared_while_it_ran_gets_a_new_job_although_osai_did_not_answer(ended, ti, jobs, sandbox):
    """For Airflow its next try is a retry; the checkpoint says that the job is of no more use."""
    context = {"ti": ti, "task_state_store": FakeStateStore()}
    sandbox.control.fault("status", "training.cancel", times=10**6)
    ended(told("restarting"), context=context, arguments_more={"unreachable_timeout": 0.3})
    assert jobs()[0]["state"] == "running"
    assert context["task_state_store"].get("osai_job")["cancelled"]


def test_a_mapped_task_is_asked_for_by_its_index(ended, ti, jobs):
    ti.map_index = 3
    assert ended({"run": {"task_3": "failed", "task_4": "running"}}) is OsaiJobCancelled


class TestBatch:
    """A batch, whose process gets SIGTERM."""

    @pytest.fixture
    def make(self, dataset, sandbox):
        sandbox.control.script("training", "reads", reads=10**6)

        def make(**options):
            defaults = {"requests": ["m0", "m1", "m2"], "arguments": {"dataset_ids": [dataset]}, "poll_interval": 0.05}
            return OsaiJobBatchOperator(task_id="task", kind="training", argument="model_name", **defaults | options)

        return make

    @pytest.fixture
    def context(self, ti):
        return {"ti": ti, "task_state_store": FakeStateStore()}

    def test_a_clear_whose_cancellations_fail_is_not_reconnected_to(self, make, context, ti, sandbox, jobs):
        """As with a task for each job."""
        ti.answer = told("restarting")
        sandbox.control.fault("status", "training.cancel", times=10**6)
        task = make(unreachable_timeout=0.3)
        with run_when(lambda: len(jobs()) == 3, task.on_kill), pytest.raises(OsaiJobCancelled):
            task.execute(context)
        task._decision.join()
        sandbox.control.clear_faults()
        context["ti"] = SupervisedTaskInstance(try_number=2)
        new = trigger_of(make(deferrable=True), context).job_ids
        assert [job["id"] for job in jobs() if job["state"] != "cancelled"] == list(new)
        assert len(jobs()) == 6

    def test_during_an_outage_no_job_counts_as_lost(self, make, context, ti, sandbox, jobs):
        """The process is asked to end while it reads jobs that are older than a minute."""
        ti.answer = told("running")
        task = make(on_failure="collect")

        def requests():
            return sandbox.control.record()["counts"].get("training.get", 0)

        def kill():
            for operation in ("training.get", "training.list"):
                sandbox.control.fault("status", operation, times=10**6)
            seen = requests()
            until(lambda: requests() > seen, pause=0.01)
            task._submitted_at = dict.fromkeys(task._submitted_at, 0.0)
            task.on_kill()

        with run_when(lambda: len(jobs()) == 3, kill), pytest.raises(OsaiJobLost, match="asked to end"):
            task.execute(context)
        assert "cancelled" not in {job["state"] for job in jobs()}

    def test_a_submission_in_doubt_is_not_forgotten(self, make, context, ti, connection, sandbox, jobs, monkeypatch):
        """The response was lost, and the process is asked to end while it waits for the job to become visible."""
        connection(contract={"training.list": None})
        ti.answer = told("running")
        monkeypatch.setattr(submission, "VISIBILITY_POLL", 60.0)
        monkeypatch.setattr(submission, "VISIBILITY_TIMEOUT", 60.0)
        task = make(requests=["m0"])
        sandbox.control.fault("reset", "training.submit", times=1)
        with run_when(lambda: len(jobs()) == 1, task.on_kill), pytest.raises(OsaiJobLost, match="asked to end"):
            task.execute(context)
        context["ti"] = SupervisedTaskInstance(try_number=2)
        with pytest.raises(OsaiJobLost, match="unknown whether the job exists"):
            make(requests=["m0"], deferrable=True).execute(context)
        assert len(jobs()) == 1
