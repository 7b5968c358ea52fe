"""A sandbox and a whole Airflow for the tests of a module."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import AIRFLOW, CANARY


@pytest.fixture(scope="module")
def osai():
    """A sandbox of the module's own."""
    with Sandbox(access_token=CANARY) as running:
        yield running


@pytest.fixture(scope="module")
def start_airflow(osai, tmp_path_factory):
    """Start a whole Airflow with the connection ``osai_default``; it ends with the module.

    *dags* is a folder, or the Dags' texts by file name; *wait_for* a Dag that must be parsed first, *extra* more of the
    connection's extra, and *options* those of :class:`WholeAirflow`.
    """
    with contextlib.ExitStack() as stack:

        def start(dags, *, wait_for=None, extra=None, home=None, **options):
            if not isinstance(dags, Path):
                texts, dags = dags, tmp_path_factory.mktemp("dags")
                for name, text in texts.items():
                    (dags / name).write_text(text)
            extra = {"base_url": osai.base_url, **(extra or {})}
            connections = {"osai_default": {"conn_type": "osai", "password": CANARY, "extra": extra}}
            home = home or tmp_path_factory.mktemp("home")
            whole = WholeAirflow(dags, home=home, connections=connections, executable=AIRFLOW, **options)
            running = stack.enter_context(whole)
            if wait_for:
                running.wait_for_dag(wait_for)
            return running

        yield start
