"""A task whose job finds no room at OSAI: it waits without using a retry, and says so."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.errors import OsaiBusy
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.observability import metrics as observability
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from tests.stats import Recorder

CONTRACT = {
    "training.submit": {
        "statuses": {
            "402": {"means": "no_credit", "message": "detail"},
            "403": [
                {"means": "quota_reached", "when": "code == 'QUOTA'", "message": "detail"},
                {"means": "rejected"},
            ],
        },
        "error": {"when": "error == 'FULL'", "means": "busy", "message": "detail"},
    }
}
REASONS = [
    ("busy", {"status": 429}),
    ("busy", {"status": 200, "body": {"error": "FULL", "detail": "come back later"}}),
    ("no credit", {"status": 402, "body": {"detail": "0 of 100 credits are left"}}),
    ("quota reached", {"status": 403, "body": {"code": "QUOTA", "detail": "2 of 2 jobs are running"}}),
]


@pytest.fixture(autouse=True)
def metrics(monkeypatch):
    """The metrics of a test, in which pauses are short."""
    recorder = Recorder()
    monkeypatch.setattr(lifecycle, "MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr(observability, "enabled", lambda: True)
    monkeypatch.setattr(observability, "_stats", lambda: recorder)
    return recorder


@pytest.fixture
def train(connection, sandbox):
    """Make a training operator, whose job ends at once when the sandbox takes it."""
    connection(contract=CONTRACT)
    sandbox.control.script("training", "immediate")
    with OsaiHook().get_conn() as client:
        dataset = client.create_dataset("digits").id

    def make(**options):
        return OsaiTrainModelOperator(task_id="task", dataset_ids=[dataset], model_name="m", **options)

    return make


@pytest.mark.parametrize(("reason", "answer"), REASONS)
def test_a_refused_submission_waits_for_room_within_the_same_try(
    train, sandbox, context, ti, logged, metrics, reason, answer
):
    """One job, and its task shows what it waited for."""
    sandbox.control.fault("status", "training.submit", times=3, **answer)
    assert train().execute(context)["state"] == "succeeded"
    assert sandbox.control.record()["counts"]["training.submit"] == 4
    assert len(sandbox.control.record()["jobs"]) == 1
    assert ti.xcoms["osai_capacity"]["reason"] == reason
    assert ti.xcoms["osai_capacity"]["waited"] > 0
    assert logged().count(f"OSAI has no room ({reason})") == 1
    assert answer.get("body", {}).get("detail", "429") in logged()
    tag = f"{{reason={reason.replace(' ', '_')}}}"
    assert metrics.counts[f"osai.capacity.waits{tag}"] == 1
    assert metrics.times[f"osai.capacity.wait_time{tag}"] == [pytest.approx(ti.xcoms["osai_capacity"]["waited"])]


def test_without_room_to_the_end_the_error_names_reason_and_remedy(train, sandbox, context, ti):
    """No job was submitted, so that a retry submits one."""
    sandbox.control.fault("status", "training.submit", times=10**6, **REASONS[3][1])
    with pytest.raises(OsaiBusy, match=r"no room \(quota reached\).*2 of 2 jobs are running.*include_deferred"):
        train(unreachable_timeout=0.3).execute(context)
    assert sandbox.control.record()["jobs"] == []
    sandbox.control.clear_faults()
    ti.try_number = 2
    assert train().execute(context)["state"] == "succeeded"


def test_an_answer_that_the_contract_does_not_call_a_lack_of_room_fails_at_once(train, sandbox, context, ti):
    """The same status with another code."""
    sandbox.control.fault("status", "training.submit", status=403, body={"code": "FORBIDDEN"})
    with pytest.raises(Exception, match="FORBIDDEN"):
        train().execute(context)
    assert "osai_capacity" not in ti.xcoms


def test_an_xcom_that_cannot_be_pushed_does_not_end_the_wait(train, sandbox, context, ti):
    """Airflow may be unreachable for a moment."""
    push = ti.xcom_push

    def broken(key, value):
        if key == "osai_capacity":
            raise RuntimeError("no API server")
        push(key, value)

    ti.xcom_push = broken
    sandbox.control.fault("status", "training.submit", status=429)
    assert train(durable=False).execute(context)["state"] == "succeeded"
