"""The webhook app over HTTP on a real Airflow database: which requests are accepted, and how tasks are resumed."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.idempotency import TaskKey
from airflow_provider_osai.triggers.batch import OsaiJobBatchTrigger
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from airflow_provider_osai.webhooks import handler
from airflow_provider_osai.webhooks.app import load_secrets
from airflow_provider_osai.webhooks.token import WebhookProbe, WebhookToken, seal
from tests.conftest import settings_for
from tests.threaded_server import served
from tests.waiting import PATIENCE, until

SECRET, OLD, FOREIGN = "canary-webhook-secret-1", "canary-webhook-secret-2", "foreign-webhook-secret"
DEPLOYMENT = "canary-deployment-secret-1"
KIND = JobKind.DEVICE_RENTAL


@pytest.fixture(scope="module")
def ran(dagbag):
    """A finished run of three task instances, which the tests turn into deferred ones."""
    return dagbag.dags["waiting"].test()


class Tasks:
    """The run's task instances in the database."""

    def __init__(self, run_id):
        self.run_id = run_id

    def owner(self, map_index=0, generation=0):
        return TaskKey("waiting", self.run_id, "wait", map_index, generation)

    def token(self, map_index=0, generation=0, conn_id="osai_default", secret=SECRET):
        return WebhookToken(conn_id, self.owner(map_index, generation)).sign([secret])

    def defer(self, job_id, map_index=0, generation=0, conn_id="osai_default"):
        """Defer a task instance on a job, and return the trigger's id."""
        return self.defer_on(OsaiJobTrigger(conn_id, KIND.value, job_id, deferrals=1), map_index, generation)

    def defer_on(self, trigger, map_index=0, generation=0):
        """Defer a task instance on a trigger, and return the trigger's id."""
        from airflow.models.trigger import Trigger

        path, arguments = trigger.serialize()
        with self._task_instance(map_index) as (session, ti):
            trigger = Trigger(classpath=path, kwargs=arguments)
            session.add(trigger)
            session.flush()
            ti.state, ti.trigger_id, ti.max_tries = "deferred", trigger.id, generation
            ti.next_method, ti.next_kwargs = "execute_complete", {}
            return trigger.id

    def set(self, state, map_index=0):
        with self._task_instance(map_index) as (_, ti):
            ti.state = state

    def state(self, map_index=0):
        with self._task_instance(map_index) as (_, ti):
            return str(ti.state)

    def event(self, map_index=0):
        """Return the event with which the task is resumed."""
        from airflow.serialization.serialized_objects import BaseSerialization

        with self._task_instance(map_index) as (_, ti):
            kwargs = ti.next_kwargs
        try:
            from airflow.sdk.serde import deserialize
        except ImportError:  # before Airflow 3.2
            deserialize = BaseSerialization.deserialize
        return JobEvent.parse((kwargs if "event" in kwargs else deserialize(kwargs))["event"])

    def _task_instance(self, map_index):
        import contextlib

        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        @contextlib.contextmanager
        def open_row():
            with create_session() as session:
                where = (TaskInstance.run_id == self.run_id, TaskInstance.map_index == map_index)
                yield session, session.scalars(select(TaskInstance).where(*where)).one()

        return open_row()


@pytest.fixture
def tasks(ran):
    return Tasks(ran.run_id)


@pytest.fixture(autouse=True)
def deployment(monkeypatch, dagbag):
    """Give the deployment a database and a secret."""
    monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", DEPLOYMENT)


@pytest.fixture
def webhooks(connection):
    """Set the connection up for webhooks."""
    connection(webhook_base_url="https://airflow.example.com", webhook_secret=f"{SECRET} {OLD}")
    return connection


class App:
    """A running webhook app."""

    def __init__(self, url, app):
        self.url, self.app = url, app
        self.http = httpx.Client(base_url=url, timeout=20)

    def post(self, token, deployment=DEPLOYMENT, **options):
        """Send a webhook whose token is sealed with *deployment*; ``None``: not sealed."""
        token = token if deployment is None else seal(token, deployment)
        return self.http.post(f"/webhook/{token}", **{"json": {"status": "succeeded"}, **options})


