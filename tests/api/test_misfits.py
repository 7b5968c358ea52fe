"""Responses that the contract does not describe are named errors or warnings, and never misread in silence."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from typing import ClassVar

import pytest

from airflow_provider_osai.api.calls import FilePart
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiContractError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.misfits import difference_text, rental_misfit
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.api.settings import OsaiSettings
from tests.raw_server import RawServer, http

REQUEST = TrainingRequest(dataset_ids=["1"], model_name="m")


@pytest.fixture
def answered():
    """Return a function that sends a call to a server which gives one response to everything but the sign-in."""
    servers = []

    def run(make, body, contract=None, *, status=200, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        response = http(content, status, **dict(headers))
        servers.append(RawServer(lambda _: [response]).__enter__())
        extra = {"base_url": servers[-1].base_url, "contract": contract}
        with OsaiClient(OsaiSettings.from_connection("t" * 20, extra), retry_budget=0) as client:
            return make(client)

    yield run
    for server in servers:
        server.__exit__()


def image(client):
    part = FilePart("a.png", lambda: nullcontext(io.BytesIO(b"png")))
    return client.upload_image("1", "2", part)


CASES = {
    "another id": (lambda c: c.get_job("training", "7"), {"id": 8, "status": "running"}, "asked for id '7'.*id '8'"),
    "no status": (
        lambda c: c.get_job("training", "7"),
        {"id": 7, "state": 3},
        r"no status.*fields: id, state.*response",
    ),
    "a list without status": (lambda c: c.list_jobs("training", ["7"]), [{"id": 7}], "training.list: .*no status"),
    "submit refused": (
        lambda c: c.submit_job(REQUEST, "k"),
        {"success": False, "message": "no credit"},
        r"training.submit: .*success = 'False' \(no credit\).*error",
    ),
    "cancel refused": (
        lambda c: c.cancel_job("training", "7"),
        {"isSuccess": False, "error": "too late"},
        "training.cancel: .*too late",
    ),
    "cancel with an error": (
        lambda c: c.cancel_job("training", "7"),
        {"error": {"code": 9}},
        "training.cancel: .*error",
    ),
    "delete refused": (lambda c: c.delete_dataset("7"), {"succeeded": False}, "dataset.delete: .*no reason given"),
    "image refused": (image, {"success": False, "errors": ["too small"]}, "upload.image: .*too small"),
    "image refused with its own word": (
        image,
        {"result": "REJECTED", "reason": "blurred"},
        "upload.image: .*reason, result",
    ),
    "finish refused": (lambda c: c.finish_upload("1", "2"), {"ok": False}, "upload.finish"),
    "more pages by total": (
        lambda c: c.list_datasets(),
        {"items": [{"id": 1}], "totalCount": 2},
        "more pages.*totalCount = 2",
    ),
    "more pages by link": (
        lambda c: c.list_datasets("d"),
        {"items": [], "next": "/x?page=2"},
        "dataset.find.*next is set",
    ),
    "more pages in an object": (
        lambda c: c.list_categories("1"),
        {"items": [{"id": 1}], "meta": {"hasNextPage": True}},
        "category.list.*hasNextPage",
    ),
    "a list of jobs with more pages": (
        lambda c: c.find_jobs("training", "key"),
        {"items": [{"id": 1, "status": "running"}], "total": 50},
        "training.list.*total = 50.*pages",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_misfit_is_an_error_that_names_operation_value_and_remedy(answered, case):
    make, body, message = CASES[case]
    with pytest.raises(OsaiContractError, match=f"(?s){message}"):
        answered(make, body)


def test_the_header_link_shows_more_pages(answered):
    headers = {"Link": '<https://x/api/Datasets?page=2>; rel="next"'}
    with pytest.raises(OsaiContractError, match="header Link"):
        answered(lambda client: client.list_datasets(), [{"id": 1}], headers=headers)


@pytest.mark.parametrize(
    ("body", "state"),
    [({"status": 0}, JobState.QUEUED), ({"status": "0"}, JobState.QUEUED), ({"status": False}, JobState.RUNNING)],
)
def test_a_status_of_zero_or_false_is_a_status(answered, body, state):
    contract = {"training.get": {"states": {"0": "queued", "false": "running"}}}
    job = answered(lambda client: client.get_job("training", "7"), {"id": 7, **body}, contract)
    assert job.state is state


def test_a_bare_word_is_a_status_if_the_contract_says_so(answered):
    contract = {"training.get": {"answer": "text", "response": {"status": "@", "id": None}}}
    job = answered(lambda client: client.get_job("training", "7"), b"Succeeded\n", contract)
    assert (job.id, job.state) == ("7", JobState.SUCCEEDED)


def test_without_it_a_bare_word_is_no_job(answered):
    with pytest.raises(OsaiContractError, match="no status"):
        answered(lambda client: client.get_job("training", "Succeeded"), b'"Succeeded"')


def test_progress_in_percent_is_warned_of_with_the_line_to_add(answered, caplog):
    body = {"id": 7, "status": "running", "progress": 42}
    job = answered(lambda client: client.get_job("training", "7"), body)
    assert job.progress is None
    assert "training.get: progress = 42" in caplog.text
    assert "scale: 100" in caplog.text
    scaled = {"training.get": {"response": {"progress": {"scale": 100}}}}
    assert answered(lambda client: client.get_job("training", "7"), body, scaled).progress == 0.42


def test_percent_in_metrics_and_history_is_warned_of(answered, caplog):
    body = {"id": 9, "status": "succeeded", "history": [{"epoch": 1, "valAccuracy": 88.0}]}
    body["result"] = {"metrics": {"accuracy": 93.5, "f1_score": 0.9, "images": 50, "loss": 3.1}}
    job = answered(lambda client: client.get_job("retraining", "9"), body)
    assert job.history[0].val_accuracy is None
    assert "retraining.get: {response: {history: {items: {valAccuracy: {scale: 100}}}}}" in caplog.text
    assert "retraining.get: {response: {result.metrics.accuracy: {scale: 100}}}" in caplog.text
    assert not any(name in caplog.text for name in ("f1_score", "images", "loss"))


@pytest.mark.parametrize("kind", ["scale", "type"])
@pytest.mark.parametrize(
    "field", ["progress", "result.metrics.accuracy", "history.valAccuracy", "result.samples.confidence"]
)
def test_line_to_add_for_a_field_is_a_valid_document(field, kind):
    """Also for a field of the objects in a list."""
    text = difference_text("training.get", kind, field, "number")
    line = text.partition(" add ")[2] if kind == "scale" else f"training.get: {text.partition('training.get: ')[2]}"
    assert "training.get: {response: {" in line
    apply_overrides(Contract(), line.replace("...", "place"))


@pytest.mark.parametrize(
    ("duration", "expires", "is_misfit"),
    [
        (1200, "2026-01-31T12:20:00Z", False),
        (1200, "2026-01-31T12:23:00Z", False),
        (1200, "2026-02-01T08:00:00Z", True),  # 1200 minutes
        (1200, "2026-01-31T12:00:20Z", True),  # 20 s
        (1200, None, False),
        (1200, "soon", False),
        (1200, "2026-01-31T12:20:00", False),  # without a zone
    ],
)
def test_a_rental_of_another_length_is_warned_of(duration, expires, is_misfit):
    warning = rental_misfit(duration, "2026-01-31T12:00:00Z", expires)
    assert ("unit" in (warning or "")) is is_misfit


def test_a_web_page_is_no_confirmation(answered):
    """Servers answer unknown addresses with their start page and 200."""
    page = {"Content_Type": "text/html"}
    with pytest.raises(OsaiUnreachable, match="text/html instead of JSON"):
        answered(lambda client: client.cancel_job("training", "7"), b"<html>hello</html>", headers=page)


@pytest.mark.parametrize("content", [b"", b"OK", b"{}", b"null", b'{"error": null, "success": true}'])
def test_anything_else_confirms_a_cancellation(answered, content):
    assert answered(lambda client: client.cancel_job("training", "7"), content) is None


@pytest.mark.parametrize("body", [{}, {"id": 3}, {"imageId": 3, "digest": "ab"}])
def test_an_image_is_taken_if_the_response_is_empty_or_known(answered, body):
    answered(image, body)


def test_json_where_a_model_file_is_expected_asks_for_the_place_of_the_address(answered):
    with pytest.raises(OsaiContractError, match="JSON document instead of a file.*url"):
        answered(lambda client: client.download_model("1", "t", lambda stream: stream), {"url": "https://x/y"})


@pytest.mark.parametrize(
    ("rules", "status", "is_absent"),
    [
        ({}, 400, False),
        ({"statuses": {400: "absent"}}, 400, True),
        ({"statuses": {400: [{"means": "absent", "when": "code == 'E1'"}, "rejected"]}}, 400, True),
        ({"statuses": {400: [{"means": "absent", "when": "code == 'E2'"}, "rejected"]}}, 400, False),
        ({"statuses": {404: "rejected"}}, 404, False),
    ],
)
def test_a_status_means_what_the_contract_says(answered, rules, status, is_absent):
    with pytest.raises(OsaiRequestError, match=f"with {status}") as caught:
        answered(lambda client: client.get_job("training", "7"), {"code": "E1"}, {"job.get": rules}, status=status)
    assert caught.value.is_not_found is is_absent


def test_busy_is_retried_and_was_not_processed(answered):
    rules = {"job.submit": {"statuses": {400: {"means": "busy", "when": "code == 'BUSY'", "message": "detail"}}}}
    with pytest.raises(OsaiUnreachable, match="queue full") as caught:
        answered(lambda c: c.submit_job(REQUEST, "k"), {"code": "BUSY", "detail": "queue full"}, rules, status=400)
    assert not caught.value.may_have_been_processed


def test_an_error_in_a_200_has_the_servers_reason(answered):
    rules = {"*": {"error": {"when": "success == `false`", "message": "errors[0].text", "means": "locked"}}}
    body = {"success": False, "errors": [{"text": "upload open"}]}
    with pytest.raises(OsaiRequestError, match="rejected DELETE .* with 200: upload open") as caught:
        answered(lambda client: client.delete_dataset("7"), body, rules)
    assert caught.value.status == 409


def test_the_envelope_is_named_if_it_is_missing(answered):
    with pytest.raises(OsaiContractError, match="training.get: the response has no 'data'.*id, status"):
        answered(lambda c: c.get_job("training", "7"), {"id": 7, "status": "running"}, {"*": {"envelope": "data"}})


def test_a_failed_job_may_describe_its_error(answered):
    """An error's description in the result of a GET belongs to the job."""
    body = {"id": 7, "status": "failed", "success": False, "error": "out of memory"}
    assert answered(lambda client: client.get_job("training", "7"), body).state is JobState.FAILED


