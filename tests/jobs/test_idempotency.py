"""Idempotency keys: equal for a retry, different for everything else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.requests import ConversionRequest, TrainingRequest
from airflow_provider_osai.jobs.idempotency import TaskKey

OWNER = TaskKey("dag", "run", "task", -1, 2)
REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"a": 1, "b": 2})


def test_the_same_task_and_request_have_the_same_key():
    """In any process, whatever the order of the parameters."""
    reordered = TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"b": 2, "a": 1})
    assert OWNER.reference(REQUEST) == replace(OWNER).reference(reordered)
    assert re.fullmatch("airflow-[0-9a-f]{10}-w-[0-9a-f]{32}-dag/task/-1/run", OWNER.reference(REQUEST))


@pytest.mark.parametrize(
    "change",
    [{"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 0}, {"generation": 3}],
)
def test_another_task_instance_has_another_key(change):
    """Another run, another map index, a cleared task: none reconnects to this job."""
    assert replace(OWNER, **change).reference(REQUEST) != OWNER.reference(REQUEST)


def test_another_request_has_another_key():
    """A task whose arguments changed does not reconnect to a job with the old ones."""
    other = TrainingRequest(dataset_ids=["2"], model_name="m", parameters={"a": 1, "b": 2})
    assert OWNER.reference(other) != OWNER.reference(REQUEST)
    assert OWNER.reference(ConversionRequest(model_id="1", target="m")) != OWNER.reference(REQUEST)


names = st.text(min_size=1, max_size=20)


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_keys_differ_for_names_with_equal_concatenation(a, b):
    """("ab", "c") is not ("a", "bc")."""
    same = TaskKey(*a, -1, 0).reference(REQUEST) == TaskKey(*b, -1, 0).reference(REQUEST)
    assert same == (a == b)