@pytest.fixture
def start(request):
    """Start a webhook app."""
    import contextlib

    from airflow_provider_osai.webhooks.app import create_app
    from airflow_provider_osai.webhooks.handler import WebhookHandler

    with contextlib.ExitStack() as stack:

        def start(recheck_delays=(), **options):
            app = create_app(WebhookHandler(recheck_delays), **options)
            running = App(stack.enter_context(served(app)), app)
            stack.callback(running.http.close)
            return running

        yield start


@pytest.fixture
def app(start, webhooks):
    return start()


@pytest.fixture
def job(sandbox):
    """Submit a job that ends in the given state, and return its id."""

    def make(end=None, **script):
        sandbox.control.script(KIND.value, **(script or {"timing": "immediate"}), **({"end": end} if end else {}))
        with OsaiClient(settings_for(sandbox.base_url)) as client:
            request = DeviceRentalRequest(device="tpu", duration=60)
            job = client.send(client.calls.submit_job(request, f"r-{time.monotonic_ns()}"))
            while not script and not client.send(client.calls.get_job(KIND, job.id)).is_terminal:
                time.sleep(0.01)
        return job.id

    return make


FOREVER = {"timing": "reads", "reads": 10**6}


class TestResume:
    @pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
    @pytest.mark.parametrize("payload_status", ["succeeded", "failed"])
    def test_webhook_of_an_ended_job_resumes_its_task_with_the_trigger_event(
        self, app, tasks, job, end, payload_status
    ):
        """The status in the payload is ignored."""
        job_id = job(end)
        tasks.defer(job_id)
        assert app.post(tasks.token(), json={"status": payload_status}).status_code == 200
        assert tasks.state() == "scheduled"
        expected = JobEvent(kind=KIND, job_id=job_id, outcome=Outcome.ENDED, state=end, deferrals=1)
        assert tasks.event() == expected

    def test_webhook_of_a_running_job_does_not_resume_its_task(self, app, tasks, job):
        """Although its payload says that the job has succeeded."""
        tasks.defer(job(**FOREVER))
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"

    def test_recheck_resumes_the_task_when_osai_shows_the_end_after_the_webhook(self, start, webhooks, tasks, job):
        tasks.defer(job(timing="reads", reads=3))
        app = start(recheck_delays=(0.05,) * 20)
        assert app.post(tasks.token()).status_code == 202
        until(tasks.state, "scheduled")

    @pytest.mark.parametrize("state", ["running", "success", "failed", "up_for_retry", "queued", "removed"])
    def test_webhook_of_a_task_that_is_not_deferred_does_nothing(self, app, tasks, job, state, sandbox):
        """It may be early, late or replayed; no request is sent to OSAI."""
        tasks.defer(job())
        tasks.set(state)
        before = sandbox.control.record()["counts"]
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == state
        assert sandbox.control.record()["counts"] == before

    def test_repeated_webhook_does_nothing(self, app, tasks, job):
        tasks.defer(job())
        assert [app.post(tasks.token()).status_code for _ in range(3)] == [200, 202, 202]

    def test_token_of_an_earlier_generation_does_nothing(self, app, tasks, job):
        """The task was cleared since. Only the token of its current generation resumes it."""
        tasks.defer(job(), generation=1)
        assert app.post(tasks.token(generation=0)).status_code == 202
        assert tasks.state() == "deferred"
        assert app.post(tasks.token(generation=1)).status_code == 200

    def test_token_resumes_only_its_own_map_index(self, app, tasks, job):
        tasks.defer(job(), map_index=0)
        tasks.defer(job(), map_index=1)
        assert app.post(tasks.token(map_index=1)).status_code == 200
        assert (tasks.state(0), tasks.state(1)) == ("deferred", "scheduled")

    def test_task_deferred_through_another_connection_is_not_resumed(self, app, tasks, job):
        """The token is valid, but for another connection than the trigger's."""
        tasks.defer(job(), conn_id="osai_other")
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"

    def test_task_deferred_by_another_provider_is_not_resumed(self, app, tasks):
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session

        trigger_id = tasks.defer("7")
        with create_session() as session:
            session.get(Trigger, trigger_id).classpath = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"

    @pytest.mark.parametrize("fault", ["status", "reset", "html", "malformed"])
    def test_task_stays_deferred_while_the_job_cannot_be_read(self, app, tasks, job, sandbox, fault):
        tasks.defer(job())
        sandbox.control.fault(fault, f"{KIND}.*", times=100)
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"

    def test_concurrent_replicas_resume_a_task_once(self, webhooks, tasks, job):
        """The replicas share only the database."""
        from airflow_provider_osai.webhooks.resume import find_deferred_task, resume

        event = JobEvent(kind=KIND, job_id="7", outcome=Outcome.ENDED, state="succeeded")
        for _ in range(5):
            tasks.defer("7")
            start = threading.Barrier(6)

            def replica(start=start):
                task = find_deferred_task(tasks.owner())
                start.wait(10)
                return resume(task, event)

            with ThreadPoolExecutor(6) as pool:
                results = [future.result() for future in [pool.submit(replica) for _ in range(6)]]
            assert sorted(results) == [False] * 5 + [True]
            assert tasks.state() == "scheduled"


