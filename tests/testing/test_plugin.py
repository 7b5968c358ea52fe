"""The pytest plugin: users' tests, as in the docs, run in a separate pytest process."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.conftest import ROOT
from tests.sandbox.client import shades

MINE = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator

with DAG("mine", schedule=None) as dag:
    OsaiCreateDatasetOperator(task_id="make", name="defects")
"""
IDLE = """
import sys

def test_plugin_imports_nothing_unless_the_fixture_is_used():
    assert not {"airflow_provider_osai.sandbox", "airflow_provider_osai.testing.metadata_db"} & set(sys.modules)
"""
GATED = """
from airflow.sdk import DAG
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

champion, trained = osai_model("defects"), osai_model("defects-candidate")

with DAG("gated", schedule=None, params={"images": "images"}, default_args={"poll_interval": 0.2}) as dag:
    data = OsaiCreateDatasetOperator(task_id="data", name="defects")
    upload = OsaiUploadImagesOperator(
        task_id="upload", dataset_id=data.output["dataset_id"], source="{{ params.images }}", skip_if_trained_on=trained
    )
    train = OsaiTrainModelOperator(
        task_id="train", dataset_ids=upload.output["dataset_id"], model_name="defects", outlets=[trained],
        parameters={"epochs": 3}, data_digest=upload.output["data_digest"], deferrable=True,
    )
    OsaiModelGateOperator(
        task_id="gate", candidate=train.output, champion=champion, evaluation_dataset_id=data.output["dataset_id"],
    )
"""
DEVELOP = """
import json, os, sys
from airflow.utils.db import initdb
from airflow_provider_osai.sandbox import Sandbox
from gated import dag

initdb()
with Sandbox() as sandbox:
    connection = {"conn_type": "osai", "password": sandbox.access_token, "extra": {"base_url": sandbox.base_url}}
    os.environ["AIRFLOW_CONN_OSAI_DEFAULT"] = json.dumps(connection)
    assert dag.test(run_conf={"images": sys.argv[1]}).state == "success"
"""
TEST_GATED = """
import os
from gated import dag

def states():
    run = dag.test(run_conf={"images": os.environ["IMAGES"]})
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}

def test_the_first_model_is_promoted(osai_sandbox):
    assert states() == dict.fromkeys(["data", "upload", "train", "gate"], "success")

def test_the_same_images_are_skipped(osai_sandbox):
    states()
    assert states() == {"data": "success", **dict.fromkeys(["upload", "train", "gate"], "skipped")}

def test_without_the_fixture_the_developers_database_is_used():
    from airflow import settings
    assert "developer" in settings.engine.url.database
"""


class Developer:
    """A folder with Dags and a test suite, and an Airflow configured for development."""

    def __init__(self, folder):
        self.folder, self.database = folder, folder / "developer.db"
        (folder / "dags").mkdir()
        for name, images in shades().items():
            (folder / "images" / name).mkdir(parents=True)
            for number, image in enumerate(images):
                (folder / "images" / name / f"{number}.png").write_bytes(image)
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "IMAGES": str(folder / "images"),
            "PYTHONPATH": os.pathsep.join([str(folder / "dags"), str(ROOT)]),
        }

    def write(self, **files):
        for name, source in files.items():
            where = self.folder if name.startswith("test_") else self.folder / "dags"
            (where / f"{name}.py").write_text(source)

    def python(self, *arguments, **environment):
        command, variables = [sys.executable, *arguments], self.environment | environment
        done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pytest(self, *arguments, **environment):
        return self.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, **environment)

    def rows(self):
        """Return the rows of runs, XComs and assets in the developer's database."""
        with closing(sqlite3.connect(self.database)) as database:
            tables = ("asset", "asset_event", "dag_run", "task_instance", "xcom", "dag", "serialized_dag")
            return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


@pytest.fixture
def developer(tmp_path):
    return Developer(tmp_path)


def test_example_of_the_docs_passes_and_its_test_has_ten_lines(developer):
    """Without any configuration: pytest finds the plugin by the package's entry point. No database is needed."""
    dag, test, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)
    assert len([line for line in test.splitlines() if line.strip()]) <= 10
    developer.write(mine=dag, test_mine=test, test_nothing=IDLE)
    assert "2 passed" in developer.pytest("test_nothing.py", "test_mine.py")
    assert not developer.database.exists()


def test_dag_test_is_repeatable_and_does_not_change_the_developers_database(developer):
    """In one process or several. The developer's champion is a model that the sandbox of the tests does not have."""
    developer.write(gated=GATED, test_gated=TEST_GATED)
    developer.python("-c", DEVELOP, str(developer.folder / "images"))
    rows = developer.rows()
    assert len(rows["asset_event"]) == 2  # of the training and of the promotion
    for arguments in ((), ("-n", "2")):
        assert "3 passed" in developer.pytest(*arguments, "test_gated.py")
        assert developer.rows() == rows


def test_configured_postgresql_is_not_connected_to(developer):
    """Nor are its options used for the database of the tests."""
    developer.write(mine=MINE, args="tls = {'sslmode': 'require'}", test_mine=TEST_MINE)
    passed = developer.pytest(
        "test_mine.py",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://me:secret@127.0.0.1:1/developer",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS="args.tls",
        AIRFLOW__DATABASE__SQL_ALCHEMY_ENGINE_ARGS='{"executemany_mode": "values_plus_batch"}',
    )
    assert "1 passed" in passed


def test_a_marker_lets_both_ends_speak_a_contract_document(developer):
    developer.write(mine=MINE, test_mine=TEST_CONTRACT)
    assert "1 passed" in developer.pytest("test_mine.py", "--strict-markers")


TEST_CONTRACT = """
import pytest
from mine import dag

DOCUMENT = {"dataset.*": {"envelope": "data"}, "dataset.create": {"method": "PUT", "path": "/albums"}}

@pytest.mark.osai_sandbox(contract=DOCUMENT)
def test_mine(osai_sandbox):
    assert [str(ti.state) for ti in dag.test().get_task_instances()] == ["success"]
    requests = osai_sandbox.control.record()["requests"]
    assert ("PUT", "/api/albums") in [(request["method"], request["path"]) for request in requests]
"""
TEST_MINE = """
from mine import dag

def test_mine(osai_sandbox):
    assert [str(ti.state) for ti in dag.test().get_task_instances()] == ["success"]
"""
