"""What all job operators do, on one of them: submit once, wait, tell the truth, end in the right error."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiAuthError,
    OsaiJobCancelled,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiJobTimeout,
    OsaiRequestError,
)
from airflow_provider_osai.api.models import Job
from airflow_provider_osai.compat import TaskDeferralError
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.triggers.event import JobEvent, Outcome

FOREVER = {"timing": "reads", "reads": 10**6}


@pytest.fixture
def make(dataset, sandbox):
    """Make a training operator, and script what the sandbox does with its job."""

    def operator(timing="immediate", **options):
        script = {name: options.pop(name) for name in ("reads", "seconds", "end", "message", "word") if name in options}
        sandbox.control.script("training", timing, **script)
        defaults = {"task_id": "task", "dataset_ids": [dataset], "model_name": "m", "poll_interval": 0.05}
        return OsaiTrainModelOperator(**defaults | options)

    return operator


def deferred(operator, context) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value


def event(outcome: Outcome, jobs, **fields) -> dict:
    (job,) = jobs()
    return JobEvent(kind="training", job_id=job["id"], outcome=outcome, **fields).payload()


class TestExecute:
    """Up to the end of the job, or to the deferral."""

    def test_job_id_and_link_are_pushed_as_soon_as_the_job_is_submitted(self, make, context, ti, sandbox, jobs):
        """So that they show while it runs, and when it fails; after its end with how it ended."""
        with pytest.raises(OsaiJobFailed):
            make(end="failed").execute(context)
        (job,) = jobs()
        about = {"kind": "training", "job_id": job["id"], "conn_id": "osai_default"}
        assert ti.xcoms == {
            "osai_job": about | {"state": "failed", "simulated": True},
            "osai_portal_link": f"{sandbox.portal_url}/trainings/{job['id']}",
        }

    def test_a_job_that_has_already_ended_is_not_deferred_on(self, make, context):
        """No triggerer is needed for what is known."""
        assert make(deferrable=True).execute(context)["state"] == "succeeded"

    def test_a_deferral_carries_references_only(self, make, context, logged, jobs):
        """No token, no JWT."""
        defer = deferred(make(**FOREVER, deferrable=True, execution_timeout=timedelta(hours=1)), context)
        _, arguments = defer.trigger.serialize()
        assert arguments["job_id"] == jobs()[0]["id"]
        assert "canary" not in repr(defer.trigger) + repr(defer.kwargs)
        assert defer.timeout > timedelta(hours=1)
        assert arguments["deadline"] == pytest.approx(context["ti"].start_date.timestamp() + 3600)

    @pytest.mark.parametrize(("end", "error"), [("failed", OsaiJobFailed), ("cancelled", OsaiJobCancelled)])
    def test_every_bad_end_has_its_error_with_osais_reason(self, make, context, end, error):
        """And leaves Airflow's retries to work."""
        with pytest.raises(error, match="out of memory"):
            make("reads", reads=2, end=end, message="out of memory").execute(context)

    def test_the_deadline_counts_from_the_tasks_start_and_stops_the_job(self, make, context, ti, jobs):
        """Not from when the waiting began."""
        ti.start_date = datetime.now(UTC) - timedelta(minutes=10)
        with pytest.raises(OsaiJobTimeout, match=r"execution_timeout of 0:05:00; it was cancelled"):
            make(**FOREVER, execution_timeout=timedelta(minutes=5)).execute(context)
        assert jobs()[0]["state"] == "cancelled"

    def test_a_job_that_cannot_be_stopped_is_said_to_go_on(self, make, context, ti, connection, jobs):
        """Somebody must look into the portal."""
        connection(contract={"training.cancel": None})
        ti.start_date = datetime.now(UTC) - timedelta(minutes=10)
        with pytest.raises(OsaiJobTimeout, match="cancelling it failed, it may continue"):
            make(**FOREVER, execution_timeout=timedelta(minutes=5)).execute(context)
        assert jobs()[0]["state"] == "running"

    def test_an_outage_too_long_loses_the_job_and_leaves_it_running(self, make, context, sandbox, jobs):
        """A retry adopts it."""
        sandbox.control.fault("html", "training.get", times=10**6)
        with pytest.raises(OsaiJobLost, match="not cancelled"):
            make(**FOREVER, unreachable_timeout=0.2).execute(context)
        assert jobs()[0]["state"] in ("queued", "running")


