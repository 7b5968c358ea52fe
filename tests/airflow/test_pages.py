"""The pages in Airflow's UI: access control, what they show, and that they disclose no secrets."""

from __future__ import annotations

import asyncio
import html
import json
import re
import threading
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, event, insert, select, update

from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.plugins.pages.job_cache import JobCache, JobUnavailable, JobView
from airflow_provider_osai.plugins.pages.queries import TaskAddress, TaskRecord
from airflow_provider_osai.plugins.pages.run import capacity_message
from airflow_provider_osai.sandbox import Sandbox
from tests.airflow.conftest import Ran, forget_jobs
from tests.airflow.pages import charts_of, text_of
from tests.conftest import CANARY, SECRET

DAG = "example_osai_retraining"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def sandbox():
    """One sandbox for all tests of this module, whose Dag runs once."""
    with Sandbox(access_token=CANARY) as running:
        yield running


@pytest.fixture(scope="module")
def finished(dagbag, sandbox, images):
    forget_jobs()
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


def answer(**fields):
    """Return a function that reads such a job, whatever job is wanted."""

    async def read(_conn_id, kind, job_id):
        return JobView(Job(**{"kind": kind, "id": job_id, **fields}), "https://portal.test/job")

    return read


def test_viewer_gets_the_training_with_its_curves(browser, ran):
    """State, times, metrics, parameters, a value for each epoch, and the URL of the portal's page."""
    page = browser().get(task(ran))
    text = text_of(page)
    assert "OSAI training" in text
    assert "OSAI succeeded Airflow task success" in text
    loss, accuracy = charts_of(page)
    assert (loss["title"], accuracy["title"]) == ("Loss", "Accuracy")
    assert len(loss["x"]) == len(loss["series"][0]["values"]) == 20
    assert ran.result("train_model", "model_id") in text
    for label in ("Submitted", "Time in queue", "accuracy", "Parameters", "dataset ids", "Next task convert_model"):
        assert label in text
    assert f"/trainings/{ran.result('train_model', 'job_id')}" in page.text
    assert 'data-refresh="0"' in page.text
    assert not SECRET.search(page.text)


def test_page_of_an_unmapped_task_accepts_the_placeholder_for_the_map_index(browser, ran):
    """Airflow's UI does not replace the placeholder for an unmapped task."""
    assert ran.result("train_model", "job_id") in browser().get(task(ran, map_index="{MAP_INDEX}")).text


@pytest.mark.parametrize("map_index", ["7", "99999999999999999999", "²", "-5"])
def test_task_that_airflow_does_not_have_is_said_so(browser, ran, map_index):
    """-5 and what is not a number count as unmapped."""
    text = text_of(browser().get(task(ran, map_index=map_index)))
    assert ("Airflow has no such task" in text) is (map_index == "7")


@pytest.mark.parametrize("name", ["stranger", "no_xcoms", None])
def test_user_without_permission_is_rejected(browser, ran, name):
    """A user who may not read the task or its XComs gets 403; one who is not signed in gets 401."""
    assert browser(name).get(task(ran)).status_code == (403 if name else 401)
    if name is None:
        assert browser(None).get("/").status_code == 401
        assert browser(None).get("/models").status_code == 401


def test_list_has_no_jobs_of_unreadable_dags(browser, ran):
    text = browser("stranger").get("/").text
    assert ran.result("train_model", "job_id") not in text
    assert "has submitted an OSAI job yet" in text


def test_task_without_a_job_says_so_and_refreshes(browser, ran):
    """The task may submit a job later."""
    page = browser().get(task(ran, "create_dataset"))
    assert "This task has not submitted an OSAI job yet." in text_of(page)
    assert 'data-refresh="5"' in page.text


def test_task_that_had_no_room_says_so_and_why(browser, ran):
    """Its wait is an XCom; any other value is not shown."""
    row = _rows(XComModel, ran)[0] | {"task_id": "create_dataset", "map_index": -1, "key": "osai_capacity"}
    with create_session() as session:
        value = {"reason": "no credit", "since": 1_800_000_000.0, "until": 1_800_003_600.0, "waited": 3600.0}
        session.execute(insert(XComModel), [row | {"value": value}])
    text = text_of(browser().get(task(ran, "create_dataset")))
    assert "OSAI had no room for this task's job for 60 minutes: no credit." in text


