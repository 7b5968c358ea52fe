"""The pytest plugin with the fixture ``osai_sandbox``: a sandbox and a connection to it. pytest loads it by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox import Sandbox

__all__ = ["osai_sandbox"]


MARKER: Final = (
    "osai_sandbox(contract): let the fixture osai_sandbox and its connection speak a contract document: an object, "
    "JSON or YAML text, or the absolute path of a file"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(scope="session")
def _osai_migrated_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated_db metadata database, created once in each process of a test run."""
    from airflow_provider_osai.testing.metadata_db import migrated_db  # as below

    return migrated_db(tmp_path_factory.mktemp("osai-airflow"))


@pytest.fixture
def osai_sandbox(
    _osai_migrated_db: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Sandbox]:
    """Run a sandbox for this test, with the connection ``osai_default`` and an empty metadata database.

    The sandbox trains small models. ``osai_sandbox.control`` scripts jobs, injects faults and returns the recorded
    requests; see docs/testing.md. Airflow's metadata database is a SQLite file for this test, without champions or
    other asset events; the configured database is not used. Needs the extra ``sandbox``.

    ``@pytest.mark.osai_sandbox(contract=...)`` lets both ends speak a contract document instead of the default.
    """
    # Not at the top: pytest imports this plugin in every test run where the package is installed.
    from airflow_provider_osai.api.contract import Contract
    from airflow_provider_osai.api.overrides import apply_overrides
    from airflow_provider_osai.sandbox import Sandbox
    from airflow_provider_osai.testing.metadata_db import metadata_db

    marker = request.node.get_closest_marker("osai_sandbox")
    document = marker.kwargs["contract"] if marker is not None else None
    contract = apply_overrides(Contract(), document)
    database = tmp_path_factory.mktemp("osai-airflow") / "airflow.db"
    with Sandbox(contract=contract) as running, metadata_db(database, _osai_migrated_db):
        extra = {"base_url": running.base_url, **({} if document is None else {"contract": document})}
        connection = {"conn_type": "osai", "password": running.access_token, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
        yield running
