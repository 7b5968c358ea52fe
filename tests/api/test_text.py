"""Ids and texts from users and servers are sent and stored, or rejected with an OsaiError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.calls import FilePart, OsaiApi
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiContractError,
    OsaiUnreachable,
    sanitize_server_text,
)
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import PredictionRequest, TrainingRequest
from airflow_provider_osai.api.text import MAX_TEXT, id_error, storable
from tests.conftest import settings_for
from tests.raw_server import RawServer, http

TRAINING = JobKind.TRAINING
BAD_IDS = {
    "surrogate": "a\ud800",
    "surrogate alone": "\udfff",
    "NUL": "a\0b",
    "line": "a\nb",
    "return": "a\r\nX-Header: y",
    "escape": "\x1b[31m",
    "delete": "a\x7f",
    "separator": "a\u2028b",
    "override": "a\u202eb",
    "long": "x" * 100_000,
    "just too long": "x" * 1_001,
    "replaced": "a\ufffd",
}


def image():
    raise AssertionError("no file is opened for an invalid call")


CALLS = {
    "get_job": lambda calls, i: calls.get_job(TRAINING, i),
    "cancel_job": lambda calls, i: calls.cancel_job(TRAINING, i),
    "get_dataset": lambda calls, i: calls.get_dataset(i),
    "delete_dataset": lambda calls, i: calls.delete_dataset(i),
    "get_model": lambda calls, i: calls.get_model(i),
    "list_conversions": lambda calls, i: calls.list_conversions(i),
    "list_categories": lambda calls, i: calls.list_categories(i),
    "list_images": lambda calls, i: calls.list_images(i),
    "create_category": lambda calls, i: calls.create_category(i, "cat"),
    "start_upload": lambda calls, i: calls.start_upload(i),
    "finish_upload": lambda calls, i: calls.finish_upload("d", i),
    "upload_image": lambda calls, i: calls.upload_image("d", i, FilePart("x.png", image)),
    "category of an image": lambda calls, i: calls.upload_image("d", "u", FilePart("x.png", image), category_id=i),
    "download_model": lambda calls, i: calls.download_model(i, None, {}, lambda stream: None),
    "training": lambda calls, i: calls.submit_job(TrainingRequest(dataset_ids=["1", i], model_name="m"), "r"),
    "prediction": lambda calls, i: calls.submit_job(PredictionRequest(model_id=i, dataset_id="d"), "r"),
}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_invalid_id_is_rejected_before_the_request(make, bad):
    """The message is one short line."""
    with pytest.raises(OsaiArgumentError) as caught:
        make(OsaiApi(), bad)
    assert str(caught.value).isprintable()
    assert len(str(caught.value).encode()) < 1000


@pytest.mark.parametrize("good", ["7", "a b", "ä/ö?#%", "日本", "x" * 1_000, "😀", 17])
def test_any_other_id_is_accepted(good):
    """The format of OSAI's ids is not documented."""
    for make in CALLS.values():
        make(OsaiApi(), good)


@pytest.mark.parametrize(
    "make",
    [
        lambda calls: calls.list_datasets("\ud800"),
        lambda calls: calls.find_jobs(TRAINING, "\ud800"),
        lambda calls: calls.list_jobs(TRAINING, ["\ud800"]),
        lambda calls: calls.list_jobs(TRAINING, ["ä" * 1000] * 100),
        lambda calls: calls.create_dataset("\ud800"),
        lambda calls: calls.create_category("d", "\ud800"),
        lambda calls: calls.submit_job(
            TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"a": ["\ud800"]}), "r"
        ),
        lambda calls: calls.submit_job(
            TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"\ud800": 1}), "r"
        ),
        lambda calls: calls.submit_job(
            TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"a": float("nan")}), "\ud800"
        ),
    ],
)
def test_value_that_cannot_be_sent_is_an_argument_error(sender, make):
    client = sender(settings_for("https://osai.example.com/api"), retry_budget=0)
    with pytest.raises(OsaiArgumentError) as caught:
        client.send(make(client.client.calls))
    str(caught.value).encode()


@pytest.fixture
def send(sender):
    """Send a call to a server that returns *body*."""
    servers = []

    def run(make, body, **headers):
        servers.append(RawServer(lambda _: [http(body, **headers)]).__enter__())
        client = sender(settings_for(servers[-1].base_url), retry_budget=0)
        return client.send(make(client.client.calls))[0]

    yield run
    for server in servers:
        server.__exit__()


def get_job(calls):
    return calls.get_job(TRAINING, "7")


