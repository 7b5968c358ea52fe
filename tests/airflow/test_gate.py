"""OsaiModelGateOperator: reads the champion, evaluates, decides, pushes the decision, then skips, fails or branches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk import DAG, BaseNotifier

from airflow_provider_osai.api.errors import OsaiJobFailed
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.base import OsaiClientOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.sandbox.scenarios import Script
from tests.airflow.conftest import group, messages
from tests.asset_event_fakes import ByAsset
from tests.conftest import CANARY
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
    """The champion asset's events, as the context provides them to the gate."""
    context["inlet_events"] = ByAsset(list)
    context["outlet_events"] = ByAsset(lambda: SimpleNamespace(extra={}))
    context["dag_run"] = SimpleNamespace(dag_id="dag", run_id="run 5", run_after=datetime(2026, 5, 1, tzinfo=UTC))

    class Log:
        def add(self, **extra):
            context["inlet_events"][CHAMPION].append(SimpleNamespace(extra=extra))

        def new_event(self, gate):
            """The extra of the event that Airflow would create, or ``None``."""
            return context["outlet_events"][CHAMPION].extra if CHAMPION in gate.outlets else None

    return Log()


@pytest.fixture
def gate(connection, log):
    def make(**options):
        defaults = {"task_id": "task", "candidate": candidate(), "champion": CHAMPION, "poll_interval": 0.05}
        return OsaiModelGateOperator(**{"deferrable": False} | defaults | options)

    return make


@pytest.fixture
def trained(sandbox):
    """Two models trained in the sandbox, the poor one on wrong labels, and a dataset that neither was trained on."""
    right = shades()
    wrong = {"dark": right["light"], "light": right["dark"]}
    with Api(sandbox) as api:
        models = [api.train(api.dataset(images), epochs=3)["result"]["modelId"] for images in (right, wrong)]
        holdout = {"dark": [png(13 + 5 * i) for i in range(6)], "light": [png(173 + 5 * i) for i in range(6)]}
        return SimpleNamespace(good=models[0], poor=models[1], holdout=api.dataset(holdout))


def test_the_log_says_why_outside_and_compares_the_metrics_inside_of_a_group(gate, context, log, logged):
    """So that a folded group hides the numbers only."""
    with pytest.raises(AirflowSkipException):
        gate(threshold=0.95).execute(context)
    compared, others = group(messages(logged()), "Metrics compared for model b")
    assert [line.split()[0] for line in compared] == ["metric", "accuracy"]
    assert "Model b is rejected: accuracy is 0.9, required: at least 0.95" in others


class TestPromotion:
    def test_first_candidate_above_the_threshold_is_promoted(self, gate, context, log):
        task = gate(threshold=0.5)
        result = task.execute(context)
        assert (result["decision"], result["champion"], result["model_id"]) == ("promoted", None, "b")
        assert log.new_event(task)["model_id"] == "b"
        assert log.new_event(task)["replaces"] is None

    def test_without_an_evaluation_there_is_no_link_for_airflow_to_read(self, gate, context, ti):
        """That would be an error in the log of each such gate."""
        task = gate(threshold=0.5)
        task.execute(context)
        assert "osai_portal_link" not in ti.xcoms
        assert not task.operator_extra_links

    def test_event_contains_the_decision_the_replaced_champion_and_the_run(self, gate, context, log):
        log.add(**FIRST)
        task = gate(min_improvement=0.05)
        task.execute(context)
        event = log.new_event(task)
        assert (event["model_id"], event["replaces"], event["measured_on"]) == ("b", "a", "data 1")
        assert event["metrics"] == {"accuracy": 0.9}
        assert event["run"] == {"dag_id": "dag", "run_id": "run 5", "after": "2026-05-01T00:00:00+00:00"}
        assert event["decision"]["champion"]["metrics"] == {"accuracy": 0.8}
        assert event["decision"]["rule"]["min_improvement"] == 0.05

    def test_current_champion_is_promoted_without_an_event(self, gate, context, log):
        """A cleared gate does not block its Dag run."""
        log.add(**FIRST)
        task = gate(candidate=candidate("a", 0.1))
        assert task.execute(context)["decision"] == "promoted"
        assert log.new_event(task) is None

    def test_best_of_several_candidates_is_used(self, gate, context):
        """Such as the results of mapped trainings."""
        candidates = [candidate("b", 0.7), candidate("c", 0.9), candidate("d", float("nan"))]
        assert gate(candidate=candidates).execute(context)["model_id"] == "c"

    def test_table_of_the_metrics_is_logged(self, gate, context, log, logged):
        log.add(**FIRST)
        gate().execute(context)
        assert "accuracy  0.8       0.9        +0.1" in logged()