class TestBatch:
    """All jobs of a batch have the task's webhook, and any of them has all of them read."""

    @pytest.fixture
    def batch(self, tasks, job, sandbox):
        """Defer a task on jobs, of which the first ones have ended; return their ids."""

        def defer(ended=0, running=0, resume_at=0):
            ids = [job() for _ in range(ended)] + [job(**FOREVER) for _ in range(running)]
            arguments = {"osai_conn_id": "osai_default", "kind": KIND.value, "job_id": "batch-1", "deferrals": 1}
            tasks.defer_on(OsaiJobBatchTrigger(job_ids=ids, resume_at=resume_at, **arguments))
            return ids

        return defer

    def requests(self, sandbox):
        counts = sandbox.control.record()["counts"]
        return {name: counts.get(f"{KIND}.{name}", 0) for name in ("get", "list")}

    def test_the_last_job_resumes_the_task_with_the_event_of_the_trigger(self, app, tasks, batch):
        batch(ended=3)
        assert app.post(tasks.token()).status_code == 200
        assert tasks.state() == "scheduled"
        assert tasks.event() == JobEvent(kind=KIND, job_id="batch-1", outcome=Outcome.ENDED, deferrals=1)

    def test_the_task_stays_deferred_while_a_job_runs(self, app, tasks, batch, sandbox):
        ids = batch(ended=2, running=1)
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"
        sandbox.control.end(ids[-1])
        assert app.post(tasks.token()).status_code == 200

    def test_the_task_is_resumed_to_submit_more_when_few_enough_run(self, app, tasks, batch, sandbox):
        ids = batch(ended=1, running=3, resume_at=2)
        assert app.post(tasks.token()).status_code == 202
        sandbox.control.end(ids[-1])
        assert app.post(tasks.token()).status_code == 200

    def test_jobs_are_read_a_hundred_with_one_request(self, app, tasks, batch, sandbox):
        batch(ended=150)
        before = self.requests(sandbox)
        assert app.post(tasks.token()).status_code == 200
        after = self.requests(sandbox)
        assert (after["list"] - before["list"], after["get"] - before["get"]) == (2, 0)

    def test_a_flood_of_webhooks_does_not_have_the_jobs_read_for_each(
        self, start, webhooks, tasks, batch, sandbox, monkeypatch
    ):
        monkeypatch.setattr(handler, "MIN_BATCH_PAUSE", 0.5)
        ids = batch(running=120)
        app = start(recheck_delays=(0.2,))
        before = self.requests(sandbox)
        for job_id in ids:
            sandbox.control.end(job_id)
            app.post(tasks.token())
        until(lambda: tasks.state() == "scheduled")
        requests = sum(self.requests(sandbox).values()) - sum(before.values())
        assert requests < 60  # a check after each webhook would be 240 requests or more

    def test_the_webhook_that_arrives_during_the_last_check_is_not_lost(
        self, start, webhooks, tasks, batch, sandbox, monkeypatch
    ):
        """The last job ends after it was read for the webhook of another."""
        monkeypatch.setattr(handler, "MIN_BATCH_PAUSE", 0.0)
        checks, was_read, goes_on = itertools.count(1), threading.Event(), threading.Event()
        count_unended = handler.WebhookHandler._count_unended

        async def count_and_hold(self, token, task):
            unended = await count_unended(self, token, task)
            if next(checks) == 2:
                was_read.set()
                await asyncio.to_thread(goes_on.wait, PATIENCE)
            return unended

        monkeypatch.setattr(handler.WebhookHandler, "_count_unended", count_and_hold)
        ids = batch(ended=1, running=1)
        app = start(recheck_delays=(0.05,))
        assert app.post(tasks.token()).status_code == 202
        assert was_read.wait(PATIENCE)
        sandbox.control.end(ids[-1])
        assert app.post(tasks.token()).status_code == 202
        goes_on.set()
        until(lambda: tasks.state() == "scheduled")

    def test_a_job_that_cannot_be_read_is_left_to_the_trigger(self, app, tasks, batch):
        ids = batch(ended=1)
        arguments = {"osai_conn_id": "osai_default", "kind": KIND.value, "job_id": "batch-1"}
        tasks.defer_on(OsaiJobBatchTrigger(job_ids=[*ids, "unknown"], **arguments))
        assert app.post(tasks.token()).status_code == 202
        assert tasks.state() == "deferred"

    def test_nothing_is_kept_of_a_batch_whose_checks_are_over(self, start, webhooks, tasks, batch, sandbox):
        ids = batch(running=2)
        app = start(recheck_delays=())
        for _ in range(3):
            assert app.post(tasks.token()).status_code == 202
        for job_id in ids:
            sandbox.control.end(job_id)
        assert app.post(tasks.token()).status_code == 200


