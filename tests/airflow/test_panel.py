"""The job pages: access control, their data, and that they disclose no secrets."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update
from starlette.testclient import TestClient

from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.plugins.job_cache import JobCache, JobUnavailable, JobView
from airflow_provider_osai.plugins.panel import create_panel
from airflow_provider_osai.sandbox import Sandbox
from tests.airflow.conftest import Ran
from tests.conftest import CANARY, SECRET

DAG = "example_osai_retraining"


class FakeAuthManager(SimpleAuthManager):
    """Lets the user "stranger" read no Dag, and any other user every Dag."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if user.get_id() == "stranger":
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)


@pytest.fixture(scope="module")
def auth_manager():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "for these tests only, " * 4)
        manager = FakeAuthManager()
        # Airflow 3.1 stores the manager in auth_manager, newer versions in the private _AuthManagerState.instance.
        state = getattr(airflow_app, "_AuthManagerState", None)
        patch.setattr(*((state, "instance") if state else (airflow_app, "auth_manager")), manager)
        assert airflow_app.get_auth_manager() is manager
        yield manager


@pytest.fixture
def browser(auth_manager):
    """Return a client of the job pages, signed in as the named user; ``None``: not signed in."""
    clients = []

    def make(name="viewer", role="VIEWER", **options):
        # Entering the client makes all requests run on one event loop, as in the API server.
        client = TestClient(create_panel(**options)).__enter__()
        clients.append(client)
        if name:
            token = auth_manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def sandbox():
    """One sandbox for all tests of this module, whose Dag runs once."""
    with Sandbox(access_token=CANARY) as running:
        yield running


@pytest.fixture(scope="module")
def finished(dagbag, sandbox, images):
    document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        return Ran(dagbag.dags[DAG].test(run_conf={"images": str(images)}))


@pytest.fixture
def ran(finished, connection, sandbox):
    """The run; restores the XComs and rendered fields of its tasks after the test."""
    original = {model: _rows(model, finished) for model in (XComModel, RenderedTaskInstanceFields)}
    yield finished
    sandbox.control.clear_faults()
    with create_session() as session:
        for model, rows in original.items():
            session.execute(delete(model).where(model.run_id == finished.run.run_id))
            session.execute(insert(model), rows)


def _rows(model, ran):
    columns = model.__table__.columns
    with create_session() as session:
        rows = session.execute(select(*columns).where(model.run_id == ran.run.run_id)).all()
    return [dict(row._mapping) for row in rows]


def task(ran, task_id="train_model", map_index="-1"):
    return f"/task/{DAG}/{ran.run.run_id}/{task_id}/{map_index}"


def test_viewer_gets_the_training_with_its_history(browser, ran):
    """State, times, metrics, a row for each epoch, and the URL of the portal's page."""
    client = browser()
    page = client.get(task(ran))
    assert page.status_code == 200
    assert 'data-job="-1/job"' in page.text
    job = client.get(f"{task(ran)}/job").json()
    assert (job["kind"], job["state"], job["is_terminal"]) == ("training", "succeeded", True)
    assert len(job["history"]) == 20
    facts = dict(job["facts"])
    assert facts["Model"] == ran.xcom("train_model", "model_id")
    assert {"Submitted", "Time in queue", "Run time", "accuracy"} <= set(facts)
    assert job["portal_url"].endswith(f"/trainings/{job['id']}")
    assert not SECRET.search(page.text + str(job))


def test_page_of_an_unmapped_task_accepts_the_placeholder_for_the_map_index(browser, ran):
    """Airflow's UI does not replace the placeholder for an unmapped task."""
    assert 'data-job="-1/job"' in browser().get(task(ran, map_index="{MAP_INDEX}")).text


def test_list_has_all_jobs_of_readable_dags_with_links_to_their_pages(browser, ran):
    text = browser().get("/").text
    for name in ("train_model", "convert_model", "predict"):
        assert ran.xcom(name, "job_id") in text
        assert f"/{name}/-1" in text


@pytest.mark.parametrize("path", ["", "/job"])
def test_user_without_permission_is_rejected(browser, ran, path):
    """A user who may not read the Dag gets 403; one who is not signed in gets 401."""
    assert browser("stranger").get(task(ran) + path).status_code == 403
    assert browser(None).get(task(ran) + path).status_code == 401
    assert browser(None).get("/").status_code == 401
    assert ran.xcom("train_model", "job_id") not in browser("stranger").get("/").text


def test_task_without_a_job_returns_an_error_that_is_not_final(browser, ran):
    """The task may submit a job later."""
    data = browser().get(f"{task(ran, 'upload_images')}/job").json()
    assert data == {"error": "This task has not submitted an OSAI job yet.", "is_terminal": False}


