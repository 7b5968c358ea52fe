"""The endpoint table: evidence, status words, paths and response shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, RESOURCES, STATE_WORDS, UNBOUND, Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides

DOCUMENTED = {
    "auth.sign_in": ("POST", "/Users/SignIn"),
    "user.me": ("GET", "/Users"),
    "dataset.create": ("POST", "/Datasets"),
    "category.create": ("POST", "/Categories"),
    "upload.start": ("POST", "/Datasets/{id}/StartUploading"),
    "upload.finish": ("POST", "/Datasets/{id}/FinishUploading"),
}


def test_only_endpoints_in_the_vendor_documentation_are_marked_documented():
    marked = {name: (row.method, row.path) for name, row in ENDPOINTS.items() if row.evidence != ASSUMED}
    assert marked == DOCUMENTED


def test_each_job_kind_has_five_operations():
    assert set(RESOURCES) == set(JobKind)
    for kind in JobKind:
        assert {f"{kind}.{operation}" for operation in ("submit", "get", "list", "cancel", "page")} <= set(ENDPOINTS)


def test_requests_that_create_something_are_not_idempotent():
    """Of the POST requests, only the sign-in, finishing an upload, cancelling and stopping are."""
    posts = {name for name, row in ENDPOINTS.items() if row.method == "POST" and row.idempotent}
    assert posts == {"auth.sign_in", "upload.finish", *UNBOUND, *(f"{kind}.cancel" for kind in JobKind)}


class TestUnbound:
    """Operations that are not even assumed."""

    def test_the_default_has_none_of_them(self):
        assert {name for name in ENDPOINTS if name not in Contract()} == UNBOUND
        with pytest.raises(OsaiContractError, match="training.stop: the connection's contract does not have this"):
            Contract()["training.stop"]
        with pytest.raises(OsaiContractError, match="conversion.stop"):
            OsaiApi().stop_job("conversion", "7")

    @pytest.mark.parametrize("key", ["*", "training.*", "job.*", "job.stop"])
    def test_a_key_for_several_operations_does_not_bind_one(self, key):
        contract = apply_overrides(Contract(), {key: {"headers": {"X-Team": "vision"}}})
        assert UNBOUND.isdisjoint(name for name in ENDPOINTS if name in contract)

    @pytest.mark.parametrize(
        ("rules", "path"), [({}, "/Trainings/{id}/Stop"), ({"path": "/Jobs/{id}/Finish"}, "/Jobs/{id}/Finish")], ids=str
    )
    def test_its_own_key_does(self, rules, path):
        contract = apply_overrides(Contract(), {"training.stop": rules})
        assert (contract["training.stop"].method, contract["training.stop"].path) == ("POST", path)
        assert "retraining.stop" not in contract

    def test_null_leaves_it_unbound(self):
        assert "training.stop" not in apply_overrides(Contract(), {"training.stop": None})


@pytest.mark.parametrize("word", ["Succeeded", "SUCCEEDED", "suc_ceeded", "suc ceeded", "Suc-Ceeded"])
def test_status_word_ignores_case_spaces_hyphens_and_underscores(word):
    assert Contract().state(word) is JobState.SUCCEEDED


@pytest.mark.parametrize("word", ["", "completed", "finished", "done", "partially succeeded", "ok"])
def test_ambiguous_status_word_is_unknown(word):
    """It may mean a failure."""
    assert Contract().state(word) is JobState.UNKNOWN


@given(st.text())
def test_any_text_has_a_state_and_only_known_words_succeed(word):
    success = {w for w, state in STATE_WORDS.items() if state is JobState.SUCCEEDED}
    folded = "".join(word.split()).replace("_", "").replace("-", "").casefold()
    assert (Contract().state(word) is JobState.SUCCEEDED) == (folded in success)


def test_id_is_escaped_in_the_path():
    out = ENDPOINTS["training.get"].to_wire({"id": "../Users?x=1#y"})
    assert out.path == "/Trainings/..%2FUsers%3Fx%3D1%23y"
    assert (out.query, out.fields) == ({}, {})


@pytest.mark.parametrize("missing", ["", " ", "None", None])
def test_empty_id_is_rejected(missing):
    """``GET /Trainings/`` would list all jobs."""
    with pytest.raises(OsaiArgumentError, match="id is empty"):
        ENDPOINTS["training.get"].to_wire({"id": missing})


def test_finish_upload_sends_the_upload_id_in_the_query():
    """As documented: ``FinishUploading?datasetUploadId=``."""
    out = ENDPOINTS["upload.finish"].to_wire({"id": 7, "datasetUploadId": "u1"})
    assert (out.path, out.query, out.fields) == ("/Datasets/7/FinishUploading", {"datasetUploadId": "u1"}, {})


def test_bare_number_or_string_is_an_id():
    """StartUploading returns "JSON that identifies the upload", which may be the bare id."""
    assert ENDPOINTS["upload.start"].read(17) == {"id": 17}
    assert ENDPOINTS["upload.start"].read("u-1") == {"id": "u-1"}


@pytest.mark.parametrize("response", [None, True, [], 1.5])
def test_response_of_another_shape_is_a_contract_error(response):
    with pytest.raises(OsaiContractError, match=r"training\.get"):
        ENDPOINTS["training.get"].read(response)


def test_list_may_be_bare_or_under_items():
    row = ENDPOINTS["training.list"]
    assert row.read([{"id": "1"}]) == row.read({"items": [{"id": "1"}]}) == [{"id": "1"}]
    with pytest.raises(OsaiContractError, match="no list"):
        row.read({"jobs": []})