class TestRejection:
    @pytest.mark.parametrize("accuracy", [0.8, 0.7, float("nan"), None])
    def test_rejection_skips_creates_no_event_and_pushes_the_decision(self, gate, context, log, ti, accuracy):
        log.add(**FIRST)
        task = gate(candidate=candidate(accuracy=accuracy))
        with pytest.raises(AirflowSkipException, match="Model b is not promoted: accuracy is"):
            task.execute(context)
        assert log.new_event(task) is None
        assert ti.xcoms["return_value"]["decision"] == "rejected"
        assert ti.xcoms["return_value"]["champion"]["model_id"] == "a"

    def test_metrics_of_different_data_are_rejected_unless_allowed(self, gate, context, log, ti):
        log.add(**FIRST)
        with pytest.raises(AirflowSkipException, match="evaluation_dataset_id="):
            gate(candidate=candidate(data_digest="data 2")).execute(context)
        task = gate(candidate=candidate(data_digest="data 2"), allow_different_data=True)
        assert task.execute(context)["decision"] == "promoted"

    def test_earlier_run_is_rejected_after_a_promotion_by_a_later_run(self, gate, context, log, ti):
        """Its model was trained on older data."""
        later = {"dag_id": "dag", "run_id": "run 6", "after": "2026-05-02T00:00:00+00:00"}
        log.add(**FIRST, run=later)
        with pytest.raises(AirflowSkipException, match="run 6, has promoted its model already"):
            gate().execute(context)

    def test_promotion_against_a_former_champion_is_ignored(self, gate, context, log):
        """Of two simultaneous promotions, the second does not count."""
        log.add(**FIRST)
        log.add(model_id="x", metrics={"accuracy": 0.85}, measured_on="data 1", replaces="a")
        log.add(model_id="y", metrics={"accuracy": 0.99}, measured_on="data 1", replaces="a")
        assert gate().execute(context)["champion"]["model_id"] == "x"