class TestRetry:
    """One live job for each task, whatever is tried."""

    def test_a_retry_adopts_the_job_that_an_earlier_try_left_running(self, make, context, ti, jobs):
        """After a crash."""
        deferred(make(**FOREVER, deferrable=True), context)
        ti.try_number = 2
        deferred(make(**FOREVER, deferrable=True), context)
        assert len(jobs()) == 1

    def test_a_retry_after_a_failed_job_submits_a_new_one(self, make, context, jobs):
        """That is what retries are for."""
        with pytest.raises(OsaiJobFailed):
            make(end="failed").execute(context)
        assert make().execute(context)["state"] == "succeeded"
        assert sorted(job["state"] for job in jobs()) == ["failed", "succeeded"]

    @pytest.mark.parametrize("change", [{"run_id": "r2"}, {"map_index": 0}, {"max_tries": 1}, {"task_id": "t2"}])
    def test_another_run_map_index_or_a_cleared_task_gets_its_own_job(self, make, context, ti, jobs, change):
        """Never the result of another."""
        make().execute(context)
        if "max_tries" not in change:
            context.pop("task_state_store", None)  # Airflow's is of one task instance
        for name, value in change.items():
            setattr(ti, name, value)
        make().execute(context)
        assert len(jobs()) == 2

    def test_a_cleared_tasks_live_job_is_cancelled_before_a_new_one_is_submitted(self, make, context, ti, jobs):
        """One job bills, not two."""
        deferred(make(**FOREVER, deferrable=True), context)
        ti.max_tries, ti.try_number = 1, 2
        deferred(make(**FOREVER, deferrable=True), context)
        assert [job["state"] == "cancelled" for job in jobs()] == [True, False]

    def test_other_arguments_get_another_job_and_the_old_one_is_cancelled(self, make, context, jobs):
        """Where the task remembers it: a retry never returns the result of other arguments."""
        deferred(make(**FOREVER, deferrable=True), context)
        deferred(make(**FOREVER, deferrable=True, model_name="other"), context)
        assert [job["state"] == "cancelled" for job in jobs()] == ["task_state_store" in context, False]

    def test_a_memory_of_a_newer_version_is_no_obstacle(self, make, context, jobs):
        """After a downgrade OSAI's list tells."""
        make().execute(context)
        if "task_state_store" in context:
            context["task_state_store"].set("osai_job", {"version": 9, "all": "different"})
        make().execute(context)
        assert len(jobs()) == 1

    def test_without_durability_every_try_submits(self, make, context, ti, jobs):
        """If the user wants it so."""
        for ti.try_number in (1, 2):
            make(durable=False).execute(context)
        assert len(jobs()) == 2

    @pytest.mark.parametrize("fault", ["reset", "reset_before", "status", "malformed"])
    def test_a_submission_that_breaks_leaves_exactly_one_job(self, make, context, sandbox, jobs, fault):
        """Before or after OSAI accepted it."""
        sandbox.control.fault(fault, "training.submit")
        assert make().execute(context)["state"] == "succeeded"
        assert len(jobs()) == 1


