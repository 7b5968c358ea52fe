"""The link to a job's page, with the paths of contract documents."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.links.portal import OsaiPortalLink

JOINED = {"training.page": {"path": "/projects/{id.1}/trainings/{id.2}"}}


@pytest.mark.parametrize(
    ("contract", "job_id", "path"),
    [
        (None, "7", "/trainings/7"),
        (JOINED, "a b/7", "/projects/a%20b/trainings/7"),
        (JOINED, "7", ""),  # the id of a job that was submitted before the contract had parts
        ({"training.page": None}, "7", ""),
    ],
)
def test_the_page_of_a_job(contract, job_id, path):
    extra = {"base_url": "https://osai.example.com/api", "contract": contract}
    settings = OsaiSettings.from_connection("t" * 20, extra)
    assert OsaiPortalLink.url(settings, "training", job_id) == f"https://osai.example.com{path}"
