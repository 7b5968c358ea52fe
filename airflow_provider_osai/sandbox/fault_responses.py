"""Applies injected faults to responses: drop, replace, or corrupt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from airflow_provider_osai.sandbox.scenarios import Fault, FaultKind

__all__ = ["TRANSPORT", "DroppedConnection", "TruncatedResponse", "apply_faults", "fault_response", "with_status"]

TRANSPORT = "osai.transport"
"""Key in the ASGI scope for the connection's transport, which is needed to drop the connection."""
PADDING = b" " * 2**16
PADDING_CHUNKS = 2**10
"""Chunks of padding before the body of a ``huge`` response, 64 MiB in all. JSON allows leading spaces."""
HTML_PAGE = "<html><body><h1>Please wait</h1><p>This is not the API.</p></body></html>"


class DroppedConnection(Response):
    """No response: drops the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drop the connection; return 500 if the server does not expose the transport."""
        transport = scope.get(TRANSPORT)
        if transport is None:
            error = {"message": "Cannot drop the connection: only the sandbox's own server supports this fault"}
            await JSONResponse(error, 500)(scope, receive, send)
            return
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class TruncatedResponse(Response):
    """A response whose connection is closed in the middle of its body.

    :param response: the complete response.
    :param keep: bytes of the body to send.
    """

    def __init__(self, response: Response, keep: int) -> None:
        super().__init__(status_code=response.status_code)
        self._response = response
        self._keep = keep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the beginning of the response, close the connection, and discard the rest."""
        remaining = self._keep

        async def send_truncated(message: Message) -> None:
            nonlocal remaining
            if message["type"] == "http.response.body" and remaining >= 0:
                body = message.get("body", b"")
                if len(body) >= remaining:
                    await send({**message, "body": body[:remaining], "more_body": True})
                    remaining = -1
                    scope[TRANSPORT].close()  # flushes what is buffered
                    return
                remaining -= len(body)
            if remaining >= 0:
                await send(message)

        await self._response(scope, receive, send_truncated)


def fault_response(faults: Mapping[FaultKind, Fault]) -> Response | None:
    """Return the response of a fault that prevents the request from being handled; ``None`` if there is none."""
    if "reset_before" in faults:
        return DroppedConnection()
    if fault := faults.get("status"):
        return _status_response(fault)
    return HTMLResponse(HTML_PAGE) if "html" in faults else None


def apply_faults(response: Response, faults: Mapping[FaultKind, Fault]) -> Response:
    """Return the response to a handled request with the faults applied: dropped, truncated or corrupted."""
    if "reset" in faults:
        return DroppedConnection()
    if (fault := faults.get("cut")) and isinstance(response, FileResponse):
        return TruncatedResponse(response, fault.keep)
    if "malformed" in faults and isinstance(response, JSONResponse):
        return Response(bytes(response.body)[:-1], response.status_code, media_type="application/json")
    if {"huge", "drip"} & faults.keys() and not isinstance(response, FileResponse):
        chunks = _chunks(bytes(response.body), is_huge="huge" in faults, drip=faults.get("drip"))
        return StreamingResponse(chunks, response.status_code, media_type=response.media_type)
    return response


def with_status(result: Any, word: str) -> Any:
    """Return a result with its status, or that of each item, replaced by *word*."""
    if isinstance(result, list):
        return [with_status(item, word) for item in result]
    return {**result, "status": word} if isinstance(result, dict) and "status" in result else result


def _status_response(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if isinstance(fault.body, str):
        return PlainTextResponse(fault.body, fault.status, headers)
    body = {"message": f"Injected fault: status {fault.status}"} if fault.body is None else fault.body
    return JSONResponse(body, fault.status, headers)


async def _chunks(body: bytes, *, is_huge: bool, drip: Fault | None) -> AsyncIterator[bytes]:
    """Yield the body after 64 MiB of padding (*is_huge*), or byte by byte (*drip*), until the client disconnects."""
    for _ in range(PADDING_CHUNKS if is_huge else 0):
        yield PADDING
        await asyncio.sleep(0)  # a disconnect is noticed here
    if drip is None:
        yield body
        return
    for byte in body:
        yield bytes((byte,))
        await asyncio.sleep(drip.seconds)