class TestAuthentication:
    """Only valid tokens are accepted, and the response does not reveal why one is rejected."""

    def test_rejections_are_identical_and_cause_no_request(self, app, tasks, job, sandbox, caplog):
        """Whether the token is forged, truncated, for another connection, malformed, or sent to another path."""
        tasks.defer(job())
        good = tasks.token()
        tokens = [
            tasks.token(secret=FOREIGN),
            good[:-1],
            good + "x",
            good.rpartition(".")[0],
            tasks.token(conn_id="osai_other"),
            "b3NhaV9vdGhlcg." + good.partition(".")[2],
            tasks.token(conn_id="../../etc/passwd"),
            tasks.token(conn_id="x" * 300),
            "x",
            ".",
            "a.b.c.d",
            "%00",
            "x" * 8000,
        ]
        before = sandbox.control.record()["counts"]
        answers = [app.post(token, sealed_by) for token in tokens for sealed_by in (DEPLOYMENT, FOREIGN, None)]
        sealed = seal(good, DEPLOYMENT)
        answers += [app.http.request(method, f"/webhook/{sealed}") for method in ("GET", "PUT", "DELETE", "OPTIONS")]
        paths = [
            "/",
            "/webhook",
            "/webhook/",
            f"/webhook/{sealed}/",
            f"/webhook/..%2f{sealed}",
            "/docs",
            "/openapi.json",
        ]
        answers += [app.http.post(path) for path in paths]
        assert {(answer.status_code, answer.content) for answer in answers} == {(404, b"")}
        assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1
        assert sandbox.control.record()["counts"] == before
        assert tasks.state() == "deferred"
        assert app.post(good).status_code == 200
        assert not [record for record in caplog.records if "osai" in record.name and good in record.getMessage()]

    def test_a_call_without_a_token_is_an_empty_404_and_a_log_line(self, app, caplog):
        """As with curl from outside the network."""
        for _ in range(2):
            answer = app.http.post("/webhook/test")
            assert (answer.status_code, answer.content, answer.headers["content-length"]) == (404, b"", "0")
        lines = [record.getMessage() for record in caplog.records if "Rejected" in record.getMessage()]
        assert lines == ["Rejected 1 webhook request(s); last reason: not sealed by this Airflow deployment"]

    def test_token_of_the_previous_secret_is_valid_until_the_secret_is_removed(self, start, webhooks, tasks, job):
        now = itertools.count(0, 1000)
        app = start(clock=lambda: float(next(now)))
        old = tasks.token(secret=OLD)
        tasks.defer(job())
        assert app.post(old).status_code == 200
        webhooks(webhook_base_url="https://airflow.example.com", webhook_secret=SECRET)
        tasks.defer(job())
        assert app.post(old).status_code == 404
        assert app.post(tasks.token()).status_code == 200

    @pytest.mark.parametrize(
        "extra",
        [{}, {"webhook_secret": SECRET}, {"webhook_base_url": "https://a.example"}, {"webhook_secret": "short"}],
    )
    def test_token_is_rejected_if_the_connection_is_not_set_up_for_webhooks(self, start, connection, tasks, job, extra):
        connection(**extra)
        tasks.defer(job())
        answer = start().post(tasks.token())
        assert (answer.status_code, answer.content) == (404, b"")
        assert tasks.state() == "deferred"

    def test_valid_webhook_is_accepted_after_a_flood_of_unknown_connections(self, start, tasks, job, webhooks):
        """A thousand connection ids right after a start, when no secret is cached; none of them is looked up."""
        lookups = []

        async def read(conn_id):
            lookups.append(conn_id)
            return await load_secrets(conn_id)

        app = start(read=read)
        owner = TaskKey("d", "r", "t", -1, 0)
        for number in range(1_000):
            token = WebhookToken(f"c{number}", owner).sign([SECRET])
            assert app.post(token, (None, FOREIGN)[number % 2]).status_code == 404
        assert lookups == []
        tasks.defer(job())
        assert app.post(tasks.token()).status_code == 200
        assert lookups == ["osai_default"]

    def test_token_of_another_deployment_is_rejected(self, app, tasks, job):
        """Even if it is signed with the connection's secret, which both deployments may share."""
        tasks.defer(job())
        token = tasks.token()
        for text in (token, seal(token, FOREIGN), seal(seal(token, DEPLOYMENT), FOREIGN), f".{token}"):
            answer = app.post(text, None)
            assert (answer.status_code, answer.content) == (404, b"")
        assert tasks.state() == "deferred"

    def test_rejecting_a_foreign_seal_reads_no_connection(self, start, connection, mocker):
        """The response time does not reveal whether a connection exists or is set up for webhooks."""
        connection(webhook_base_url="https://airflow.example.com", webhook_secret=SECRET)
        app, read = start(), mocker.spy(OsaiHook, "async_settings")
        loads = mocker.spy(URLSafeTimedSerializer, "loads")
        owner = TaskKey("d", "r", "t", -1, 0)
        for conn_id in ("osai_default", "osai_other", "", "x" * 250):
            for secret in (SECRET, FOREIGN):
                assert app.post(WebhookToken(conn_id, owner).sign([secret]), FOREIGN).status_code == 404
        assert (read.call_count, loads.call_count) == (0, 0)

    def test_cached_deployment_secret_is_used_while_it_cannot_be_read(self, start, tasks, job, webhooks):
        """After the outage, the secret is read again and may have changed."""
        now = itertools.count(0, 40)
        answers = iter([DEPLOYMENT, None, FOREIGN])

        async def read_deployment():
            return next(answers)

        app = start(read_deployment=read_deployment, clock=lambda: float(next(now)))
        for secret in (DEPLOYMENT, DEPLOYMENT, FOREIGN):
            tasks.defer(job())
            assert app.post(tasks.token(), secret).status_code == 200

    @pytest.mark.parametrize("guess", ["", "None", DEPLOYMENT])
    def test_every_token_is_rejected_while_the_deployment_has_no_secret(self, start, tasks, job, webhooks, guess):
        """The deployment has submitted no job yet."""

        async def read_deployment():
            return None

        tasks.defer(job())
        assert start(read_deployment=read_deployment).post(tasks.token(), guess).status_code == 404
        assert tasks.state() == "deferred"

    def test_incompatible_airflow_is_logged_once_and_webhooks_are_rejected(self, app, tasks, job, mocker, caplog):
        mocker.patch("airflow_provider_osai.webhooks.app.incompatibility_reason", return_value="missing column")
        tasks.defer(job())
        with caplog.at_level(logging.WARNING):
            assert {app.post(tasks.token()).status_code for _ in range(3)} == {404}
        assert caplog.text.count("missing column") == 1
        assert tasks.state() == "deferred"

    def test_installed_airflow_is_compatible(self):
        """Otherwise the tests above would test nothing."""
        from airflow_provider_osai.webhooks.resume import incompatibility_reason

        assert incompatibility_reason() is None

    def test_many_rejections_are_logged_in_one_line(self, app, caplog):
        with caplog.at_level(logging.WARNING):
            for _ in range(50):
                app.post("junk")
        assert len([record for record in caplog.records if record.name.endswith("webhooks.app")]) == 1


