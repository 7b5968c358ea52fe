"""What is counted of a job's life, where it is sent, and that a failing backend fails no task."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_osai.api import misfits
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiError, OsaiJobCancelled, OsaiJobFailed, OsaiJobLost, OsaiJobTimeout
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.jobs.submission import Submission
from airflow_provider_osai.observability import metrics
from airflow_provider_osai.operators.base import fail_without_retry
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor
from airflow_provider_osai.triggers import cancellation
from airflow_provider_osai.triggers.cancellation import KilledTask
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance, event_of, trigger_of
from tests.conftest import CANARY, settings_for
from tests.stats import Recorder, StatsdServer, initialize_stats


@pytest.fixture
def switched_on(monkeypatch):
    """Metrics are on, as far as the provider looks."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    metrics.enabled.cache_clear()
    yield
    metrics.enabled.cache_clear()


@pytest.fixture
def recorded(switched_on, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(metrics, "_stats", lambda: recorder)
    return recorder


@pytest.fixture
def context(ti):
    return {"ti": ti, "task_state_store": FakeStateStore()}


class TestJob:
    """Of one job that a task submits and waits for."""

    @pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "on a worker"])
    def test_a_job_that_succeeds(self, train, context, sandbox, recorded, deferrable):
        sandbox.control.script("training", "reads", reads=2)
        operator = train(deferrable=deferrable)
        if deferrable:
            operator.execute_complete(context, event_of(trigger_of(operator, context)))
        else:
            operator.execute(context)
        assert recorded.counts["osai.job.submitted{kind=training}"] == 1
        assert recorded.counts["osai.job.succeeded{kind=training}"] == 1
        polls = [key for key in recorded.counts if key.startswith("osai.poll.requests{kind=training,operation=")]
        assert sum(recorded.counts[key] for key in polls) >= 2
        assert not [key for key in recorded.counts if "failed" in key or "failures" in key or "lost" in key]
        assert set(recorded.times) == {
            "osai.job.duration{kind=training,state=succeeded}",
            "osai.job.queued_duration{kind=training}",
            "osai.job.wait_duration{kind=training,state=succeeded}",
        }

    @pytest.mark.parametrize(("end", "error"), [("failed", OsaiJobFailed), ("cancelled", OsaiJobCancelled)])
    def test_a_job_that_ends_badly_and_the_one_of_the_retry(self, train, context, sandbox, recorded, end, error):
        sandbox.control.script("training", "immediate", end=end)
        with pytest.raises(error):
            train().execute(context)
        assert recorded.counts[f"osai.job.{end}{{kind=training}}"] == 1
        assert recorded.counts["osai.job.resubmitted{kind=training}"] == 0
        sandbox.control.script("training", "immediate")
        train().execute(context)
        assert recorded.counts["osai.job.submitted{kind=training}"] == 2
        assert recorded.counts["osai.job.resubmitted{kind=training}"] == 1
        assert recorded.counts["osai.job.succeeded{kind=training}"] == 1

    def test_a_retry_that_reconnects_submits_nothing(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "reads", reads=3)
        with pytest.raises(TaskDeferred):
            train(deferrable=True).execute(context)
        train().execute(context)
        assert recorded.counts["osai.job.submitted{kind=training}"] == 1
        assert recorded.counts["osai.job.reconnected{kind=training}"] == 1

    @pytest.mark.parametrize("durable", [True, False])
    def test_a_submission_without_a_response_is_repeated(self, train, context, sandbox, recorded, durable):
        sandbox.control.script("training", "immediate")
        sandbox.control.fault("status", "training.submit", times=1)
        train(durable=durable).execute(context)
        assert recorded.counts["osai.submission.repeated{kind=training}"] == 1
        assert recorded.counts["osai.job.submitted{kind=training}"] == 1

    def test_a_lost_job_and_its_failed_polls(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "reads", reads=10**6)
        with pytest.raises(TaskDeferred):
            train(deferrable=True).execute(context)
        sandbox.control.fault("status", "*", times=10**6)
        operator = train(unreachable_timeout=0.2)
        with pytest.raises(OsaiJobLost):
            operator.execute_complete(
                context, {"kind": "training", "job_id": context["ti"].xcoms["osai_job"]["job_id"], "outcome": "ended"}
            )
        assert recorded.counts["osai.job.lost{kind=training}"] == 1
        assert recorded.counts["osai.poll.failures{kind=training,operation=get}"] >= 1

    def test_a_job_at_its_deadline(self, train, context, sandbox, recorded, monkeypatch):
        monkeypatch.setattr(lifecycle, "END_POLLS", 1)
        sandbox.control.script("training", "reads", reads=10**6)
        operator = train()
        operator.carried_deadline = 1.0
        with pytest.raises(OsaiJobTimeout):
            operator.execute(context)
        assert recorded.counts["osai.job.timed_out{kind=training}"] == 1
        assert not [key for key in recorded.counts if key.startswith("osai.job.cancelled")]

    def test_a_device_that_is_ready_has_no_duration_yet(self, connection, context, sandbox, recorded):
        OsaiRentDeviceOperator(task_id="task", device="camera", duration=3600, poll_interval=0.05).execute(context)
        assert recorded.counts["osai.job.ready{kind=device_rental}"] == 1
        assert "osai.job.wait_duration{kind=device_rental,state=ready}" in recorded.times
        assert not [key for key in recorded.times if key.startswith("osai.job.duration")]

    def test_a_sensor_counts_the_end_and_its_pokes(self, connection, context, sandbox, recorded):
        sandbox.control.script("training", "immediate")
        with OsaiHook().get_conn() as client:
            dataset = client.create_dataset("d").id
            request = OsaiTrainModelOperator(task_id="x", dataset_ids=dataset, model_name="m").build_request()
            job = client.submit_job(request, "key")
        OsaiJobSensor(task_id="task", kind="training", job_id=job.id, poke_interval=0.1).execute(context)
        assert recorded.counts["osai.job.succeeded{kind=training}"] == 1
        assert recorded.counts["osai.poll.requests{kind=training,operation=get}"] >= 1
        assert "osai.job.submitted{kind=training}" not in recorded.counts


