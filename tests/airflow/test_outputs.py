"""Which keys of a job's result become XComs of their own."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_osai.operators._outputs import referenced_outputs
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor
from tests.airflow.conftest import FakeTaskInstance

RESULT = {"kind": "training", "job_id": "5", "state": "succeeded", "model_id": "m1", "metrics": {"accuracy": 0.5}}
KEYS = ("kind", "state", "job_id")


@pytest.fixture
def train():
    with DAG("d", schedule=None):
        yield OsaiTrainModelOperator(task_id="train", dataset_ids=["1"], model_name="m")


def pushed(operator, result=RESULT):
    ti = FakeTaskInstance()
    operator.post_execute({"ti": ti}, result)
    return ti.xcoms, operator.multiple_outputs


def test_the_ids_and_metrics_do_and_airflow_pushes_no_more(train):
    assert pushed(train) == ({"model_id": "m1", "metrics": {"accuracy": 0.5}}, False)


def test_so_does_what_another_task_refers_to(train):
    OsaiJobSensor(task_id="sensor", kind=train.output["kind"], job_id=train.output["job_id"])
    xcoms, _ = pushed(train)
    assert xcoms["kind"] == "training"
    assert xcoms["job_id"] == "5"
    assert "state" not in xcoms


def test_without_multiple_outputs_or_xcoms_none_does():
    for options in ({"multiple_outputs": False}, {"do_xcom_push": False}):
        operator = OsaiTrainModelOperator(task_id="train", dataset_ids=["1"], model_name="m", **options)
        assert pushed(operator)[0] == {}


def test_a_result_that_is_no_dict_is_left_to_airflow(train):
    assert pushed(train, ["a list"]) == ({}, True)


def test_references_are_found_wherever_tasks_have_arguments(train):
    @task
    def reads(state, *, more):
        pass

    assert referenced_outputs(train, KEYS) == set()
    reads(train.output["state"], more={"nested": [train.output["model_id"]]})
    assert referenced_outputs(train, KEYS) == {"state"}
    OsaiConvertModelOperator(task_id="convert", model_id=train.output["model_id"], target="x-{{ ds }}")
    assert referenced_outputs(train, KEYS) == {"state"}


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
