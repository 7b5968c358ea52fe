"""A TCP proxy that simulates network failures, between Airflow and OSAI or between tasks and Airflow.

It runs in a thread of the process that starts it, listens on loopback at a port that it keeps, and is controlled by
method calls from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Proxy"]

HEAD = re.compile(rb"[A-Z]+ \S+ HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
CHUNK = 2**16
STALE = 30.0
"""Seconds to wait for the response to a held request after its client has disconnected."""


@dataclass
class _Hold:
    """Which requests are held, and for how long."""

    matches: Callable[[bytes], bool]
    seconds: float
    held: int = 0


@dataclass(eq=False)
class _Wire:
    """One client connection, and the one to the target."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter | None = None
    swallowed: bool = False
    """Whether some of its data was dropped in blackhole mode, so that it must not be continued."""
    held: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        for writer in filter(None, (self.client, self.target)):
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()


class Proxy:
    """Forwards connections to one target, as a context manager.

    Modes: ``pass``; ``delay`` (each request is forwarded some seconds late); ``refuse`` (connecting fails, and open
    connections are cut); ``blackhole`` (connecting works, no response is ever sent, and data sent meanwhile is lost).
    :meth:`hold` is independent of the mode.

    :param target: address of the target; can be set later.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self.connections = 0
        """The number of connections accepted so far."""
        self._mode, self._delay = "pass", 0.0
        self._hold: _Hold | None = None
        self._wires: set[_Wire] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        # Bound but never listening: it reserves the port while connections are refused.
        self._keeper = _bound(0)
        self.port = int(self._keeper.getsockname()[1])
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The target's address with the proxy's port."""
        return self.through(self.target or "http://127.0.0.1")

    def through(self, url: str) -> str:
        """Return *url* with this proxy's host and port."""
        return urlunsplit(urlsplit(url)._replace(netloc=f"127.0.0.1:{self.port}"))

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._keeper.close()

    def pass_on(self) -> None:
        """Forward everything, as initially."""
        self._do(self._enter("pass"))

    def delay(self, seconds: float) -> None:
        """Forward each request some seconds after it has arrived."""
        self._delay = seconds
        self._do(self._enter("delay"))

    def refuse(self) -> None:
        """Cut open connections, and refuse new ones."""
        self._do(self._enter("refuse"))

    def blackhole(self) -> None:
        """Accept connections and never respond."""
        self._do(self._enter("blackhole"))

    def cut(self) -> None:
        """Cut open connections; new ones are handled as before."""
        self._do(self._cut())

    def hold(self, matches: Callable[[bytes], bool], seconds: float) -> _Hold:
        """Hold requests, and deliver them late even if the client has disconnected.

        :param matches: called with the head and body of each request, in the proxy's thread.
        :return: the hold; its ``held`` counts the requests.
        """
        self._hold = _Hold(matches, seconds)
        return self._hold

    def release(self) -> None:
        """Hold no more requests from now on."""
        self._hold = None

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _enter(self, mode: str) -> None:
        before, self._mode = self._mode, mode
        if before == "blackhole" and mode != "blackhole":
            for wire in [wire for wire in self._wires if wire.swallowed]:
                wire.abort()
        if mode == "refuse":
            await self._deafen()
            await self._cut()
        else:
            await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound(self.port)
            listener.listen(512)
            self._server = await asyncio.start_server(self._accepted, sock=listener, limit=CHUNK)

    async def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _cut(self) -> None:
        for wire in list(self._wires):
            wire.abort()

    async def _close(self) -> None:
        await self._deafen()
        await self._cut()
        await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        wire = _Wire(writer)
        self._wires.add(wire)
        # An explicit task: asyncio logs cancelled tasks that it creates from coroutines.
        wire.tasks.append(self._loop.create_task(self._serve(wire, reader)))

    async def _serve(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._carry(wire, reader)
        self._wires.discard(wire)
        wire.abort()

    async def _carry(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        # Connect only with data to forward: in blackhole mode, the target must not even see a connection.
        first = await self._request(wire, reader)
        if not first:
            return
        back: asyncio.Task[None] | None = None
        while first:
            if wire.held or back is None or wire.target is None:
                # A held request needs a new connection: the server has closed the idle one meanwhile.
                if back is not None and wire.target is not None:
                    back.cancel()
                    wire.target.transport.abort()
                if wire.held and self._hold is not None:
                    await asyncio.sleep(self._hold.seconds)
                parts = urlsplit(self.target)
                answers, wire.target = await asyncio.open_connection(parts.hostname, parts.port)
                back = self._loop.create_task(self._answer(wire, answers))
                wire.tasks.append(back)
            wire.target.write(first)
            await wire.target.drain()
            first = await self._request(wire, reader)
        if back is not None and wire.held:
            # A server drops a request whose client has disconnected, and this one is to be delivered.
            await asyncio.wait([back], timeout=STALE)

    async def _request(self, wire: _Wire, reader: asyncio.StreamReader) -> bytes:
        """Return the next bytes to forward; at the start of a request, all of it."""
        while True:
            data = await reader.read(CHUNK)
            if self._mode == "blackhole" and data:
                wire.swallowed = True
            if not wire.swallowed or not data:
                break
        if not data or not HEAD.match(data):
            return data
        wire.held = False
        hold = self._hold
        if hold is not None:
            data = await _whole(data, reader)
            if hold.matches(data):
                hold.held += 1
                wire.held = True
        if self._mode == "delay":
            await asyncio.sleep(self._delay)
        return data

    async def _answer(self, wire: _Wire, answers: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await answers.read(CHUNK):
                if self._mode == "blackhole":
                    wire.swallowed = True
                if wire.held and wire.client.is_closing():
                    return
                if not wire.swallowed:
                    wire.client.write(data)
                    await wire.client.drain()
            if wire.swallowed:
                return
        wire.client.close()


async def _whole(data: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read on until a request is complete."""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if found and len(body) >= int(length[1] if length else 0):
            return data
        more = await reader.read(CHUNK)
        if not more:
            return data
        data += more


def _bound(port: int) -> socket.socket:
    """Return a socket bound to a loopback port, which other sockets of this process may share."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    bound.setblocking(False)
    return bound