class TestBody:
    """The request body is ignored, and its size and duration are limited."""

    @pytest.mark.parametrize(
        ("content", "content_type"),
        [
            (b"", None),
            (b"status=done", "application/x-www-form-urlencoded"),
            (b"[" * 60_000, "application/json"),
            (bytes(range(256)), "multipart/form-data; boundary=x"),
            (b"\xff\xfe", "text/plain; charset=nonsense"),
        ],
    )
    def test_content_of_the_body_is_ignored(self, app, tasks, job, content, content_type):
        """Including JSON that is nested too deeply to parse."""
        tasks.defer(job())
        headers = {"Content-Type": content_type} if content_type else {}
        token = seal(tasks.token(), DEPLOYMENT)
        assert app.http.post(f"/webhook/{token}", content=content, headers=headers).status_code == 200

    def test_body_over_the_limit_is_rejected(self, app, tasks, job):
        """With a Content-Length, or chunked."""
        tasks.defer(job())
        assert app.post(tasks.token(), content=b"x" * (2**16 + 1)).status_code == 413
        assert app.post(tasks.token(), content=(b"x" * 1000 for _ in range(100))).status_code == 413
        assert tasks.state() == "deferred"

    def test_body_with_a_content_length_over_the_limit_is_not_read(self, app, tasks, job):
        tasks.defer(job())
        with send_head(app, tasks.token(), length=10 * 2**20) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def test_slow_body_times_out(self, app, tasks, job, mocker):
        """With an invalid token the body is not read at all."""
        mocker.patch("airflow_provider_osai.webhooks.app.BODY_TIMEOUT", 0.2)
        tasks.defer(job())
        with send_head(app, tasks.token(), length=10) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        with send_head(app, "invalid", length=10) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 404")
        assert tasks.state() == "deferred"

    @pytest.mark.parametrize("length", ["-1", "abc", "9" * 30])
    def test_invalid_content_length_is_rejected(self, app, tasks, job, length):
        """By the HTTP server or by the app."""
        tasks.defer(job())
        with send_head(app, tasks.token(), length=length) as connection:
            assert connection.recv(100)[9:12] in (b"400", b"413")
        assert tasks.state() == "deferred"


