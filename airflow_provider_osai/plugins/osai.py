"""The plugin that Airflow finds through the provider's description."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_osai.jobs.ticket import PREFIX, WEBHOOK

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

__all__ = ["OsaiPlugin"]


class _Webhooks:
    """The receiver of webhooks, made when the first one comes: every process of Airflow loads its plugins."""

    _app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and leave no ticket behind for whoever logs addresses after it."""
        if self._app is None:
            made = await asyncio.to_thread(_make)
            self._app = self._app or made
        inner = dict(scope)
        _hide(scope)
        await self._app(inner, receive, send)


def _make() -> FastAPI:
    from airflow_provider_osai.plugins.app import create_app  # noqa: PLC0415 - see _Webhooks

    return create_app()


def _hide(scope: Scope) -> None:
    head, found, _ = str(scope.get("path", "")).partition(WEBHOOK)
    if found:
        path = f"{head}{WEBHOOK}..."
        scope["path"], scope["raw_path"] = path, path.encode()


class OsaiPlugin(AirflowPlugin):
    """Mounts the receiver of webhooks in the API server, below ``/osai``."""

    name = "osai"
    fastapi_apps = [{"app": _Webhooks(), "url_prefix": PREFIX, "name": "OSAI webhooks"}]  # noqa: RUF012 - Airflow's way
