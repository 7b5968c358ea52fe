"""The state of a sandbox: allowed webhook addresses, ids, concurrency, cleanup."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_osai.api.addresses import is_loopback_url
from airflow_provider_osai.sandbox import SandboxState
from tests.sandbox.client import png


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://localhost/x", "https://[::1]:8443/x", "http://127.9.9.9"]
)
def test_loopback_addresses_are_accepted(url):
    """Loopback is all of 127.0.0.0/8, ::1 and localhost."""
    assert is_loopback_url(url)


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://127.0.0.1.example.org", "http://10.0.0.1", "ftp://localhost", "localhost", ""]
)
def test_other_addresses_are_rejected(url):
    assert not is_loopback_url(url)


def test_close_deletes_the_temporary_folder():
    with SandboxState() as state:
        state.datasets.create("d")
        folder = state.folder
    assert not folder.exists()


def test_default_ids_are_unique_and_hexadecimal(state):
    with SandboxState() as default:
        ids = {default.new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(int(each, 16) >= 0 and len(each) == 12 for each in ids)


def test_concurrent_requests_lose_nothing(api):
    dataset_id = api.dataset()
    upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(lambda i: api.image(dataset_id, upload_id, png(i)), range(100)))
        rental = {"device": "jetson", "duration": 1, "reference": "same"}
        jobs = list(threads.map(lambda _: api.ok("POST", "/DeviceRentals", json=rental)["id"], range(100)))
    jobs_found = api.ok("GET", "/DeviceRentals", params={"reference": "same"})
    assert all(response.is_success for response in images)
    assert api.ok("GET", f"/Datasets/{dataset_id}")["imageCount"] == 100
    assert {job["id"] for job in jobs_found} == set(jobs)
    assert {api.ended("DeviceRentals", job_id)["status"] for job_id in jobs} == {"succeeded"}
