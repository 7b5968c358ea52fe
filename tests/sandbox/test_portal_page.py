"""The portal page of a job."""

from __future__ import annotations

import httpx

from airflow_provider_osai.sandbox.portal_page import job_page


def test_page_of_a_job_needs_no_sign_in_and_shows_its_metrics(trained):
    page = httpx.get(f"{trained.sandbox.portal_url}/trainings/{trained.training['id']}")
    assert page.headers["content-type"].startswith("text/html")
    assert all(text in page.text for text in (trained.training["id"], "succeeded", "valAccuracy", trained.model_id))
    assert "http-equiv" not in page.text


def test_page_shows_the_confusion_matrix_and_the_samples_as_tables(trained):
    page = httpx.get(f"{trained.sandbox.portal_url}/trainings/{trained.training['id']}").text
    assert "<tr><th></th><th>dark</th><th>light</th></tr><tr><td>dark</td><td>" in page
    job = trained.run("Predictions", modelId=trained.model_id, datasetId=trained.dataset_id)
    page = httpx.get(f"{trained.sandbox.portal_url}/predictions/{job['id']}").text
    assert "<th>fileName</th><th>predicted</th><th>confidence</th><th>actual</th>" in page
    assert "{" not in page.partition("</style>")[2]


def test_page_of_an_unknown_job_returns_404(sandbox):
    assert httpx.get(f"{sandbox.portal_url}/trainings/x").status_code == 404


def test_page_of_an_unfinished_job_refreshes_itself_and_counts_no_read(api):
    api.sandbox.control.script(timing="reads", reads=1)
    job = api.ok("POST", "/DeviceRentals", json={"device": "jetson", "duration": 1})
    pages = [httpx.get(f"{api.sandbox.portal_url}/devicerentals/{job['id']}").text for _ in range(3)]
    assert all('http-equiv="refresh"' in page for page in pages)
    assert api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] == "running"


def test_page_escapes_all_values():
    evil = "<script>alert(1)</script>"
    result = {
        "metrics": {evil: evil},
        "confusionMatrix": {"labels": [evil], "rows": [[evil]]},
        "samples": [{"fileName": evil, "predicted": evil}],
    }
    job = {"id": evil, "status": evil, "reference": evil, "message": evil, "result": result}
    assert "<script" not in job_page("training", job | {"history": [{"epoch": evil}]}, live=True)