def shown_wait(state="running", **capacity):
    return capacity_message(TaskRecord(TaskAddress("d", "r", "t"), state=state, capacity=capacity))


def test_running_task_without_room_says_since_when_and_why():
    assert shown_wait(reason="quota reached", since=1_800_000_000.0) == (
        "Waiting for room at OSAI since 08:00 UTC: quota reached. No retry is used; the task's log has the details."
    )
    assert shown_wait("failed", reason="busy", since=1_800_000_000.0) is None  # killed while it waited


@pytest.mark.parametrize(
    "capacity",
    [
        {},
        {"reason": "<script>", "since": 1.0},
        {"reason": "busy"},
        {"reason": "busy", "since": "yesterday"},
        {"reason": "busy", "since": float("nan")},
        {"reason": "busy", "since": 1e300},
        {"reason": ["busy"], "since": 1.0},
    ],
    ids=str,
)
def test_xcom_that_is_no_wait_for_room_is_not_shown(capacity):
    """Any user who may edit runs may write XComs."""
    assert shown_wait(**capacity) is None


BROKEN = [
    ({"base_url": "http://127.0.0.1:9/api"}, "OSAI is unreachable at the moment.", False),
    ({"base_url": "", "region": "mars"}, "The task's connection to OSAI cannot be used", True),
    ({"contract": {"training.get": {"path": "/no/such/path"}}}, "OSAI does not have this job", True),
    ({"contract": {"training.get": {"response": {"id": "nowhere"}}}}, "connection to OSAI cannot be used", True),
]


def test_error_does_not_disclose_the_connection(browser, ran, connection, caplog):
    """Viewers may not read connections in Airflow. The reason is in the API server's log; what Airflow has is shown."""
    for extra, message, is_final in BROKEN:
        connection(**extra)
        page = browser().get(task(ran))
        text = text_of(page)
        assert message in text
        assert f'data-refresh="{0 if is_final else 10}"' in page.text
        assert ran.result("train_model", "model_id") in text
        assert "accuracy" in text
        for detail in ("mars", "127.0.0.1", "training.get", CANARY):
            assert detail not in page.text
        assert "The run page cannot read a job through connection osai_default: " in caplog.text
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
        job_id = ran.result("train_model", "job_id")
        for conn_id in ("pg", "osai_other", "../../etc/passwd", "x" * 10_000, 7, None):
            self.write_xcom(ran, "train_model", {"kind": "training", "job_id": job_id, "conn_id": conn_id})
            assert "OSAI succeeded" in text_of(browser().get(task(ran)))
        assert foreign_requests == []

    def test_connection_of_another_type_gets_no_request(self, browser, ran, foreign_requests):
        """Even if the task's rendered fields name it, because of a mistyped id."""
        names = RenderedTaskInstanceFields
        with create_session() as session:
            fields = dict(session.execute(select(names.rendered_fields).where(names.task_id == "train_model")).scalar())
            where = (names.run_id == ran.run.run_id, names.task_id == "train_model")
            session.execute(update(names).where(*where).values(rendered_fields=fields | {"osai_conn_id": "pg"}))
        assert "cannot be used" in text_of(browser().get(task(ran)))
        assert foreign_requests == []

    def test_job_of_another_task_is_not_shown(self, browser, ran):
        """The job's idempotency key identifies another task than the one whose XCom has the job."""
        other = {"kind": "conversion", "job_id": ran.result("convert_model", "job_id")}
        self.write_xcom(ran, "train_model", other)
        text = text_of(browser().get(task(ran)))
        assert "The job in this task's XCom belongs to another task." in text
        assert other["job_id"] not in text

    def test_invalid_xcom_counts_as_no_job(self, browser, ran):
        """Neither the job page nor the list fails."""
        invalid = [{"kind": "training", "job_id": job_id} for job_id in ("\ud800", "x" * 100_000, "", 7, None)]
        invalid += [{"kind": kind, "job_id": "1"} for kind in ("mining", ["training"], None)]
        for value in (*invalid, ["training", "1"], "training", None):
            self.write_xcom(ran, "train_model", value)
            assert "not submitted an OSAI job" in text_of(browser().get(task(ran)))
            assert browser().get("/").status_code == 200

    def test_old_run_without_rendered_fields_uses_the_connection_of_the_dag(self, browser, ran):
        """Airflow keeps the rendered fields of only the latest runs."""
        with create_session() as session:
            session.execute(delete(RenderedTaskInstanceFields))
        assert "OSAI succeeded" in text_of(browser().get(task(ran)))


