"""The table of endpoints: what it holds, what is documented, how it is spoken in other words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, RESOURCES, STATE_WORDS, Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.models import JobKind, JobState

DOCUMENTED = {
    "auth.sign_in": ("POST", "/Users/SignIn"),
    "user.me": ("GET", "/Users"),
    "dataset.create": ("POST", "/Datasets"),
    "category.create": ("POST", "/Categories"),
    "upload.start": ("POST", "/Datasets/{id}/StartUploading"),
    "upload.finish": ("POST", "/Datasets/{id}/FinishUploading"),
}


def test_only_what_the_vendor_documents_is_marked_documented():
    """A guess is never presented as a fact, and a fact never changed."""
    marked = {name: (row.method, row.path) for name, row in ENDPOINTS.items() if row.evidence != ASSUMED}
    assert marked == DOCUMENTED


def test_each_kind_of_job_has_its_five_operations():
    """All six kinds are spoken of in the same way."""
    assert set(RESOURCES) == set(JobKind)
    for kind in JobKind:
        assert {f"{kind}.{operation}" for operation in ("submit", "get", "list", "cancel", "page")} <= set(ENDPOINTS)


def test_nothing_that_makes_something_counts_as_repeatable():
    """Only reads, the sign-in, finishing an upload and cancelling may be sent twice."""
    posts = {name for name, row in ENDPOINTS.items() if row.method == "POST" and row.repeatable}
    assert posts == {"auth.sign_in", "upload.finish", *(f"{kind}.cancel" for kind in JobKind)}


@pytest.mark.parametrize("word", ["Succeeded", "SUCCEEDED", "suc_ceeded", "suc ceeded", "Suc-Ceeded"])
def test_a_status_word_is_read_whatever_its_case_and_gaps(word):
    """Case, spaces, hyphens and underscores do not matter."""
    assert Contract().state(word) is JobState.SUCCEEDED


@pytest.mark.parametrize("word", ["", "completed", "finished", "done", "partially succeeded", "ok"])
def test_a_word_that_may_mean_failure_is_not_success(word):
    """What is not known for certain is unknown, never success."""
    assert Contract().state(word) is JobState.UNKNOWN


@given(st.text())
def test_any_word_has_a_state_and_success_only_by_its_words(word):
    """No word of a server breaks the parser."""
    success = {w for w, state in STATE_WORDS.items() if state is JobState.SUCCEEDED}
    folded = "".join(word.split()).replace("_", "").replace("-", "").casefold()
    assert (Contract().state(word) is JobState.SUCCEEDED) == (folded in success)


def test_the_path_is_filled_safely():
    """An id cannot leave its place in the path."""
    out = ENDPOINTS["training.get"].outgoing({"id": "../Users?x=1#y"})
    assert out.path == "/Trainings/..%2FUsers%3Fx%3D1%23y"
    assert (out.query, out.fields) == ({}, {})


@pytest.mark.parametrize("missing", ["", " ", "None", None])
def test_a_missing_id_is_refused_before_it_makes_another_address(missing):
    """``GET /Trainings/`` would list all."""
    with pytest.raises(OsaiArgumentError, match="an id is missing"):
        ENDPOINTS["training.get"].outgoing({"id": missing})


def test_finishing_an_upload_names_it_in_the_query():
    """As documented: ``FinishUploading?datasetUploadId=``."""
    out = ENDPOINTS["upload.finish"].outgoing({"id": 7, "datasetUploadId": "u1"})
    assert (out.path, out.query, out.fields) == ("/Datasets/7/FinishUploading", {"datasetUploadId": "u1"}, {})


def test_a_bare_number_or_text_is_an_id():
    """StartUploading answers "JSON that identifies the upload"; that may be the bare id."""
    assert ENDPOINTS["upload.start"].read(17) == {"id": 17}
    assert ENDPOINTS["upload.start"].read("u-1") == {"id": "u-1"}


@pytest.mark.parametrize("answer", [None, True, [], 1.5])
def test_an_answer_of_another_shape_is_a_contract_error(answer):
    """What cannot be read is said, with the operation's name."""
    with pytest.raises(OsaiContractError, match=r"training\.get"):
        ENDPOINTS["training.get"].read(answer)


def test_a_list_that_is_wrapped_is_found():
    """Both a bare list and one under ``items`` are understood."""
    row = ENDPOINTS["training.list"]
    assert row.read([{"id": "1"}]) == row.read({"items": [{"id": "1"}]}) == [{"id": "1"}]
    with pytest.raises(OsaiContractError, match="no list"):
        row.read({"jobs": []})
