"""Which keys of a job's result become XComs of their own."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.operators._outputs import referenced_outputs
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor
from tests.conftest import settings_for

KEYS = ("kind", "state", "job_id")


@pytest.fixture
def train():
    with DAG("d", schedule=None):
        yield OsaiTrainModelOperator(task_id="train", dataset_ids=["1"], model_name="m")


@pytest.fixture
def run(run_dag, sandbox, connection):
    """Run a Dag of dags/outputs.py; Airflow's task runner pushes the XComs."""

    def run_outputs(name, **forced):
        sandbox.control.script("training", "seconds", seconds=0.5, **forced)
        with OsaiClient(settings_for(sandbox.base_url)) as client:
            dataset = client.send(client.calls.create_dataset("outputs-of-jobs")).id
        return run_dag(f"outputs_{name}", dataset_id=dataset)

    return run_outputs


@pytest.mark.parametrize("mode", ["deferrable", "blocking"])
def test_the_keys_that_the_dag_refers_to_are_xcoms(run, mode):
    ran = run(mode)
    assert ran.state == "success"
    assert ran.outputs("train") == {"model_id", "metrics", "state"}
    assert ran.xcom("train", "model_id") == ran.result("train", "model_id") == ran.xcom("reads")
    assert set(ran.xcom("train")) == {"kind", "job_id", "state", "model_id", "metrics", "simulated"}


def test_multiple_outputs_pushes_all_or_none(run):
    ran = run("all")
    assert ran.outputs("train") == set(ran.xcom("train"))
    assert run("none").outputs("train") == set()


def test_without_xcoms_a_task_returns_nothing(run):
    ran = run("no_xcom")
    assert ran.outputs("train") == set()
    assert ran.xcom("train") is None


def test_mapped_tasks_push_what_others_refer_to(run):
    ran = run("mapped")
    assert ran.state == "success"
    assert [ran.outputs("train", index) for index in (0, 1)] == [{"model_id", "kind"}] * 2
    assert ran.xcom("all_models") == [ran.result("train", "model_id", index) for index in (0, 1)]


def test_the_job_id_is_there_for_a_task_that_runs_after_a_failure(run):
    ran = run("failed", end="failed")
    assert ran.tasks == {"train": "failed", "after": "success"}
    assert ran.outputs("train") == {"job_id"}
    assert ran.xcom("after") == ran.xcom("train", "osai_job")["job_id"]


def test_other_operators_and_the_sensor_do_the_same(run):
    ran = run("others")
    assert ran.state == "success"
    assert (ran.outputs("create"), ran.outputs("train"), ran.outputs("sensor")) == (
        {"dataset_id"},
        {"job_id"},
        {"model_id"},
    )
    assert ran.xcom("several") == [ran.result("create", "dataset_id"), ran.result("sensor", "model_id")]


def test_references_are_found_wherever_tasks_have_arguments(train):
    @task
    def reads(state, *, more):
        pass

    assert referenced_outputs(train, KEYS) == set()
    reads(train.output["state"], more={"nested": [train.output["job_id"]]})
    assert referenced_outputs(train, KEYS) == {"state", "job_id"}
    OsaiConvertModelOperator(task_id="convert", model_id=train.output["model_id"], target="x-{{ ds }}")
    assert referenced_outputs(train, KEYS) == {"state", "job_id"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ ti.xcom_pull('train', key='state') }}", {"state"}),
        ("{{ ti.xcom_pull(task_ids=['train'], key=\"job_id\") }} and {{ ds }}", {"job_id"}),
        ("the state of {{ ds }}", set()),
        ("{{ ti.xcom_pull('train')['model_id'] }}", set()),
    ],
    ids=["key", "double-quotes", "no-pull", "result"],
)
def test_references_in_templates_are_found(train, text, found):
    """Although they make no task downstream of the other."""
    OsaiConvertModelOperator(task_id="convert", model_id=text, target="onnx")
    OsaiJobSensor.partial(task_id="sensor", kind="training").expand(job_id=[text, "5"])
    assert referenced_outputs(train, KEYS) == found


@pytest.mark.parametrize("where", ["operator", "function", "group"])
def test_references_of_mapped_tasks_are_found(train, where):
    @task
    def reads(kind, other=None):
        pass

    @task_group
    def group(kind, other):
        reads(kind, other)

    kind = train.output["kind"]
    if where == "operator":
        OsaiJobSensor.partial(task_id="sensor", kind=kind).expand(job_id=["1"])
    elif where == "function":
        reads.partial(kind=kind).expand(other=[1])
    else:
        group.partial(kind=kind).expand(other=[1])
    assert referenced_outputs(train, KEYS) == {"kind"}


def test_a_task_of_the_same_name_in_another_dag_does_not_count(train):
    with DAG("other", schedule=None):
        again = OsaiTrainModelOperator(task_id="train", dataset_ids=["1"], model_name="m")
        OsaiJobSensor(task_id="sensor", kind=again.output["kind"], job_id="1")
    assert referenced_outputs(train, KEYS) == set()
    assert referenced_outputs(again, KEYS) == {"kind"}
