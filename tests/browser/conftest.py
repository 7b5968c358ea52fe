"""Fixtures of the tests in a browser."""

from tests.airflow.conftest import auth_manager, dagbag

__all__ = ["auth_manager", "dagbag"]