class TestBranch:
    @pytest.fixture
    def branched(self, gate):
        class Step(OsaiClientOperator):
            def run_with_client(self, client):
                raise AssertionError

        def make(**options):
            with DAG("branched", schedule=None):
                task = gate(rejected_task_ids=["notify", "review"], **options)
                task >> [Step(task_id=name) for name in ("convert", "notify", "review")]
            return task

        return make

    def test_rejection_runs_the_rejected_tasks_and_creates_no_event(self, branched, context, log, ti):
        log.add(**FIRST)
        task = branched(candidate=candidate(accuracy=0.1))
        with pytest.raises(DownstreamTasksSkipped) as skipped:
            task.execute(context | {"ti": with_task(ti, task)})
        assert skipped.value.tasks == [("convert", -1)]
        assert ti.xcoms["return_value"]["decision"] == "rejected"
        assert log.new_event(task) is None

    def test_promotion_runs_the_other_tasks_and_creates_an_event(self, branched, context, log, ti):
        task = branched()
        with pytest.raises(DownstreamTasksSkipped) as skipped:
            task.execute(context | {"ti": with_task(ti, task)})
        assert sorted(skipped.value.tasks) == [("notify", -1), ("review", -1)]
        assert log.new_event(task)["model_id"] == "b"

    def test_on_reject_fail_fails_the_task_without_retries(self, gate, context, log, ti):
        """The decision is still pushed, and the champion does not change."""
        log.add(**FIRST)
        task = gate(on_reject="fail", candidate=candidate(accuracy=0.1))
        with pytest.raises(AirflowFailException, match="Model b is not promoted: accuracy"):
            task.execute(context)
        assert ti.xcoms["return_value"]["decision"] == "rejected"
        assert log.new_event(task) is None

    def test_on_reject_fail_does_not_affect_a_promotion(self, gate, context, log):
        assert gate(on_reject="fail").execute(context)["decision"] == "promoted"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"on_reject": "ignore"}, "on_reject = 'ignore': must be 'skip' or 'fail'"),
            ({"on_reject": ["notify"]}, "must be 'skip' or 'fail'"),
            ({"on_reject": "fail", "rejected_task_ids": "notify"}, "remove one of them"),
        ],
    )
    def test_invalid_on_reject_fails(self, gate, context, options, message):
        with pytest.raises(AirflowFailException, match=message):
            gate(**options).execute(context)

    @pytest.mark.parametrize("wrong", ["skip", ["nobody"], []])
    def test_rejected_task_that_is_not_downstream_fails(self, gate, context, wrong):
        with pytest.raises(AirflowFailException, match="rejected_task_ids"):
            gate(rejected_task_ids=wrong).execute(context)


class Note(BaseNotifier):
    """Keeps what it would send, in a list that its copies share."""

    template_fields = ("text",)

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.sent = []

    def notify(self, context):
        self.sent.append(self.text)


