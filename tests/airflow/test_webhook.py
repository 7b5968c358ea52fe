"""The receiver of webhooks, over the network, on Airflow's own database: who is let in, and what it does to a task."""

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

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.jobs.event import JobEvent, Outcome
from airflow_provider_osai.jobs.reference import Owner
from airflow_provider_osai.jobs.ticket import Probe, Ticket
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from tests.conftest import settings_for
from tests.serving import served

SECRET, OLD, FOREIGN = "canary-webhook-secret-1", "canary-webhook-secret-2", "foreign-webhook-secret"
KIND = JobKind.DEVICE_RENTAL


@pytest.fixture(scope="module")
def ran(dagbag):
    """A finished run of three task instances, to be turned into deferred ones."""
    return dagbag.dags["waiting"].test()


class Tasks:
    """The run's task instances, as the database has them."""

    def __init__(self, run_id):
        self.run_id = run_id

    def owner(self, map_index=0, generation=0):
        return Owner("waiting", self.run_id, "wait", map_index, generation)

    def ticket(self, map_index=0, generation=0, conn_id="osai_default", secret=SECRET):
        return Ticket(conn_id, self.owner(map_index, generation)).sign([secret])

    def defer(self, job_id, map_index=0, generation=0, conn_id="osai_default"):
        """Do what a deferring task causes, and return the trigger's id."""
        from airflow.models.trigger import Trigger

        path, arguments = OsaiJobTrigger(conn_id, KIND.value, job_id, deferrals=1).serialize()
        with self._one(map_index) as (session, ti):
            trigger = Trigger(classpath=path, kwargs=arguments)
            session.add(trigger)
            session.flush()
            ti.state, ti.trigger_id, ti.max_tries = "deferred", trigger.id, generation
            ti.next_method, ti.next_kwargs = "execute_complete", {}
            return trigger.id

    def set(self, state, map_index=0):
        with self._one(map_index) as (_, ti):
            ti.state = state

    def state(self, map_index=0):
        with self._one(map_index) as (_, ti):
            return str(ti.state)

    def event(self, map_index=0):
        """What the task is resumed with."""
        from airflow.serialization.serialized_objects import BaseSerialization

        with self._one(map_index) as (_, ti):
            kwargs = ti.next_kwargs
        try:
            from airflow.sdk.serde import deserialize
        except ImportError:  # before Airflow 3.2
            deserialize = BaseSerialization.deserialize
        return JobEvent.read((kwargs if "event" in kwargs else deserialize(kwargs))["event"])

    def _one(self, map_index):
        import contextlib

        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        @contextlib.contextmanager
        def opened():
            with create_session() as session:
                wanted = (TaskInstance.run_id == self.run_id, TaskInstance.map_index == map_index)
                yield session, session.scalars(select(TaskInstance).where(*wanted)).one()

        return opened()


@pytest.fixture
def tasks(ran):
    return Tasks(ran.run_id)


@pytest.fixture
def webhooks(connection):
    """The connection takes webhooks."""
    connection(webhook_base_url="https://airflow.example.com", webhook_secret=f"{SECRET} {OLD}")
    return connection


class App:
    """A receiver that listens."""

    def __init__(self, url, app):
        self.url, self.app = url, app
        self.http = httpx.Client(base_url=url, timeout=20)

    def post(self, ticket, **options):
        return self.http.post(f"/webhook/{ticket}", **{"json": {"status": "succeeded"}, **options})


@pytest.fixture
def start(request):
    """Start a receiver; *later* are its further looks."""
    import contextlib

    from airflow_provider_osai.plugins.app import create_app
    from airflow_provider_osai.plugins.receiver import Receiver

    with contextlib.ExitStack() as stack:

        def start(later=(), **options):
            app = create_app(Receiver(later), **options)
            running = App(stack.enter_context(served(app)), app)
            stack.callback(running.http.close)
            return running

        yield start


@pytest.fixture
def app(start, webhooks):
    return start()


