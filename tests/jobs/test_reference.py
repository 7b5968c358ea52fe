"""Whose job it is: the same for a retry, another for everything else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.requests import ConversionRequest, TrainingRequest
from airflow_provider_osai.jobs.reference import Owner

OWNER = Owner("dag", "run", "task", -1, 2)
REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"a": 1, "b": 2})


def test_the_same_owner_and_request_have_the_same_reference():
    """In any process, whatever the order of the parameters."""
    again = TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"b": 2, "a": 1})
    assert OWNER.reference(REQUEST) == replace(OWNER).reference(again)
    assert re.fullmatch("airflow-[0-9a-f]{10}-w-[0-9a-f]{32}-dag/task/-1/run", OWNER.reference(REQUEST))


@pytest.mark.parametrize(
    "change",
    [{"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 0}, {"generation": 3}],
)
def test_another_owner_has_another_reference(change):
    """Another run, another map index, a cleared task: none adopts this job."""
    assert replace(OWNER, **change).reference(REQUEST) != OWNER.reference(REQUEST)


def test_another_request_has_another_reference():
    """A task whose arguments changed does not adopt a job with the old ones."""
    other = TrainingRequest(dataset_ids=["2"], model_name="m", parameters={"a": 1, "b": 2})
    assert OWNER.reference(other) != OWNER.reference(REQUEST)
    assert OWNER.reference(ConversionRequest(model_id="1", target="m")) != OWNER.reference(REQUEST)


names = st.text(min_size=1, max_size=20)


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_names_that_run_together_are_told_apart(a, b):
    """("ab", "c") is not ("a", "bc")."""
    same = Owner(*a, -1, 0).reference(REQUEST) == Owner(*b, -1, 0).reference(REQUEST)
    assert same == (a == b)