def send_head(app, token, length):
    """Send the head of a request without its body."""
    parts = urlsplit(app.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(
        f"POST /webhook/{seal(token, DEPLOYMENT)} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


def test_requests_to_osai_are_rate_limited_per_token(app, tasks, job, sandbox):
    """A token allows five polls at once, then ten a minute."""
    tasks.defer(job(**FOREVER))
    statuses = [app.post(tasks.token()).status_code for _ in range(20)]
    assert statuses == [202] * 5 + [429] * 15
    counts = sandbox.control.record()["counts"]
    assert counts.get(f"{KIND}.get", 0) + counts.get(f"{KIND}.list", 0) <= 5
    tasks.defer(job(), map_index=1)
    assert app.post(tasks.token(map_index=1)).status_code == 200  # the limit of one token does not affect others


def test_webhooks_share_one_sign_in(app, tasks, job, sandbox):
    """The shared client is kept open for a minute."""
    before = sandbox.control.record()["counts"].get("auth.sign_in", 0)
    for map_index in range(3):
        tasks.defer(job(), map_index=map_index)
    after_submissions = sandbox.control.record()["counts"].get("auth.sign_in", 0)
    assert [app.post(tasks.token(map_index=n)).status_code for n in range(3)] == [200] * 3
    assert sandbox.control.record()["counts"]["auth.sign_in"] == after_submissions + 1
    assert before == 0


def test_signed_probe_gets_a_valid_response_and_causes_no_request(app, sandbox):
    before = sandbox.control.record()["counts"]
    probe = WebhookProbe("osai_default", "nonce")
    answer = app.post(probe.sign([SECRET]))
    assert answer.status_code == 200
    assert probe.is_answered_by(answer.text, [SECRET])
    assert app.post(probe.sign([FOREIGN])).status_code == 404
    assert sandbox.control.record()["counts"] == before


def test_plugin_hides_the_token_from_the_access_log(webhooks, tasks, caplog):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from airflow_provider_osai.plugins.osai import OsaiPlugin

    mounted, _pages = OsaiPlugin.fastapi_apps
    server = Starlette(routes=[Mount(mounted["url_prefix"], app=mounted["app"])])
    probe = seal(WebhookProbe("osai_default", "nonce").sign([SECRET]), DEPLOYMENT)
    with caplog.at_level(logging.INFO, logger="uvicorn.access"), served(server, access_log=True) as url:
        assert httpx.post(f"{url}/osai/webhook/{probe}").status_code == 200
        assert httpx.post(f"{url}/osai/webhook/{tasks.token(secret=FOREIGN)}").status_code == 404
        assert httpx.get(f"{url}/osai/").status_code == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len([line for line in lines if "/osai/webhook/... " in line]) == 2
    assert not [line for line in lines if "b3NhaV" in line or probe[:10] in line]


def test_generated_requests_are_rejected_without_a_server_error(app, webhooks):
    """Schemathesis generates requests from the app's OpenAPI schema."""
    import schemathesis
    from schemathesis import Case

    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(app.app.openapi())))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert [operation.label for operation in operations] == ["POST /webhook/{token}"]
    seen = []
    from hypothesis import HealthCheck, given, settings

    @given(case=operations[0].as_strategy())
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    def check(case: Case) -> None:
        answer = case.call(base_url=app.url)
        seen.append((answer.status_code, answer.content))

    check()
    assert set(seen) == {(404, b"")}
    assert len(seen) >= 50