@pytest.fixture
def job(sandbox):
    """Submit a job that ends as told, and return its id."""

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
    """What the truth at OSAI makes of a task."""

    @pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
    @pytest.mark.parametrize("said", ["succeeded", "failed"])
    def test_a_job_that_has_ended_resumes_its_task_with_the_event_of_its_trigger(self, app, tasks, job, end, said):
        """Whatever the webhook said of it."""
        job_id = job(end)
        tasks.defer(job_id)
        assert app.post(tasks.ticket(), json={"status": said}).status_code == 200
        assert tasks.state() == "scheduled"
        expected = JobEvent(kind=KIND, job_id=job_id, outcome=Outcome.ENDED, state=end, deferrals=1)
        assert tasks.event() == expected

    def test_a_webhook_that_lies_changes_nothing(self, app, tasks, job):
        """It says done, and the job runs."""
        tasks.defer(job(**FOREVER))
        assert app.post(tasks.ticket()).status_code == 202
        assert tasks.state() == "deferred"

    def test_a_job_that_osai_shows_as_ended_a_little_later_resumes_its_task_without_a_second_webhook(
        self, start, webhooks, tasks, job
    ):
        """OSAI may tell before it shows."""
        tasks.defer(job(timing="reads", reads=3))
        app = start(later=(0.05,) * 20)
        assert app.post(tasks.ticket()).status_code == 202
        deadline = time.monotonic() + 10
        while tasks.state() == "deferred" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert tasks.state() == "scheduled"

    @pytest.mark.parametrize("state", ["running", "success", "failed", "up_for_retry", "queued", "removed"])
    def test_a_task_that_is_not_deferred_is_left_alone(self, app, tasks, job, state, sandbox):
        """Early, late, replayed: nobody asks OSAI even."""
        tasks.defer(job())
        tasks.set(state)
        before = sandbox.control.record()["counts"]
        assert app.post(tasks.ticket()).status_code == 202
        assert tasks.state() == state
        assert sandbox.control.record()["counts"] == before

    def test_a_replay_does_nothing(self, app, tasks, job):
        """Nor does a webhook that is sent twice."""
        tasks.defer(job())
        assert [app.post(tasks.ticket()).status_code for _ in range(3)] == [200, 202, 202]

    def test_the_ticket_of_before_a_clear_does_nothing(self, app, tasks, job):
        """Although the job of now has ended too; its own ticket will tell."""
        tasks.defer(job(), generation=1)
        assert app.post(tasks.ticket(generation=0)).status_code == 202
        assert tasks.state() == "deferred"
        assert app.post(tasks.ticket(generation=1)).status_code == 200

    def test_a_ticket_is_good_for_its_own_task_only(self, app, tasks, job):
        """Here another map index."""
        tasks.defer(job(), map_index=0)
        tasks.defer(job(), map_index=1)
        assert app.post(tasks.ticket(map_index=1)).status_code == 200
        assert (tasks.state(0), tasks.state(1)) == ("deferred", "scheduled")

    def test_a_task_that_waits_through_another_connection_is_left_alone(self, app, tasks, job):
        """The ticket is signed, and for the wrong connection."""
        tasks.defer(job(), conn_id="osai_other")
        assert app.post(tasks.ticket()).status_code == 202
        assert tasks.state() == "deferred"

    def test_the_trigger_of_another_provider_is_left_alone(self, app, tasks):
        """A task of the same name that waits for something else now."""
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session

        trigger_id = tasks.defer("7")
        with create_session() as session:
            session.get(Trigger, trigger_id).classpath = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
        assert app.post(tasks.ticket()).status_code == 202
        assert tasks.state() == "deferred"

    @pytest.mark.parametrize("fault", ["status", "reset", "html", "malformed"])
    def test_an_osai_that_does_not_answer_changes_nothing(self, app, tasks, job, sandbox, fault):
        """The poll goes on."""
        tasks.defer(job())
        sandbox.control.fault(fault, f"{KIND}.*", times=100)
        assert app.post(tasks.ticket()).status_code == 202
        assert tasks.state() == "deferred"

    def test_many_replicas_resume_a_task_once(self, webhooks, tasks, job):
        """They share nothing but the database."""
        from airflow_provider_osai.plugins.resume import find_waiting, resume

        event = JobEvent(kind=KIND, job_id="7", outcome=Outcome.ENDED, state="succeeded")
        for _ in range(5):
            tasks.defer("7")
            start = threading.Barrier(6)

            def once(start=start):
                waiting = find_waiting(tasks.owner())
                start.wait(10)
                return resume(waiting, event)

            with ThreadPoolExecutor(6) as pool:
                results = [future.result() for future in [pool.submit(once) for _ in range(6)]]
            assert sorted(results) == [False] * 5 + [True]
            assert tasks.state() == "scheduled"


