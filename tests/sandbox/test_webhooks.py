"""Webhooks: one POST when a job ends."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.sandbox import Sandbox
from tests.sandbox.client import Api, shades

RENTAL = {"device": "jetson", "duration": 60}


def test_webhook_tells_of_a_job_that_was_really_done(api, receiver):
    """Id, kind and status, and nothing else."""
    body = {"datasetIds": [api.dataset(shades(3))], "modelName": "m", "webhookUrl": receiver.url}
    job = api.ok("POST", "/Trainings", json=body)
    assert receiver.taken.get(timeout=20) == {"id": job["id"], "kind": "training", "status": "succeeded"}


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_webhook_tells_of_bad_ends_too(api, receiver, end):
    """It says whether the job succeeded or met problems."""
    api.sandbox.control.script(timing="immediate", end=end)
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20)["status"] == end


def test_webhook_is_tried_three_times(receiver, caplog):
    """Then the sandbox gives up and says so; the address, which may hold a token, is in no log."""
    caplog.set_level("DEBUG")
    receiver.statuses = [500, 500, 500, 500]
    with Sandbox() as sandbox, Api(sandbox) as api:
        sandbox.control.script(timing="immediate")
        api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
        for _ in range(3):
            receiver.taken.get(timeout=20)
    assert receiver.taken.empty()
    assert "not taken in 3 tries" in caplog.text
    assert "token=t" not in caplog.text


def test_webhook_that_is_refused_once_arrives_later(api, receiver):
    """A receiver may be restarting."""
    receiver.statuses = [503]
    api.sandbox.control.script(timing="immediate")
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20) == receiver.taken.get(timeout=20)


def test_duplicate_webhook_fault_sends_it_twice(api, receiver):
    """Receivers must bear that."""
    api.sandbox.control.script(timing="immediate")
    api.sandbox.control.fault("duplicate_webhook", "device_rental.*")
    api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
    assert receiver.taken.get(timeout=20) == receiver.taken.get(timeout=20)


def test_webhook_speaks_the_words_of_the_contract(receiver):
    """A renamed status is renamed everywhere."""
    contract = rebind(Contract(), {"states": {"Ausgeführt": "succeeded"}})
    with Sandbox(contract=contract) as sandbox, Api(sandbox) as api:
        sandbox.control.script(timing="immediate")
        api.ok("POST", "/DeviceRentals", json={**RENTAL, "webhookUrl": receiver.url})
        assert receiver.taken.get(timeout=20)["status"] == "Ausgeführt"


def test_webhook_to_another_machine_is_refused_at_submission(api):
    """Nothing is queued."""
    answer = api.post("/DeviceRentals", json={**RENTAL, "webhookUrl": "http://example.org/hook"})
    assert (answer.status_code, "loopback" in answer.json()["message"]) == (400, True)
    assert api.sandbox.control.record()["jobs"] == []