def ended_job(**times):
    return Job(kind=JobKind.TRAINING, id="7", state="succeeded", **times)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"created_at": "2026-11-28T10:00:00Z", "started_at": "2026-11-28T10:01:30Z"}, {"queued": 90.0}),
        ({"started_at": "2026-11-28T10:00:00Z", "finished_at": "2026-11-28T12:00:00+01:00"}, {"run": 3600.0}),
        ({"created_at": "2026-11-28T10:00:00Z", "started_at": "2026-11-28T09:59:59Z"}, {}),
        ({"created_at": "yesterday", "started_at": "", "finished_at": None}, {}),
        ({}, {}),
    ],
    ids=["queued", "ran, with another time zone", "clock set back", "not times", "no times"],
)
def test_times_are_those_that_osai_reports_and_none_is_made_up(recorded, times, expected):
    metrics.count_job_over(ended_job(**times))
    names = {
        "osai.job.queued_duration{kind=training}": "queued",
        "osai.job.duration{kind=training,state=succeeded}": "run",
    }
    assert {names[key]: values[0] for key, values in recorded.times.items()} == expected


class TestKill:
    """Of jobs whose task was killed."""

    def killed(self, job_id="1"):
        return KilledTask(
            ti=FakeTaskInstance(),
            hook=OsaiHook(),
            kind="training",
            job_id=job_id,
            job_ids=(job_id,),
            job_key="job_id",
            unreachable_timeout=0.0,
            log=SimpleNamespace(**dict.fromkeys(LEVELS, print)),
        )

    @pytest.fixture(autouse=True)
    def ended_task(self, monkeypatch):
        async def state(_ti):
            return "failed"

        monkeypatch.setattr(cancellation, "task_state", state)

    def test_a_cancelled_job(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "reads", reads=10**6)
        with pytest.raises(TaskDeferred):
            train(deferrable=True).execute(context)
        asyncio.run(self.killed(context["ti"].xcoms["osai_job"]["job_id"]).cancel_jobs())
        assert recorded.counts["osai.job.cancelled_by_kill{kind=training}"] == 1

    def test_a_job_that_had_ended_is_not_counted(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "immediate")
        result = train().execute(context)
        asyncio.run(self.killed(result["job_id"]).cancel_jobs())
        assert not [key for key in recorded.counts if "kill" in key or "cancel" in key]

    def test_a_cancellation_that_fails(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "reads", reads=10**6)
        with pytest.raises(TaskDeferred):
            train(deferrable=True).execute(context)
        sandbox.control.fault("status", "*", times=10**6)
        asyncio.run(self.killed(context["ti"].xcoms["osai_job"]["job_id"]).cancel_jobs())
        assert recorded.counts["osai.job.cancel_failed{kind=training}"] == 1

    def test_a_kill_on_a_worker(self, train, context, sandbox, recorded):
        sandbox.control.script("training", "reads", reads=10**6)
        operator = train(wait_for_completion=False)
        operator._context = context
        with operator._connected() as client, suppress(OsaiError):
            operator._submit(
                client, operator.build_request(), context, SimpleNamespace(deadline=None, unreachable_timeout=1.0)
            )
            operator.on_kill()
        assert recorded.counts["osai.job.cancelled_by_kill{kind=training}"] == 1

    def test_a_process_that_is_moved_loses_no_job(self, train, context, recorded):
        operator = train(cancel_on_kill=False)
        operator._job = (JobKind.TRAINING, "7")
        operator._killed = True
        with pytest.raises(OsaiJobLost), fail_without_retry():
            operator._raise_if_killed()
        assert not recorded.counts