class TestStrangers:
    """Nobody is let in without a ticket of ours, and nobody learns why."""

    def test_refusals_look_alike_and_ask_nobody(self, app, tasks, job, sandbox, caplog):
        """Forged, truncated, expired, of another connection, shown wrongly, or no ticket at all."""
        tasks.defer(job())
        good = tasks.ticket()
        tickets = [
            tasks.ticket(secret=FOREIGN),
            good[:-1],
            good + "x",
            good.rpartition(".")[0],
            tasks.ticket(conn_id="osai_other"),
            "b3NhaV9vdGhlcg." + good.partition(".")[2],
            tasks.ticket(conn_id="../../etc/passwd"),
            tasks.ticket(conn_id="x" * 300),
            "x",
            ".",
            "a.b.c.d",
            "%00",
            "x" * 8000,
        ]
        before = sandbox.control.record()["counts"]
        answers = [app.post(ticket) for ticket in tickets]
        answers += [app.http.request(method, f"/webhook/{good}") for method in ("GET", "PUT", "DELETE", "OPTIONS")]
        paths = ["/", "/webhook", "/webhook/", f"/webhook/{good}/", f"/webhook/..%2f{good}", "/docs", "/openapi.json"]
        answers += [app.http.post(path) for path in paths]
        assert {(answer.status_code, answer.content) for answer in answers} == {(404, b"")}
        assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1
        assert sandbox.control.record()["counts"] == before
        assert tasks.state() == "deferred"
        assert app.post(good).status_code == 200
        assert not [record for record in caplog.records if "osai" in record.name and good in record.getMessage()]

    def test_a_ticket_of_the_secret_before_is_good_until_it_is_taken_out(self, start, webhooks, tasks, job):
        """Rotation: two are good at once; then the old one is not."""
        now = itertools.count(0, 1000)
        app = start(clock=lambda: float(next(now)))
        old = tasks.ticket(secret=OLD)
        tasks.defer(job())
        assert app.post(old).status_code == 200
        webhooks(webhook_base_url="https://airflow.example.com", webhook_secret=SECRET)
        tasks.defer(job())
        assert app.post(old).status_code == 404
        assert app.post(tasks.ticket()).status_code == 200

    @pytest.mark.parametrize(
        "extra",
        [{}, {"webhook_secret": SECRET}, {"webhook_base_url": "https://a.example"}, {"webhook_secret": "short"}],
    )
    def test_a_connection_that_is_not_set_up_lets_nobody_in(self, start, connection, tasks, job, extra):
        """Although the ticket is signed with its secret."""
        connection(**extra)
        tasks.defer(job())
        answer = start().post(tasks.ticket())
        assert (answer.status_code, answer.content) == (404, b"")
        assert tasks.state() == "deferred"

    def test_made_up_connections_are_hardly_looked_up(self, start):
        """A flood of names must reach no database, and no secrets backend."""
        asked = []

        async def read(conn_id):
            asked.append(conn_id)
            return ()

        app = start(read=read)
        for number in range(200):
            assert app.post(Ticket(f"c{number}", Owner("d", "r", "t", -1, 0)).sign([SECRET])).status_code == 404
        assert len(asked) < 60
        assert not [name for name in asked if "/" in name]

    def test_an_airflow_that_does_not_fit_says_so_once(self, app, tasks, job, mocker, caplog):
        """And the jobs are polled."""
        mocker.patch("airflow_provider_osai.plugins.app.misfit", return_value="no such thing")
        tasks.defer(job())
        with caplog.at_level(logging.WARNING):
            assert {app.post(tasks.ticket()).status_code for _ in range(3)} == {404}
        assert caplog.text.count("no such thing") == 1
        assert tasks.state() == "deferred"

    def test_this_airflow_fits(self):
        """Else the tests above would have tested nothing."""
        from airflow_provider_osai.plugins.resume import misfit

        assert misfit() is None

    def test_a_flood_is_one_line_in_the_log(self, app, caplog):
        """With how many there were."""
        with caplog.at_level(logging.WARNING):
            for _ in range(50):
                app.post("junk")
        assert len([record for record in caplog.records if record.name.endswith("plugins.app")]) == 1


