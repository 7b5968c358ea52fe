"""The example's whole retraining: against the contract as we assume it, and against one that is renamed all over."""

from __future__ import annotations

from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, Contract
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import CANARY

WORDS = {
    "Wartet": "queued",
    "Läuft": "running",
    "Ausgeführt": "succeeded",
    "Fehler": "failed",
    "Storniert": "cancelled",
}


def renamed() -> dict:
    """Bindings that give every assumed operation another path, and every field of it another name."""
    bindings: dict = {"states": WORDS}
    for row in ENDPOINTS.values():
        if row.evidence != ASSUMED:
            continue
        sent = row.sent_fields - set(row.placeholders)
        answered = row.response_fields - {"kind", "state", "result"}
        bindings[row.name] = {
            "path": "/v2" + row.path.replace("/Datasets", "/Collections").replace("/Trainings", "/Lessons"),
            "request": {name: f"in_{name}" for name in sent},
            "response": {name: f"out.{name}" for name in answered},
        }
        if "result" in row.response_fields:
            bindings[row.name]["response"] |= {"result.modelId": "made.model", "result.metrics": "made.figures"}
    return bindings


def check(run_dag, images):
    ran = run_dag("example_osai_retraining", images=str(images))
    assert ran.state == "success", ran.tasks
    assert ran.xcom("upload_images")["images"] == 60
    trained, converted, predicted = (ran.xcom(task) for task in ("train_model", "convert_model", "predict"))
    assert trained["model_id"] == ran.result("train_model", "model_id")
    assert trained["metrics"]["accuracy"] >= 0.8
    assert (converted["kind"], converted["state"]) == ("conversion", "succeeded")
    assert predicted["metrics"]["images"] == 60


def test_the_example_retrains_against_the_sandbox(run_dag, connection, images, logged):
    """Images in, a model trained, converted and used; no secret in any log (see ``logged``)."""
    check(run_dag, images)
    assert "succeeded" in logged()


def test_the_example_retrains_against_a_renamed_osai(run_dag, images, monkeypatch):
    """The connection's ``contract`` is the only change."""
    import json

    bindings = renamed()
    with Sandbox(access_token=CANARY, contract=apply_overrides(Contract(), bindings)) as other:
        extra = {"base_url": other.base_url, "contract": json.dumps(bindings)}
        document = {"conn_type": "osai", "password": CANARY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        check(run_dag, images)
        seen = {request["path"] for request in other.control.record()["requests"]}
    assert any(path.startswith("/api/v2/Lessons") for path in seen)
    assert not any(path.startswith("/api/Trainings") for path in seen)


def test_the_renamed_osai_does_not_understand_the_default_words(images, run_dag, monkeypatch):
    """The check above can fail: without the bindings nothing works."""
    import json

    with Sandbox(access_token=CANARY, contract=apply_overrides(Contract(), renamed())) as other:
        document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": other.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        assert run_dag("example_osai_retraining", images=str(images)).state == "failed"


def test_the_words_cover_every_end():
    """Of the renamed OSAI."""
    assert set(WORDS.values()) == {s.value for s in JobState if s is not JobState.UNKNOWN}
