"""A migrated database and Dags run in one process, for what needs Airflow but not its daemons."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DAGS, ROOT, settings_for
from tests.dags import parse


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """The sandbox shows a job at once, and holds nothing back."""
    from airflow_provider_osai.jobs import submission

    monkeypatch.setattr(submission, "VISIBILITY_TIMEOUT", 0.1)
    monkeypatch.setattr(submission, "VISIBILITY_POLL", 0.1)
    monkeypatch.setattr(submission, "HELD_TIMEOUTS", 0.0)


@pytest.fixture(scope="session")
def dagbag():
    """The tests' own Dags and the examples, parsed in a Dags folder, with a database behind them."""
    from airflow.utils.db import initdb

    initdb()
    shutil.copytree(ROOT / "example_dags", DAGS, dirs_exist_ok=True)
    shutil.copytree(Path(__file__).parent / "dags", DAGS, dirs_exist_ok=True)
    return parse(DAGS)


@dataclass
class Ran:
    """A finished Dag run."""

    run: Any

    @property
    def state(self) -> str:
        return str(self.run.state)

    @property
    def tasks(self) -> dict[str, str]:
        """State by task id; mapped ones as ``task[0]``."""
        tis = self.run.get_task_instances()
        return {t.task_id if t.map_index < 0 else f"{t.task_id}[{t.map_index}]": str(t.state) for t in tis}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            query = XComModel.get_many(
                run_id=self.run.run_id, key=key, task_ids=task_id, dag_ids=self.run.dag_id, map_indexes=map_index
            )
            row = session.execute(query).first()
        return row[0].value if row else None  # the database has decoded it; once more, and an id like "1e5" is a number

    def result(self, task_id: str, key: str, map_index: int = -1) -> Any:
        """Return one key of what a task has returned."""
        return (self.xcom(task_id, map_index=map_index) or {}).get(key)

    def outputs(self, task_id: str, map_index: int = -1) -> set[str]:
        """Return the keys of a task's XComs, without what it returned and what is for our pages."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        of_task = (XComModel.dag_id == self.run.dag_id, XComModel.run_id == self.run.run_id)
        query = select(XComModel.key).where(*of_task, XComModel.task_id == task_id, XComModel.map_index == map_index)
        with create_session() as session:
            keys = session.scalars(query).all()
        assert len(keys) == len(set(keys))
        return {key for key in keys if key != "return_value" and not key.startswith("osai_")}


def forget_asset_events():
    """Delete what earlier tests left: their champion is in a sandbox that has ended."""
    from airflow.models.asset import AssetEvent
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(DagRun.consumed_asset_events.property.secondary))
        session.execute(delete(AssetEvent))


def forget_jobs():
    """Delete the XComs of earlier tests, so that the pages have only the jobs of this one."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(XComModel))


@pytest.fixture
def run_dag(dagbag):
    """Run a Dag to its end, triggers inline. No asset has an event when the test begins."""
    forget_asset_events()

    def run(dag_id: str, **conf: object) -> Ran:
        return Ran(dagbag.dags[dag_id].test(run_conf=conf))

    return run


@dataclass
class FakeTaskInstance:
    """What operators use of a task instance; XComs are kept in a dict."""

    task_id: str = "task"
    dag_id: str = "dag"
    run_id: str = "run"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0

    def __post_init__(self) -> None:
        self.start_date = datetime.now(UTC)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


@pytest.fixture(scope="module")
def auth_manager():
    from tests.airflow.pages import fake_auth_manager  # slow to import

    with fake_auth_manager() as manager:
        yield manager


@pytest.fixture
def browser(auth_manager, monkeypatch):
    """Create clients of the pages, each signed in as a user."""
    from tests.airflow.pages import Browsers  # slow to import

    monkeypatch.setattr("airflow_provider_osai.plugins.pages.app.FIRST_WAIT", 30.0)  # on a slow machine
    with ExitStack() as stack:
        yield Browsers(auth_manager, stack)


@pytest.fixture
def ti():
    return FakeTaskInstance()


class FakeStateStore:
    """Stands in for the task's state store of Airflow 3.3: JSON by key."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


@pytest.fixture(params=["with a state store", "without a state store"])
def context(request, ti):
    """What a task runs in: Airflow 3.3 has a state store, 3.1 and 3.2 have none."""
    return {"ti": ti} | ({"task_state_store": FakeStateStore()} if request.param.startswith("with ") else {})


@pytest.fixture
def dataset(connection):
    """Create a dataset, and return its id."""
    from airflow_provider_osai.hooks.osai import OsaiHook

    with OsaiHook().get_conn() as client:
        return client.create_dataset("digits").id


@pytest.fixture
def client(sandbox, connection):
    """A client that repeats no request."""
    from airflow_provider_osai.api.client import OsaiClient

    with OsaiClient(settings_for(sandbox.base_url), retry_budget=0) as client:
        yield client


@pytest.fixture
def train(dataset):
    """Make the operator of a training."""
    from airflow_provider_osai.operators.training import OsaiTrainModelOperator

    def operator(**options):
        options = {"dataset_ids": dataset, "model_name": "m", "poll_interval": 0.05} | options
        return OsaiTrainModelOperator(task_id="task", **options)

    return operator


@pytest.fixture
def jobs(sandbox):
    """Return the jobs that the sandbox has, in the order of their submission."""
    return lambda: sandbox.control.record()["jobs"]


def trigger_of(operator, context):
    """Run a task until it is deferred, and return its trigger."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return caught.value.trigger


def event_of(trigger):
    """Run a trigger until it fires, and return the payload of its event."""
    return asyncio.run(anext(trigger.run())).payload


@contextmanager
def run_when(is_time, action):
    """Run an action on another thread as soon as it is time, as a signal comes while a task runs.

    If the task ends before that, the action is run then, and the test fails by what it asserts.
    """
    ended = threading.Event()

    def wait():
        while not ended.is_set() and not is_time():
            ended.wait(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def messages(text):
    """Return the messages of a log: without the time and the level, and without the logger and its place."""
    return [line.split("] ", 1)[-1].split(" [airflow")[0].rstrip() for line in text.splitlines() if " [" in line]


def group(lines, title):
    """Return the lines of a group in the log viewer, without those that begin and end it, and those outside of it."""
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"::group::{title}"))
    end = lines.index("::endgroup::", begin)
    return lines[begin + 1 : end], lines[:begin] + lines[end + 1 :]
