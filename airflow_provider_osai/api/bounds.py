"""Bounds what one exchange may take: a server that drips or never ends must neither hold a request nor fill the memory.

The bounds are kept below the retries, so each attempt has its own, and what retries wait in between does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

__all__ = [
    "MAX_ANSWER",
    "MAX_REFUSAL",
    "STREAM",
    "UPLOAD",
    "AsyncBoundedTransport",
    "BoundedTransport",
    "Bounds",
    "OverBound",
]

MAX_ANSWER: Final = 32 * 2**20
"""Bytes of an answer that are read, decompressed."""
MAX_REFUSAL: Final = 64 * 2**10
"""Bytes that are read of an answer with another status than 2xx; the rest is left unread."""
TIMES: Final = 4.0
"""How many times the connection's ``timeout`` one exchange may last as a whole."""
UPLOAD: Final = "osai.upload"
"""The request extension that marks a request that sends files: its time counts from when the answer begins."""
STREAM: Final = "osai.stream"
"""The request extension that marks a request whose answer, if it is a success, is handed through as it comes."""
PACKING: Final = "gzip, deflate"
"""How answers may be compressed: so that no piece unfolds into much more than a thousand times its size."""


class OverBound(httpx.TransportError):
    """An exchange broke a bound. It is not repeated: the next one would most likely do the same."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long one exchange may last.

    :param seconds: from the start until the answer is read.
    :param clock: seconds that never go back.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic


class BoundedTransport(httpx.BaseTransport):
    """Reads each answer whole, within the bounds; but for the successes of :data:`STREAM`, see :mod:`.streams`.

    The time is looked at whenever a piece of the body comes, so it may be passed by one read timeout. Of headers that
    drip a blocking socket tells nothing: there only the task's ``execution_timeout`` holds.
    """

    def __init__(self, transport: httpx.BaseTransport, bounds: Bounds) -> None:
        self._transport, self._bounds = transport, bounds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return its whole answer."""
        exchange = _Exchange(request, self._bounds)
        response = self._transport.handle_request(request)
        if response.is_success and request.extensions.get(STREAM):
            return response
        with contextlib.closing(response):
            exchange.answered(response)
            for piece in response.iter_bytes():
                if exchange.has_enough(piece):
                    break
        return exchange.answer(response)

    def close(self) -> None:
        """Close the transport below."""
        self._transport.close()


class AsyncBoundedTransport(httpx.AsyncBaseTransport):
    """Does the same as :class:`BoundedTransport` on an event loop, where the time is kept to the second."""

    def __init__(self, transport: httpx.AsyncBaseTransport, bounds: Bounds) -> None:
        self._transport, self._bounds = transport, bounds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return its whole answer; a cancellation from outside goes through."""
        exchange = _Exchange(request, self._bounds)
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(None if exchange.is_upload else exchange.left) as limit:
                response = await self._transport.handle_async_request(request)
                exchange.answered(response)
                if exchange.is_upload:
                    limit.reschedule(asyncio.get_running_loop().time() + exchange.left)
                async for piece in response.aiter_bytes():
                    if exchange.has_enough(piece):
                        break
        except TimeoutError:
            raise exchange.late() from None
        finally:
            if response is not None:  # out of the limit's reach, which would leave the connection half closed
                await response.aclose()
        return exchange.answer(response)

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._transport.aclose()


class _Exchange:
    """One request and what has come of its answer: all that both transports decide."""

    def __init__(self, request: httpx.Request, bounds: Bounds) -> None:
        self._bounds = bounds
        self._since = bounds.clock()
        self.is_upload = bool(request.extensions.get(UPLOAD))
        self._is_refusal = False
        self._body = bytearray()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._since + self._bounds.seconds - self._bounds.clock())

    def late(self) -> OverBound:
        return OverBound(f"the answer was not complete after {self._bounds.seconds:g} s")

    def answered(self, response: httpx.Response) -> None:
        """Know how the answer begins."""
        self._is_refusal = not response.is_success
        if self.is_upload:
            self._since = self._bounds.clock()

    def has_enough(self, piece: bytes) -> bool:
        """Take a piece in and return whether no more is needed; raise OverBound if it is too much or too late."""
        self._body += piece
        if self.left == 0.0:
            raise self.late()
        if self._is_refusal:
            return len(self._body) >= MAX_REFUSAL
        if len(self._body) > MAX_ANSWER:
            raise OverBound(f"the answer is longer than {MAX_ANSWER // 2**20} MiB")
        return False

    def answer(self, response: httpx.Response) -> httpx.Response:
        """Return the answer with the body that was read, as it is decompressed."""
        if self._is_refusal:
            del self._body[MAX_REFUSAL:]
        headers = response.headers
        if self._is_refusal or "content-encoding" in headers or "transfer-encoding" in headers:
            headers = headers.copy()
            for name in ("content-encoding", "content-length", "transfer-encoding"):
                headers.pop(name, None)
        content = bytes(self._body)
        return httpx.Response(response.status_code, headers=headers, content=content, extensions=response.extensions)
