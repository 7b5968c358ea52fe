"""What faults make of answers: none at all, another one, or the true one spoiled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from airflow_provider_osai.sandbox.scripts import Fault, FaultKind

__all__ = ["TRANSPORT", "CutShort", "Dropped", "instead_of_an_answer", "spoiled", "with_word"]

TRANSPORT = "osai.transport"
"""Where in the ASGI scope the server puts the connection's transport, so that it can be dropped."""
BLANKS, BLANK_PIECES = b" " * 2**16, 2**10
"""What comes before the body of a ``huge`` answer, 64 MiB in all. JSON allows it, so the answer is true."""
HTML_PAGE = "<html><body><h1>Please wait</h1><p>This is not the API.</p></body></html>"


class Dropped(Response):
    """No answer at all: the connection is dropped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drop the connection; answer 500 if the server did not say which it is."""
        transport = scope.get(TRANSPORT)
        if transport is None:
            refusal = {"message": "only the sandbox's own server can drop connections"}
            await JSONResponse(refusal, 500)(scope, receive, send)
            return
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class CutShort(Response):
    """An answer whose connection is closed in the middle of its body.

    :param whole: the answer.
    :param keep: bytes of the body that are sent.
    """

    def __init__(self, whole: Response, keep: int) -> None:
        super().__init__(status_code=whole.status_code)
        self._whole, self._keep = whole, keep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is to be sent, close the connection, and send nothing any more."""
        left = self._keep

        async def some(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body" and left >= 0:
                body = message.get("body", b"")
                if len(body) >= left:
                    await send({**message, "body": body[:left], "more_body": True})
                    left = -1
                    scope[TRANSPORT].close()  # which sends what is on its way
                    return
                left -= len(body)
            if left >= 0:
                await send(message)

        await self._whole(scope, receive, some)


def instead_of_an_answer(faults: Mapping[FaultKind, Fault]) -> Response | None:
    """Return what is answered although nothing was done, if a fault says so."""
    if "reset_before" in faults:
        return Dropped()
    if fault := faults.get("status"):
        return _with_status(fault)
    return HTMLResponse(HTML_PAGE) if "html" in faults else None


def spoiled(response: Response, faults: Mapping[FaultKind, Fault]) -> Response:
    """Return what becomes of the answer to something that was done."""
    if "reset" in faults:
        return Dropped()
    if (fault := faults.get("cut")) and isinstance(response, FileResponse):
        return CutShort(response, fault.keep)
    if "malformed" in faults and isinstance(response, JSONResponse):
        return Response(bytes(response.body)[:-1], response.status_code, media_type="application/json")
    if {"huge", "drip"} & faults.keys() and not isinstance(response, FileResponse):
        pieces = _in_pieces(bytes(response.body), is_huge="huge" in faults, drip=faults.get("drip"))
        return StreamingResponse(pieces, response.status_code, media_type=response.media_type)
    return response


def with_word(answer: Any, word: str) -> Any:
    """Return an answer that shows another status word."""
    if isinstance(answer, list):
        return [with_word(item, word) for item in answer]
    return {**answer, "status": word} if isinstance(answer, dict) and "status" in answer else answer


def _with_status(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if isinstance(fault.body, str):
        return PlainTextResponse(fault.body, fault.status, headers)
    body = {"message": f"the sandbox was told to answer {fault.status}"} if fault.body is None else fault.body
    return JSONResponse(body, fault.status, headers)


async def _in_pieces(body: bytes, *, is_huge: bool, drip: Fault | None) -> AsyncIterator[bytes]:
    """Yield a body behind a mass of blanks, or byte by byte, until the client has gone."""
    for _ in range(BLANK_PIECES if is_huge else 0):
        yield BLANKS
        await asyncio.sleep(0)  # where a client that has gone is noticed
    if drip is None:
        yield body
        return
    for byte in body:
        yield bytes((byte,))
        await asyncio.sleep(drip.seconds)
