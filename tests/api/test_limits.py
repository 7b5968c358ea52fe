"""Response limits by operation, in bytes and JSON values, with both clients."""

from __future__ import annotations

import json
import logging

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.errors import OsaiError, OsaiUnreachable
from airflow_provider_osai.api.limits import decode_json
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import ConversionRequest
from tests.conftest import settings_for
from tests.raw_server import RawServer, http

MIB = 2**20
TRAINING = JobKind.TRAINING
OBJECT_LIMIT = {
    "training.get": lambda calls: calls.get_job(TRAINING, "7"),
    "conversion.submit": lambda calls: calls.submit_job(ConversionRequest(model_id="m", target="t"), "r"),
    "training.cancel": lambda calls: calls.cancel_job(TRAINING, "7"),
    "user.me": lambda calls: calls.get_user(),
    "model.get": lambda calls: calls.get_model("7"),
    "dataset.create": lambda calls: calls.create_dataset("d"),
}
LIST_LIMIT = {
    "training.list": lambda calls: calls.list_jobs(TRAINING, ["7", "8"]),
    "model.list": lambda calls: calls.list_models(),
}
FULL_LIST_LIMIT = {
    "training.list": lambda calls: calls.list_all_jobs(TRAINING),
    "image.list": lambda calls: calls.list_images("d"),
}


@pytest.fixture
def send(sender):
    """Send a call to a server that returns *body* for every request."""
    servers = []

    def run(make, body):
        servers.append(RawServer(lambda _: [http(body)]).__enter__())
        client = sender(settings_for(servers[-1].base_url), retry_budget=0)
        return client.send(make(client.client.calls))[0]

    yield run
    for server in servers:
        server.__exit__()


def of_size(document, size):
    """Return *document* as JSON with *size* bytes."""
    text = json.dumps(document).encode()
    return text + b" " * (size - len(text))


def with_values(count):
    """Return a list of jobs with *count* JSON values: three for each job."""
    return json.dumps([{"id": n, "status": "queued"} for n in range(count // 3)]).encode()


JOB = {"id": 7, "status": "running"}


@pytest.mark.parametrize("name", OBJECT_LIMIT)
def test_response_with_one_object_is_limited_to_1_mib(send, name):
    """The error names the operation and the limit."""
    send(OBJECT_LIMIT[name], of_size(JOB, MIB))
    with pytest.raises(OsaiUnreachable, match=rf"{name} is longer than 1 MiB") as refused:
        send(OBJECT_LIMIT[name], of_size(JOB, MIB + 1))
    assert (refused.value.status, refused.value.too_large, refused.value.may_have_been_processed) == (200, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OBJECT_LIMIT if name != "training.cancel"])
@pytest.mark.parametrize("unit", ["[]", "{}", "[[[[[[]]]]]]", '{"a":0}', "0"])
def test_response_with_too_many_values_is_not_decoded(send, name, unit):
    """Decoding it would block the event loop, even from another thread."""
    body = ('{"id": 7, "status": "running", "more": [' + ",".join([unit] * 100_001) + "]}").encode()[: MIB - 2]
    with pytest.raises(OsaiUnreachable, match=rf"{name} has more than 100000 JSON values"):
        send(OBJECT_LIMIT[name], body)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIST_LIMIT)
def test_list_has_a_higher_limit(send, name):
    with pytest.raises(OsaiUnreachable, match=rf"{name} is longer than 4 MiB"):
        send(LIST_LIMIT[name], of_size([JOB], 4 * MIB + 1))
    assert send(LIST_LIMIT[name], with_values(190_000))
    with pytest.raises(OsaiUnreachable, match=rf"{name} has more than 200000 JSON values"):
        send(LIST_LIMIT[name], with_values(210_000))


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_LIST_LIMIT)
def test_list_of_all_objects_has_the_highest_limit_except_on_an_event_loop(send, name, request):
    body = of_size([JOB], 5 * MIB)
    if "Awaiting" in request.node.name:
        with pytest.raises(OsaiUnreachable, match=rf"{name} is longer than 4 MiB"):
            send(FULL_LIST_LIMIT[name], body)
        return
    assert len(send(FULL_LIST_LIMIT[name], body)) == 1
    assert len(send(FULL_LIST_LIMIT[name], with_values(300_000))) == 100_000
    with pytest.raises(OsaiUnreachable, match=rf"{name} is longer than 32 MiB"):
        send(FULL_LIST_LIMIT[name], of_size([JOB], 32 * MIB + 1))


