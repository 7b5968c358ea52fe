"""The Airflow plugin, which mounts the webhook app and the pages in the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_osai.webhooks.address import PREFIX, WEBHOOK

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

__all__ = ["PAGES", "OsaiPlugin"]

PAGES: Final = "/osai-jobs"
"""URL prefix under which the API server mounts the pages."""


class _LazyApp:
    """An ASGI app that is created at the first request, because every Airflow process loads the plugins.

    :param factory: creates the app.
    :param redact: removes secrets from a request's scope after the app has got a copy of it, so that the server's
        access log does not show them.
    """

    def __init__(self, factory: Callable[[], FastAPI], redact: Callable[[Scope], None] = lambda _: None) -> None:
        self._factory = factory
        self._redact = redact
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._app is None:
            app = await asyncio.to_thread(self._factory)
            self._app = self._app or app
        app_scope = dict(scope)
        self._redact(scope)
        await self._app(app_scope, receive, send)


def _create_webhook_app() -> FastAPI:
    from airflow_provider_osai.webhooks.app import create_app  # see _LazyApp

    return create_app()


def _create_pages() -> FastAPI:
    from airflow_provider_osai.plugins.pages.app import create_pages  # see _LazyApp

    return create_pages()


def _redact_token(scope: Scope) -> None:
    prefix, separator, _ = str(scope.get("path", "")).partition(WEBHOOK)
    if separator:
        path = f"{prefix}{WEBHOOK}..."
        scope["path"] = path
        scope["raw_path"] = path.encode()


class OsaiPlugin(AirflowPlugin):
    """Mounts the webhook app below ``/osai`` and the pages below ``/osai-jobs``, and links the pages in the UI."""

    name = "osai"
    fastapi_apps = [  # noqa: RUF012 - declared by AirflowPlugin
        {"app": _LazyApp(_create_webhook_app, _redact_token), "url_prefix": PREFIX, "name": "OSAI webhooks"},
        {"app": _LazyApp(_create_pages), "url_prefix": PAGES, "name": "OSAI jobs"},
    ]
    external_views = [  # noqa: RUF012 - same
        {
            "name": "OSAI",
            "href": f"{PAGES}/task/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}/{{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "osai_job",
        },
        {
            "name": "OSAI jobs",
            "href": f"{PAGES}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "osai_jobs",
        },
        {
            "name": "OSAI models",
            "href": f"{PAGES}/models",
            "destination": "nav",
            "category": "browse",
            "url_route": "osai_models",
        },
    ]
