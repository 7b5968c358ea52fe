"""A job that failed by its data: known only from what the API says, read by the contract's rules."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiInvalidData, OsaiJobCancelled, OsaiJobFailed
from airflow_provider_osai.api.models import Job
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.jobs.lifecycle import raise_for_state
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import CANARY, settings_for

CODES = "contains(['E1042', 'E1043'], error.code)"
WORDS = "contains(message || '', 'too few images')"
FAILED = {"id": "7", "status": "failed", "error": {"code": "E1042"}, "message": "too few images in ok"}


def read(document, rule=None):
    contract = apply_overrides(Contract(), {"job.get": {"response": {"invalidData": rule}}} if rule else {})
    return OsaiApi(contract).get_job("training", "7").parse(document)


@pytest.mark.parametrize("rule", [CODES, WORDS])
def test_a_code_or_words_of_the_message_tell_it(rule):
    with pytest.raises(OsaiInvalidData, match="too few images in ok") as caught:
        raise_for_state(read(FAILED, rule))
    assert not caught.value.retryable


@pytest.mark.parametrize("rule", [CODES, WORDS, None])
@pytest.mark.parametrize(
    "changes", [{"error": {"code": "E9"}, "message": "out of memory"}, {"error": None, "message": None}]
)
def test_another_reason_or_none_is_an_ordinary_failure(rule, changes):
    with pytest.raises(OsaiJobFailed) as caught:
        raise_for_state(read(FAILED | changes, rule))
    assert caught.value.retryable


@pytest.mark.parametrize("told", [None, "no idea", [], {}, 7])
def test_a_flag_that_is_none_counts_as_not_said(told):
    assert read(FAILED | {"invalidData": told}).invalid_data is False


def test_it_counts_for_failed_jobs_only():
    assert raise_for_state(Job(kind="training", id="7", state="succeeded", invalid_data=True)).id == "7"
    with pytest.raises(OsaiJobCancelled):
        raise_for_state(Job(kind="training", id="7", state="cancelled", invalid_data=True))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({}, True),
        ({"timing": "immediate", "end": "failed", "invalid_data": True}, True),
        ({"timing": "immediate", "end": "failed"}, False),
    ],
    ids=["too few images", "scripted", "other"],
)
def test_the_sandbox_says_it_of_data_that_it_cannot_train_on(script, expected):
    with Sandbox(access_token=CANARY) as sandbox, OsaiClient(settings_for(sandbox.base_url)) as client:
        sandbox.control.script("training", **script)
        dataset = client.create_dataset("empty").id
        job = client.send(client.calls.submit_job(TrainingRequest(dataset_ids=[dataset], model_name="m"), "r"))
        while not job.is_terminal:
            job = client.get_job("training", job.id)
    assert (job.state, job.invalid_data) == ("failed", expected)


SPOKEN = {
    "code": {"name": CODES, "writes": {"true": {"error": {"code": "E1042"}}, "false": {"error": {"code": "E0"}}}},
    "name": "failedByData",
    "none": None,
}


@pytest.mark.parametrize("form", SPOKEN)
def test_the_sandbox_speaks_a_contract_with_such_a_rule(form):
    """An expression needs the forms that are written for it."""
    document = {"job.*": {"response": {"invalidData": SPOKEN[form]}}}
    contract = apply_overrides(Contract(), document)
    with (
        Sandbox(access_token=CANARY, contract=contract) as sandbox,
        OsaiClient(settings_for(sandbox.base_url, contract=document)) as client,
    ):
        sandbox.control.script("training", "immediate", end="failed", invalid_data=True)
        dataset = client.create_dataset("empty").id
        request = TrainingRequest(dataset_ids=[dataset], model_name="m")
        assert client.send(client.calls.submit_job(request, "r")).invalid_data is (form != "none")
        sandbox.control.script("training", "immediate", end="failed")
        assert client.send(client.calls.submit_job(request, "s")).invalid_data is False