BROKEN = [
    ({"base_url": "http://127.0.0.1:9/api"}, "OSAI is unreachable at the moment.", False),
    ({"base_url": "", "region": "mars"}, "The task's connection to OSAI cannot be used", True),
    ({"contract": {"training.get": {"path": "/no/such/path"}}}, "OSAI does not have this job", True),
    ({"contract": {"training.get": {"response": {"id": "nowhere"}}}}, "connection to OSAI cannot be used", True),
]


def test_error_does_not_disclose_the_connection(browser, ran, connection, caplog):
    """Viewers may not read connections in Airflow. The reason is in the API server's log."""
    for extra, message, is_final in BROKEN:
        connection(**extra)
        data = browser().get(f"{task(ran)}/job").json()
        assert message in data["error"]
        assert data["is_terminal"] is is_final
        for detail in ("mars", "127.0.0.1", "training.get", CANARY):
            assert detail not in str(data)
        assert "The job page cannot read a job through connection osai_default: " in caplog.text
        assert CANARY not in caplog.text
        caplog.clear()


class TestConfusedDeputy:
    """A user who may write a Dag's XComs can neither choose a connection nor read jobs of other Dags."""

    @pytest.fixture
    def foreign_requests(self, monkeypatch):
        """The requests that were sent to the server of a connection of another type."""
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def record(self):
                requests.append(self.rfile.read(int(self.headers.get("content-length", 0))))
                self.send_response(200)
                self.end_headers()

            do_GET = do_POST = record  # noqa: N815 - names of http.server

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extra = {"base_url": f"http://127.0.0.1:{server.server_port}/api"}
        document = {"conn_type": "postgres", "login": "root", "password": CANARY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_PG", json.dumps(document))
        yield requests
        server.shutdown()
        server.server_close()

    @staticmethod
    def write_xcom(ran, task_id, value):
        """Write an XCom as `PATCH .../xcomEntries/osai_job` does."""
        where = (XComModel.dag_id == DAG, XComModel.run_id == ran.run.run_id, XComModel.task_id == task_id)
        with create_session() as session:
            session.execute(update(XComModel).where(*where, XComModel.key == "osai_job").values(value=value))

    def test_connection_in_an_xcom_is_ignored(self, browser, ran, foreign_requests, sandbox):
        """Whether it has another type or is another OSAI connection; the task's own connection is used."""
        job_id = ran.xcom("train_model", "job_id")
        for conn_id in ("pg", "osai_other", "../../etc/passwd", "x" * 10_000, 7, None):
            self.write_xcom(ran, "train_model", {"kind": "training", "job_id": job_id, "conn_id": conn_id})
            assert browser().get(f"{task(ran)}/job").json()["state"] == "succeeded"
        assert foreign_requests == []

    def test_connection_of_another_type_gets_no_request(self, browser, ran, foreign_requests):
        """Even if the task's rendered fields name it, because of a mistyped id."""
        names = RenderedTaskInstanceFields
        with create_session() as session:
            fields = dict(session.execute(select(names.rendered_fields).where(names.task_id == "train_model")).scalar())
            where = (names.run_id == ran.run.run_id, names.task_id == "train_model")
            session.execute(update(names).where(*where).values(rendered_fields=fields | {"osai_conn_id": "pg"}))
        data = browser().get(f"{task(ran)}/job").json()
        assert "cannot be used" in data["error"]
        assert foreign_requests == []

    def test_job_of_another_task_is_not_shown(self, browser, ran):
        """The job's idempotency key identifies another task than the one whose XCom has the job."""
        other = {"kind": "conversion", "job_id": ran.xcom("convert_model", "job_id")}
        self.write_xcom(ran, "train_model", other)
        data = browser().get(f"{task(ran)}/job").json()
        assert data == {"error": "The job in this task's XCom belongs to another task.", "is_terminal": True}

    def test_invalid_xcom_counts_as_no_job(self, browser, ran):
        """Neither the job page nor the list fails."""
        invalid = [{"kind": "training", "job_id": job_id} for job_id in ("\ud800", "x" * 100_000, "", 7, None)]
        invalid += [{"kind": kind, "job_id": "1"} for kind in ("mining", ["training"], None)]
        for value in (*invalid, ["training", "1"], "training", None):
            self.write_xcom(ran, "train_model", value)
            assert "not submitted an OSAI job" in browser().get(f"{task(ran)}/job").json()["error"]
            assert browser().get("/").status_code == 200

    def test_old_run_without_rendered_fields_uses_the_connection_of_the_dag(self, browser, ran):
        """Airflow keeps the rendered fields of only the latest runs."""
        with create_session() as session:
            session.execute(delete(RenderedTaskInstanceFields))
        assert browser().get(f"{task(ran)}/job").json()["state"] == "succeeded"


class TestRequests:
    """Many viewers cause few requests to OSAI."""

    def test_many_reads_of_one_job_cause_few_requests(self, browser, ran, sandbox):
        client = browser()
        before = sandbox.control.record()["counts"].get("training.get", 0)
        states = {client.get(f"{task(ran)}/job").json()["state"] for _ in range(400)}
        assert states == {"succeeded"}
        assert sandbox.control.record()["counts"]["training.get"] - before < 40

    def test_error_is_cached(self, browser, ran, sandbox):
        sandbox.control.fault("status", "training.get", times=1_000, status=503)
        client = browser()
        before = sandbox.control.record()["counts"].get("training.get", 0)
        responses = [client.get(f"{task(ran)}/job").json() for _ in range(20)]
        assert {data["error"] for data in responses} == {"OSAI is unavailable at the moment (status 503)."}
        assert {data["is_terminal"] for data in responses} == {False}
        assert sandbox.control.record()["counts"]["training.get"] - before < 5

    def test_concurrent_reads_are_limited_to_ten(self):
        """A thousand different jobs are requested, and OSAI does not respond."""

        async def main():
            started = []

            async def read(_conn_id, _kind, job_id):
                started.append(job_id)
                await asyncio.Event().wait()

            cache = JobCache(read)
            reads = [asyncio.ensure_future(cache.get("c", JobKind.TRAINING, str(n))) for n in range(1_000)]
            await asyncio.sleep(0.1)
            errors = [read.exception() for read in reads if read.done()]
            [read.cancel() for read in reads]
            await asyncio.gather(*reads, return_exceptions=True)
            return started, errors

        started, errors = asyncio.run(main())
        assert len(started) == 10
        assert len(errors) == 990
        assert {(type(error), error.is_final) for error in errors} == {(JobUnavailable, False)}

    def test_shared_read_continues_when_the_first_viewer_cancels(self):
        async def main():
            respond = asyncio.Event()

            async def read(_conn_id, _kind, job_id):
                await respond.wait()
                return JobView(Job(kind="training", id=job_id, state="running"), "")

            cache = JobCache(read)
            first, second = (asyncio.ensure_future(cache.get("c", JobKind.TRAINING, "1")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            respond.set()
            return await second

        assert asyncio.run(main()).job.id == "1"


def test_job_with_odd_texts_and_numbers_is_returned_as_valid_json(browser, ran):
    """A lone surrogate, NaN, infinity, and HTML."""
    odd = "\ud800<script>alert(1)</script>"

    async def read(_conn_id, _kind, job_id):
        result = {"metrics": {"loss": float("nan"), "worst": float("inf"), odd: odd}}
        history = [{"epoch": 1, "loss": float("nan")}]
        return JobView(Job(kind="training", id=job_id, state="failed", message=odd, result=result, history=history), "")

    client = browser(read=read)
    response = client.get(f"{task(ran)}/job")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["history"][0]["loss"] is None
    assert ["loss", "nan"] in response.json()["facts"]


def test_simulated_job_is_marked(browser, ran):
    """The page shows a badge for it."""
    client = browser()
    assert client.get(f"{task(ran)}/job").json()["simulated"] is False

    async def read(_conn_id, _kind, job_id):
        return JobView(Job(kind="training", id=job_id, state="succeeded", simulated=True), "")

    assert browser(read=read).get(f"{task(ran)}/job").json()["simulated"] is True
    assert 'make("span", "simulated"' in client.get("/static/panel.js").text


def test_what_differs_from_the_contract_is_noted(browser, ran, connection):
    """Of the responses that the API server itself got."""
    assert browser().get(f"{task(ran)}/job").json()["notes"] == []
    connection(contract='{"training.get": {"response": {"status": "createdAt"}}}')
    (note,) = browser().get(f"{task(ran)}/job").json()["notes"]
    assert note.startswith("training.get: unknown status word ")

    async def read(_conn_id, _kind, job_id):
        return JobView(Job(kind="training", id=job_id, state="running"), "", ("training.get: <b>",))

    client = browser(read=read)
    assert client.get(f"{task(ran)}/job").json()["notes"] == ["training.get: <b>"]
    assert "job.notes" in client.get("/static/panel.js").text


def test_every_response_has_security_headers(browser, ran):
    """The page, the list, the job, the static files, and errors."""
    client = browser()
    paths = [task(ran), "/", f"{task(ran)}/job", "/static/panel.js", "/none"]
    responses = [client.get(path) for path in paths] + [browser(None).get(task(ran))]
    for response in responses:
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-frame-options"] == "SAMEORIGIN"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
    assert [response.headers.get("cache-control") == "no-store" for response in responses] == [
        True,
        True,
        True,
        False,
        *2 * [True],
    ]


def test_page_loads_only_files_of_the_package(browser, ran):
    client = browser()
    page = client.get(task(ran)).text
    for name in ("uPlot.iife.min.js", "uPlot.min.css", "panel.js", "panel.css"):
        assert f"../../../../static/{name}" in page
        assert client.get(f"/static/{name}").status_code == 200
    assert "http" not in page