class TestRequests:
    """Many viewers cause few requests to OSAI."""

    def test_many_reads_of_one_job_cause_few_requests(self, browser, ran, sandbox):
        client = browser()
        before = sandbox.control.record()["counts"].get("training.get", 0)
        assert all("OSAI succeeded" in text_of(client.get(task(ran))) for _ in range(200))
        assert sandbox.control.record()["counts"]["training.get"] - before < 40

    def test_error_is_cached(self, browser, ran, sandbox):
        sandbox.control.fault("status", "training.get", times=1_000, status=503)
        client = browser()
        before = sandbox.control.record()["counts"].get("training.get", 0)
        texts = [text_of(client.get(task(ran))) for _ in range(20)]
        assert all("OSAI is unavailable at the moment (status 503)." in text for text in texts)
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


def test_job_with_odd_texts_and_numbers_is_shown_escaped(browser, ran):
    """A lone surrogate, NaN, infinity, a control character, and HTML in every text."""
    odd = f"\ud800\x1b[31m{HOSTILE}"
    fields = dict.fromkeys(("status", "message", "created_at", "started_at", "finished_at"), odd)
    result = {"metrics": {"loss": float("nan"), "worst": float("inf"), odd: odd}, "model_id": HOSTILE}
    history = [{"epoch": 1, "loss": float("nan"), "accuracy": 0.5}]
    page = browser(read=answer(state="failed", result=result, history=history, **fields)).get(task(ran))
    text = text_of(page)
    assert HOSTILE in text
    assert "<script>alert" not in page.text
    assert "<img" not in page.text
    assert "\x1b" not in page.text
    assert "nan" in text
    assert charts_of(page)[0]["series"][0]["values"] == [None]


def test_hostile_xcoms_and_fields_are_shown_escaped(browser, ran):
    """Of a gate, an upload, a run and in the list: who may write XComs may not run scripts in a viewer's browser."""
    score = {"model_id": HOSTILE, "metrics": {HOSTILE: HOSTILE}, "measured_on": HOSTILE}
    results = [
        {"decision": "rejected", "reasons": [HOSTILE], "rule": {}, "candidate": score, "champion": score},
        {"dataset_id": HOSTILE, "uploaded": HOSTILE, "skipped": 1, "data_digest": HOSTILE, "categories": [HOSTILE]}
        | {"invalid_files": {HOSTILE: HOSTILE}, "images_by_category": {HOSTILE: HOSTILE}},
        {"state": HOSTILE, "model_id": HOSTILE, "metrics": {HOSTILE: HOSTILE}},
    ]
    for result in results:
        set_xcom(ran, "train_model", "return_value", result)
        for path in (task(ran), "/"):
            page = browser().get(path)
            assert page.status_code == 200
            assert "<script>alert" not in page.text
            assert "<img" not in page.text


def set_xcom(ran, task_id, key, value):
    where = (XComModel.run_id == ran.run.run_id, XComModel.task_id == task_id, XComModel.key == key)
    with create_session() as session:
        assert session.execute(update(XComModel).where(*where).values(value=value)).rowcount == 1


def set_state(ran, task_id, state):
    where = (TaskInstance.run_id == ran.run.run_id, TaskInstance.task_id == task_id)
    with create_session() as session:
        before = session.execute(select(TaskInstance.state).where(*where)).scalar()
        session.execute(update(TaskInstance).where(*where).values(state=state))
    return before


@pytest.fixture
def task_state(ran):
    before = {}

    def change(state, task_id="train_model"):
        before.setdefault(task_id, set_state(ran, task_id, state))
        set_state(ran, task_id, state)

    yield change
    for task_id, state in before.items():
        set_state(ran, task_id, state)