class TestResume:
    """What OSAI says counts, not the event."""

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_a_job_that_succeeded_is_a_success_whatever_the_event_says(self, make, context, jobs, outcome):
        """A deadline's event may arrive late."""
        make().execute(context)
        done = make().execute_complete(context, event(outcome, jobs, state="failed"))
        assert done["state"] == "succeeded"

    def test_an_event_that_claims_success_of_a_running_job_defers_again(self, make, context, jobs):
        """Success is never taken from a messenger."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        with pytest.raises(TaskDeferred) as again:
            operator.execute_complete(context, event(Outcome.ENDED, jobs, state="succeeded"))
        assert again.value.trigger.deferrals == 1

    def test_a_deadlines_event_stops_the_job(self, make, context, jobs):
        """The worker cancels; the trigger only reads."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        with pytest.raises(OsaiJobTimeout, match="it was cancelled"):
            operator.execute_complete(context, event(Outcome.DEADLINE, jobs))
        assert jobs()[0]["state"] == "cancelled"

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_an_event_about_a_job_of_before_does_not_end_the_wait_for_this_one(self, make, context, jobs, outcome):
        """After a clear, the old trigger may see its job cancelled, and Airflow wake the new try with that."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        stale = JobEvent(kind="training", job_id="earlier", outcome=outcome, state="cancelled").payload()
        with pytest.raises(TaskDeferred) as again:
            operator.execute_complete(context, stale)
        assert again.value.trigger.job_id == jobs()[0]["id"]
        assert jobs()[0]["state"] in ("queued", "running")

    def test_a_trigger_that_always_stops_does_not_defer_for_ever(self, make, context, jobs):
        """Five times."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        with pytest.raises(OsaiJobLost, match="its trigger stopped 6 times"):
            operator.execute_complete(context, event(Outcome.ERROR, jobs, deferrals=5, message="KeyError"))

    def test_a_deferral_that_airflow_ended_stops_the_job(self, make, context, jobs):
        """No triggerer ran until after the deadline."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        with pytest.raises(OsaiJobTimeout, match="it was cancelled"):
            operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        assert jobs()[0]["state"] == "cancelled"

    def test_a_trigger_that_died_is_replaced_on_the_same_job_a_few_times(self, make, context, jobs):
        """The job lives all the while; at last the task says so, and a retry adopts it."""
        operator = make(**FOREVER, deferrable=True)
        deferred(operator, context)
        for _ in range(5):
            with pytest.raises(TaskDeferred) as again:
                operator.resume_execution("__fail__", {"error": "Trigger failure"}, context)
            assert again.value.trigger.job_id == jobs()[0]["id"]
        with pytest.raises(OsaiJobLost, match="its trigger stopped 6 times"):
            operator.resume_execution("__fail__", {"error": "Trigger failure"}, context)
        assert [job["state"] for job in jobs()] == ["running"]

    def test_a_trigger_that_died_after_the_end_is_no_failure(self, make, context):
        """What OSAI says counts."""
        make().execute(context)
        assert make().resume_execution("__fail__", {"error": "Trigger failure"}, context)["state"] == "succeeded"

    def test_a_deferral_that_failed_before_there_was_a_job_is_passed_on(self, make, context):
        """There is nothing to wait for."""
        with pytest.raises(TaskDeferralError):
            make().resume_execution("__fail__", {"error": "Trigger failure"}, context)

    def test_an_event_that_says_nothing_is_no_success(self, make, context):
        """Nor the end: a retry finds the job, if there is one."""
        with pytest.raises(OsaiJobLost, match="names the job"):
            make().execute_complete(context, {"status": "success"})

    def test_an_event_of_a_newer_version_is_a_reason_to_read_the_job(self, make, context, jobs):
        """Its words are not known, and its job may run or have ended."""
        trigger = deferred(make(timing="reads", reads=1, deferrable=True), context).trigger
        news = {"job_id": trigger.job_id, "outcome": "paused", "state": "thinking", "version": 7}
        assert make().execute_complete(context, news)["state"] == "succeeded"


class TestKill:
    """What happens to the job when the task is killed on a worker."""

    def killed(self, operator, context, jobs, before=lambda: None):
        """Kill the task as soon as its job is there, and *before* has happened."""
        stop = threading.Event()

        def kill():
            while not stop.is_set() and not (jobs() and operator._job):
                stop.wait(0.01)
            before()
            operator.on_kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            return operator.execute(context)
        finally:
            stop.set()
            killer.join()

    def test_the_job_is_cancelled_and_the_task_does_not_succeed(self, make, context, jobs):
        """A killed task never ends in success."""
        with pytest.raises(OsaiJobCancelled):
            self.killed(make(**FOREVER), context, jobs)
        assert jobs()[0]["state"] == "cancelled"

    def test_with_cancel_on_kill_off_the_job_lives(self, make, context, jobs):
        """The retry adopts it."""
        with pytest.raises(OsaiJobLost, match="a retry reconnects"):
            self.killed(make(**FOREVER, cancel_on_kill=False), context, jobs)
        assert jobs()[0]["state"] == "running"

    def test_before_submission_there_is_nothing_to_cancel(self, make, jobs):
        """And no error."""
        make().on_kill()
        assert jobs() == []

    def test_a_kill_that_comes_during_submission_cancels_what_was_submitted(self, make, context, jobs):
        """The id was not known when the signal came."""
        operator = make(**FOREVER)
        operator.on_kill()
        with pytest.raises(OsaiJobCancelled):
            operator.execute(context)
        assert jobs()[0]["state"] == "cancelled"

    @pytest.mark.parametrize("how", [{"deferrable": True}, {"wait_for_completion": False}], ids=["deferred", "left"])
    def test_a_job_that_was_handed_over_is_left_alone(self, make, context, jobs, how):
        """A worker may get SIGTERM while its process only cleans up after the task."""
        operator = make(**{**FOREVER, **how})
        with contextlib.suppress(TaskDeferred):
            operator.execute(context)
        operator.on_kill()
        assert jobs()[0]["state"] in ("queued", "running")

    def test_a_job_that_has_ended_is_left_alone(self, make, context, sandbox):
        """Cancelling might undo what it made."""
        operator = make()
        operator.execute(context)
        operator.on_kill()
        assert "training.cancel" not in sandbox.control.record()["counts"]

    def test_a_kill_signs_in_anew_only_if_it_must_and_asks_airflow_for_nothing(
        self, make, context, sandbox, jobs, monkeypatch
    ):
        """It may come while the task talks to its supervisor, and would wait for itself."""
        with pytest.raises(OsaiJobCancelled):
            self.killed(make(**FOREVER), context, jobs, lambda: monkeypatch.delenv("AIRFLOW_CONN_OSAI_DEFAULT"))
        record = sandbox.control.record()
        assert record["jobs"][0]["state"] == "cancelled"
        assert record["counts"]["auth.sign_in"] == 2  # the fixture's and the task's

    def test_a_kill_during_an_outage_is_brief_and_no_error(self, make, context, sandbox, jobs):
        """It says that somebody must look."""
        with pytest.raises(OsaiJobCancelled):
            self.killed(make(**FOREVER), context, jobs, lambda: sandbox.control.fault("status", "*", times=10**6))
        assert jobs()[0]["state"] in ("queued", "running")


class TestBadInput:
    """Named before anything is sent, and not retried."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"model_name": "a b"}, "model_name = 'a b'"),
            ({"dataset_ids": []}, "dataset_ids"),
            ({"model_type": "poetry"}, "model_type = 'poetry'"),
            ({"framework": "caffe"}, "framework = 'caffe'"),
            ({"poll_interval": 0}, "poll_interval = 0"),
            ({"poll_interval": "often"}, "poll_interval = 'often'"),
            ({"unreachable_timeout": float("nan")}, "unreachable_timeout = nan"),
        ],
    )
    def test_a_bad_value_fails_for_good_and_nothing_is_sent(self, make, context, sandbox, options, said):
        """The cause is an OsaiError, for those who look."""
        before = len(sandbox.control.record()["requests"])
        with pytest.raises(AirflowFailException, match=said) as caught:
            make(**options).execute(context)
        assert isinstance(caught.value.__cause__, OsaiArgumentError)
        assert len(sandbox.control.record()["requests"]) == before

    def test_a_refused_token_fails_for_good(self, make, context, connection, sandbox, monkeypatch):
        """Retrying does not mend it."""
        operator = make()
        monkeypatch.setenv(
            "AIRFLOW_CONN_OSAI_DEFAULT",
            f'{{"conn_type": "osai", "password": "x", "extra": {{"base_url": "{sandbox.base_url}"}}}}',
        )
        with pytest.raises(AirflowFailException) as caught:
            operator.execute(context)
        assert isinstance(caught.value.__cause__, OsaiAuthError)

    def test_a_request_that_osai_refuses_fails_for_good(self, make, context):
        """A dataset that is not there."""
        with pytest.raises(AirflowFailException) as caught:
            make(dataset_ids=["no-such"]).execute(context)
        assert isinstance(caught.value.__cause__, OsaiRequestError)


