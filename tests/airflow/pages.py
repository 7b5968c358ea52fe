"""The pages as a signed-in user gets them: a client for tests, and what a page shows."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.testclient import TestClient

from airflow_provider_osai.plugins.pages.app import create_pages
from airflow_provider_osai.sandbox import Sandbox
from tests.airflow.conftest import Ran, forget_asset_events, forget_jobs
from tests.airflow.test_weekly import mislabelled, some
from tests.conftest import CANARY


class FakeAuthManager(SimpleAuthManager):
    """Lets "stranger" read no Dag, "no_xcoms" no XCom, "no_assets" no asset, and "examples" only the example Dags."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if user.get_id() == "stranger" or (user.get_id(), access_entity) == ("no_xcoms", DagAccessEntity.XCOM):
            return False
        if user.get_id() == "examples" and details and not str(details.id).startswith("example_"):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)

    def is_authorized_asset(self, *, method, user, details=None):
        if user.get_id() == "no_assets":
            return False
        return super().is_authorized_asset(method=method, user=user, details=details)


@contextmanager
def two_weeks(dagbag: Any, images: Path, folder: Path) -> Iterator[list[Ran]]:
    """Run the weekly example twice: the first run promotes its model, the second has wrong labels and is rejected."""
    forget_asset_events()
    forget_jobs()
    holdout = some(images, folder / "holdout", 5, 15)
    right = some(images, folder / "right", 15)
    wrong = mislabelled(right, folder / "wrong")
    with Sandbox(access_token=CANARY) as sandbox, pytest.MonkeyPatch.context() as patch:
        document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
        patch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        confs = [{"images": str(week), "holdout": str(holdout)} for week in (right, wrong)]
        yield [Ran(dagbag.dags["example_osai_weekly"].test(run_conf=conf)) for conf in confs]


@contextmanager
def fake_auth_manager() -> Iterator[FakeAuthManager]:
    """Make Airflow use the fake auth manager."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "for these tests only, " * 4)
        manager = FakeAuthManager()
        # Airflow 3.1 stores the manager in auth_manager, newer versions in the private _AuthManagerState.instance.
        state = getattr(airflow_app, "_AuthManagerState", None)
        patch.setattr(*((state, "instance") if state else (airflow_app, "auth_manager")), manager)
        assert airflow_app.get_auth_manager() is manager
        yield manager


def token(manager: FakeAuthManager, name: str, role: str = "VIEWER") -> str:
    """Return the access token of a user."""
    return manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))


class Browsers:
    """Creates clients of the pages."""

    def __init__(self, manager: FakeAuthManager, stack: ExitStack) -> None:
        self._manager = manager
        self._stack = stack

    def __call__(self, name: str | None = "viewer", role: str = "VIEWER", **options: Any) -> TestClient:
        """Return a client that is signed in as the named user; ``None``: not signed in."""
        # Entering the client makes all requests run on one event loop, as in the API server.
        client = self._stack.enter_context(TestClient(create_pages(**options)))
        if name:
            client.headers["Authorization"] = f"Bearer {token(self._manager, name, role)}"
        return client


def text_of(response: Any) -> str:
    """Return the text of a page without its markup, with single spaces."""
    assert response.status_code == 200, response.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.text)).split())


def charts_of(response: Any) -> list[dict[str, Any]]:
    """Return the data of the charts of a page."""
    return [json.loads(html.unescape(chart)) for chart in re.findall(r'data-chart="([^"]*)"', response.text)]
