"""The job trigger: its arguments, its event, outages and kills."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_osai.triggers import cancellation
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.conftest import CANARY
from tests.waiting import async_until

ARGUMENTS = {
    "osai_conn_id": "c",
    "kind": "training",
    "job_id": "7",
    "since": 1.5,
    "deadline": 2.5,
    "poll_interval": 3.0,
    "max_unreachable": 4.0,
    "deferrals": 1,
    "cancel_on_kill": False,
    "shortest_interval": 0.5,
    "version": 1,
    "until_ready": False,
    "cancel_at_deadline": False,
    "deferred_at": 5.5,
    "reference": "key",
    "start_latency": 0.7,
    "task_try": "2/3",
    "stop_when": {"patience": 3},
}
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
"""Triggers as released versions wrote them. Never change one; add one when the arguments change."""


def test_the_arguments_round_trip_through_json():
    """They are stored in Airflow's database and read by another process."""
    path, arguments = OsaiJobTrigger(**ARGUMENTS).serialize()
    assert path == "airflow_provider_osai.triggers.job.OsaiJobTrigger"
    assert json.loads(json.dumps(arguments)) == ARGUMENTS
    assert OsaiJobTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, ARGUMENTS)


def test_triggers_of_older_versions_are_recreated_unchanged():
    """A task that was deferred before an upgrade continues after it."""
    assert GOLDEN
    for golden in GOLDEN:
        path, arguments = json.loads(golden.read_text())
        module, _, name = path.rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**arguments)
        assert trigger.serialize()[1].items() >= arguments.items()


@pytest.mark.parametrize("arguments", [{}, {"kind": None, "job_id": 7}, {"from_a_newer_version": {"x": 1}}])
def test_the_constructor_accepts_any_arguments(arguments):
    """An exception would stop the triggerer."""
    assert OsaiJobTrigger(**arguments).serialize()


def first_event(trigger: OsaiJobTrigger) -> JobEvent:
    """Run the trigger and return its only event."""

    async def main():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(main())
    assert json.loads(json.dumps(payload)) == payload
    assert CANARY not in json.dumps(payload)
    return JobEvent.parse(payload)


@pytest.fixture
def job(sandbox, connection):
    """Submit a training that the sandbox simulates; return a trigger that waits for it."""
    from airflow_provider_osai.api.requests import TrainingRequest
    from airflow_provider_osai.hooks.osai import OsaiHook

    def submit(*script: object, **options: object) -> OsaiJobTrigger:
        sandbox.control.script("training", *script, **{k: options.pop(k) for k in ("reads", "end") if k in options})
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("d"))
            request = TrainingRequest(dataset_ids=[dataset.id], model_name="m")
            job_id = client.send(client.calls.submit_job(request, "r")).id
        defaults = {"kind": "training", "job_id": job_id, "since": time.time(), "poll_interval": 0.05}
        return OsaiJobTrigger(**defaults | options)

    return submit


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_each_end_fires_one_event(job, end):
    """The task decides what it means."""
    event = first_event(job("reads", reads=3, end=end))
    assert (event.outcome, event.state) == (Outcome.ENDED, end)


def test_without_cancel_at_deadline_the_job_is_kept_at_the_deadline(job, sandbox):
    trigger = job("reads", reads=10**6, deadline=time.time() + 0.2, cancel_at_deadline=False)
    assert first_event(trigger).outcome is Outcome.DEADLINE
    assert "training.cancel" not in sandbox.control.record()["counts"]


def test_the_job_is_cancelled_at_the_deadline_without_a_worker(job, sandbox):
    """The Dag may be paused, or the pool full."""
    trigger = job("reads", reads=10**6, deadline=time.time() + 0.2)
    event = first_event(trigger)
    assert (event.outcome, event.deadline) == (Outcome.DEADLINE, trigger.deadline)
    assert sandbox.control.record()["jobs"][0]["state"] == "cancelled"


def test_a_short_outage_is_tolerated(job, sandbox):
    """Connection resets, web pages and malformed JSON do not end the wait."""
    trigger = job("reads", reads=4)
    for fault in ("reset", "malformed", "html", "expired_token", "unknown_state"):
        sandbox.control.fault(fault, "training.*")
    assert first_event(trigger).state == "succeeded"


