"""The sandbox in the place of each server: it speaks the same documents, so users can test against it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.models import TERMINAL_STATES
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DeviceRentalRequest,
    PredictionRequest,
    TrainingRequest,
    UploadRequest,
)
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.data.scan import scan_source
from airflow_provider_osai.data.sources import open_source
from airflow_provider_osai.downloads.download import Download, download_model
from airflow_provider_osai.sandbox.server import Sandbox
from airflow_provider_osai.uploads.uploader import Uploader

pytestmark = pytest.mark.slow
DOCUMENTS = Path(__file__).parent / "documents"
STYLES = (
    "graph_objects",
    "multipart_parts",
    "no_list_no_cancel",
    "plain_statuses",
    "signed_downloads",
    "text_answers",
)


@pytest.fixture(params=STYLES)
def client(request):
    """A client of a sandbox, both with the document of a style."""
    document = str(DOCUMENTS / f"{request.param}.yaml")
    with Sandbox(contract=apply_overrides(Contract(), document)) as sandbox:
        extra = {"base_url": sandbox.base_url, "contract": document}
        settings = OsaiSettings.from_connection(sandbox.access_token, extra)
        with OsaiClient(settings, retry_budget=0) as client:
            yield client


def finished(client, request):
    """Submit a job, and return it when it has ended."""
    job = client.submit_job(request, f"key-{request.kind}")
    for _ in range(600):
        job = client.get_job(request.kind, job.id)
        if job.state in TERMINAL_STATES:
            break
        time.sleep(0.05)
    assert job.state == "succeeded"
    return job


def test_sandbox_with_a_style_uploads_trains_and_downloads(client, pictures, tmp_path):
    client.create_dataset("other")
    dataset = client.create_dataset("fruit")
    for counts in ((6, 0), (0, 6)):
        source = open_source(str(pictures))
        told = Uploader(client, UploadRequest(dataset_id=dataset.id), source, scan_source(source)).run()
        assert (told["uploaded"], told["skipped"]) == counts
    assert {category.name for category in client.list_categories(dataset.id)} == {"apple", "pear"}
    training = TrainingRequest(dataset_ids=[dataset.id], model_name="m-1", parameters={"epochs": 1})
    model_id = finished(client, training).result.model_id
    assert client.get_model(model_id).name == "m-1"
    finished(client, PredictionRequest(model_id=model_id, dataset_id=dataset.id, mode="replace"))
    finished(client, ConversionRequest(model_id=model_id, target="jetson-nano"))
    assert [(each.target, each.state) for each in client.list_conversions(model_id)] == [("jetson-nano", "succeeded")]
    path = tmp_path / "model.bin"
    assert download_model(client, Download(model_id, "jetson-nano", str(path)))["bytes"] == path.stat().st_size > 0


def test_sandbox_with_a_style_rents_and_releases_a_device(client):
    rental = client.submit_job(DeviceRentalRequest(device="jetson-nano", duration=1800), "key")
    while not rental.is_ready:
        rental = client.get_job("device_rental", rental.id)
    client.cancel_job("device_rental", rental.id)
    assert client.get_job("device_rental", rental.id).state == "cancelled"
