"""The plugin that Airflow finds through the provider's description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_osai.jobs.ticket import PREFIX, WEBHOOK

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

__all__ = ["PANELS", "OsaiPlugin"]

PANELS: Final = "/osai-jobs"
"""Where the API server mounts the panel of jobs."""


Made = Callable[[], "FastAPI"]


class _Later:
    """An application that is made when the first request comes: every process of Airflow loads its plugins.

    :param make: makes it.
    :param hide: takes what nobody shall log out of a request's scope, after a copy for the application was made.
    """

    def __init__(self, make: Made, hide: Callable[[Scope], None] = lambda _: None) -> None:
        self._make, self._hide = make, hide
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._app is None:
            made = await asyncio.to_thread(self._make)
            self._app = self._app or made
        inner = dict(scope)
        self._hide(scope)
        await self._app(inner, receive, send)


def _webhooks() -> FastAPI:
    from airflow_provider_osai.plugins.app import create_app  # noqa: PLC0415 - see _Later

    return create_app()


def _panel() -> FastAPI:
    from airflow_provider_osai.plugins.panel import create_panel  # noqa: PLC0415 - see _Later

    return create_panel()


def _hide(scope: Scope) -> None:
    head, found, _ = str(scope.get("path", "")).partition(WEBHOOK)
    if found:
        path = f"{head}{WEBHOOK}..."
        scope["path"], scope["raw_path"] = path, path.encode()


class OsaiPlugin(AirflowPlugin):
    """Mounts the receiver of webhooks in the API server, below ``/osai``, and the panel of jobs, with its places."""

    name = "osai"
    fastapi_apps = [  # noqa: RUF012 - Airflow's way
        {"app": _Later(_webhooks, _hide), "url_prefix": PREFIX, "name": "OSAI webhooks"},
        {"app": _Later(_panel), "url_prefix": PANELS, "name": "OSAI jobs"},
    ]
    external_views = [  # noqa: RUF012 - same
        {
            "name": "OSAI job",
            "href": f"{PANELS}/task/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}/{{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "osai_job",
        },
        {
            "name": "OSAI jobs",
            "href": f"{PANELS}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "osai_jobs",
        },
    ]