def test_a_longer_outage_is_lost(job, sandbox):
    """The task decides; the job is not cancelled."""
    trigger = job("reads", reads=4, max_unreachable=0.1)
    sandbox.control.fault("html", "training.*", times=10**6)
    assert first_event(trigger).outcome is Outcome.LOST


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "brewing"},
        {"osai_conn_id": "no such connection"},
        {"since": "yesterday"},
        {"poll_interval": None},
        {"job_id": None},
    ],
)
def test_an_invalid_argument_fires_an_event(job, arguments):
    trigger = job("reads", reads=10**6, deadline=time.time() + 2)
    for name, value in arguments.items():
        setattr(trigger, name, value)
    assert first_event(trigger).outcome is not Outcome.ENDED


def test_a_token_that_is_rotated_during_a_wait_is_read_again(job, sandbox, connection, monkeypatch):
    trigger = job("reads", reads=10**6)
    (record,) = sandbox.state.jobs.all_jobs()

    async def main():
        events = asyncio.ensure_future(anext(trigger.run()))
        await async_until(lambda: record.reads >= 2)
        sandbox.state.accounts.rotate("canary-of-the-new-token")
        document = {"conn_type": "osai", "password": "canary-of-the-new-token", "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        reads = record.reads
        await async_until(lambda: record.reads > reads + 1)
        sandbox.control.end(record.id)
        return (await events).payload

    assert JobEvent.parse(asyncio.run(main())).state == "succeeded"


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    monkeypatch.setattr(cancellation, "RECHECK_INTERVAL", 0.02)
    monkeypatch.setattr(cancellation, "TRANSITION_TIMEOUT", 0.1)
    monkeypatch.setattr(cancellation, "ON_KILL_TIMEOUT", 60.0)
    monkeypatch.setattr(cancellation, "STATE_TIMEOUT", 0.5)


killed_job_ids: list[str] = []


def job_xcom(job_id):
    """Stand in for Airflow's XComs of a task, of which one names its job."""
    return lambda *, key, **of: {"osai_job": {"kind": "training", "job_id": job_id()}}[key]


"""The jobs of the killed triggers."""


class TestKill:
    """The state of its task decides whether the job of a stopped trigger is cancelled."""

    @pytest.fixture
    def killed(self, job, sandbox, mocker):
        """Kill a trigger whose task is in the given state; return the state of its job."""

        def kill(task_state: object, **options: object) -> str:
            answer = {"side_effect": task_state} if isinstance(task_state, Exception) else {"return_value": task_state}
            mocker.patch("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", **answer)
            trigger = job("reads", reads=10**6, **options)
            killed_job_ids.append(trigger.job_id)
            trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=2)
            asyncio.run(trigger.on_kill())
            return sandbox.control.record()["jobs"][0]["state"]

        return kill

    @pytest.mark.parametrize("state", ["failed", "success", "skipped", "scheduled", "queued", "running", None])
    @pytest.mark.parametrize("key", ["t", "t_2"])
    def test_the_job_of_a_marked_or_cleared_task_is_cancelled(self, killed, state, key):
        """Mapped or not."""
        assert killed({"r": {key: state}}) == "cancelled"

    @pytest.mark.parametrize("states", [{"r": {"t_2": "deferred"}}, RuntimeError("no answer")])
    def test_the_job_of_a_deferred_or_unreadable_task_is_kept(self, killed, states):
        """The trigger was only moved, or its task is unknown."""
        assert killed(states) in ("queued", "running")

    @pytest.mark.parametrize("states", [{"r": {}}, {"r": {"other": "deferred"}}, {}])
    def test_the_job_of_a_deleted_task_is_cancelled(self, killed, states):
        """Its run or Dag was deleted: Airflow's response does not contain the task."""
        assert killed(states) == "cancelled"

    def test_the_job_of_a_task_that_will_be_retried_is_kept(self, killed):
        """A kill does not lead to this state; the retry reconnects."""
        assert killed({"r": {"t": "up_for_retry"}}) in ("queued", "running")

    @pytest.mark.skipif(not cancellation.HAS_ON_KILL, reason="no XComs are read before Airflow 3.3")
    @pytest.mark.parametrize("state", ["deferred", "running"])
    def test_the_old_job_of_a_task_with_a_new_job_is_cancelled(self, killed, mocker, state):
        """It was cleared, and its new try submitted another job."""
        mocker.patch.object(cancellation.XCom, "get_one", side_effect=job_xcom(lambda: "another"))
        assert killed({"r": {"t": state}}) == "cancelled"

    @pytest.mark.skipif(not cancellation.HAS_ON_KILL, reason="no XComs are read before Airflow 3.3")
    def test_the_job_of_a_resumed_task_is_kept(self, killed, mocker):
        """A frozen triggerer may continue after another one has resumed the task."""
        mocker.patch.object(cancellation.XCom, "get_one", side_effect=job_xcom(lambda: killed_job_ids[-1]))
        assert killed({"r": {"t": "running"}}) in ("queued", "running")

    @pytest.mark.parametrize("value", ["no dict", {}, {"job_id": None}, OSError("no API server")], ids=repr)
    def test_a_deferred_task_whose_job_cannot_be_read_keeps_it(self, killed, mocker, value):
        """A user who may edit XComs must not get jobs cancelled by mistake."""
        effect = {"side_effect": value} if isinstance(value, Exception) else {"return_value": value}
        mocker.patch.object(cancellation.XCom, "get_one", **effect)
        assert killed({"r": {"t": "deferred"}}) in ("queued", "running")

    def test_the_device_of_a_succeeded_task_is_kept(self, killed, mocker):
        """A task that was marked success by hand would have no return value."""
        mocker.patch.object(cancellation.XCom, "get_one", return_value={"device_id": "d"})
        assert killed({"r": {"t": "success"}}, until_ready=True) in ("queued", "running")

    def test_a_cancellation_is_retried_during_an_outage(self, killed, sandbox, logged):
        """The task log says that the job may still run."""
        sandbox.control.fault("html", "training.get", times=2)
        assert killed({"r": {"t": "failed"}}) == "cancelled"
        assert "may still run" in logged()

    def test_with_cancel_on_kill_off_the_job_is_kept(self, killed):
        assert killed({"r": {"t_2": "failed"}}, cancel_on_kill=False) in ("queued", "running")

    def test_a_job_that_has_ended_is_not_cancelled(self, job, sandbox, mocker):
        """A webhook may have resumed the task before."""
        states = {"return_value": {"r": {"t": "running"}}}
        mocker.patch("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", **states)
        trigger = job("immediate")
        trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
        asyncio.run(trigger.on_kill())
        assert "training.cancel" not in sandbox.control.record()["counts"]

    @pytest.mark.parametrize(("state", "is_kept"), [("deferred", True), ("failed", False)])
    def test_before_3_3_a_cancelled_trigger_checks_its_task(self, job, sandbox, mocker, state, is_kept):
        """Airflow gives no reason for a cancellation; CancelledError is re-raised in any case."""
        mocker.patch("airflow_provider_osai.triggers.job.HAS_ON_KILL", False)
        states = {"return_value": {"r": {"t": state}}}
        mocker.patch("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", **states)
        trigger = job("reads", reads=10**6)
        trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)

        async def main():
            waiting = asyncio.ensure_future(anext(trigger.run()))
            await async_until(lambda: sandbox.control.record()["jobs"][0]["state"], "running")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(main())
        assert (sandbox.control.record()["jobs"][0]["state"] in ("queued", "running")) is is_kept

    def test_an_on_kill_that_is_cancelled_still_cancels_the_job(self, job, sandbox, mocker):
        """Airflow 3.3 cancels a stopped trigger repeatedly while ``on_kill`` runs."""

        asked, answer = threading.Event(), threading.Event()

        def slow(**_):
            asked.set()
            assert answer.wait(30)
            return {"r": {"t": "failed"}}

        mocker.patch("airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", slow)
        trigger = job("reads", reads=10**6)
        trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)

        async def main():
            kill = asyncio.ensure_future(trigger.on_kill())
            assert await asyncio.to_thread(asked.wait, 30)
            kill.cancel()
            with pytest.raises(asyncio.CancelledError):
                await kill
            answer.set()
            await async_until(lambda: sandbox.control.record()["jobs"][0]["state"], "cancelled")

        asyncio.run(main())
        assert sandbox.control.record()["jobs"][0]["state"] == "cancelled"

    @pytest.mark.parametrize("broken", [{"kind": "brewing"}, {"osai_conn_id": "none such"}, {"task_instance": None}])
    def test_on_kill_never_raises(self, job, broken):
        trigger = job("reads", reads=10**6)
        for name, value in broken.items():
            setattr(trigger, name, value)
        asyncio.run(trigger.on_kill())


def test_a_cancelled_trigger_re_raises_and_keeps_its_job(job, sandbox):
    """A triggerer that stops hands over its triggers; it does not cancel their jobs."""
    trigger = job("reads", reads=10**6)

    async def main():
        waiting = asyncio.create_task(anext(trigger.run()))
        await async_until(lambda: sandbox.control.record()["jobs"][0]["state"], "running")  # from the first poll on
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.cleanup()

    asyncio.run(main())
    assert sandbox.control.record()["jobs"][0]["state"] == "running"