class TestCallbacks:
    def test_promotion_is_told_after_the_decision_was_pushed(self, gate, context, log, ti):
        seen = []

        def tell(context):
            seen.append((context["osai_gate"], dict(context["ti"].xcoms)))

        result = gate(on_promoted=tell, on_rejected=pytest.fail).execute(context)
        [(told, xcoms)] = seen
        assert told == result == xcoms["return_value"]
        assert xcoms["return_value"]["decision"] == "promoted"

    @pytest.mark.parametrize(("on_reject", "raised"), [("skip", AirflowSkipException), ("fail", AirflowFailException)])
    def test_rejection_is_told_before_the_task_ends(self, gate, context, log, on_reject, raised):
        log.add(**FIRST)
        note = Note("{{ osai_gate.model_id }} is {{ osai_gate.decision }}: {{ osai_gate.reasons | join('; ') }}")
        options = {"on_reject": on_reject, "candidate": candidate(accuracy=0.1)}
        with pytest.raises(raised):
            gate(on_rejected=[note], on_promoted=pytest.fail, **options).execute(context)
        assert note.sent == ["b is rejected: accuracy is 0.1, required: better than 0.8"]

    @pytest.mark.parametrize("accuracy", [0.1, 0.9])
    def test_current_champion_is_not_told_again(self, gate, context, log, accuracy):
        log.add(**FIRST)
        task = gate(candidate=candidate("a", accuracy), on_promoted=pytest.fail, on_rejected=pytest.fail)
        assert task.execute(context)["decision"] == "promoted"

    def test_retry_decides_and_tells_again_with_the_template_of_the_notifier(self, gate, context, log):
        note = Note("{{ osai_gate.model_id }}")
        for model_id in ("b", "c"):
            gate(candidate=candidate(model_id), on_promoted=(note, note)).execute(context)
        assert note.sent == ["b", "b", "c", "c"]
        assert note.text == "{{ osai_gate.model_id }}"

    def test_deferred_gate_tells_once(self, gate, context, log, trained):
        log.add(model_id=trained.poor, metrics={}, measured_on="data 1")
        note = Note("{{ osai_gate.champion.model_id }}")
        options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
        result = run_to_end(lambda: gate(deferrable=True, on_promoted=note, **options), context)
        assert result["decision"] == "promoted"
        assert note.sent == [trained.poor]

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("no route"),
            AirflowSkipException("skip"),
            AirflowFailException("fail"),
            DownstreamTasksSkipped(tasks=["convert"]),
            OsaiJobFailed("job", kind="training", job_id="7"),
            TaskDeferred(trigger=None, method_name="execute_complete"),
            type("Hostile", (Exception,), {"__str__": lambda error: 1 / 0})(),
            UnicodeError("\x1b[31m\nINFO all is well\udc80" * 1000),
            AssertionError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_error_is_logged_and_the_next_callback_runs(self, gate, context, log, logged, error):
        def fail(context):
            raise error

        note = Note("told")
        task = gate(on_promoted=[fail, note])
        assert task.execute(context)["decision"] == "promoted"
        assert log.new_event(task)["model_id"] == "b"
        assert note.sent == ["told"]
        [line] = [line for line in logged().splitlines() if "Callback 1 of 2" in line]
        assert f"Callback 1 of 2, fail, failed and is ignored: {type(error).__name__}: " in line
        assert "\x1b" not in line
        assert len(line) < 1000

    def test_rejection_stays_a_rejection_if_telling_fails(self, gate, context, log):
        log.add(**FIRST)
        broken = Note("{{ osai_gate.no_such_key.at_all }}")
        with pytest.raises(AirflowSkipException, match="Model b is not promoted"):
            gate(candidate=candidate(accuracy=0.1), on_rejected=broken).execute(context)
        assert broken.sent == []

    def test_changes_by_a_callback_reach_neither_the_next_nor_the_result(self, gate, context, log, ti):
        def change(context):
            context["osai_gate"]["metrics"].clear()
            context["osai_gate"]["decision"] = "rejected"
            context.pop("ti")

        note = Note("{{ osai_gate.decision }} {{ osai_gate.metrics.accuracy }} {{ ti.task_id }}")
        result = gate(on_promoted=[change, note]).execute(context)
        assert (result["decision"], result["metrics"]) == ("promoted", {"accuracy": 0.9})
        assert note.sent == ["promoted 0.9 task"]
        assert "osai_gate" not in context
        assert "text" not in context

    @pytest.mark.parametrize("argument", ["on_promoted", "on_rejected"])
    def test_invalid_callback_fails_before_any_request(self, gate, context, log, sandbox, argument):
        """Otherwise no notification would be sent, and only after an evaluation that costs time."""
        with pytest.raises(AirflowFailException, match=f"{argument} contains str, which is not callable") as failed:
            gate(evaluation_dataset_id="1", **{argument: f"https://host/{CANARY}"}).execute(context)
        assert CANARY not in str(failed.value)
        assert sandbox.control.record()["requests"] == []

    @pytest.mark.parametrize("nothing", [None, [], ()])
    def test_no_callbacks_are_no_error(self, gate, context, log, nothing):
        assert gate(on_promoted=nothing, on_rejected=nothing).execute(context)["decision"] == "promoted"


def with_task(ti, task):
    ti.task = task
    return ti