class TestBody:
    """Nothing of it counts, and little of it is read."""

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"", None),
            (b"status=done", "application/x-www-form-urlencoded"),
            (b"[" * 60_000, "application/json"),
            (bytes(range(256)), "multipart/form-data; boundary=x"),
            (b"\xff\xfe", "text/plain; charset=nonsense"),
        ],
    )
    def test_any_content_is_as_good_as_any_other(self, app, tasks, job, content, kind):
        """Also JSON too deep to parse."""
        tasks.defer(job())
        headers = {"Content-Type": kind} if kind else {}
        assert app.http.post(f"/webhook/{tasks.ticket()}", content=content, headers=headers).status_code == 200

    def test_a_body_that_is_too_long_is_refused(self, app, tasks, job):
        """With its length said, or in pieces."""
        tasks.defer(job())
        assert app.post(tasks.ticket(), content=b"x" * (2**16 + 1)).status_code == 413
        assert app.post(tasks.ticket(), content=(b"x" * 1000 for _ in range(100))).status_code == 413
        assert tasks.state() == "deferred"

    def test_ten_megabytes_are_not_read(self, app, tasks, job):
        """The answer comes although the body does not."""
        tasks.defer(job())
        with talk(app, tasks.ticket(), length=10 * 2**20) as line:
            assert line.recv(100).startswith(b"HTTP/1.1 413")

    def test_a_slow_body_is_given_up(self, app, tasks, job, mocker):
        """And a stranger's is not even waited for."""
        mocker.patch("airflow_provider_osai.plugins.app.BODY_PATIENCE", 0.2)
        tasks.defer(job())
        with talk(app, tasks.ticket(), length=10) as line:
            assert line.recv(100).startswith(b"HTTP/1.1 408")
        with talk(app, "stranger", length=10) as line:
            assert line.recv(100).startswith(b"HTTP/1.1 404")
        assert tasks.state() == "deferred"

    @pytest.mark.parametrize("length", ["-1", "abc", "9" * 30])
    def test_a_length_that_is_none_is_refused(self, app, tasks, job, length):
        """By the server itself, or by us."""
        tasks.defer(job())
        with talk(app, tasks.ticket(), length=length) as line:
            assert line.recv(100)[9:12] in (b"400", b"413")
        assert tasks.state() == "deferred"


