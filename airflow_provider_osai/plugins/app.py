"""The address that OSAI calls when a job has ended. It lets nobody in without a ticket that we have signed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.ticket import Probe, Ticket, TicketError, connection_of
from airflow_provider_osai.plugins.admission import Rates, Secrets
from airflow_provider_osai.plugins.receiver import Fate, Receiver
from airflow_provider_osai.plugins.resume import misfit

__all__ = ["create_app"]

MAX_BODY: Final = 64 * 2**10
"""Bytes of a webhook's body. It is not even read as what it says: nothing of it counts."""
BODY_PATIENCE: Final = 5.0
"""Seconds that the body may take."""
QUIET: Final = 10.0
"""Seconds between two log lines about webhooks that were refused; how many there were is told in the next."""

log = logging.getLogger(__name__)


async def secrets_of(osai_conn_id: str) -> tuple[str, ...]:
    """Return the webhook secrets of a connection; none if it takes no webhooks, or cannot be read."""
    try:
        settings = await OsaiHook(osai_conn_id).async_settings()
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody is let in, and a stranger may have made it up
        log.debug("No webhooks through this connection: %s", type(error).__name__)
        return ()
    return tuple(secret.get_secret_value() for secret in settings.webhook_secrets) if settings.takes_webhooks else ()


def create_app(
    receiver: Receiver | None = None,
    read: Callable[[str], Awaitable[tuple[str, ...]]] = secrets_of,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the application that the API server mounts.

    It answers without a word: 200 if a task goes on, 202 if not (yet), 404 to everybody whose ticket is no good, and to
    a good one 408, 413 or 429 if the body takes too long, is too long, or comes too often. The reason is in the log.
    """
    app = FastAPI(title="OSAI webhooks", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    desk = _Desk(receiver or Receiver(), Secrets(read, clock), clock)
    app.state.desk = desk

    @app.post("/webhook/{ticket}", status_code=202, response_class=Response)
    async def job_has_ended(ticket: str, request: Request) -> Response:
        """Look at the job of the task that *ticket* names."""
        return await desk.serve(ticket, request)

    @app.exception_handler(HTTPException)
    async def nothing_here(_request: Request, _error: Exception) -> Response:
        return Response(status_code=404)

    return app


class _Desk:
    """Checks who calls, and how often, before anything is done."""

    def __init__(self, receiver: Receiver, secrets: Secrets, clock: Callable[[], float]) -> None:
        self.receiver = receiver
        self._secrets, self._clock = secrets, clock
        self._rates = Rates(burst=5, per_second=1 / 6, clock=clock)
        self._refused, self._told = 0, -QUIET

    async def serve(self, text: str, request: Request) -> Response:
        if reason := misfit():
            self._refuse(f"this Airflow is not one that this version can resume tasks of ({reason}); jobs are polled")
            return Response(status_code=404)
        try:
            osai_conn_id = connection_of(text)
            secrets = await self._secrets.of(osai_conn_id)
            if probe := _probe(text, secrets):
                return Response(probe.answer(secrets), media_type="text/plain")
            ticket = Ticket.read(text, secrets)
        except TicketError as error:
            self._refuse(str(error))
            return Response(status_code=404)
        if not self._rates.allows(ticket):
            self._refuse(f"too many for task {ticket.owner.task_id} of {ticket.owner.dag_id} {ticket.owner.run_id}")
            return Response(status_code=429)
        if status := await _body_fault(request):
            self._refuse(f"its body is too long or too slow ({status})")
            return Response(status_code=status)
        fate = await self.receiver.hear(ticket)
        return Response(status_code=200 if fate is Fate.RESUMED else 202)

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        if self._clock() - self._told >= QUIET:
            log.warning("%s webhook(s) refused, the last since %s", self._refused, reason)
            self._refused, self._told = 0, self._clock()


def _probe(text: str, secrets: tuple[str, ...]) -> Probe | None:
    try:
        return Probe.read(text, secrets)
    except TicketError:
        return None


async def _body_fault(request: Request) -> int | None:
    """Read the body to its end, within the bounds, and forget it; return the status if it breaks one."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:12]) > MAX_BODY:
        return 413
    size = 0
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            async for piece in request.stream():
                size += len(piece)
                if size > MAX_BODY:
                    return 413
    except TimeoutError:
        return 408
    except ClientDisconnect:
        pass  # the news is good all the same
    return None