class TestEvaluationDataset:
    def test_both_models_are_evaluated_on_the_same_dataset(self, gate, context, log, trained, sandbox):
        """Their recorded metrics are ignored."""
        log.add(model_id=trained.poor, metrics={"accuracy": 1.0}, measured_on="data 1")
        mine = {"model_id": trained.good, "metrics": {"accuracy": 0.0}}
        result = gate(candidate=mine, evaluation_dataset_id=trained.holdout).execute(context)
        assert result["decision"] == "promoted"
        assert result["candidate"]["measured_on"] == result["champion"]["measured_on"] == f"dataset {trained.holdout}"
        assert result["candidate"]["metrics"]["accuracy"] > result["champion"]["metrics"]["accuracy"]
        assert len(predictions(sandbox)) == 2

    def test_event_contains_nothing_of_the_evaluations(self, gate, context, log, trained):
        """No ``job_id``, ``kind`` or ``state`` of a prediction."""
        options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
        task = gate(**options)
        result = task.execute(context)
        decision = {key: result[key] for key in ("decision", "reasons", "rule", "candidate", "champion")}
        run = {"dag_id": "dag", "run_id": "run 5", "after": "2026-05-01T00:00:00+00:00"}
        assert log.new_event(task) == {**result["candidate"], "replaces": None, "run": run, "decision": decision}

    def test_deferred_gate_runs_each_evaluation_once(self, gate, context, log, trained, sandbox):
        log.add(model_id=trained.poor, metrics={}, measured_on="data 1")
        options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
        result = None
        events = 0
        run = gate(deferrable=True, **options).execute
        while result is None:
            try:
                result = run(context)
            except TaskDeferred as deferred:
                event = asyncio.run(anext(deferred.trigger.run())).payload
                task = gate(deferrable=True, **options)
                events += 1

                def run(context, task=task, event=event):
                    return task.resume_execution("execute_complete", {"event": event}, context)

        assert result["decision"] == "promoted"
        assert len(predictions(sandbox)) == 2 == events

    def test_retry_does_not_repeat_an_evaluation(self, gate, context, log, trained, sandbox, ti):
        """If the worker dies after an evaluation."""
        log.add(model_id=trained.poor, metrics={}, measured_on="data 1")
        options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
        gate(**options).execute(context)
        ti.xcoms.clear()  # as Airflow does before a new try
        assert gate(**options).execute(context)["decision"] == "promoted"
        assert len(predictions(sandbox)) == 2

    def test_failed_evaluation_fails_the_gate(self, gate, context, trained, sandbox):
        """It is not a rejection; a retry evaluates again."""
        sandbox.control.script("prediction", end="failed")
        options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
        with pytest.raises(OsaiJobFailed):
            gate(**options).execute(context)

    @pytest.mark.parametrize("empty", ["", "None", " null "])
    def test_empty_dataset_id_fails(self, gate, context, sandbox, empty):
        """It must not silently disable the evaluation."""
        with pytest.raises(AirflowFailException, match="id is empty. Does the upstream task return one"):
            gate(evaluation_dataset_id=empty).execute(context)
        assert predictions(sandbox) == []


