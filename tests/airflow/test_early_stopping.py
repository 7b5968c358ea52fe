"""Trainings that are going wrong are stopped, by the triggerer or by a blocking worker."""

from __future__ import annotations

import asyncio
import json

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiJobCancelled, OsaiJobFailed, OsaiJobStopped
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.operators.training import OsaiRetrainModelOperator, OsaiTrainModelOperator
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.triggers import job as job_trigger
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.airflow.conftest import FakeStateStore
from tests.conftest import CANARY

NAN = {"history": [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": "NaN"}]}
FLAT = {"history": [{"epoch": n, "loss": 0.1 / n, "valLoss": 0.5} for n in range(1, 30)]}
STALLED = {"progress": 0.4}


@pytest.fixture
def make(dataset, sandbox):
    """Make a training operator, and script what its job reports."""

    def operator(script, stop_when, **options):
        sandbox.control.script("training", "reads", **{"reads": 10**6} | script)
        defaults = {"task_id": "task", "dataset_ids": [dataset], "model_name": "m", "poll_interval": 0.05}
        return OsaiTrainModelOperator(**defaults | options, stop_when=stop_when)

    return operator


@pytest.fixture
def context(ti):
    """A task on Airflow 3.3, whose state store the retries below also do without."""
    return {"ti": ti, "task_state_store": FakeStateStore()}


@pytest.fixture
def states(jobs):
    return lambda: [job["state"] for job in jobs()]


def triggered(trigger: OsaiJobTrigger) -> dict:
    """Run a trigger as another process would create it; return the payload of its event."""
    _, arguments = trigger.serialize()

    async def main():
        return (await anext(OsaiJobTrigger(**json.loads(json.dumps(arguments))).run())).payload

    return json.loads(json.dumps(asyncio.run(main())))


def run(operator, context):
    """Run a task to its end, also if it defers."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        return operator.execute_complete(context, triggered(deferred.trigger))


RULES = [
    (NAN, {"nan_loss": True}, r"loss is nan after 2 epochs \(nan_loss\); it was cancelled"),
    (FLAT, {"patience": "5"}, r"no improvement of val_loss for \d+ epochs, best 0.5 \(patience = 5\)"),
    (STALLED, {"no_progress_minutes": 0.005}, r"no progress for .*, with progress 40% .*no_progress_minutes = 0.005"),
]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "blocking"])
class TestStop:
    """The same in the triggerer and on a worker."""

    @pytest.mark.parametrize(("script", "stop_when", "message"), RULES, ids=["nan", "patience", "stalled"])
    def test_a_rule_that_holds_cancels_the_job_and_names_itself(
        self, make, context, states, deferrable, script, stop_when, message
    ):
        with pytest.raises(OsaiJobStopped, match=message):
            run(make(script, stop_when, deferrable=deferrable), context)
        assert states() == ["cancelled"]

    @pytest.mark.parametrize("has_store", [True, False], ids=["3.3", "3.1"])
    def test_a_retry_submits_a_new_job(self, make, context, ti, states, deferrable, has_store):
        if not has_store:
            del context["task_state_store"]
        with pytest.raises(OsaiJobStopped):
            run(make(NAN, {"nan_loss": True}, deferrable=deferrable), context)
        ti.try_number = 2
        assert run(make({"reads": 1}, {"nan_loss": True}, deferrable=deferrable), context)["state"] == "succeeded"
        assert sorted(states()) == ["cancelled", "succeeded"]

    def test_a_training_that_goes_well_succeeds(self, make, context, deferrable):
        history = [{"epoch": n, "loss": 1 / n, "valLoss": 1 / n} for n in range(1, 30)]
        rules = {"nan_loss": True, "patience": 1, "no_progress_minutes": 5}
        assert (
            run(make({"reads": 5, "history": history}, rules, deferrable=deferrable), context)["state"] == "succeeded"
        )

    def test_without_it_nothing_is_stopped(self, make, context, sandbox, deferrable):
        assert run(make(NAN | {"reads": 5}, None, deferrable=deferrable), context)["state"] == "succeeded"
        assert "training.cancel" not in sandbox.control.record()["counts"]

    @pytest.mark.parametrize(("end", "error"), [("failed", OsaiJobFailed), ("cancelled", OsaiJobCancelled)])
    def test_a_job_that_ends_by_itself_has_the_error_of_its_end(self, make, context, deferrable, end, error):
        with pytest.raises(error):
            run(make({"reads": 3, "end": end}, {"patience": 1}, deferrable=deferrable), context)

    @pytest.mark.parametrize("word", ["Queued", "Paused"])
    def test_a_job_that_is_not_running_is_not_stopped(self, make, context, sandbox, deferrable, word):
        script = {"reads": 12, "word": word, "word_reads": 12, **NAN}
        rules = {"nan_loss": True, "no_progress_minutes": 0.001}
        assert run(make(script, rules, deferrable=deferrable), context)["state"] == "succeeded"
        assert "training.cancel" not in sandbox.control.record()["counts"]

    @pytest.mark.parametrize("fault", ["html", "reset", "reset_before", "expired_token"])
    def test_a_cancellation_is_retried_while_osai_is_unreachable(
        self, make, context, sandbox, states, deferrable, fault
    ):
        """A second fault, just when the job is to be cancelled."""
        sandbox.control.fault(fault, "training.cancel", times=2)
        with pytest.raises(OsaiJobStopped, match="it was cancelled"):
            run(make(NAN, {"nan_loss": True}, deferrable=deferrable), context)
        assert states() == ["cancelled"]

    def test_a_job_that_cannot_be_cancelled_is_said_to_continue(self, make, context, connection, states, deferrable):
        connection(contract={"training.cancel": None})
        with pytest.raises(OsaiJobStopped, match=r"nan_loss\); cancelling it failed, it may continue"):
            run(make(NAN, {"nan_loss": True}, deferrable=deferrable), context)
        assert states() == ["running"]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "blocking"])
class TestStopOperation:
    """An API whose contract binds training.stop."""

    @pytest.fixture
    def sandbox(self):
        with Sandbox(access_token=CANARY, contract=apply_overrides(Contract(), {"training.stop": {}})) as running:
            yield running

    @pytest.fixture(autouse=True)
    def _bound(self, connection):
        connection(contract={"training.stop": {}})

    def test_a_training_that_does_not_improve_succeeds_with_its_model(self, make, context, sandbox, states, deferrable):
        result = run(make(FLAT, {"patience": 5}, deferrable=deferrable), context)
        assert (result["state"], states()) == ("succeeded", ["succeeded"])
        assert result["model_id"]
        counts = sandbox.control.record()["counts"]
        assert (counts["training.stop"], counts.get("training.cancel", 0)) == (1, 0)

    def test_another_rule_cancels_the_job(self, make, context, sandbox, states, deferrable):
        with pytest.raises(OsaiJobStopped):
            run(make(NAN, {"nan_loss": True, "patience": 9}, deferrable=deferrable), context)
        assert states() == ["cancelled"]
        assert "training.stop" not in sandbox.control.record()["counts"]

    def test_a_refused_request_is_followed_by_the_cancellation(self, make, context, sandbox, states, deferrable):
        sandbox.control.fault("html", "training.stop", times=100)
        with pytest.raises(OsaiJobStopped, match="patience = 5"):
            run(make(FLAT, {"patience": 5}, deferrable=deferrable), context)
        assert states() == ["cancelled"]


class TestList:
    """The triggerer polls jobs in batches, with OSAI's list."""

    def test_a_job_is_stopped_although_the_list_has_no_histories(self, make, context, connection, sandbox, states):
        connection(contract={"training.list": {"response": {"history": None}}})
        with pytest.raises(OsaiJobStopped, match="patience = 5"):
            run(make(FLAT, {"patience": 5}, deferrable=True), context)
        assert states() == ["cancelled"]
        counts = sandbox.control.record()["counts"]
        assert counts["training.list"] < counts["training.get"]

    @pytest.mark.parametrize("rules", [{"patience": 50}, {"no_progress_minutes": 5}], ids=repr)
    def test_a_list_with_histories_is_enough(self, make, context, sandbox, rules):
        assert run(make(FLAT | {"reads": 20}, rules, deferrable=True), context)["state"] == "succeeded"
        counts = sandbox.control.record()["counts"]
        assert counts["training.list"] > counts["training.get"]


class TestOutage:
    """OSAI becomes unreachable when the job is to be cancelled, for longer than the task waits."""

    def test_the_triggers_event_does_not_wait_for_it(self, make, context, sandbox, monkeypatch, states):
        """The cancellation goes on in the background; the resumed task cancels the job too."""
        monkeypatch.setattr(job_trigger, "CANCELLATION_TIMEOUT", 0.2)
        operator = make(NAN, {"nan_loss": True}, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        sandbox.control.fault("html", "training.cancel", times=10**6)
        event = triggered(deferred.value.trigger)
        assert (event["outcome"], event["reason"]) == ("early_stop", "loss is nan after 2 epochs (nan_loss)")
        assert states() == ["running"]
        sandbox.control.clear_faults()
        with pytest.raises(OsaiJobStopped, match="it was cancelled"):
            operator.execute_complete(context, event)
        assert states() == ["cancelled"]

    @pytest.mark.parametrize("has_store", [True, False], ids=["3.3", "3.1"])
    def test_a_worker_that_cannot_cancel_says_that_the_job_may_continue(
        self, make, context, ti, sandbox, states, has_store
    ):
        """And its retry cancels it before it submits another one, where the task has a state store."""
        if not has_store:
            del context["task_state_store"]
        sandbox.control.fault("html", "training.cancel", times=10**6)
        with pytest.raises(OsaiJobStopped, match="cancelling it failed, it may continue"):
            make(NAN, {"nan_loss": True}, deferrable=False, unreachable_timeout=0.3).execute(context)
        sandbox.control.clear_faults()
        ti.try_number = 2
        if has_store:
            assert make({"reads": 1}, None, deferrable=False).execute(context)["state"] == "succeeded"
            assert sorted(states()) == ["cancelled", "succeeded"]
        else:  # it reconnects, and the rule holds again
            with pytest.raises(OsaiJobStopped, match="it was cancelled"):
                make(NAN, {"nan_loss": True}, deferrable=False).execute(context)
            assert states() == ["cancelled"]


class TestEvent:
    """What the resumed task does with the trigger's event."""

    @pytest.fixture
    def deferred(self, make, context):
        operator = make(NAN, {"nan_loss": True}, deferrable=True)
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(context)
        return operator, caught.value.trigger

    def event(self, trigger, **fields):
        return JobEvent(kind="training", job_id=trigger.job_id, outcome=Outcome.EARLY_STOP, **fields).payload()

    def test_a_job_that_ended_just_before_is_a_success(self, deferred, context, sandbox):
        operator, trigger = deferred
        sandbox.control.end(trigger.job_id)
        assert operator.execute_complete(context, self.event(trigger))["state"] == "succeeded"

    @pytest.mark.parametrize("reason", [None, "", 7, "x"])
    def test_an_event_whose_reason_is_lost_still_names_the_argument(self, deferred, context, states, reason):
        operator, trigger = deferred
        with pytest.raises(
            OsaiJobStopped, match="x; it was" if reason == "x" else "a rule of stop_when; it was cancelled"
        ):
            operator.execute_complete(context, self.event(trigger) | {"reason": reason})
        assert states() == ["cancelled"]

    def test_an_older_version_reads_the_cancelled_job(self, deferred):
        """It does not know the outcome, and takes it for an error of the trigger."""
        _, trigger = deferred
        payload = triggered(trigger)
        assert set(payload) >= {"outcome", "job_id", "kind"}
        assert JobEvent.parse(payload | {"outcome": "of a newer version"}).outcome is Outcome.ERROR

    @pytest.mark.parametrize("stored", [{"patience": "many"}, "nan_loss", 7, {"of_a_newer_version": 1}, []])
    def test_a_trigger_with_rules_that_it_does_not_know_waits_for_the_end(self, deferred, sandbox, stored):
        _, trigger = deferred
        trigger.stop_when = stored
        sandbox.control.end(trigger.job_id)
        assert triggered(trigger)["state"] == JobState.SUCCEEDED

    def test_a_sensors_trigger_carries_no_rules(self):
        assert OsaiJobTrigger(cancel_at_deadline=False).serialize()[1]["stop_when"] is None


class TestInvalid:
    """Named before a job is submitted, and not retried."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stop_when": {"patience": "{{ none }}"}}, "patience = '{{ none }}'"),
            ({"stop_when": {"patience": 0}}, "patience = 0"),
            ({"stop_when": {"no_progress_minutes": "soon"}}, "no_progress_minutes = 'soon'"),
            ({"stop_when": "nan_loss"}, "stop_when = 'nan_loss'"),
            ({"stop_when": {"nan_loss": True}, "wait_for_completion": False}, "needs wait_for_completion"),
        ],
    )
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_an_invalid_rule_fails_for_good(self, make, context, jobs, options, message, deferrable):
        with pytest.raises(AirflowFailException, match=message) as caught:
            make({}, **options, deferrable=deferrable).execute(context)
        assert isinstance(caught.value.__cause__, OsaiArgumentError)
        assert jobs() == []

    def test_a_task_that_does_not_wait_may_have_rules_that_are_off(self, make, context):
        operator = make({}, {"nan_loss": "False"}, wait_for_completion=False)
        assert operator.execute(context)["job_id"]


class TestDag:
    """Whole Dags, triggers inline."""

    @pytest.mark.parametrize("mode", ["deferrable", "blocking"])
    def test_a_task_fails_and_its_job_is_cancelled(self, run_dag, dataset, sandbox, states, logged, mode):
        sandbox.control.script("training", "reads", reads=10**6, **FLAT)
        ran = run_dag(f"early_stopping_{mode}", dataset=dataset, patience=4)
        assert ran.tasks == {"train": "failed"}
        assert states() == ["cancelled"]
        assert "OsaiJobStopped" in logged()
        assert "(patience = 4)" in logged()

    def test_each_mapped_task_has_rules_of_its_own(self, run_dag, dataset, sandbox, states):
        """Rendered and serialized; the loss improves, and the last one has none."""
        sandbox.control.script("training", "reads", reads=20, **FLAT)
        ran = run_dag("early_stopping_mapped", dataset=dataset)
        trained = {name: state for name, state in ran.tasks.items() if name.startswith("train[")}
        assert trained == {"train[0]": "failed", "train[1]": "success", "train[2]": "success"}
        assert sorted(states()) == ["cancelled", "succeeded", "succeeded"]


def test_the_argument_is_a_template_field_of_both_operators():
    with DAG("d", schedule=None):
        for cls in (OsaiTrainModelOperator, OsaiRetrainModelOperator):
            assert "stop_when" in cls.template_fields
            assert cls.template_fields_renderers["stop_when"] == "json"
