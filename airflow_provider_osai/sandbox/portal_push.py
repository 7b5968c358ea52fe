"""Sends the progress of jobs to the portal over a WebSocket, with the messages of SignalR's JSON protocol."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.wire_format import encode_response, response_items
from airflow_provider_osai.sandbox.handlers import Handlers
from airflow_provider_osai.sandbox.models import ApiError, JobRecord
from airflow_provider_osai.sandbox.scoped_ids import ScopedIds
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["JobHub"]

END: Final = "\x1e"
"""Ends each message."""
INVOCATION: Final = 1
"""The type of a message that calls a method of the other side."""
KINDS: Final = frozenset(JobKind)
INTERVAL: Final = 0.1
"""Seconds between two checks of the watched jobs."""


class JobHub:
    """A hub: the page watches jobs, and gets a message whenever the state or the progress of one has changed.

    :param state: the sandbox's state.
    :param contract: the contract that the API speaks.
    :param handlers: provides the fields of a job.
    :param ids: translates the ids of jobs.
    """

    def __init__(self, state: SandboxState, contract: Contract, handlers: Handlers, ids: ScopedIds) -> None:
        self._state = state
        self._contract = contract
        self._handlers = handlers
        self._ids = ids

    def negotiate(self) -> dict[str, Any]:
        """Return what a client has to know before it connects."""
        transport = {"transport": "WebSockets", "transferFormats": ["Text"]}
        token = secrets.token_urlsafe(16)
        return {
            "negotiateVersion": 1,
            "connectionId": secrets.token_urlsafe(16),
            "connectionToken": token,
            "availableTransports": [transport],
        }

    async def serve(self, socket: WebSocket) -> None:
        """Serve one connection, whose query has the token: browsers cannot send headers with a WebSocket."""
        token = socket.query_params.get("access_token", "")
        accounts = self._state.accounts
        try:
            if "auth.sign_in" in self._contract:
                accounts.check(f"Bearer {token}")
            else:
                accounts.check_key(token)
        except ApiError:
            await socket.close()  # before accept: 403
            return
        await socket.accept()
        watched: dict[tuple[JobKind, str], Any] = {}
        sender = asyncio.create_task(self._send_changes(socket, watched))
        try:
            async for text in socket.iter_text():
                for message in _messages(text):
                    match message:
                        case {"protocol": "json"}:
                            await socket.send_text(f"{{}}{END}")
                        case {"type": 1, "target": "WatchJob", "arguments": [str(kind), str(job_id)]} if kind in KINDS:
                            watched[JobKind(kind), job_id] = None
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send_changes(self, socket: WebSocket, watched: dict[tuple[JobKind, str], Any]) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                for (kind, job_id), before in list(watched.items()):
                    job = self._job(kind, job_id)
                    now = None if job is None else (job.state, job.progress)
                    if job is not None and now != before:
                        message = {"type": INVOCATION, "target": "jobProgress", "arguments": [self._document(job)]}
                        await socket.send_text(f"{json.dumps(message)}{END}")
                    watched[kind, job_id] = now
                    if job is None or job.is_terminal:
                        del watched[kind, job_id]
                await asyncio.sleep(INTERVAL)

    def _job(self, kind: JobKind, job_id: str) -> JobRecord | None:
        try:
            return self._state.jobs.get(kind, self._ids.to_plain(f"{kind}.get", {"id": job_id})["id"])
        except ApiError:
            return None

    def _document(self, job: JobRecord) -> Any:
        """Return a job as the API would, without the envelope of a response."""
        endpoint = self._contract[f"{job.kind}.get"]
        with self._state.lock:
            fields = self._ids.to_scoped(endpoint.name, self._handlers.job(job))
        document = encode_response(endpoint, fields).document
        if endpoint.rules.pick:
            return response_items(endpoint, document)[0]
        envelope = endpoint.rules.envelope
        return document if envelope is None else json_path(envelope).get(document)


def _messages(text: str) -> Iterator[dict[str, Any]]:
    """Yield the messages in a text; anything else is ignored."""
    for part in text.split(END):
        with suppress(ValueError):
            message = json.loads(part)
            if isinstance(message, dict):
                yield message