@pytest.mark.parametrize("deferrable", [False, True])
class TestMissingChampion:
    """OSAI does not have the champion's model any more."""

    @pytest.fixture
    def run_gate(self, gate, context, log, trained, deferrable):
        """Run a gate to its end; OSAI does not have its champion."""
        log.add(model_id="deleted", metrics={"accuracy": 0.99}, measured_on="data 1", run=RUN_4)

        def run(**options):
            holdout = {"evaluation_dataset_id": trained.holdout}
            options = {"candidate": {"model_id": trained.good}, "deferrable": deferrable} | holdout | options
            return run_to_end(lambda: gate(**options), context)

        return run

    def test_error_names_the_champion_and_its_promotion(self, run_gate, logged):
        """The task fails without retries."""
        with pytest.raises(AirflowFailException) as failed:
            run_gate()
        for word in ("Champion model deleted", "missing at OSAI", "run 4", "Dag other", CHAMPION.uri, "2026-04-01"):
            assert word in str(failed.value)
        assert "if_champion_missing='ignore'" in str(failed.value)

    def test_ignored_champion_leaves_only_the_thresholds_and_is_a_reason(self, run_gate, logged):
        """``if_champion_missing`` may come from a template."""
        result = run_gate(if_champion_missing=" Ignore ", threshold=0.5)
        assert (result["decision"], result["champion"]) == ("promoted", None)
        assert "champion model deleted is missing at OSAI and was ignored" in result["reasons"][0]
        assert "Champion model deleted is missing at OSAI and is ignored" in logged()

    def test_ignored_champion_and_an_unmet_threshold_reject(self, run_gate, ti):
        with pytest.raises(AirflowSkipException, match=r"deleted is missing at OSAI.*required: at least 2"):
            run_gate(if_champion_missing="ignore", threshold=2.0)
        assert ti.xcoms["return_value"]["decision"] == "rejected"

    @pytest.mark.parametrize("status", [503, 401, 403])
    def test_outage_or_rejected_token_does_not_count_as_missing(self, run_gate, sandbox, status):
        """A later try may find the champion."""
        sandbox.control.fault("status", "model.get", times=50, status=status)
        sandbox.control.fault("status", "prediction.submit", times=50, after=1, status=status)
        with pytest.raises(Exception) as failed:
            run_gate(if_champion_missing="ignore", unreachable_timeout=0.01)
        assert "missing at OSAI" not in str(failed.value)

    @pytest.mark.parametrize("status", [404, 400])
    def test_404_of_an_api_that_cannot_read_models_does_not_count_as_missing(
        self, run_gate, sandbox, trained, status, log
    ):
        """It answers so for each model. Here the champion exists, and another request is refused."""
        log.add(model_id=trained.poor, replaces="deleted")
        sandbox.control.fault("status", "model.get", times=50, status=status)
        sandbox.control.fault("status", "dataset.get", times=50, status=404)
        sandbox.control.fault("status", "prediction.submit", times=50, after=1, status=status)
        with pytest.raises(AirflowFailException) as failed:
            run_gate(if_champion_missing="ignore")
        assert f"with {status}" in str(failed.value)
        assert "missing at OSAI" not in str(failed.value)

    def test_without_model_get_a_refused_prediction_shows_the_missing_model(self, run_gate, connection):
        """The dataset exists, so the model was not found."""
        connection(contract={"model.get": None})
        assert run_gate(if_champion_missing="ignore")["champion"] is None

    @pytest.fixture
    def second_job_fails(self, sandbox, monkeypatch):
        """Let the first prediction succeed and the second fail; *then* is called before the failure."""
        script_for, scripts = sandbox.control.script_for, [Script()]

        def arrange(then=lambda: None):
            def script(kind):
                if scripts or kind != "prediction":
                    return scripts.pop() if kind == "prediction" else script_for(kind)
                then()
                return Script(timing="immediate", end="failed")

            monkeypatch.setattr(sandbox.control, "script_for", script)

        return arrange

    @pytest.mark.parametrize("choice", ["fail", "ignore"])
    def test_failed_evaluation_of_an_existing_champion_fails_the_gate(
        self, run_gate, trained, log, second_job_fails, choice
    ):
        log.add(model_id=trained.poor, replaces="deleted")
        second_job_fails()
        with pytest.raises(OsaiJobFailed):
            run_gate(if_champion_missing=choice)

    def test_champion_deleted_while_its_evaluation_is_queued_counts_as_missing(
        self, run_gate, trained, log, second_job_fails, sandbox
    ):
        """OSAI accepts the job and reports only that it failed."""
        log.add(model_id=trained.poor, replaces="deleted")
        second_job_fails(then=lambda: sandbox.state.models.pop(trained.poor, None))
        assert run_gate(if_champion_missing="ignore")["champion"] is None

    @pytest.mark.parametrize("choice", ["fail", "ignore"])
    def test_recorded_metrics_decide_without_an_evaluation(self, run_gate, choice):
        """If OSAI has neither model, the champion does not count as missing."""
        options = {"evaluation_dataset_id": None, "allow_different_data": True, "if_champion_missing": choice}
        with pytest.raises(AirflowSkipException, match="better than 0.99"):
            run_gate(**options, candidate=candidate())

    def test_missing_champion_is_ignored_without_an_evaluation(self, run_gate, trained):
        """Otherwise a missing champion with unreachable metrics would block every promotion."""
        options = {"evaluation_dataset_id": None, "if_champion_missing": "ignore", "allow_different_data": True}
        result = run_gate(**options, candidate={"model_id": trained.good, "metrics": {"accuracy": 0.7}})
        assert (result["decision"], result["champion"]) == ("promoted", None)

    def test_invalid_if_champion_missing_fails_before_any_request(self, run_gate, sandbox):
        before = len(predictions(sandbox))
        with pytest.raises(AirflowFailException, match="if_champion_missing = 'skip'"):
            run_gate(if_champion_missing="skip")
        assert len(predictions(sandbox)) == before


