"""httpx transports with a total timeout and a maximum response size, the TLS context, and chunked uploads.

A slow or endless response must neither block a request nor fill the memory. The limits are applied below the retries:
each attempt has its own, and the backoff between attempts does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from airflow_provider_osai.api.decoding import CHUNK, Decoder, UnacceptedCoding, coding_of
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.limits import OBJECT_LIMIT

if TYPE_CHECKING:
    from airflow_provider_osai.api.settings import OsaiSettings

__all__ = [
    "LIMIT",
    "MAX_ERROR_BODY",
    "SIGN_IN",
    "STREAM",
    "UPLOAD",
    "AsyncBoundedTransport",
    "BoundedTransport",
    "ChunkedStream",
    "LimitExceeded",
    "ReadOnlyTransport",
    "RequestLimits",
    "TooLarge",
    "load_tls_context",
    "ssl_context",
]

CHUNK_SIZE = 256 * 2**10
"""Minimum bytes of an upload chunk, except the last."""
MAX_ERROR_BODY: Final = 64 * 2**10
"""Maximum bytes read from a response with a status other than 2xx; the rest is not read."""
TOTAL_TIMEOUT_FACTOR: Final = 4.0
"""Total timeout of one request, as a multiple of the connection's ``timeout``."""
UPLOAD: Final = "osai.upload"
"""Request extension that marks an upload: its total timeout starts with the response."""
LIMIT: Final = "osai.limit"
"""Request extension with the operation's name and the :class:`.Limit` of its response; default: ``OBJECT_LIMIT``."""
SIGN_IN: Final = "osai.sign_in"
"""Request extension that marks the sign-in."""
STREAM: Final = "osai.stream"
"""Request extension that marks a request whose successful response is streamed."""
OVERHEAD: Final = 64 * 2**10
"""Bytes by which a compressed body may exceed the limit of its decompressed content."""


def ssl_context(settings: OsaiSettings) -> ssl.SSLContext | bool:
    """Return the TLS context for the settings' base URL; ``False`` for plain http on loopback."""
    return httpx.create_ssl_context() if settings.base_url.startswith("https:") else False


def load_tls_context(settings: OsaiSettings) -> ssl.SSLContext | bool:
    """Build the TLS context and import PyJWT, outside the event loop that they would block."""
    importlib.import_module("jwt")
    return ssl_context(settings)


class ChunkedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Coalesces a stream into chunks of at least 256 KiB, to reduce system calls.

    :param stream: a stream that can be iterated synchronously and repeatedly, such as httpx's multipart stream.
    """

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        length = 0
        for part in self._stream:  # type: ignore[union-attr]  # a multipart stream is both
            parts.append(part)
            length += len(part)
            if length >= CHUNK_SIZE:
                yield b"".join(parts)
                parts = []
                length = 0
        if parts:
            yield b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class LimitExceeded(httpx.TransportError):
    """A request exceeded a limit. It is not retried, since the next attempt would most likely exceed it too."""


class TooLarge(LimitExceeded):
    """A response exceeds the size limit of its operation."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The total timeout of one request.

    :param seconds: the maximum seconds from the start until the response is read.
    :param clock: monotonic time in seconds.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic


class ReadOnlyTransport(httpx.BaseTransport):
    """Sends GET requests and the sign-in, and refuses all others, so that nothing can be changed by mistake."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; raise OsaiArgumentError if it is neither a GET nor the sign-in."""
        if request.method != "GET" and not request.extensions.get(SIGN_IN):
            raise OsaiArgumentError(f"{request.method} {request.url.path} was not sent: this client only reads")
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()