def test_a_scheduled_kind_of_list_with_all_items_is_whole(answered):
    body = {"items": [{"id": 1}, {"id": 2}], "total": 2, "next": None, "hasMore": False}
    assert len(answered(lambda client: client.list_datasets(), body)) == 2


def test_the_kind_of_a_job_is_that_of_the_request(answered):
    job = answered(lambda client: client.get_job(JobKind.CONVERSION, "7"), {"id": 7, "status": "running", "kind": "x"})
    assert job.kind is JobKind.CONVERSION


class TestErrorsBesideTheResult:
    """The rule for errors also counts where the result is a text or nothing, and not for an empty body."""

    RULE: ClassVar = {"error": {"when": "IsSuccess == `false`", "message": "Text"}}

    def test_of_a_text(self, answered):
        rules = {"*": self.RULE, "dataset.create": {"answer": "text", "response": {"id": "@"}}}
        with pytest.raises(OsaiRequestError, match="quota exceeded"):
            answered(lambda client: client.create_dataset("d"), {"IsSuccess": False, "Text": "quota exceeded"}, rules)
        assert answered(lambda client: client.create_dataset("d"), b"17", rules).id == "17"

    def test_a_web_page_is_no_text(self, answered):
        rules = {"training.get": {"answer": "text", "response": {"status": "@", "id": None}}}
        page = {"Content_Type": "text/html; charset=utf-8"}
        with pytest.raises(OsaiUnreachable, match="web page"):
            answered(lambda client: client.get_job("training", "7"), b"<html>login</html>", rules, headers=page)

    def test_of_nothing(self, answered):
        rules = {"*": self.RULE, "training.cancel": {"answer": "none"}}
        with pytest.raises(OsaiRequestError, match="too late"):
            answered(lambda client: client.cancel_job("training", "7"), {"IsSuccess": False, "Text": "too late"}, rules)
        rules = {"training.cancel": {"answer": "none"}}
        with pytest.raises(OsaiContractError, match="success"):
            answered(lambda client: client.cancel_job("training", "7"), {"success": False}, rules)

    @pytest.mark.parametrize("answer", ["json", "none"])
    def test_an_empty_body_is_no_error(self, answered, answer):
        rules = {"training.cancel": {"answer": answer, "error": {"when": "code != `0`"}}}
        assert answered(lambda client: client.cancel_job("training", "7"), b"", rules) is None

    def test_a_comparison_with_a_text_is_false(self, answered):
        rules = {"training.get": {"error": {"when": "code > `0`"}}}
        body = {"code": "5", "id": 7, "status": "running"}
        assert answered(lambda client: client.get_job("training", "7"), body, rules).id == "7"


@pytest.mark.parametrize("status", [200, 403])
def test_a_token_that_the_server_repeats_is_not_shown(answered, caplog, status):
    token = "t" * 20
    body = {"id": 7, "status": f"bad key {token}", "progress": token, "message": token}
    try:
        shown = repr(answered(lambda client: client.get_job("training", "7"), body, status=status))
    except OsaiRequestError as error:
        shown = f"{error!r} {error.text}"
    assert token not in shown + caplog.text
    assert "***" in shown


def test_a_header_of_a_response_with_a_token_still_counts(answered):
    contract = {"training.submit": {"response": {"id": {"in": "header", "name": "Location"}}}}
    body = {"note": "t" * 20}
    job = answered(lambda client: client.submit_job(REQUEST, "k"), body, contract, headers={"Location": "/x/7"})
    assert job.id == "7"


def test_an_api_key_that_is_rejected_is_named_as_such(answered):
    contract = {"auth.sign_in": None, "auth": {"header": "X-Api-Key", "prefix": ""}}
    with pytest.raises(OsaiAuthError, match=r"rejected the access token \(401\)"):
        answered(lambda client: client.get_job("training", "7"), {}, contract, status=401)
