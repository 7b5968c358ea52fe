"""A batch of jobs in one task: each job as durable as that of a task of its own, and all killed together."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.errors import (
    OsaiInvalidData,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
)
from airflow_provider_osai.jobs import submission
from airflow_provider_osai.operators.batch import OsaiJobBatchOperator
from airflow_provider_osai.triggers.batch import OsaiJobBatchTrigger
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance, event_of, run_when, trigger_of

FOREVER = {"timing": "reads", "reads": 10**6}
NAMES = [f"m{number}" for number in range(5)]


@pytest.fixture
def make(dataset, sandbox):
    """Make a batch of trainings, and script what the sandbox does with its jobs."""

    def operator(timing="immediate", **options):
        names = ("reads", "seconds", "end", "message", "invalid_data")
        script = {name: options.pop(name) for name in names if name in options}
        sandbox.control.script("training", timing, **script)
        defaults = {"task_id": "task", "kind": "training", "argument": "model_name", "requests": NAMES}
        common = {"arguments": {"dataset_ids": [dataset]}, "poll_interval": 0.05}
        return OsaiJobBatchOperator(**defaults | common | options)

    return operator


def to_the_end(make, context, **options):
    """Run the task as workers and a triggerer do; return its result and the number of its deferrals."""
    resume, deferrals = make(**options).execute, 0
    arguments = (context,)
    while True:
        try:
            return resume(*arguments), deferrals
        except TaskDeferred as deferred:
            deferrals += 1
            path, kwargs = deferred.trigger.serialize()
            assert path == "airflow_provider_osai.triggers.batch.OsaiJobBatchTrigger"
            event = event_of(OsaiJobBatchTrigger(**json.loads(json.dumps(kwargs))))
            options.pop("timing", None)
            resume, arguments = make(**options, timing="immediate").execute_complete, (context, event)


def live(jobs):
    """Count the jobs that have not ended."""
    return sum(job["state"] in ("queued", "running") for job in jobs())


class TestResults:
    """They come in the order of the requests."""

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_a_list_with_the_ids_and_metrics_of_each_job(self, make, context, jobs, deferrable):
        results, deferrals = to_the_end(make, context, timing="reads", reads=2, deferrable=deferrable)
        assert deferrals == int(deferrable)
        assert [result["job_id"] for result in results] == [job["id"] for job in jobs()]
        assert [result["index"] for result in results] == [0, 1, 2, 3, 4]
        assert {result["state"] for result in results} == {"succeeded"}
        assert all(result["simulated"] is True and "metrics" in result for result in results)
        json.dumps(results)

    def test_requests_as_dicts_take_precedence_over_the_common_arguments(self, make, context, dataset, monkeypatch):
        requests = [{"model_name": "a"}, {"model_name": "b", "parameters": {"epochs": 3}, "data_digest": "d1"}]
        batch = make(argument=None, requests=requests, arguments={"dataset_ids": [dataset], "model_name": "common"})
        sent = []
        submit = OsaiApi.submit_job
        monkeypatch.setattr(OsaiApi, "submit_job", lambda *args: (sent.append(args[1]), submit(*args))[1])
        results = batch.execute(context)
        assert [result.get("data_digest") for result in results] == [None, "d1"]
        assert [request.model_name for request in sent] == ["a", "b"]
        assert [request.parameters for request in sent] == [None, {"epochs": 3}]

    def test_no_requests_are_no_jobs(self, make, context, jobs):
        assert make(requests=[]).execute(context) == []
        assert jobs() == []

    def test_the_log_says_how_many_ended_and_the_task_pushes_little(self, make, context, logged):
        make().execute(context)
        assert "5 OSAI training jobs: 5 succeeded" in logged()
        assert set(context["ti"].xcoms) == {"osai_batch"}

    def test_it_can_be_mapped_like_other_operators(self, dataset):
        with DAG("d", schedule=None):
            mapped = OsaiJobBatchOperator.partial(
                task_id="t", kind="training", argument="model_name", arguments={"dataset_ids": [dataset]}
            ).expand(requests=[["a", "b"], ["c"]])
        one = mapped.unmap({"requests": ["a", "b"]})
        assert (one.requests, one.multiple_outputs) == (["a", "b"], False)
        with pytest.raises(TypeError, match="wait_for_completion"):
            OsaiJobBatchOperator.partial(task_id="t", kind="training", wait_for_completion=False)


class TestInFlight:
    """``max_in_flight`` bounds the jobs that run at the same time."""

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_more_are_submitted_when_half_have_ended(self, make, context, sandbox, jobs, deferrable):
        most = []
        batch = {"timing": "reads", "reads": 2, "max_in_flight": 2, "deferrable": deferrable}
        submit = sandbox.control.script_for

        def counting(kind):
            most.append(sum(job["state"] in ("queued", "running") for job in jobs()))
            return submit(kind)

        sandbox.control.script_for = counting
        make_again = lambda **options: make(**options | {"timing": "reads", "reads": 2})
        results, deferrals = to_the_end(make_again, context, **batch)
        assert len(results) == len(jobs()) == 5
        assert max(most) <= 2
        assert deferrals >= 3 if deferrable else deferrals == 0

    def test_a_clear_and_a_retry_respect_the_maximum_too(self, make, context, jobs):
        """Twelve jobs that have succeeded are no permission to run twelve at the same time."""
        names = [f"m{number}" for number in range(12)]
        make(requests=names, max_in_flight=2).execute(context)
        context["ti"] = FakeTaskInstance(try_number=2, max_tries=2)
        trigger = trigger_of(make(**FOREVER, requests=names, max_in_flight=2, deferrable=True), context)
        assert len(trigger.job_ids) == live(jobs) == 2
        assert len(jobs()) == 14
        context["ti"].try_number = 3
        assert trigger_of(make(**FOREVER, requests=names, max_in_flight=2, deferrable=True), context).job_ids == (
            trigger.job_ids
        )
        assert len(jobs()) == 14


class TestFailures:
    """What fails, and what a retry does."""

    def test_by_default_the_task_fails_and_a_retry_submits_the_failed_ones_only(self, make, dataset, sandbox, jobs, ti):
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        batch = make(argument=None, requests=[{"model_name": name} for name in NAMES])
        sandbox.control.script("training", "immediate", end="failed", message="out of memory")
        with pytest.raises(OsaiJobFailed, match=r"1 of 5 .*: requests\[0\] failed; 4 were not submitted"):
            batch.execute(context)
        assert len(jobs()) == 1
        ti.try_number = 2
        results = make().execute(context)
        assert [result["state"] for result in results] == ["succeeded"] * 5
        assert len(jobs()) == 6

    def test_collect_returns_the_failures_too(self, make, context, jobs):
        results = make(end="failed", message="out of memory", on_failure="collect").execute(context)
        assert len(jobs()) == 5
        assert {(result["state"], result["metrics"] == {}) for result in results} == {("failed", True)}
        assert all("out of memory" in result["message"] for result in results)

    @pytest.mark.parametrize(("most", "submitted"), [(0, 1), (2, 3), (0.5, 3), ("2", 3)])
    def test_collect_fails_above_the_maximum(self, make, context, jobs, most, submitted):
        with pytest.raises(OsaiJobFailed, match="did not succeed"):
            make(end="failed", on_failure="collect", max_failures=most).execute(context)
        assert len(jobs()) == submitted

    def test_a_share_is_not_a_rounding_error_short(self, make, context, jobs):
        """0.29 * 100 is 28.999... as a float."""
        bad, good = {"model_name": "a", "dataset_ids": ["no-such"]}, {"model_name": "b"}
        requests = [*[bad] * 29, *[good] * 71]
        make(argument=None, requests=requests, on_failure="collect", max_failures=0.29).execute(context)
        assert len(jobs()) == 71

    def test_a_rejected_request_is_a_failure_of_its_job_alone(self, make, context, dataset, jobs):
        requests = [{"model_name": "a"}, {"model_name": "b", "dataset_ids": ["no-such"]}, {"model_name": "c"}]
        results = make(argument=None, requests=requests, on_failure="collect").execute(context)
        assert [result["state"] for result in results] == ["succeeded", "rejected", "succeeded"]
        assert results[1]["job_id"] is None
        assert "404" in results[1]["message"] or "400" in results[1]["message"]

    def test_a_rejected_request_fails_the_task_without_retries_when_the_others_have_ended(self, make, context, jobs):
        requests = [{"model_name": "a"}, {"model_name": "b", "dataset_ids": ["no-such"]}, {"model_name": "c"}]
        with pytest.raises(AirflowFailException, match=r"requests\[1\] rejected; 1 were not submitted"):
            make("reads", reads=3, argument=None, requests=requests).execute(context)
        assert [job["state"] for job in jobs()] == ["succeeded"]

    def test_after_a_rejection_no_more_are_submitted_although_the_task_was_deferred(self, make, context, jobs, sandbox):
        requests = [{"model_name": "a"}, {"model_name": "b", "dataset_ids": ["no-such"]}, *[{"model_name": "c"}] * 10]
        with pytest.raises(AirflowFailException, match=r"requests\[1\] rejected; 10 were not submitted. OSAI rejected"):
            to_the_end(make, context, timing="reads", reads=2, argument=None, requests=requests, deferrable=True)
        assert [job["state"] for job in jobs()] == ["succeeded"]
        assert sandbox.control.record()["counts"]["training.submit"] == 2

    def test_a_rejected_request_is_not_sent_again_after_each_deferral(self, make, context, jobs, sandbox):
        requests = [{"model_name": "b", "dataset_ids": ["no-such"]}, *[{"model_name": "c"}] * 6]
        options = {"argument": None, "requests": requests, "max_in_flight": 2, "on_failure": "collect"}
        results, deferrals = to_the_end(make, context, timing="reads", reads=2, deferrable=True, **options)
        assert deferrals > 0
        assert [result["state"] for result in results] == ["rejected", *["succeeded"] * 6]
        assert "no-such" in results[0]["message"]
        assert sandbox.control.record()["counts"]["training.submit"] == 7

    def test_what_data_spoils_is_not_retried(self, make, context, jobs):
        """As with a task for each job."""
        with pytest.raises(AirflowFailException, match="its data or arguments") as caught:
            make(requests=["m0"], end="failed", invalid_data=True).execute(context)
        assert isinstance(caught.value.__cause__, OsaiInvalidData)

    def test_as_many_rejections_as_may_fail_do_not_prevent_a_retry(self, make, context, jobs):
        """A retry submits what failed for another reason."""
        requests = [{"model_name": "a", "dataset_ids": ["no-such"]}, {"model_name": "b"}, {"model_name": "c"}]
        options = {"argument": None, "requests": requests, "on_failure": "collect", "max_failures": 1}
        with pytest.raises(OsaiJobFailed, match="2 of 3 jobs did not succeed"):
            make(end="failed", **options).execute(context)
        context["ti"].try_number = 2
        assert [result["state"] for result in make(**options).execute(context)] == ["rejected", *["succeeded"] * 2]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"requests": {"m0", "m1"}}, "a list is needed"),
            ({"requests": frozenset(["m0"])}, "a list is needed"),
            ({"kind": "device_rental"}, "a batch takes training"),
            ({"kind": "poetry"}, "must be one of"),
            ({"requests": "m1"}, "a list is needed"),
            ({"requests": {"model_name": "a"}}, "a list is needed"),
            ({"requests": None}, "a list is needed"),
            ({"argument": None}, r"requests\[0\] = 'm0': a dict is needed"),
            ({"argument": "colour"}, r"requests\[0\] has colour; the arguments are dataset_ids"),
            ({"argument": "osai_conn_id"}, r"requests\[0\] has osai_conn_id"),
            ({"requests": ["ok", "not ok"]}, r"requests\[1\]: .*model_name = 'not ok'"),
            ({"arguments": {}}, r"requests\[0\]: .*dataset_ids"),
            ({"requests": ["m"] * 5001}, "at most 5,000"),
            ({"max_in_flight": 0}, "max_in_flight = 0"),
            ({"max_in_flight": "many"}, "max_in_flight = 'many'"),
            ({"max_in_flight": 2.5}, "max_in_flight = 2.5: a whole number"),
            ({"on_failure": "ignore"}, "on_failure = 'ignore'"),
            ({"on_failure": "collect", "max_failures": -1}, "max_failures = -1"),
            ({"poll_interval": 0}, "poll_interval = 0"),
        ],
    )
    def test_an_invalid_value_fails_for_good_before_anything_is_sent(self, make, context, sandbox, options, said):
        before = len(sandbox.control.record()["requests"])
        with pytest.raises(AirflowFailException, match=said):
            make(**options).execute(context)
        assert len(sandbox.control.record()["requests"]) == before


class TestRetries:
    """A retry finds the jobs of the earlier try."""

    def test_it_reconnects_to_all_that_run(self, make, context, jobs):
        trigger = trigger_of(make(**FOREVER, deferrable=True), context)
        context["ti"] = FakeTaskInstance(try_number=2)
        again = trigger_of(make(**FOREVER, deferrable=True), context)
        assert len(jobs()) == 5
        assert again.job_ids == trigger.job_ids
        assert again.job_id == trigger.job_id

    def test_what_is_missing_is_submitted_and_what_is_not_needed_any_more_cancelled(self, make, jobs, ti):
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        trigger_of(make(**FOREVER, deferrable=True), context)
        ti.try_number = 2
        trigger_of(make(**FOREVER, deferrable=True, requests=["m0", "other", "m2"]), context)
        assert [job["state"] == "cancelled" for job in jobs()] == [False, True, False, True, True, False]

    def test_after_a_clear_all_are_cancelled_and_submitted_again(self, make, context, jobs):
        trigger_of(make(**FOREVER, deferrable=True), context)
        context["ti"] = FakeTaskInstance(try_number=2, max_tries=2)
        trigger_of(make(**FOREVER, deferrable=True), context)
        assert [job["state"] == "cancelled" for job in jobs()] == [True] * 5 + [False] * 5

    def test_a_batch_that_is_not_durable_submits_all_again(self, make, context, jobs):
        for number in (1, 2):
            context["ti"] = FakeTaskInstance(try_number=number)
            make(durable=False).execute(context)
        assert len(jobs()) == 10

    def test_equal_requests_are_jobs_of_their_own(self, make, context, jobs):
        results = make(requests=["same", "same"]).execute(context)
        assert len({result["job_id"] for result in results}) == len(jobs()) == 2

    def test_a_hundred_jobs_need_few_writes_and_no_lookups(self, make, ti, sandbox):
        store = FakeStateStore()
        writes = []
        put = store.set
        store.set = lambda key, value: (writes.append(key), put(key, value))
        make(requests=[f"m{number}" for number in range(100)]).execute({"ti": ti, "task_state_store": store})
        assert len(writes) <= 20
        assert max(len(value) for value in store.kept.values()) < 20_000
        counts = sandbox.control.record()["counts"]
        assert counts["training.submit"] == 100
        assert counts["training.list"] <= 2

    def test_without_a_list_a_lost_id_fails_rather_than_doubles(self, make, ti, connection, jobs):
        connection(contract={"training.list": None})
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        trigger_of(make(**FOREVER, deferrable=True), context)
        store = context["task_state_store"]
        value = store.get("osai_batch_0")
        del value["jobs"]["4"]["id"]
        store.set("osai_batch_0", value)
        ti.try_number = 2
        with pytest.raises(OsaiJobLost, match="it is unknown whether the job exists"):
            make(**FOREVER, deferrable=True).execute(context)
        assert len(jobs()) == 5

    def test_a_checkpoint_of_a_newer_version_is_not_overlooked(self, make, ti, jobs):
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        trigger_of(make(**FOREVER, deferrable=True), context)
        store = context["task_state_store"]
        store.set("osai_batch_0", {"version": 9, "tasks": "elsewhere"})
        ti.try_number = 2
        trigger_of(make(**FOREVER, deferrable=True), context)
        assert len(jobs()) == 5  # found by their keys


class TestTheEnd:
    """Kills, deadlines and outages are of all jobs."""

    def test_a_kill_cancels_all(self, make, context, jobs):
        operator = make(**FOREVER)
        with run_when(lambda: len(jobs()) == 5, operator.on_kill), pytest.raises(OsaiJobCancelled):
            operator.execute(context)
        assert [job["state"] for job in jobs()] == ["cancelled"] * 5

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_at_the_deadline_all_are_cancelled_and_a_retry_submits_them_again(self, make, context, jobs, deferrable):
        options = {"deferrable": deferrable, "execution_timeout": timedelta(seconds=3)}
        with pytest.raises(OsaiJobTimeout, match="0 of 5 jobs succeeded within"):
            to_the_end(make, context, **FOREVER, **options)
        assert [job["state"] for job in jobs()] == ["cancelled"] * 5
        context["ti"] = FakeTaskInstance(try_number=2)
        assert [result["state"] for result in make().execute(context)] == ["succeeded"] * 5
        assert len(jobs()) == 10

    def test_an_outage_is_waited_out(self, make, context, sandbox, jobs):
        operator = make("reads", reads=3)
        with run_when(jobs, lambda: sandbox.control.fault("status", "training.*", times=6)):
            assert len(operator.execute(context)) == len(jobs()) == 5

    def test_an_outage_that_lasts_loses_no_job(self, make, context, sandbox, jobs):
        trigger = trigger_of(make(**FOREVER, deferrable=True, unreachable_timeout=1), context)
        sandbox.control.fault("status", "training.*", times=10**6)
        event = event_of(trigger)
        assert event["outcome"] == "lost"
        with pytest.raises(OsaiJobLost):
            make(**FOREVER, unreachable_timeout=1).execute_complete(context, event)
        assert {job["state"] for job in jobs()} <= {"queued", "running"}

    def test_a_job_that_osai_does_not_have_any_more_is_a_failure_of_its_own(self, make, context, sandbox, jobs):
        trigger = trigger_of(make("reads", reads=2, deferrable=True), context)
        gone = trigger.job_ids[0]
        results = make("immediate", on_failure="collect").execute_complete(
            context | {"ti": with_ids(context["ti"], gone, "no-such")}, event_of(trigger)
        )
        assert [result["state"] for result in results] == ["lost"] + ["succeeded"] * 4

    def test_a_job_that_was_submitted_late_and_twice_is_cancelled_also_after_a_deferral(
        self, make, context, sandbox, jobs, monkeypatch
    ):
        """Its first submission seemed to have failed, so it was sent again."""
        sandbox.control.fault("reset", "training.submit", times=1)
        with monkeypatch.context() as patched:
            patched.setattr(submission, "find_jobs", lambda *_: [])  # a proxy holds the first one back
            results, deferrals = to_the_end(make, context, timing="reads", reads=3, requests=["m0"], deferrable=True)
        assert (len(results), deferrals) == (1, 1)
        assert sorted(job["state"] for job in jobs()) == ["cancelled", "succeeded"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_token_that_is_rejected_meanwhile_leaves_no_jobs_behind(self, make, ti, sandbox, jobs, status):
        """The task is retried, and its retry reconnects: nothing would ask for the jobs any more otherwise."""
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        trigger_of(make(**FOREVER, requests=NAMES[:3], deferrable=True), context)
        ti.try_number = 2
        sandbox.control.fault("status", "training.list", status=status, times=10**6)
        sandbox.control.fault("status", "training.get", status=status, times=10**6)
        sandbox.control.fault("status", "training.submit", status=status, times=10**6)
        with pytest.raises(OsaiJobLost, match=r"a retry reconnects|cannot be read now"):
            make(**FOREVER, on_failure="collect", unreachable_timeout=0.2).execute(context)
        sandbox.control.clear_faults()
        ti.try_number = 3
        assert len(trigger_of(make(**FOREVER, deferrable=True), context).job_ids) == 5
        assert [job["state"] for job in jobs()].count("cancelled") == 0
        assert len(jobs()) == 5

    def test_a_token_that_is_rejected_in_the_middle_is_retried(self, make, ti, sandbox, jobs):
        context = {"ti": ti, "task_state_store": FakeStateStore()}
        sandbox.control.fault("status", "training.submit", status=401, times=100, after=3)
        with pytest.raises(OsaiJobLost, match=r"submitting more jobs failed .*None was cancelled"):
            make(**FOREVER).execute(context)
        sandbox.control.clear_faults()
        ti.try_number = 2
        assert len(trigger_of(make(**FOREVER, deferrable=True), context).job_ids) == len(jobs()) == 5

    def test_a_token_that_is_rejected_from_the_start_is_not_retried(self, make, context, sandbox):
        sandbox.control.fault("status", "training.submit", status=401, times=100)
        with pytest.raises(AirflowFailException, match="401"):
            make(**FOREVER).execute(context)

    def test_a_failed_trigger_is_replaced_a_few_times(self, make, context, jobs):
        trigger_of(make(**FOREVER, deferrable=True), context)
        for _ in range(5):
            operator = make(**FOREVER, deferrable=True)
            with pytest.raises(TaskDeferred):
                resume_failed(operator, context)
        with pytest.raises(OsaiJobLost, match="its trigger stopped 6 times"):
            resume_failed(make(**FOREVER, deferrable=True), context)
        assert len(jobs()) == 5

    def test_an_event_of_another_batch_does_not_end_the_wait(self, make, context, jobs):
        trigger_of(make(**FOREVER, deferrable=True), context)
        event = {"kind": "training", "job_id": "of-before-the-clear", "outcome": "ended"}
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute_complete(context, event)

    @pytest.mark.parametrize("event", [None, {}, {"outcome": "newer", "job_id": 5, "more": 1}])
    def test_an_unknown_event_only_has_the_jobs_read(self, make, context, event):
        trigger_of(make("reads", reads=1, deferrable=True), context)
        assert len(make("immediate").execute_complete(context, event)) == 5


def with_ids(ti, old, new):
    batch = ti.xcoms["osai_batch"]
    batch["job_ids"] = [new if job_id == old else job_id for job_id in batch["job_ids"]]
    return ti


def resume_failed(operator, context):
    """Resume a task whose trigger failed, as Airflow does."""
    error = {"error": "Trigger failure", "traceback": ["boom"]}
    return operator.resume_execution("__fail__", error, context)


class TestWebhooks:
    @pytest.fixture
    def webhooks(self, connection, dataset):
        def configure(**extra):
            connection(webhook_base_url="http://127.0.0.1:9", webhook_secret="canary-webhook-secret", **extra)

        configure()
        return configure

    @pytest.fixture
    def urls(self, monkeypatch):
        """The webhook URLs with which jobs were submitted."""
        urls = []
        submit = OsaiApi.submit_job
        monkeypatch.setattr(OsaiApi, "submit_job", lambda *args: (urls.append(args[3]), submit(*args))[1])
        return urls

    def test_all_jobs_have_the_webhook_of_the_task_and_are_polled_slowly(self, make, context, urls, webhooks):
        trigger = trigger_of(make(**FOREVER, deferrable=True), context)
        assert len(urls) == 5
        assert len(set(urls)) == 1
        assert urls[0].startswith("http://127.0.0.1:9/osai/webhook/")
        assert (trigger.poll_interval, trigger.shortest_interval) == (600.0, 600.0)

    def test_with_use_webhook_off_they_are_polled(self, make, context, urls, webhooks):
        assert trigger_of(make(**FOREVER, deferrable=True, use_webhook=False), context).poll_interval == 0.05
        assert set(urls) == {None}

    def test_a_blocking_task_has_none(self, make, context, urls, webhooks):
        make(deferrable=False).execute(context)
        assert set(urls) == {None}

    def test_an_api_without_a_list_has_none(self, make, context, urls, webhooks):
        """A webhook has the other jobs read, which would be a request for each."""
        webhooks(contract={"training.list": None})
        assert trigger_of(make(**FOREVER, deferrable=True), context).poll_interval == 0.05
        assert set(urls) == {None}
        with pytest.raises(AirflowFailException, match=r"use_webhook = True: a batch needs training\.list"):
            make(**FOREVER, deferrable=True, use_webhook=True).execute(context)

    def test_required_webhooks_need_a_connection_that_is_configured(self, make, context):
        with pytest.raises(AirflowFailException, match="webhook"):
            make(**FOREVER, deferrable=True, use_webhook=True).execute(context)


def test_lineage_has_the_inputs_and_outputs_of_all_jobs(make, context, dataset):
    batch = make()
    results = batch.execute(context)
    lineage = batch.get_openlineage_facets_on_complete(None)
    assert [each.name for each in lineage.inputs] == [f"datasets/{dataset}"]
    assert [each.name for each in lineage.outputs] == [f"models/{result['model_id']}" for result in results]
    assert lineage.run_facets["osai_job"].kind == "training"


def test_lineage_of_a_failed_batch_has_what_was_made(make, context, dataset):
    batch = make(end="failed")
    with pytest.raises(OsaiJobFailed):
        batch.execute(context)
    lineage = batch.get_openlineage_facets_on_failure(None)
    assert [each.name for each in lineage.inputs] == [f"datasets/{dataset}"]
    assert lineage.outputs == []