SUCCEEDED = {"id": "7", "status": "succeeded"}
RESPONSES = {
    "training.get": (get_job, lambda i: {"id": i, "status": "running"}),
    "training.get of modelId": (get_job, lambda i: SUCCEEDED | {"result": {"modelId": i}}),
    "training.get of deviceId": (get_job, lambda i: SUCCEEDED | {"result": {"deviceId": i}}),
    "training.list": (lambda calls: calls.list_all_jobs(TRAINING), lambda i: [SUCCEEDED, SUCCEEDED | {"id": i}]),
    "model.get": (lambda calls: calls.get_model("m"), lambda i: {"id": i}),
    "dataset.find": (lambda calls: calls.list_datasets(), lambda i: [{"id": i}]),
    "upload.start": (lambda calls: calls.start_upload("d"), lambda i: i),
    "category.list": (lambda calls: calls.list_categories("d"), lambda i: [{"id": i}]),
}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
@pytest.mark.parametrize("name", RESPONSES)
def test_invalid_id_in_a_response_is_a_contract_error_that_names_the_operation(send, name, bad):
    make, document = RESPONSES[name]
    with pytest.raises(OsaiContractError, match=rf"^{name.partition(' ')[0]}: ") as caught:
        send(make, json.dumps(document(bad)).encode())
    assert str(caught.value).isprintable()
    assert len(str(caught.value).encode()) < 1000


UNSTORABLE = {
    "id": "7",
    "status": "run\ud800ning\0",
    "message": "disk \udfff full \0",
    "createdAt": "\ud800",
    "history": [{"epoch": 1, "\ud800": "\ud800"}],
    "result": {"metrics": {"\udead": 1, "a\0": {"\ud800": ["\ud800", 1]}, "ok": "\N{GRINNING FACE} \ude00\ud83d"}},
    "\ud800": "\ud800",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be", "escaped"])
def test_surrogates_and_nul_are_replaced_in_all_texts_of_a_job(send, encoding):
    text = json.dumps(UNSTORABLE, ensure_ascii=encoding == "escaped")
    job = send(get_job, text.encode("utf-8" if encoding == "escaped" else encoding, "surrogatepass"))
    text = job.model_dump_json()
    text.encode()
    assert "\\u0000" not in text
    assert (job.message, job.created_at) == ("disk \ufffd full \ufffd", "\ufffd")
    good = "\N{GRINNING FACE} \ufffd\ufffd"
    assert job.result.metrics == {"\ufffd": 1, "a\ufffd": {"\ufffd": ["\ufffd", 1]}, "ok": good}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
)


@pytest.mark.slow
@given(JSON)
def test_any_document_becomes_storable_and_a_valid_one_is_unchanged(document):
    before = json.dumps(document)
    after = storable(document)
    encoded = json.dumps(after, ensure_ascii=False).encode()
    assert b"\\u0000" not in encoded
    if "\\ud" not in before.lower() and "\\u0000" not in before:
        assert json.dumps(after) == before


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_valid_id_can_be_encoded_on_one_line(text):
    if id_error(text) is None:
        assert text.encode()
        assert len(text.splitlines()) == 1


def test_long_texts_are_truncated(send):
    job = send(get_job, json.dumps({"id": "7", "status": "s" * 9999, "message": "ä" * 99_999}).encode())
    assert (len(job.status), len(job.message)) == (100, MAX_TEXT)


INVALID_URLS = [
    "javascript:1",
    "mailto:me@example.com",
    "data:,x",
    "tel:1",
    "urn:x:y",
    "https://xn--/",
    "https://a..b/",
    f"https://{'a' * 64}.example.com/",
    "http://[::1",
    "http://x:99999999/",
    "https://host:abc/",
    "http://%00/",
    "https://1.2.3.999/",
    "\\\\host\\x",
    "javascript:" + "1" * 60_000,
    "//",
    "",
]


@pytest.mark.parametrize("location", INVALID_URLS)
def test_redirect_to_an_invalid_url_is_an_osai_error(sender, location):
    """For requests and at the sign-in."""
    redirect = http(b"", 302).replace(b"Connection:", f"Location: {location}\r\nConnection:".encode())
    for sign_in in (None, redirect):
        with RawServer(lambda _: [redirect], sign_in) as server:
            client = sender(settings_for(server.base_url, timeout=5), retry_budget=0)
            with pytest.raises((OsaiUnreachable, OsaiContractError)) as caught:
                client.send(client.client.calls.get_user())
            assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("location", INVALID_URLS)
def test_download_redirected_to_an_invalid_url_is_an_osai_error(location):
    redirect = http(b"", 302).replace(b"Connection:", f"Location: {location}\r\nConnection:".encode())
    with RawServer(lambda _: [redirect]) as server, OsaiClient(settings_for(server.base_url), retry_budget=0) as client:
        call = client.calls.download_model("m", None, {}, lambda stream: b"".join(stream.chunks))
        with pytest.raises((OsaiUnreachable, OsaiContractError)) as caught:
            client.send(call)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "::group::",
        "::endgroup::",
        "a::group::::group::b",
        ":::group:::",
        "::gr\x00oup::",
        "::group:",
        "::endgroup\n::x",
    ],
)
def test_text_of_a_server_cannot_begin_or_end_a_group_of_the_log_viewer(text):
    """Not together with a colon that follows it either."""
    shown = f"failed: {sanitize_server_text(text)}: again"
    assert "::group::" not in shown
    assert "::endgroup::" not in shown


def test_other_colons_of_a_server_stay():
    assert sanitize_server_text("std::vector of the group") == "std::vector of the group"
