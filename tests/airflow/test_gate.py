"""The gate on its own: what it reads of the asset, evaluates, decides, tells, and how it lets on, skips or branches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk import DAG

from airflow_provider_osai.api.errors import OsaiJobFailed
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.base import OsaiFlowOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from tests.accessors import ByAsset
from tests.sandbox.client import Api, png, shades

try:
    from airflow.sdk.exceptions import DownstreamTasksSkipped
except ImportError:  # Airflow 3.1
    from airflow.exceptions import DownstreamTasksSkipped

CHAMPION = osai_model("defects")
FIRST = {"model_id": "a", "metrics": {"accuracy": 0.8}, "measured_on": "data 1"}


def candidate(model_id="b", accuracy=0.9, data_digest="data 1"):
    return {"kind": "training", "model_id": model_id, "metrics": {"accuracy": accuracy}, "data_digest": data_digest}


@pytest.fixture
def log(context):
    """The events of the champion's asset; the context reads them and takes new ones."""
    context["inlet_events"] = ByAsset(list)
    context["outlet_events"] = ByAsset(lambda: SimpleNamespace(extra={}))
    context["dag_run"] = SimpleNamespace(dag_id="dag", run_id="run 5", run_after=datetime(2026, 5, 1, tzinfo=UTC))

    class Log:
        def add(self, **extra):
            context["inlet_events"][CHAMPION].append(SimpleNamespace(extra=extra))

        def told(self, gate):
            """The extra of the event that Airflow would make now; ``None``: it would make none."""
            return context["outlet_events"][CHAMPION].extra if CHAMPION in gate.outlets else None

    return Log()


@pytest.fixture
def gate(connection, log):
    """Make a gate."""

    def made(**options):
        defaults = {"task_id": "task", "candidate": candidate(), "champion": CHAMPION, "poll_interval": 0.05}
        return OsaiModelGateOperator(**{"deferrable": False} | defaults | options)

    return made


@pytest.fixture
def trained(sandbox):
    """Two models that the sandbox really trained, the poor one on wrong labels, and images that neither has seen."""
    right = shades()
    wrong = {"dark": right["light"], "light": right["dark"]}
    with Api(sandbox) as api:
        models = [api.train(api.dataset(images), epochs=3)["result"]["modelId"] for images in (right, wrong)]
        holdout = {"dark": [png(13 + 5 * i) for i in range(6)], "light": [png(173 + 5 * i) for i in range(6)]}
        return SimpleNamespace(good=models[0], poor=models[1], holdout=api.dataset(holdout))


class TestPromotion:
    """What is better goes on, and is the champion."""

    def test_the_first_that_reaches_the_floor(self, gate, context, log):
        """There is nobody to beat."""
        task = gate(min_value=0.5)
        told = task.execute(context)
        assert (told["verdict"], told["champion"], told["model_id"]) == ("promoted", None, "b")
        assert log.told(task)["model_id"] == "b"
        assert log.told(task)["replaces"] is None

    def test_the_event_says_who_beat_whom_by_what_rule_and_in_which_run(self, gate, context, log):
        """Enough for the next gate, and for whoever asks later."""
        log.add(**FIRST)
        task = gate(min_improvement=0.05)
        task.execute(context)
        event = log.told(task)
        assert (event["model_id"], event["replaces"], event["measured_on"]) == ("b", "a", "data 1")
        assert event["metrics"] == {"accuracy": 0.9}
        assert event["run"] == {"dag_id": "dag", "run_id": "run 5", "after": "2026-05-01T00:00:00+00:00"}
        assert event["decision"]["champion"]["metrics"] == {"accuracy": 0.8}
        assert event["decision"]["rule"]["min_improvement"] == 0.05

    def test_what_is_the_champion_already_goes_on_and_is_no_news(self, gate, context, log):
        """A cleared gate lets its run on again."""
        log.add(**FIRST)
        task = gate(candidate=candidate("a", 0.1))
        assert task.execute(context)["verdict"] == "promoted"
        assert log.told(task) is None

    def test_of_several_candidates_the_best_goes_on(self, gate, context):
        """What mapped trainings returned."""
        several = [candidate("b", 0.7), candidate("c", 0.9), candidate("d", float("nan"))]
        assert gate(candidate=several).execute(context)["model_id"] == "c"

    def test_a_table_of_all_figures_is_logged(self, gate, context, log, logged):
        """For who opens the task's page."""
        log.add(**FIRST)
        gate().execute(context)
        assert "accuracy  0.8       0.9        +0.1" in logged()


