"""The state as a whole: whom it calls, and what it leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_osai.sandbox import SandboxState
from airflow_provider_osai.sandbox.state import is_loopback
from tests.sandbox.client import png


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://localhost/x", "https://[::1]:8443/x", "http://127.9.9.9"]
)
def test_addresses_of_this_machine_may_be_called(url):
    """Loopback is all of 127.0.0.0/8, ::1 and localhost."""
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://127.0.0.1.example.org", "http://10.0.0.1", "ftp://localhost", "localhost", ""]
)
def test_addresses_elsewhere_may_not(url):
    """A sandbox never calls out."""
    assert not is_loopback(url)


def test_closing_removes_the_folder():
    """Nothing is left on the disk."""
    with SandboxState() as state:
        state.datasets.create("d")
        folder = state.folder
    assert not folder.exists()


def test_ids_are_short_and_different(state):
    """The default ids are hexadecimal text."""
    with SandboxState() as default:
        ids = {default.new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(int(one, 16) >= 0 and len(one) == 12 for one in ids)


def test_requests_of_many_clients_at_once_lose_nothing(api):
    """One lock guards all that is remembered."""
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(lambda i: api.image(dataset_id, upload_id, png(i)), range(100)))
        rental = {"device": "jetson", "duration": 1, "reference": "same"}
        jobs = list(threads.map(lambda _: api.ok("POST", "/DeviceRentals", json=rental)["id"], range(100)))
    found = api.ok("GET", "/DeviceRentals", params={"reference": "same"})
    assert all(answer.is_success for answer in images)
    assert api.ok("GET", f"/Datasets/{dataset_id}")["imageCount"] == 100
    assert {job["id"] for job in found} == set(jobs)
    assert {api.ended("DeviceRentals", job_id)["status"] for job_id in jobs} == {"succeeded"}
