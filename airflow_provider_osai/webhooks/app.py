"""The ASGI app for the webhooks that OSAI sends when a job has ended. It accepts only tokens that we have signed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from airflow_provider_osai.hooks.deployment import deployment_in_database
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.webhooks.handler import WebhookHandler, WebhookResult
from airflow_provider_osai.webhooks.rate_limit import DeploymentSecretCache, RateLimiter, WebhookSecretCache
from airflow_provider_osai.webhooks.resume import incompatibility_reason
from airflow_provider_osai.webhooks.token import (
    InvalidToken,
    WebhookProbe,
    WebhookToken,
    claimed_connection_id,
    unseal,
)

__all__ = ["create_app"]

MAX_BODY: Final = 64 * 2**10
"""Maximum bytes of a request body. The body is drained but never parsed."""
BODY_TIMEOUT: Final = 5.0
"""Maximum seconds to receive the body."""
LOG_INTERVAL: Final = 10.0
"""Minimum seconds between two log lines about rejected webhooks; each line has the count since the last one."""

log = logging.getLogger(__name__)


async def load_secrets(osai_conn_id: str) -> tuple[str, ...]:
    """Return the webhook secrets of a connection; empty if it is not set up for webhooks or cannot be read."""
    try:
        settings = await OsaiHook(osai_conn_id).async_settings()
    except Exception as error:  # any failure of a secrets backend means that no token is accepted
        log.debug("Cannot read the connection of a webhook: %s", type(error).__name__)
        return ()
    return tuple(secret.get_secret_value() for secret in settings.webhook_secrets) if settings.takes_webhooks else ()


async def deployment_secret() -> str | None:
    """Return this deployment's secret; ``None`` if it has submitted no job yet, or the secret cannot be read."""
    try:
        deployment = await asyncio.to_thread(deployment_in_database)
    except Exception as error:  # any failure of the database or a secrets backend
        log.warning(
            "Cannot read this deployment's secret; webhooks are rejected unless it was read before: %s",
            type(error).__name__,
        )
        return None
    return deployment.secret if deployment else None


def create_app(
    handler: WebhookHandler | None = None,
    read: Callable[[str], Awaitable[tuple[str, ...]]] = load_secrets,
    read_deployment: Callable[[], Awaitable[str | None]] = deployment_secret,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the application that the API server mounts.

    Its responses have no body: 200 if a task was resumed, 202 if not (yet), 404 for any invalid token. For a valid
    token also 408, 413 or 429: the body is too slow or too long, or the rate limit is exceeded. Reasons are logged.

    :param handler: handles verified webhooks.
    :param read: reads the webhook secrets of a connection.
    :param read_deployment: reads this deployment's secret.
    :param clock: a monotonic clock, in seconds.
    """
    app = FastAPI(title="OSAI webhooks", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    endpoint = _WebhookEndpoint(
        handler or WebhookHandler(),
        DeploymentSecretCache(read_deployment, clock),
        WebhookSecretCache(read, clock),
        clock,
    )
    app.state.endpoint = endpoint

    @app.post("/webhook/{token}", status_code=202, response_class=Response)
    async def receive_webhook(token: str, request: Request) -> Response:
        return await endpoint.serve(token, request)

    @app.exception_handler(HTTPException)
    async def respond_not_found(_request: Request, _error: Exception) -> Response:
        return Response(status_code=404)

    return app


class _WebhookEndpoint:
    """Verifies the token, the rate limit and the body before the handler runs."""

    def __init__(
        self,
        handler: WebhookHandler,
        deployment: DeploymentSecretCache,
        secrets: WebhookSecretCache,
        clock: Callable[[], float],
    ) -> None:
        self.handler = handler
        self._deployment = deployment
        self._secrets = secrets
        self._clock = clock
        self._limiter = RateLimiter(burst=5, per_second=1 / 6, clock=clock)
        self._rejected = 0
        self._logged_at = -LOG_INTERVAL

    async def serve(self, text: str, request: Request) -> Response:
        if reason := incompatibility_reason():
            self._log_rejection(f"this version cannot resume tasks of this Airflow ({reason}); jobs are polled instead")
            return Response(status_code=404)
        try:
            text = unseal(text, await self._deployment.get())
            secrets = await self._secrets.get(claimed_connection_id(text))
            if probe := _probe(text, secrets):
                return Response(probe.answer(secrets), media_type="text/plain")
            token = WebhookToken.verify(text, secrets)
        except InvalidToken as error:
            self._log_rejection(str(error))
            return Response(status_code=404)
        is_noted = self.handler.note(token)
        if not is_noted and not self._limiter.allows(token):
            owner = token.owner
            self._log_rejection(f"rate limit exceeded for task {owner.dag_id} {owner.run_id} {owner.task_id}")
            return Response(status_code=429)
        if status := await _drain_body(request):
            self._log_rejection(f"the request body is too long or too slow (status {status})")
            return Response(status_code=status)
        result = WebhookResult.RECHECK if is_noted else await self.handler.handle(token)
        return Response(status_code=200 if result is WebhookResult.RESUMED else 202)

    def _log_rejection(self, reason: str) -> None:
        self._rejected += 1
        if self._clock() - self._logged_at >= LOG_INTERVAL:
            log.warning("Rejected %s webhook request(s); last reason: %s", self._rejected, reason)
            self._rejected = 0
            self._logged_at = self._clock()


def _probe(text: str, secrets: tuple[str, ...]) -> WebhookProbe | None:
    try:
        return WebhookProbe.verify(text, secrets)
    except InvalidToken:
        return None


async def _drain_body(request: Request) -> int | None:
    """Read and discard the body; return the response status if it exceeds a limit."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:12]) > MAX_BODY:
        return 413
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY:
                    return 413
    except TimeoutError:
        return 408
    except ClientDisconnect:
        pass  # the body does not matter, so the webhook still counts
    return None