class TestRejection:
    """What is not better goes no further, and fails nothing."""

    @pytest.mark.parametrize("accuracy", [0.8, 0.7, float("nan"), None])
    def test_it_is_skipped_makes_no_event_and_is_told_all_the_same(self, gate, context, log, ti, accuracy):
        """A skipped task returns nothing by itself."""
        log.add(**FIRST)
        task = gate(candidate=candidate(accuracy=accuracy))
        with pytest.raises(AirflowSkipException, match="model b is not promoted: accuracy is"):
            task.execute(context)
        assert log.told(task) is None
        assert ti.xcoms["verdict"] == ti.xcoms["return_value"]["verdict"] == "rejected"
        assert ti.xcoms["champion"]["model_id"] == "a"

    def test_figures_of_other_data_are_refused(self, gate, context, log, ti):
        """And the reason says what to do."""
        log.add(**FIRST)
        with pytest.raises(AirflowSkipException, match="same_holdout=True"):
            gate(candidate=candidate(data_digest="data 2")).execute(context)
        assert gate(candidate=candidate(data_digest="data 2"), any_data=True).execute(context)["verdict"] == "promoted"

    def test_an_earlier_run_does_not_come_after_a_later_one(self, gate, context, log, ti):
        """It was slow, and its model is of older data."""
        later = {"dag_id": "dag", "run_id": "run 6", "after": "2026-05-02T00:00:00+00:00"}
        log.add(**FIRST, run=later)
        with pytest.raises(AirflowSkipException, match="run 6, has promoted its model already"):
            gate().execute(context)

    def test_what_was_decided_against_another_champion_is_not_who_stands(self, gate, context, log):
        """Two promoted at once: the second counts for nothing."""
        log.add(**FIRST)
        log.add(model_id="x", metrics={"accuracy": 0.85}, measured_on="data 1", replaces="a")
        log.add(model_id="y", metrics={"accuracy": 0.99}, measured_on="data 1", replaces="a")
        assert gate().execute(context)["champion"]["model_id"] == "x"


class TestBranch:
    """A rejection may lead elsewhere."""

    @pytest.fixture
    def branched(self, gate):
        class Step(OsaiFlowOperator):
            def build_flow(self, calls):
                raise AssertionError

        def made(**options):
            with DAG("branched", schedule=None):
                task = gate(on_reject=["tell", "review"], **options)
                task >> [Step(task_id=name) for name in ("convert", "tell", "review")]
            return task

        return made

    def test_a_rejection_follows_its_own_tasks(self, branched, context, log, ti):
        """And the gate has succeeded, without an event."""
        log.add(**FIRST)
        task = branched(candidate=candidate(accuracy=0.1))
        with pytest.raises(DownstreamTasksSkipped) as skipped:
            task.execute(context | {"ti": with_task(ti, task)})
        assert skipped.value.tasks == [("convert", -1)]
        assert ti.xcoms["verdict"] == "rejected"
        assert log.told(task) is None

    def test_a_promotion_follows_the_others(self, branched, context, log, ti):
        """With its event."""
        task = branched()
        with pytest.raises(DownstreamTasksSkipped) as skipped:
            task.execute(context | {"ti": with_task(ti, task)})
        assert sorted(skipped.value.tasks) == [("review", -1), ("tell", -1)]
        assert log.told(task)["model_id"] == "b"

    @pytest.mark.parametrize("wrong", ["Skip", ["nobody"], []])
    def test_a_task_that_does_not_follow_is_refused(self, gate, context, wrong):
        """A word that is misspelt, for instance."""
        with pytest.raises(AirflowFailException, match="on_reject"):
            gate(on_reject=wrong).execute(context)


def with_task(ti, task):
    ti.task = task
    return ti