class BoundedTransport(httpx.BaseTransport):
    """Reads each response completely within the limits, except successful :data:`STREAM` responses (:mod:`.streaming`).

    The total timeout is checked after each chunk of the body, so it may be exceeded by one read timeout. It cannot be
    checked while headers arrive slowly on a blocking socket; there only the task's ``execution_timeout`` applies.
    """

    def __init__(self, transport: httpx.BaseTransport, bounds: RequestLimits) -> None:
        self._transport = transport
        self._bounds = bounds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return the complete response."""
        exchange = _Exchange(request, self._bounds)
        response = self._transport.handle_request(request)
        if response.is_success and request.extensions.get(STREAM):
            return response
        with contextlib.closing(response):
            exchange.start_response(response)
            self._read_body(exchange, response)
        return exchange.build_response(response)

    @staticmethod
    def _read_body(exchange: _Exchange, response: httpx.Response) -> None:
        for piece in response.iter_raw():
            for part in exchange.decode(piece):
                if exchange.append(part):
                    return
        exchange.finish()

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()


class AsyncBoundedTransport(httpx.AsyncBaseTransport):
    """Asynchronous variant of :class:`BoundedTransport`, which enforces the total timeout exactly."""

    def __init__(self, transport: httpx.AsyncBaseTransport, bounds: RequestLimits) -> None:
        self._transport = transport
        self._bounds = bounds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return the complete response; an external cancellation is propagated."""
        exchange = _Exchange(request, self._bounds)
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(None if exchange.is_upload else exchange.remaining) as timeout:
                response = await self._transport.handle_async_request(request)
                exchange.start_response(response)
                if exchange.is_upload:
                    timeout.reschedule(asyncio.get_running_loop().time() + exchange.remaining)
                await self._read_body(exchange, response)
        except TimeoutError:
            raise exchange.timeout_error() from None
        finally:
            if response is not None:  # outside the timeout, which could leave the connection half closed
                await response.aclose()
        return exchange.build_response(response)

    @staticmethod
    async def _read_body(exchange: _Exchange, response: httpx.Response) -> None:
        async for piece in response.aiter_raw():
            for part in exchange.decode(piece):
                if exchange.append(part):
                    return
                if len(part) >= CHUNK:
                    await asyncio.sleep(0)
        exchange.finish()

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()


class _Exchange:
    """One request and its response so far; the logic shared by both transports."""

    def __init__(self, request: httpx.Request, bounds: RequestLimits) -> None:
        self._bounds = bounds
        self._since = bounds.clock()
        self.is_upload = bool(request.extensions.get(UPLOAD))
        self._operation, self._limit = request.extensions.get(LIMIT, (request.url.path, OBJECT_LIMIT))
        self._is_error = False
        self._is_discarded = False
        self._decoder = Decoder("identity")
        self._received = 0
        self._body = bytearray()

    @property
    def remaining(self) -> float:
        """Seconds until the total timeout."""
        return max(0.0, self._since + self._bounds.seconds - self._bounds.clock())

    def timeout_error(self) -> LimitExceeded:
        return LimitExceeded(f"the response was not complete after {self._bounds.seconds:g} s")

    def start_response(self, response: httpx.Response) -> None:
        """Read the status and headers; raise UnacceptedCoding if the body cannot be decoded.

        The body of an unsuccessful response is discarded instead: its status is sufficient.
        """
        self._is_error = not response.is_success
        if self.is_upload:
            self._since = self._bounds.clock()
        try:
            self._decoder = Decoder(coding_of(response.headers))
        except UnacceptedCoding as error:
            if not self._is_error:
                raise
            self._discard_body(error)

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decompressed content of a chunk, in parts of limited size."""
        self._received += len(piece)
        if self._is_discarded:
            yield b""
            return
        try:
            yield from self._decoder.decode(piece)
        except httpx.DecodingError as error:
            if not self._is_error:
                raise
            self._discard_body(error)
            yield b""

    def finish(self) -> None:
        """Check that the body is complete, unless the response is unsuccessful."""
        if not self._is_error:
            self._decoder.finish()

    def append(self, part: bytes) -> bool:
        """Append a part and return whether to stop reading; raise LimitExceeded if it is too much or too late."""
        self._body += part
        if self.remaining == 0.0:
            raise self.timeout_error()
        if self._is_error:
            return self._is_discarded or max(len(self._body), self._received - OVERHEAD) >= MAX_ERROR_BODY
        if max(len(self._body), self._received - OVERHEAD) > self._limit.size:
            raise TooLarge(f"the response to {self._operation} is longer than {self._limit.size // 2**20} MiB")
        return False

    def build_response(self, response: httpx.Response) -> httpx.Response:
        """Return the response with the decompressed body."""
        if self._is_error:
            del self._body[MAX_ERROR_BODY:]
        headers = response.headers
        if self._is_error or "content-encoding" in headers or "transfer-encoding" in headers:
            headers = headers.copy()
            for name in ("content-encoding", "content-length", "transfer-encoding"):
                headers.pop(name, None)
        if self._is_discarded:
            headers["content-type"] = "text/plain; charset=utf-8"
        content = bytes(self._body)
        return httpx.Response(response.status_code, headers=headers, content=content, extensions=response.extensions)

    def _discard_body(self, reason: httpx.DecodingError) -> None:
        self._is_discarded = True
        self._body[:] = f"(body not read: {reason})".encode()