class TestSimulated:
    """What the sandbox made up never looks like the result of a real OSAI."""

    @pytest.fixture
    def warned(self, logged):
        """The lines of the task's log that warn of it."""
        return lambda: [line for line in logged().splitlines() if "is simulated" in line and "warning" in line]

    def test_a_result_has_the_key_and_the_log_a_warning(self, make, context, warned):
        assert make().execute(context)["simulated"] is True
        (warning,) = warned()
        assert "no model was trained" in warning

    def test_a_deferred_task_too(self, make, context, jobs, warned):
        """In the log of the task, by which nobody looks into the triggerer's."""
        trigger = deferred(make("reads", reads=1, deferrable=True), context).trigger
        payload = asyncio.run(anext(trigger.run())).payload
        assert make().execute_complete(context, payload)["simulated"] is True
        assert len(warned()) == 1

    def test_a_task_that_does_not_wait_too(self, make, context, warned):
        assert make("reads", reads=9, wait_for_completion=False).execute(context)["simulated"] is True
        assert len(warned()) == 1

    def test_a_job_that_fails_as_it_was_told_to_too(self, make, context, warned):
        with pytest.raises(OsaiJobFailed):
            make(end="failed", message="out of memory").execute(context)
        assert len(warned()) == 1
        about = context["ti"].xcoms["osai_job"]
        assert (about["state"], about["simulated"]) == ("failed", True)  # for the list of jobs

    def test_a_rented_device_too(self, connection, context, warned):
        rent = OsaiRentDeviceOperator(task_id="task", device="jetson", duration=60, poll_interval=0.05)
        assert rent.execute(context)["simulated"] is True
        assert len(warned()) == 1

    @pytest.mark.parametrize("told", [None, False, "no idea", [], {}])
    def test_an_osai_that_does_not_say_so_gives_results_without_the_key(self, make, context, warned, connection, told):
        """Nor does nonsense count."""
        row = {"response": {"simulated": "elsewhere"}} if told is None else {}
        connection(contract={"training.get": row, "training.submit": row} if row else {})
        assert "simulated" not in Job(kind="training", id="1", state="succeeded", simulated=told).references()
        if row:
            assert "simulated" not in make().execute(context)
            assert warned() == []

    def test_a_training_that_ignores_what_was_asked_for_says_so_in_the_log(self, connection, context, images, logged):
        """The job is real; its framework is not the one that was asked for."""
        with OsaiHook().get_conn() as client:
            dataset_id = client.send(client.calls.create_dataset("digits")).id
        OsaiUploadImagesOperator(task_id="task", dataset_id=dataset_id, source=str(images)).execute(context)
        train = OsaiTrainModelOperator(
            task_id="task", dataset_ids=[dataset_id], model_name="m", framework="PyTorch", poll_interval=0.05
        )
        assert "simulated" not in train.execute(context)
        assert "ignored by the sandbox: framework" in logged()