LEVELS = ("debug", "info", "warning", "error", "exception")


class TestContract:
    """Responses that differ from the contract."""

    @pytest.mark.parametrize(
        ("answer", "key"),
        [
            ({"status": "brewing"}, "osai.contract.misfits{operation=training.get,problem=word}"),
            ({"status": "running", "progress": "half"}, "osai.contract.misfits{operation=training.get,problem=type}"),
            ({"status": "running", "progress": 55}, "osai.contract.misfits{operation=training.get,problem=scale}"),
        ],
        ids=["unknown word", "type", "percent"],
    )
    def test_a_misfit_is_counted_once_in_a_process(self, recorded, answer, key):
        misfits._warn_about_fraction.cache_clear()
        body = json.dumps({"id": 7, **answer}).encode()
        transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=httpx.ByteStream(body)))
        settings = settings_for("http://localhost:1", contract={"auth.sign_in": None})
        for _ in range(3):
            with OsaiClient(settings, transport=transport) as client:
                client.get_job("training", "7")
        assert recorded.counts[key] == 1

    def test_a_task_that_fails_by_the_contract(self, train, context, sandbox, connection, recorded):
        connection(contract={"training.submit": None})
        with pytest.raises(AirflowFailException):
            train().execute(context)
        assert recorded.counts["osai.contract.errors{}"] == 1

    def test_an_observer_that_fails_is_ignored(self, monkeypatch):
        seen = []

        def fail(operation, kind):
            seen.append((operation, kind))
            raise RuntimeError(CANARY)

        monkeypatch.setattr(misfits, "_observers", [fail, fail])
        misfits.report_misfit("training.get", "word")
        assert seen == [("training.get", "word")] * 2


def test_nested_blocks_count_an_error_once(recorded):
    with pytest.raises(OsaiJobLost), fail_without_retry(), fail_without_retry():
        raise OsaiJobLost("gone", kind="training", job_id="7")
    assert recorded.counts == {"osai.job.lost{kind=training}": 1}


@pytest.mark.parametrize("kind", ["", "brewing", CANARY, "a,b=c", "Training"])
def test_a_kind_that_is_none_is_no_new_value_of_a_tag(recorded, kind):
    metrics.count_webhook_resume(kind)
    assert recorded.counts == {"osai.webhook.resumed{kind=unknown}": 1}


def test_each_metric_has_the_tags_that_it_declares(recorded):
    for submission in Submission:
        metrics.count_submission(JobKind.TRAINING, submission)
    for state in ("succeeded", "failed", "cancelled", "running"):
        times = {"created_at": "2026-11-28", "started_at": "2026-11-28", "finished_at": "2026-11-28"}
        metrics.count_job_over(Job(kind=JobKind.TRAINING, id="7", state=state, **times), 1.0)
    for error in (OsaiJobLost, OsaiJobTimeout):
        metrics.count_error(error("m", kind="training", job_id="7"))
    metrics.count_error(metrics.OsaiContractError("m"))
    for is_cancelled in (True, False):
        metrics.count_kill("training", is_cancelled=is_cancelled)

    def unreachable(_call):
        raise OsaiError("m")

    with pytest.raises(OsaiError):
        metrics.count_polls(unreachable)(SimpleNamespace(name="training.list"))
    metrics.count_webhook_resume("training")
    for waited in (None, 5.0):
        metrics.count_capacity_wait("quota reached", waited)
    metrics.count_misfit("training.get", "word")
    assert recorded.tags == {metric.name: {tuple(sorted(metric.tags))} for metric in metrics.METRICS}


class TestOff:
    """The default."""

    @pytest.fixture(autouse=True)
    def off(self, monkeypatch):
        metrics.enabled.cache_clear()
        loaded = []
        monkeypatch.setattr(metrics, "_stats", lambda: loaded.append(True))
        yield loaded
        metrics.enabled.cache_clear()

    def test_polls_are_sent_by_the_same_function(self):
        def send(call): ...

        assert metrics.count_polls(send) is send
        assert metrics.count_async_polls(send) is send

    def test_nothing_is_loaded(self, off):
        metrics.count_job_over(ended_job(), 1.0)
        metrics.count_kill("training", is_cancelled=True)
        metrics.count_error(OsaiJobLost("m", kind="training", job_id="7"))
        asyncio.run(metrics.prepare())
        assert off == []

    def test_an_invalid_option_is_off(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "perhaps")
        assert not metrics.enabled()