def talk(app, ticket, length):
    """Send the head of a request, and no body."""
    parts = urlsplit(app.url)
    line = socket.create_connection((parts.hostname, parts.port), timeout=10)
    line.sendall(f"POST /webhook/{ticket} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    return line


def test_one_ticket_causes_few_looks(app, tasks, job, sandbox):
    """Whoever has an address can ask OSAI five times at once, and then ten times a minute."""
    tasks.defer(job(**FOREVER))
    statuses = [app.post(tasks.ticket()).status_code for _ in range(20)]
    assert statuses == [202] * 5 + [429] * 15
    counts = sandbox.control.record()["counts"]
    assert counts.get(f"{KIND}.get", 0) + counts.get(f"{KIND}.list", 0) <= 5
    tasks.defer(job(), map_index=1)
    assert app.post(tasks.ticket(map_index=1)).status_code == 200  # others are not held up


def test_webhooks_share_one_sign_in(app, tasks, job, sandbox):
    """The connection to OSAI is kept for a minute."""
    before = sandbox.control.record()["counts"].get("auth.sign_in", 0)
    for map_index in range(3):
        tasks.defer(job(), map_index=map_index)
    jobs_signed_in = sandbox.control.record()["counts"].get("auth.sign_in", 0)
    assert [app.post(tasks.ticket(map_index=n)).status_code for n in range(3)] == [200] * 3
    assert sandbox.control.record()["counts"]["auth.sign_in"] == jobs_signed_in + 1
    assert before == 0


def test_a_probe_is_answered_with_proof_and_does_nothing(app, sandbox):
    """Only who knows the secret gets an answer."""
    before = sandbox.control.record()["counts"]
    probe = Probe("osai_default", "word")
    answer = app.post(probe.sign([SECRET]))
    assert answer.status_code == 200
    assert probe.is_answered_by(answer.text, [SECRET])
    assert app.post(probe.sign([FOREIGN])).status_code == 404
    assert sandbox.control.record()["counts"] == before


def test_the_plugin_hides_the_ticket_from_the_access_log(webhooks, tasks, caplog):
    """Whoever logs addresses after it sees none."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from airflow_provider_osai.plugins.osai import OsaiPlugin

    mounted, _panel = OsaiPlugin.fastapi_apps
    server = Starlette(routes=[Mount(mounted["url_prefix"], app=mounted["app"])])
    probe = Probe("osai_default", "word").sign([SECRET])
    with caplog.at_level(logging.INFO, logger="uvicorn.access"), served(server, access_log=True) as url:
        assert httpx.post(f"{url}/osai/webhook/{probe}").status_code == 200
        assert httpx.post(f"{url}/osai/webhook/{tasks.ticket(secret=FOREIGN)}").status_code == 404
        assert httpx.get(f"{url}/osai/").status_code == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len([line for line in lines if "/osai/webhook/... " in line]) == 2
    assert not [line for line in lines if "b3NhaV" in line]


def test_schemathesis_finds_nothing(app, webhooks):
    """Whatever fits the route's own description, and what does not, is answered without a server error."""
    import schemathesis
    from schemathesis import Case

    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(app.app.openapi())))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert [operation.label for operation in operations] == ["POST /webhook/{ticket}"]
    seen = []
    from hypothesis import HealthCheck, given, settings

    @given(case=operations[0].as_strategy())
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Case) -> None:
        answer = case.call(base_url=app.url)
        seen.append((answer.status_code, answer.content))

    check()
    assert set(seen) == {(404, b"")}
    assert len(seen) >= 50


def test_the_plugin_costs_other_processes_no_web_framework():
    """Every process of Airflow loads its plugins."""
    import subprocess
    import sys

    code = (
        "import sys; from airflow.plugins_manager import AirflowPlugin; before = set(sys.modules);"
        "import airflow_provider_osai.plugins.osai; new = set(sys.modules) - before;"
        "print(sorted(name for name in new if name.split('.')[0] in ('fastapi', 'starlette', 'sqlalchemy')))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_five_hundred_webhooks_at_once_are_served_by_few_threads(webhooks, mocker):
    """The API server needs its database connections for others."""
    from airflow_provider_osai.plugins import receiver

    busy, most, lock = 0, 0, threading.Lock()

    def find(_owner):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    mocker.patch.object(receiver, "find_waiting", find)

    async def storm():
        one = receiver.Receiver()
        tickets = [Ticket("osai_default", Owner("d", "r", "t", n, 0)) for n in range(500)]
        return await asyncio.gather(*(one.hear(ticket) for ticket in tickets))

    assert asyncio.run(storm()) == [receiver.Fate.NOBODY_WAITS] * 500
    assert most <= receiver.AT_ONCE