class TestSameHoldout:
    """Both are evaluated on one dataset, by jobs like all others."""

    def test_both_are_measured_on_the_same_images(self, gate, context, log, trained, sandbox):
        """Whatever they were measured on before; their own figures do not count."""
        log.add(model_id=trained.poor, metrics={"accuracy": 1.0}, measured_on="data 1")
        mine = {"model_id": trained.good, "metrics": {"accuracy": 0.0}}
        told = gate(candidate=mine, same_holdout=True, holdout_dataset_id=trained.holdout).execute(context)
        assert told["verdict"] == "promoted"
        assert told["candidate"]["measured_on"] == told["champion"]["measured_on"] == f"dataset {trained.holdout}"
        assert told["candidate"]["metrics"]["accuracy"] > told["champion"]["metrics"]["accuracy"]
        assert len(predictions(sandbox)) == 2

    def test_the_event_says_what_a_promotion_says_and_nothing_of_the_evaluations(self, gate, context, log, trained):
        """No ``job_id``, ``kind`` or ``state`` of a prediction."""
        options = {"candidate": {"model_id": trained.good}, "same_holdout": True, "holdout_dataset_id": trained.holdout}
        task = gate(**options)
        told = task.execute(context)
        decision = {key: told[key] for key in ("verdict", "reasons", "rule", "candidate", "champion")}
        run = {"dag_id": "dag", "run_id": "run 5", "after": "2026-05-01T00:00:00+00:00"}
        assert log.told(task) == {**told["candidate"], "replaces": None, "run": run, "decision": decision}

    def test_deferred_it_goes_from_one_evaluation_to_the_next(self, gate, context, log, trained, sandbox):
        """Without a worker while OSAI works, and each job is done once."""
        log.add(model_id=trained.poor, metrics={}, measured_on="data 1")
        options = {"candidate": {"model_id": trained.good}, "same_holdout": True, "holdout_dataset_id": trained.holdout}
        task, told = gate(deferrable=True, **options), None
        run, events = task.execute, 0
        while told is None:
            try:
                told = run(context)
            except TaskDeferred as deferred:
                event = asyncio.run(anext(deferred.trigger.run())).payload
                task, events = gate(deferrable=True, **options), events + 1

                def run(context, task=task, event=event):
                    return task.resume_execution("execute_complete", {"event": event}, context)

        assert told["verdict"] == "promoted"
        assert len(predictions(sandbox)) == 2 == events

    def test_a_retry_evaluates_nothing_twice(self, gate, context, log, trained, sandbox, ti):
        """Its worker died after the first evaluation, or after both."""
        log.add(model_id=trained.poor, metrics={}, measured_on="data 1")
        options = {"candidate": {"model_id": trained.good}, "same_holdout": True, "holdout_dataset_id": trained.holdout}
        gate(**options).execute(context)
        ti.xcoms.clear()  # as Airflow does before a new try
        assert gate(**options).execute(context)["verdict"] == "promoted"
        assert len(predictions(sandbox)) == 2

    def test_an_evaluation_that_fails_fails_the_gate(self, gate, context, trained, sandbox):
        """It is no rejection: nobody knows. A retry tries again."""
        sandbox.control.script("prediction", end="failed")
        options = {"candidate": {"model_id": trained.good}, "same_holdout": True, "holdout_dataset_id": trained.holdout}
        with pytest.raises(OsaiJobFailed):
            gate(**options).execute(context)

    def test_a_dataset_is_needed(self, gate, context):
        """And a word that means yes or no."""
        with pytest.raises(AirflowFailException, match="holdout_dataset_id"):
            gate(same_holdout=True).execute(context)
        with pytest.raises(AirflowFailException, match="choose True or False"):
            gate(same_holdout="perhaps").execute(context)


def predictions(sandbox):
    return [job for job in sandbox.control.record()["jobs"] if job["kind"] == "prediction"]


class TestArguments:
    """What is wrong is said before anything is asked."""

    @pytest.mark.parametrize("wrong", [None, [], {}, {"metrics": {}}, "", "None", 5])
    def test_a_candidate_is_a_model(self, gate, context, wrong):
        """Not what a skipped task left."""
        with pytest.raises(AirflowFailException, match="candidate"):
            gate(candidate=wrong).execute(context)

    @pytest.mark.parametrize("wrong", [{"min_improvement": -1}, {"metric": ""}, {"guard_metrics": {"f1": "x"}}])
    def test_a_rule_means_something(self, gate, context, wrong):
        """The one that is wrong is named."""
        with pytest.raises(AirflowFailException, match=next(iter(wrong))):
            gate(**wrong).execute(context)

    def test_an_asset_that_is_known_too_late_is_refused(self, gate, context, log, sandbox):
        """One that came out of an XCom: Airflow hands out the events of inlets only."""
        context["inlet_events"] = {}
        with pytest.raises(AirflowFailException, match=r"champion = .*partial\(\)"):
            gate().execute(context)
        assert sandbox.control.record()["requests"] == []

    def test_a_mapped_gate_does_not_branch(self, gate, context, ti):
        """Airflow would run both branches."""
        ti.map_index = 0
        with pytest.raises(AirflowFailException, match=r"on_reject = 'tell'.*mapped gate"):
            gate(on_reject="tell").execute(context)

    def test_an_id_alone_will_do(self, gate, context, trained):
        """OSAI knows its figures."""
        told = gate(candidate=trained.good).execute(context)
        assert told["candidate"]["metrics"]["accuracy"] > 0.5

    def test_the_champion_is_read_and_told_by_the_task_one_gate_at_a_time(self, gate):
        """Beside the user's own assets, and unless the user knows better."""
        other = osai_model("other")
        task = gate(inlets=[other], outlets=[other])
        assert task.inlets == task.outlets == [other, CHAMPION]
        assert task.max_active_tis_per_dag == 1
        assert gate(max_active_tis_per_dag=3).max_active_tis_per_dag == 3


def test_a_limit_of_time_holds_for_all_evaluations_together(gate, context, log, trained, sandbox):
    """The job that runs then is cancelled."""
    sandbox.control.script("prediction", timing="seconds", seconds=60)
    options = {"candidate": {"model_id": trained.good}, "same_holdout": True, "holdout_dataset_id": trained.holdout}
    with pytest.raises(Exception, match="execution_timeout"):
        gate(**options, execution_timeout=timedelta(seconds=0.3)).execute(context)
    assert [job["state"] for job in predictions(sandbox)] == ["cancelled"]