class BrokenBackend:
    """Fails at each use, as a client of a host that is gone."""

    def __getattr__(self, name):
        raise OSError(f"no route to host, {CANARY}")


def test_a_failing_backend_fails_no_task_and_is_not_logged(train, context, sandbox, switched_on, monkeypatch, logged):
    monkeypatch.setattr(metrics, "_stats", BrokenBackend)
    sandbox.control.script("training", "reads", reads=2)
    operator = train(deferrable=True)
    assert operator.execute_complete(context, event_of(trigger_of(operator, context)))["state"] == "succeeded"


def test_a_backend_that_cannot_be_loaded_fails_no_task(train, context, sandbox, switched_on, monkeypatch):
    def load():
        raise ImportError("No module named 'statsd'")

    monkeypatch.setattr(metrics, "_stats", load)
    sandbox.control.script("training", "reads", reads=2)
    operator = train(deferrable=True)
    assert operator.execute_complete(context, event_of(trigger_of(operator, context)))["state"] == "succeeded"


def test_a_backend_that_hangs_holds_no_event_loop_and_loses_only_counts(switched_on, monkeypatch):
    ended, recorder = threading.Event(), Recorder()

    def load():
        ended.wait(30)  # as for a name server that is gone
        return recorder

    monkeypatch.setattr(metrics, "_stats", load)
    monkeypatch.setattr(metrics, "PREPARE_TIMEOUT", 0.01)

    async def use():
        await metrics.prepare()
        metrics.count_webhook_resume("training")
        metrics.count_job_over(ended_job(created_at="2026-11-28", started_at="2026-11-28"))
        ended.set()

    asyncio.run(use())  # waits for the thread
    assert not recorder.counts
    assert not recorder.times
    metrics.count_webhook_resume("training")
    assert recorder.counts == {"osai.webhook.resumed{kind=training}": 1}


unclosed = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Airflow does not close the socket of its client, as which it would be reported."""


@pytest.fixture
def statsd(switched_on, monkeypatch):
    """A StatsD server that Airflow is configured with; each ``Stats`` is initialized only by a test."""
    with StatsdServer() as server:
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(server.port))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
        yield server
    monkeypatch.undo()
    for package in ("airflow.sdk", "airflow"):
        initialize_stats(package)
    gc.collect()


@unclosed
@pytest.mark.parametrize("package", ["airflow.sdk", "airflow"], ids=["in a task", "in the triggerer"])
def test_a_metric_reaches_the_server_by_the_stats_that_is_initialized(statsd, monkeypatch, package):
    forget_stats(monkeypatch)
    initialize_stats(package)
    metrics.count_webhook_resume("training")
    assert statsd.lines() == ["airflow.osai.webhook.resumed,kind=training:1|c"]


def forget_stats(monkeypatch):
    """Make each ``Stats`` as in a process that has not initialized it."""
    for package in ("airflow.sdk", "airflow"):
        module = sys.modules.get(f"{package}.observability.stats")
        if module is None:
            continue
        if hasattr(module.Stats, "factory"):  # Airflow 3.2
            type.__setattr__(module.Stats, "factory", None)
        else:
            monkeypatch.setattr(sys.modules[module.Stats.__module__], "_factory", None)


@unclosed
def test_the_server_gets_the_life_of_a_job_of_a_dag(run_dag, connection, images, statsd):
    """With triggers inline, and tags in the form that Prometheus' StatsD exporter reads."""
    initialize_stats("airflow.sdk")
    ran = run_dag("journey_deferrable", images=str(images))
    assert ran.state == "success"
    lines = [line for line in statsd.lines() if line.startswith("airflow.osai.")]
    counted = [line.removesuffix(":1|c").removeprefix("airflow.osai.") for line in lines if line.endswith("|c")]
    assert counted.count("job.submitted,kind=training") == 1
    assert counted.count("job.succeeded,kind=training") == 1
    assert [line for line in counted if line.startswith("poll.requests,kind=training,operation=")]
    timed = [line for line in lines if line.endswith("|ms")]
    for name in ("duration,kind=training,state=succeeded", "queued_duration,kind=training"):
        assert [line for line in timed if re.fullmatch(rf"airflow\.osai\.job\.{name}:\d+\.\d+\|ms", line)], timed
    assert not [line for line in lines if ran.result("train", "job_id") in re.split(r"[.,=:|]", line)[:-2]]
