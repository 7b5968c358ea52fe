"""The moment of the resume: outages, refused tokens and slow clocks do not turn a finished job into a failed task."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import time_machine
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_osai.api.errors import OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.hooks import shared_client
from airflow_provider_osai.hooks.background_tasks import running_tasks
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.triggers import job as job_trigger
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.airflow.conftest import event_of, trigger_of


@pytest.fixture
def make(connection, sandbox):
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id

    def operator(**options):
        return OsaiTrainModelOperator(
            task_id="task", dataset_ids=dataset, model_name="m", poll_interval=0.05, deferrable=True, **options
        )

    return operator


class TestOutage:
    """OSAI is out of reach just when the task resumes."""

    @pytest.mark.parametrize("fault", ["html", "status", "reset", "expired_token"])
    def test_a_passing_outage_is_outlasted(self, make, context, sandbox, fault):
        sandbox.control.script("training", "reads", reads=1)
        event = event_of(trigger_of(make(), context))
        sandbox.control.fault(fault, "training.get", times=2)
        assert make().execute_complete(context, event)["state"] == "succeeded"

    @pytest.mark.parametrize("fault", ["html", "expired_token"])
    def test_a_longer_one_is_retryable_and_the_retry_reconnects(self, make, context, sandbox, monkeypatch, fault):
        monkeypatch.setattr(lifecycle, "AUTH_TIMEOUT", 0.2)
        sandbox.control.script("training", "reads", reads=1)
        event = event_of(trigger_of(make(), context))
        sandbox.control.fault(fault, "*", times=10**6)
        with pytest.raises(OsaiJobLost, match="a retry reconnects"):
            make(unreachable_timeout=0.2).execute_complete(context, event)
        sandbox.control.clear_faults()
        assert make().execute(context)["job_id"] == event["job_id"]

    def test_a_token_that_is_refused_during_the_wait_is_retryable(self, make, context, sandbox, monkeypatch):
        monkeypatch.setattr(lifecycle, "AUTH_TIMEOUT", 0.2)
        sandbox.control.script("training", "reads", reads=10**6)
        trigger = trigger_of(make(unreachable_timeout=0.2), context)
        sandbox.state.accounts.rotate("canary-of-the-new-token")
        event = event_of(trigger)
        assert JobEvent.parse(event).outcome is Outcome.LOST
        with pytest.raises(OsaiJobLost):
            make(unreachable_timeout=0.2).execute_complete(context, event)


class TestSecretsBackend:
    """A backend that fails is an outage, not an end."""

    def test_a_read_that_fails_at_the_start_of_a_trigger_is_repeated(self, make, context, sandbox, monkeypatch):
        sandbox.control.script("training", "reads", reads=1)
        trigger = trigger_of(make(), context)
        settings, fails = OsaiHook.async_settings, iter([RuntimeError("canary of a vault"), KeyError("x")])

        async def failing(self):
            for error in fails:
                raise error
            return await settings(self)

        monkeypatch.setattr(OsaiHook, "async_settings", failing)
        monkeypatch.setattr(shared_client, "MAX_BACKOFF", 0.1)
        assert JobEvent.parse(event_of(trigger)).outcome is Outcome.ENDED

    def test_what_is_shared_already_goes_on(self, make, context, sandbox, monkeypatch):
        """The connection is read again after half a minute, and need not be readable then."""
        monkeypatch.setattr(shared_client, "CACHE_TTL", 0.0)

        async def main():
            first = await shared_client.acquire_shared_client(OsaiHook())

            async def failing(_):
                raise RuntimeError("canary of a vault")

            monkeypatch.setattr(OsaiHook, "async_settings", failing)
            second = await shared_client.acquire_shared_client(OsaiHook())
            for shared in (first, second):
                await shared_client.release_shared_client(shared)
            return first is second

        assert asyncio.run(main())

    def test_one_that_fails_for_good_ends_as_a_lost_job(self, make, context, sandbox, monkeypatch, logged):
        sandbox.control.script("training", "reads", reads=1)
        trigger = trigger_of(make(unreachable_timeout=0.3), context)

        async def failing(_):
            raise RuntimeError("canary of a vault")

        monkeypatch.setattr(OsaiHook, "async_settings", failing)
        event = JobEvent.parse(event_of(trigger))
        assert event.outcome is Outcome.LOST
        assert "canary of a vault" not in event.message + logged()


class TestDeadline:
    """It is one moment, whatever is started again."""

    def test_it_is_carried_through_the_trigger_and_its_event(self, make, context, ti, sandbox):
        """On 3.1 Airflow reports a new start time for a resumed task."""
        sandbox.control.script("training", "reads", reads=10**6)
        trigger = trigger_of(make(execution_timeout=timedelta(minutes=5)), context)
        event = JobEvent.stopped("training", trigger.job_id, RuntimeError(), deadline=trigger.deadline).payload()
        ti.start_date = datetime.now(UTC) + timedelta(minutes=4)
        with pytest.raises(TaskDeferred) as caught:
            make(execution_timeout=timedelta(minutes=5)).execute_complete(context, event)
        assert caught.value.trigger.deadline == trigger.deadline

    def test_a_trigger_that_died_does_not_start_it_anew(self, make, context, ti, sandbox):
        from airflow_provider_osai.compat import TaskDeferralError

        sandbox.control.script("training", "reads", reads=10**6)
        operator = make(execution_timeout=timedelta(minutes=5))
        trigger = trigger_of(operator, context)
        ti.start_date = datetime.now(UTC) + timedelta(minutes=4)
        monkey = make(execution_timeout=timedelta(minutes=5))
        with pytest.raises((TaskDeferred, TaskDeferralError)) as caught:
            monkey.resume_execution("__fail__", {"error": "Trigger failure"}, context)
        assert caught.value.trigger.deadline == trigger.deadline

    def test_a_job_that_the_trigger_cancelled_is_a_timeout(self, make, context, ti, sandbox):
        """And not a cancellation by somebody else."""
        sandbox.control.script("training", "reads", reads=10**6)
        trigger = trigger_of(make(), context)
        trigger.deadline = time.time() + 0.2
        event = event_of(trigger)
        assert sandbox.control.record()["jobs"][0]["state"] == "cancelled"
        with pytest.raises(OsaiJobTimeout, match="cancelled"):
            make(execution_timeout=timedelta(minutes=5)).execute_complete(context, event)

    def test_a_cancellation_that_does_not_get_through_is_tried_on(self, make, context, sandbox, monkeypatch):
        """In the background, while the task resumes."""
        monkeypatch.setattr(job_trigger, "CANCELLATION_TIMEOUT", 0.3)
        sandbox.control.script("training", "reads", reads=10**6)
        trigger = trigger_of(make(), context)
        trigger.deadline = time.time() + 0.2
        sandbox.control.fault("status", "training.cancel", times=3)

        async def main():
            event = (await anext(trigger.run())).payload
            state = sandbox.control.record()["jobs"][0]["state"]
            await asyncio.wait_for(asyncio.gather(*running_tasks), timeout=60)
            return event, state, sandbox.control.record()["jobs"][0]["state"]

        event, then, later = asyncio.run(main())
        assert (JobEvent.parse(event).outcome, then, later) == (Outcome.DEADLINE, "running", "cancelled")


class TestQuickJobs:
    """A job that ends right after the deferral must not meet the executor's late report (apache/airflow#71580)."""

    def test_the_event_is_held_back_for_a_moment(self, monkeypatch):
        trigger = OsaiJobTrigger(deferred_at=1000.0)
        assert trigger.hold_seconds(1001.0, 1000.5) == job_trigger.MIN_HOLD - 1.0
        assert trigger.hold_seconds(1000.0 + job_trigger.MIN_HOLD, 1000.5) == 0.0

    def test_the_longer_airflow_took_to_start_the_trigger_the_longer(self):
        trigger = OsaiJobTrigger(deferred_at=1000.0)
        assert trigger.hold_seconds(1006.0, 1006.0) == 6.0 * job_trigger.LATENCY_FACTOR - 6.0
        assert trigger.hold_seconds(1500.0, 1500.0) == 0.0
        assert OsaiJobTrigger(deferred_at=1000.0, start_latency=5.0).hold_seconds(1001.0, 1000.5) == 19.0

    def test_the_time_that_airflow_took_to_start_the_task_counts(self, make, context, ti, sandbox):
        sandbox.control.script("training", "reads", reads=10**6)
        now = datetime.now(UTC)
        ti.start_date = now - timedelta(seconds=7)
        with time_machine.travel(now, tick=False):
            assert trigger_of(make(), context).start_latency == pytest.approx(7)

    def test_a_trigger_of_an_older_version_is_not_held_back(self):
        assert OsaiJobTrigger().hold_seconds(time.time(), time.time()) == 0.0

    def test_in_a_triggerer_the_event_waits(self, make, context, sandbox, monkeypatch):
        """Run inline, as ``dag.test()`` does, it does not."""
        sandbox.control.script("training", "reads", reads=1)
        trigger = trigger_of(make(), context)
        held = []

        async def sleep(seconds):
            held.append(seconds)

        own = SimpleNamespace(**vars(asyncio) | {"sleep": sleep})
        monkeypatch.setattr(job_trigger, "asyncio", own)
        event_of(trigger)
        assert held == []
        trigger.trigger_id = 7
        monkeypatch.setattr(trigger, "hold_seconds", lambda now, started: 42.0)
        event_of(trigger)
        assert held == [42.0]