def test_importing_the_plugin_imports_no_web_framework():
    """Every Airflow process loads the plugins."""
    import subprocess
    import sys

    code = (
        "import sys; from airflow.plugins_manager import AirflowPlugin; before = set(sys.modules);"
        "import airflow_provider_osai.plugins.osai; new = set(sys.modules) - before;"
        "print(sorted(name for name in new if name.split('.')[0] in ('fastapi', 'starlette', 'sqlalchemy')))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_concurrent_webhooks_use_a_limited_number_of_threads(webhooks, mocker):
    """The API server needs the other database connections of its pool."""
    from airflow_provider_osai.webhooks import handler

    lock = threading.Lock()
    busy = 0
    max_busy = 0

    def find(_owner):
        nonlocal busy, max_busy
        with lock:
            busy += 1
            max_busy = max(max_busy, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    mocker.patch.object(handler, "find_deferred_task", find)

    async def handle_all():
        webhook_handler = handler.WebhookHandler()
        tokens = [WebhookToken("osai_default", TaskKey("d", "r", "t", n, 0)) for n in range(500)]
        return await asyncio.gather(*(webhook_handler.handle(token) for token in tokens))

    assert asyncio.run(handle_all()) == [handler.WebhookResult.NOT_DEFERRED] * 500
    assert max_busy <= handler.MAX_DB_THREADS
