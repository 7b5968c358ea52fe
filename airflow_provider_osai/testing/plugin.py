"""The pytest plugin: a local OSAI, and a connection to it, for tests of Dags. pytest finds it by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox import Sandbox

__all__ = ["osai_sandbox"]


@pytest.fixture
def osai_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Run a local OSAI for this test, and have the connection ``osai_default`` lead to it.

    It really trains small models on images. ``osai_sandbox.control`` says how jobs go and what fails, and tells what
    was asked for; see docs/sandbox.md. Needs the extra ``sandbox``.
    """
    # Not at the top: pytest imports this wherever the package is installed, for whatever is tested there.
    from airflow_provider_osai.sandbox import Sandbox  # noqa: PLC0415

    with Sandbox() as running:
        connection = {"conn_type": "osai", "password": running.access_token, "extra": {"base_url": running.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
        yield running
