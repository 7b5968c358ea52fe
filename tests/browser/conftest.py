"""Fixtures of the tests in a browser."""

from playwright.sync_api import expect

from tests.airflow.conftest import auth_manager, dagbag

__all__ = ["auth_manager", "dagbag"]
expect.set_options(timeout=60_000)
