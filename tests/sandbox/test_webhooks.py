"""Webhooks: one POST when a job ends."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from tests.sandbox.client import Api, shades

RENTAL = {"device": "jetson", "duration": 60}


def test_webhook_is_sent_when_a_real_job_ends(api, receiver):
    """With id, kind and status only."""
    body = {"datasetIds": [api.dataset(shades(3))], "modelName": "m", "webhookUrl": receiver.url}
    job = api.ok("POST", "/Trainings", json=body)
    assert receiver.taken.get(timeout=20) == {"id": job["id"], "kind": "training", "status": "succeeded"}


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_webhook_is_sent_when_a_job_fails_or_is_cancelled(api, receiver, end):
    api.sandbox.control.script(timing="immediate", end=end)
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20)["status"] == end


def test_webhook_is_tried_three_times_and_the_failure_logged(receiver, caplog):
    """Without the address, which may contain a token."""
    caplog.set_level("DEBUG")
    receiver.statuses = [500, 500, 500, 500]
    with Sandbox() as sandbox, Api(sandbox) as api:
        sandbox.control.script(timing="immediate")
        api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
        for _ in range(3):
            receiver.taken.get(timeout=20)
    assert receiver.taken.empty()
    assert "failed 3 times" in caplog.text
    assert "token=t" not in caplog.text


def test_webhook_is_retried_after_an_error_status(api, receiver):
    receiver.statuses = [503]
    api.sandbox.control.script(timing="immediate")
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20) == receiver.taken.get(timeout=20)


def test_duplicate_webhook_fault_sends_it_twice(api, receiver):
    api.sandbox.control.script(timing="immediate")
    api.sandbox.control.fault("duplicate_webhook", "device_rental.*")
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20) == receiver.taken.get(timeout=20)


def test_webhook_has_the_status_words_of_the_contract(receiver):
    contract = apply_overrides(Contract(), {"states": {"Ausgeführt": "succeeded"}})
    with Sandbox(contract=contract) as sandbox, Api(sandbox) as api:
        sandbox.control.script(timing="immediate")
        api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
        assert receiver.taken.get(timeout=20)["status"] == "Ausgeführt"


def test_webhook_to_another_machine_is_rejected_at_submission(api):
    response = api.post("/DeviceRentals", json={**RENTAL, "webhookUrl": "http://example.org/hook"})
    assert (response.status_code, "loopback" in response.json()["message"]) == (400, True)
    assert api.sandbox.control.record()["jobs"] == []