def test_confusion_matrix_and_metrics_by_category_are_shown(browser, ran):
    """As the sandbox computed them for the training; labels and file names are text."""
    text = text_of(browser().get(task(ran)))
    assert re.search(r"Rows: true category. Columns: predicted category. 0 1 2 0 \d+ 0 0", text)
    assert re.search(r"Category Images Precision Recall F1 0 \d+ \d\.\d{3}", text)
    matrix = {"labels": [HOSTILE, "b"], "rows": [[0, 0], [3, 1]]}
    samples = [{"file_name": HOSTILE, "predicted": "a", "confidence": 0.25, "actual": "b"}, {"file_name": "2.png"}]
    result = {"confusion_matrix": matrix, "samples": samples}
    page = browser(read=answer(state="succeeded", result=result)).get(task(ran))
    text = text_of(page)
    assert f"{HOSTILE} 0 0 b 3 1" in text
    assert f"{HOSTILE} 0 0.000 - 0.000 b 4 1.000 0.250 0.400" in text
    assert f"{HOSTILE} a 0.250 b wrong 2.png - - -" in text
    assert "<script>alert" not in page.text


def test_running_job_shows_progress_and_the_time_left(browser, ran, task_state):
    task_state("deferred")
    started = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    page = browser(read=answer(state="running", progress=0.75, started_at=started)).get(task(ran))
    text = text_of(page)
    assert "OSAI running Airflow task deferred" in text
    assert "75 %" in text
    assert "running for 30 min about 10 min left" in text
    assert 'data-refresh="3"' in page.text


DISAGREE = [
    ("succeeded", "failed", "clearing the task submits, and pays for, a new one"),
    ("failed", "success", "there may be no result"),
    ("running", "failed", "it may still cost money"),
    ("succeeded", "up_for_retry", "submits no second one"),
    ("succeeded", "success", None),
    ("running", "deferred", None),
    ("failed", "failed", None),
]


@pytest.mark.parametrize(("state", "in_airflow", "sentence"), DISAGREE)
def test_page_says_what_to_do_if_task_and_job_disagree(browser, ran, task_state, state, in_airflow, sentence):
    task_state(in_airflow)
    page = browser(read=answer(state=state)).get(task(ran))
    assert (sentence or "") in text_of(page)
    assert ('class="warning"' in page.text) is (sentence is not None)


def test_slow_osai_does_not_hold_up_the_page(browser, ran, monkeypatch):
    """What Airflow has is shown, and the page refreshes itself."""

    async def read(_conn_id, kind, job_id):
        await asyncio.Event().wait()

    client = browser(read=read)
    monkeypatch.setattr("airflow_provider_osai.plugins.pages.app.FIRST_WAIT", 0.1)
    page = client.get(task(ran))
    assert "Waiting for OSAI to answer" in text_of(page)
    assert ran.result("train_model", "model_id") in page.text
    assert 'data-refresh="2"' in page.text


def test_simulated_job_is_marked_on_its_page_and_in_the_list(browser, ran):
    assert ">simulated<" not in browser().get(task(ran)).text
    assert ">simulated<" in browser(read=answer(state="succeeded", simulated=True)).get(task(ran)).text
    assert ">simulated<" not in browser().get("/").text
    set_xcom(ran, "train_model", "return_value", {"state": "succeeded", "simulated": True})
    assert browser().get("/").text.count(">simulated<") == 1


def test_what_differs_from_the_contract_is_noted(browser, ran, connection):
    """Of the responses that the API server itself got."""
    assert "differs from the contract" not in browser().get(task(ran)).text
    connection(contract='{"training.get": {"response": {"status": "createdAt"}}}')
    assert "differs from the contract: training.get: unknown status word " in text_of(browser().get(task(ran)))


def test_metrics_are_compared_with_the_previous_run(browser, ran):
    """As the same task of an earlier run returned them."""
    assert "previous run" not in text_of(browser().get(task(ran)))
    accuracy = ran.xcom("train_model")["metrics"]["accuracy"]
    text = text_of(browser(read=answer(state="succeeded", result={"metrics": {"accuracy": accuracy}})).get(task(ran)))
    assert f"accuracy {accuracy:.5g}" in text