RUN_4 = {"dag_id": "other", "run_id": "run 4", "after": "2026-04-01T00:00:00+00:00"}


def run_to_end(make, context):
    """Run a gate until it returns, with a new operator after each deferral as on a worker, and triggers inline."""
    run = make().execute
    while True:
        try:
            return run(context)
        except TaskDeferred as deferred:
            event = asyncio.run(anext(deferred.trigger.run())).payload
            task = make()

            def run(context, task=task, event=event):
                return task.resume_execution("execute_complete", {"event": event}, context)


def predictions(sandbox):
    return [job for job in sandbox.control.record()["jobs"] if job["kind"] == "prediction"]


class TestArguments:
    @pytest.mark.parametrize("wrong", [None, [], {}, {"metrics": {}}, "", "None", 5])
    def test_invalid_candidate_fails(self, gate, context, wrong):
        with pytest.raises(AirflowFailException, match="candidate"):
            gate(candidate=wrong).execute(context)

    @pytest.mark.parametrize("wrong", [{"min_improvement": -1}, {"metric": ""}, {"guardrail_metrics": {"f1": "x"}}])
    def test_invalid_policy_fails_and_names_the_argument(self, gate, context, wrong):
        with pytest.raises(AirflowFailException, match=next(iter(wrong))):
            gate(**wrong).execute(context)

    def test_champion_from_an_xcom_fails(self, gate, context, log, sandbox):
        """Airflow provides only the events of inlets that are known when the Dag is parsed."""
        context["inlet_events"] = {}
        with pytest.raises(AirflowFailException, match=r"champion = .*partial\(\)"):
            gate().execute(context)
        assert sandbox.control.record()["requests"] == []

    def test_mapped_gate_cannot_branch(self, gate, context, ti):
        """Airflow would run both branches."""
        ti.map_index = 0
        with pytest.raises(AirflowFailException, match=r"rejected_task_ids = 'notify'.*mapped gate"):
            gate(rejected_task_ids="notify").execute(context)

    def test_bare_model_id_is_a_candidate(self, gate, context, trained):
        """Its metrics come from OSAI."""
        result = gate(candidate=trained.good).execute(context)
        assert result["candidate"]["metrics"]["accuracy"] > 0.5

    def test_champion_is_added_to_inlets_and_outlets_and_one_gate_runs_at_a_time(self, gate):
        other = osai_model("other")
        task = gate(inlets=[other], outlets=[other])
        assert task.inlets == task.outlets == [other, CHAMPION]
        assert task.max_active_tis_per_dag == 1
        assert gate(max_active_tis_per_dag=3).max_active_tis_per_dag == 3


def test_execution_timeout_covers_all_evaluations(gate, context, log, trained, sandbox):
    """Each evaluation is shorter than the time limit; the one that runs when it has passed is cancelled."""
    log.add(model_id=trained.poor, metrics={"accuracy": 0.1})
    sandbox.control.script("prediction", timing="seconds", seconds=4)
    options = {"candidate": {"model_id": trained.good}, "evaluation_dataset_id": trained.holdout}
    with pytest.raises(Exception, match="execution_timeout"):
        gate(**options, execution_timeout=timedelta(seconds=6)).execute(context)
    assert [job["state"] for job in predictions(sandbox)] == ["succeeded", "cancelled"]
