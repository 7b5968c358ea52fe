"""Datasets of an API without categories of its own."""

from __future__ import annotations

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.data.datasets import ensure_categories
from tests.conftest import settings_for


def test_a_name_is_the_id_where_the_api_has_no_categories():
    """And nothing is requested: no server is there."""
    contract = {"category.create": None, "category.list": None}
    with OsaiClient(settings_for("http://127.0.0.1:9/api", contract=contract)) as client:
        assert ensure_categories(client, "1", ["cat", "dog", "cat"]) == {"cat": "cat", "dog": "dog"}