def test_a_late_duplicate_is_cancelled_at_the_end(make, context, sandbox):
    """A submission arrived after its client gave up and sent another one."""
    sandbox.control.script("training", "reads", reads=3)
    trigger = trigger_of(make(), context)
    key = sandbox.control.record()["jobs"][0]["reference"]
    sandbox.control.script("training", "reads", reads=10**6)
    from airflow_provider_osai.api.requests import TrainingRequest

    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.list_datasets("digits"))[0].id
        client.send(client.calls.submit_job(TrainingRequest(dataset_ids=[dataset], model_name="m"), key))
    event = event_of(trigger) | {"reference": key}
    assert make().execute_complete(context, event)["job_id"] == trigger.job_id
    assert [job["state"] for job in sandbox.control.record()["jobs"]] == ["succeeded", "cancelled"]


def test_a_kill_of_the_resumed_task_is_noticed_before_it_defers_again(make, context, sandbox):
    sandbox.control.script("training", "reads", reads=10**6)
    trigger = trigger_of(make(), context)
    task = make()
    event = JobEvent.stopped("training", trigger.job_id, RuntimeError()).payload()
    killer = threading.Thread(target=task.on_kill)
    killer.start()
    killer.join()
    from airflow_provider_osai.api.errors import OsaiJobCancelled

    with pytest.raises((OsaiJobCancelled, OsaiJobLost)):
        task.execute_complete(context, event)


class TestWhichJob:
    """An event of the trigger of an earlier try does not decide for which job this try waits."""

    def test_the_event_of_this_try_is_believed_without_a_call_to_airflow(self, make, context, sandbox):
        sandbox.control.script("training", "reads", reads=1)
        event = event_of(trigger_of(make(), context))
        del context["ti"].xcoms["osai_job"]
        assert make().execute_complete(context, event)["job_id"] == event["job_id"]

    @pytest.mark.parametrize("task_try", ["1/5", "2/0", "", None, 7])
    def test_that_of_another_try_is_not(self, make, context, sandbox, task_try):
        sandbox.control.script("training", "reads", reads=1)
        event = event_of(trigger_of(make(), context))
        result = make().execute_complete(context, event | {"job_id": "of-before", "task_try": task_try})
        assert result["job_id"] == event["job_id"]