class TestJobsList:
    """Browse > OSAI jobs."""

    def test_list_has_all_jobs_of_readable_dags_with_links_to_their_pages(self, browser, ran):
        page = browser().get("/")
        for name in ("train_model", "convert_model", "predict"):
            assert ran.result(name, "job_id") in page.text
            assert f"/{name}/-1" in page.text
        text = text_of(page)
        assert "succeeded success" in text
        assert f"accuracy {ran.xcom('train_model')['metrics']['accuracy']:.5g}" in text

    def test_list_has_the_state_of_a_job_that_failed(self, browser, ran):
        """Its task has returned nothing."""
        set_xcom(ran, "train_model", "return_value", None)
        about = ran.xcom("train_model", "osai_job")
        set_xcom(ran, "train_model", "osai_job", about | {"state": "failed", "simulated": True})
        page = browser().get("/?kind=training")
        assert "simulated failed success" in text_of(page)

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("kind=training", {"train_model"}),
            ("kind=conversion&state=success", {"convert_model"}),
            ("kind=mining", {"train_model", "convert_model", "predict"}),
            ("state=failed", set()),
            (f"dag_id={DAG}", {"train_model", "convert_model", "predict"}),
            ("dag_id=none", set()),
            ("days=1", {"train_model", "convert_model", "predict"}),
            ("days=1e9", {"train_model", "convert_model", "predict"}),
            ("page=2", set()),
            ("page=-1", {"train_model", "convert_model", "predict"}),
            ("page=" + "9" * 5_000, set()),
        ],
    )
    def test_filter_selects_jobs_and_ignores_unknown_values(self, browser, ran, query, shown):
        page = browser().get(f"/?{query}")
        assert {name for name in ("train_model", "convert_model", "predict") if f"/{name}/-1" in page.text} == shown
        assert ("with this filter" in page.text) is (not shown)

    def test_three_statements_and_no_request_to_osai(self, browser, ran, sandbox):
        from airflow.settings import engine

        client = browser()
        client.get("/")
        counts = dict(sandbox.control.record()["counts"])
        statements = []
        is_authentication = re.compile("revoked_token").search
        listen = (engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        event.listen(*listen)
        try:
            assert client.get("/?kind=training").status_code == 200
        finally:
            event.remove(*listen)
        statements = [statement for statement in statements if not is_authentication(statement)]
        assert 2 <= len(statements) <= 3, statements
        assert sandbox.control.record()["counts"] == counts

    def test_pages_have_fifty_jobs_each_and_keep_the_filter(self, browser, many):
        query = f"kind=training&dag_id={DAG}"
        first = browser().get(f"/?{query}")
        assert first.text.count('href="task/') == 50
        assert f"?{html.escape(query)}&amp;page=2" in first.text
        second = browser().get(f"/?{query}&page=2")
        assert second.text.count('href="task/') == 11
        assert 'rel="next"' not in second.text
        assert f'?{html.escape(query)}" rel="prev"' in second.text

    def test_page_of_a_mapped_task_lists_the_jobs_of_all_instances(self, browser, ran, instances):
        """In the order of their map index, with the number of instances by state."""
        instances("train_many")
        first, second = (browser().get(task(ran, "train_many") + query) for query in ("", "?page=2"))
        assert "train_many 60 task instances 60 success" in text_of(first)
        links = re.findall(r'href="\.\./\.\./\.\./\.\./task/[^"]*/train_many/(-?\d+)"', first.text + second.text)
        assert links == [str(number) for number in range(60)]
        assert 'rel="next"' not in second.text
        assert 'href="-1">All jobs of train_many' in browser().get(task(ran, "train_many", "7")).text

    @pytest.fixture
    def many(self, instances):
        """Sixty mapped instances besides the one of the run."""
        instances("train_model")

    @pytest.fixture
    def instances(self, ran):
        """Add sixty mapped instances of a task, copies of the training."""
        where = (TaskInstance.run_id == ran.run.run_id, TaskInstance.task_id == "train_model")

        def add(task_id):
            with create_session() as session:
                columns = TaskInstance.__table__.columns
                instance = dict(session.execute(select(*columns).where(*where)).one()._mapping)
                xcom = {(row["task_id"], row["key"]): row for row in _rows(XComModel, ran)}["train_model", "osai_job"]
                for number in range(60):
                    key = uuid.uuid4() if not isinstance(instance["id"], str) else str(uuid.uuid4())
                    copy = {"task_id": task_id, "map_index": number}
                    session.execute(TaskInstance.__table__.insert().values(instance | copy | {"id": key}))
                    session.execute(XComModel.__table__.insert().values(xcom | copy))

        yield add
        with create_session() as session:
            session.execute(delete(XComModel).where(XComModel.run_id == ran.run.run_id, XComModel.map_index >= 0))
            session.execute(delete(TaskInstance).where(where[0], TaskInstance.map_index >= 0))


class TestBatch:
    """A task that submitted many jobs."""

    @pytest.fixture
    def batch(self, ran):
        """Turn the training into a batch, which has returned the given results."""
        before = ran.xcom("train_model")

        def make(results, **fields):
            set_xcom(ran, "train_model", "return_value", results)
            xcom = {(row["task_id"], row["key"]): row for row in _rows(XComModel, ran)}["train_model", "osai_job"]
            with create_session() as session:
                session.execute(XComModel.__table__.insert().values(xcom | {"key": "osai_batch", "value": fields}))

        yield make
        with create_session() as session:
            session.execute(delete(XComModel).where(XComModel.run_id == ran.run.run_id, XComModel.key == "osai_batch"))
        set_xcom(ran, "train_model", "return_value", before)

    def test_its_jobs_are_listed_with_how_they_ended(self, browser, ran, batch):
        good = {"index": 0, "job_id": "11", "state": "succeeded", "metrics": {"accuracy": 0.5}, "model_id": "m7"}
        bad = {"index": 1, "job_id": "12", "state": "failed", "metrics": {}, "message": "out of memory"}
        rejected = {"index": 2, "job_id": None, "state": "rejected", "metrics": {}, "message": "no such dataset"}
        batch([good, bad, rejected], kind="training", job_ids=["11", "12", None])
        text = text_of(browser().get(task(ran)))
        assert "train_model 3 training jobs" in text
        assert "succeeded 1" in text or "1 succeeded" in text
        assert "0 11 succeeded m7 accuracy 0.5" in text.lower()
        assert "1 12 failed out of memory" in text
        assert "2 - rejected no such dataset" in text

    def test_before_its_end_it_lists_the_ids(self, browser, ran, batch):
        batch(None, kind="prediction", job_ids=["11", None, "12"])
        text = text_of(browser().get(task(ran)))
        assert "train_model 3 prediction jobs" in text
        assert "0 11 submitted" in text
        assert "2 12 submitted" in text
        assert "when the task has ended" in text

    @pytest.mark.parametrize("ids", [None, "11", {"11": 1}, [HOSTILE, 5, None]])
    def test_odd_values_are_shown_escaped(self, browser, ran, batch, ids):
        result = dict.fromkeys(("index", "job_id", "state", "model_id", "message"), HOSTILE)
        batch([result | {"metrics": {HOSTILE: HOSTILE}}, "no result", None], kind=HOSTILE, job_ids=ids)
        page = browser().get(task(ran))
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text

    def test_a_long_list_is_cut(self, browser, ran, batch):
        batch([{"index": n, "job_id": str(n), "state": "succeeded"} for n in range(1_200)], kind="training")
        assert "and 200 more" in text_of(browser().get(task(ran)))


def test_upload_page_shows_what_was_sent(browser, ran):
    page = browser().get(task(ran, "upload_images"))
    text = text_of(page)
    result = ran.xcom("upload_images")
    assert f"Images in the dataset {result['images']:,}" in text
    assert f"Sent {result['uploaded']:,}" in text
    assert result["data_digest"] in text
    assert result["images_by_category"]
    assert all(f"{name} {count}" in text for name, count in result["images_by_category"].items())


def test_upload_page_lists_invalid_files_with_the_reasons(browser, ran):
    files = {f"bad{number}.png": "not an image" for number in range(50)}
    result = ran.xcom("upload_images") | {"invalid_files": files, "invalid_count": 73}
    set_xcom(ran, "upload_images", "return_value", result)
    text = text_of(browser().get(task(ran, "upload_images")))
    assert "bad49.png not an image" in text
    assert "and 23 more" in text


class TestUploadWithACheck:
    """An upload whose images were checked."""

    @pytest.fixture
    def check(self, ran):
        """Give the upload the summary of a check, and its end."""
        before = ran.xcom("upload_images"), set_state(ran, "upload_images", "success")
        where = (XComModel.run_id == ran.run.run_id, XComModel.task_id == "upload_images")
        rendered = (RenderedTaskInstanceFields.run_id == ran.run.run_id,)
        rendered += (RenderedTaskInstanceFields.task_id == "upload_images",)

        def make(state, validate, **quality):
            set_state(ran, "upload_images", state)
            row = {(row["task_id"], row["key"]): row for row in _rows(XComModel, ran)}["upload_images", "return_value"]
            with create_session() as session:
                session.execute(XComModel.__table__.insert().values(row | {"key": "quality", "value": quality}))
                fields = session.execute(select(RenderedTaskInstanceFields.rendered_fields).where(*rendered)).scalar()
                changed = {"rendered_fields": {**fields, "validate": validate}}
                session.execute(update(RenderedTaskInstanceFields).where(*rendered).values(changed))
            if state == "failed":
                set_xcom(ran, "upload_images", "return_value", None)

        yield make
        with create_session() as session:
            session.execute(delete(XComModel).where(*where, XComModel.key == "quality"))
        set_xcom(ran, "upload_images", "return_value", before[0])
        set_state(ran, "upload_images", before[1])

    def test_a_failed_check_shows_the_verdict_and_the_codes(self, browser, ran, check):
        check("failed", "fail", verdict="errors", findings={"label-conflict": 2, "tiny-box": 1_234})
        text = text_of(browser().get(task(ran, "upload_images")))
        assert "Nothing was uploaded." in text
        assert "Not ready for training" in text
        assert "label-conflict 2 tiny-box 1,234" in text
        assert "not finished" not in text

    def test_a_strict_check_fails_on_warnings(self, browser, ran, check):
        check("failed", "STRICT", verdict="warnings", findings={"tiny-box": 1})
        text = text_of(browser().get(task(ran, "upload_images")))
        assert "Nothing was uploaded." in text
        assert "Usable, with warnings" in text

    def test_an_upload_that_failed_later_does_not_state_that_nothing_was_uploaded(self, browser, ran, check):
        check("failed", "warn", verdict="errors", findings={"tiny-box": 1})
        text = text_of(browser().get(task(ran, "upload_images")))
        assert "This upload has failed." in text
        assert "Nothing was uploaded" not in text
        assert "Not ready for training" in text

    def test_an_upload_with_warnings_shows_the_verdict_beside_what_was_sent(self, browser, ran, check):
        check("success", "warn", verdict="errors", findings={"few-images": 1})
        text = text_of(browser().get(task(ran, "upload_images")))
        assert "Not ready for training" in text
        assert "Images in the dataset" in text

    @pytest.mark.parametrize("findings", [{HOSTILE: HOSTILE}, [HOSTILE], HOSTILE, None], ids=str)
    def test_a_hostile_summary_is_shown_escaped(self, browser, ran, check, findings):
        check("failed", "fail", verdict="errors", findings=findings)
        page = browser().get(task(ran, "upload_images"))
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "Nothing was uploaded" in page.text


def test_every_response_has_security_headers(browser, ran):
    """The page, the lists, the static files, and errors."""
    client = browser()
    paths = [task(ran), "/", "/models", "/none", "/static/pages.js"]
    responses = [client.get(path) for path in paths] + [browser(None).get(task(ran))]
    for response in responses:
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in response.headers["content-security-policy"]
        assert "unsafe-inline" not in response.headers["content-security-policy"]
        assert response.headers["x-frame-options"] == "SAMEORIGIN"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
    is_uncached = [response.headers.get("cache-control") == "no-store" for response in responses]
    assert is_uncached == [True, True, True, True, False, True]


def test_page_loads_only_files_of_the_package(browser, ran):
    """Without scripts, styles or event handlers in the page itself, which the policy would block."""
    client = browser()
    for path, up in ((task(ran), "../../../../"), ("/", ""), ("/models", "")):
        page = client.get(path).text
        for name in ("uPlot.iife.min.js", "uPlot.min.css", "pages.js", "pages.css", "charts.js"):
            assert f'"{up}static/{name}"' in page
            assert client.get(f"/static/{name}").status_code == 200
        assert not re.search(r"<script(?! defer src=)|<style|\sstyle=|\son[a-z]+=", page)
        assert not re.search(r'(src|href)="(?!https?://127\.0\.0\.1)[a-z]+:', page)