def test_sign_in_response_is_limited(sender):
    with RawServer(lambda _: [], sign_in=http(b"e" * (MIB + 1), Content_Type="text/plain")) as server:
        client = sender(settings_for(server.base_url), retry_budget=0)
        with pytest.raises(OsaiUnreachable, match=r"auth\.sign_in is longer than 1 MiB") as refused:
            client.send(client.client.calls.create_dataset("d"))
    assert refused.value.may_have_been_processed is False


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def trained(calls, name="a", **fields):
    return calls.get_job(TRAINING, name).parse({"id": name, "status": "running", **fields})


def test_last_epochs_of_a_long_history_are_kept_and_one_warning_is_logged(caplog):
    history = [{"epoch": n} for n in range(12_000)]
    for _ in range(3):
        job = trained(OsaiApi(), "long", history=history)
    assert (len(job.history), job.history[0].epoch, job.history[-1].epoch) == (10_000, 2_000, 11_999)
    assert warnings(caplog) == ["training.get: long: the history has 12000 epochs; only the last 10000 are kept"]


def test_ordinary_metrics_are_not_trimmed(caplog):
    """Such as a confusion matrix and a report by class."""
    metrics = {"accuracy": 0.9, "matrix": [[1] * 100] * 100, "classes": {"cat": {"f1": 0.5, "log": "few"}}, "n": None}
    assert trained(OsaiApi(), result={"metrics": metrics}).result.metrics == metrics
    assert warnings(caplog) == []


def deep(levels):
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x" * 1_001, 1),
        ("text", "x" * 1_001),
        ("list", [0] * 10_001),
        ("within", {"a": [{"b": "x" * 1_001}]}),
        ("key", {"x" * 1_001: 1}),
        ("deep", deep(11)),
        ("very deep", deep(900)),
        ("number", 10**400),
    ],
)
def test_metric_that_exceeds_a_limit_is_dropped_and_logged(caplog, name, value):
    metrics = {"accuracy": 0.9, name: value}
    job = trained(OsaiApi(), f"bad-{name[:9]}", result={"modelId": "m", "metrics": metrics})
    model = OsaiApi().get_model(f"bad-{name[:9]}").parse({"id": f"bad-{name[:9]}", "metrics": metrics})
    assert job.result.metrics == model.metrics == {"accuracy": 0.9}
    messages = warnings(caplog)
    assert len(messages) == 2
    assert all(f"1 of 2 metrics were dropped, for instance '{name[:50]}" in line for line in messages)


def test_first_of_too_many_metrics_are_kept(caplog):
    kept = trained(OsaiApi(), "many", result={"metrics": {f"m{n}": n for n in range(1_500)}}).result.metrics
    assert (len(kept), kept["m999"]) == (1_000, 999)
    assert "500 of 1500 metrics were dropped" in warnings(caplog)[0]


def test_long_message_is_truncated_with_an_ellipsis():
    message = trained(OsaiApi(), message="x" * 500_000).message
    assert (len(message), message[-2:]) == (10_000, "x…")


def test_malformed_metrics_raise_no_error():
    for metrics in (None, 5, "x", [], [1], {"a": float("nan")}, {"": {}}):
        trained(OsaiApi(), result={"metrics": metrics}, history=metrics)


def test_malformed_json_of_any_size_is_an_osai_error(send):
    for body in (b"[" * 99_000, b"[" * MIB, b'{"a":' * 50_000, b"[" * 40_000 + b"]" * 40_000, b'"' + b"," * MIB):
        with pytest.raises(OsaiError):
            send(OBJECT_LIMIT["training.get"], body)


def test_nan_and_infinities_in_metrics_become_text():
    """A training that diverged reports NaN, which an XCom cannot hold."""
    content = b'{"metrics": {"loss": NaN, "best": -Infinity, "big": 1e999, "all": [1.5, {"x": NaN}], "accuracy": 0.5}}'
    job = trained(OsaiApi(), result=decode_json(content, 100))
    metrics = job.references()["metrics"]
    assert metrics == {"loss": "nan", "best": "-inf", "big": "inf", "all": [1.5, {"x": "nan"}], "accuracy": 0.5}
    json.dumps(metrics, allow_nan=False)
