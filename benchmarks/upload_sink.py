"""A server that discards images, and responds after a delay that simulates the round trip to a distant server.

It does nothing else, so its throughput is limited by this machine only. Run as a process: it prints its port, and exits
when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import Self, cast

__all__ = ["Taker"]


class _Exchange(asyncio.Protocol):
    """One connection. Parses only what the requests of this API need: no pipelining, no chunked bodies."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._head = bytearray()
        self._first = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._head[:end])
            self._first = head.partition(b"\r\n")[0]
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            length = int(lengths[0].partition(b":")[2]) if lengths else 0
            self._left = length - (len(self._head) - end - 4)
            self._head.clear()
        if self._left == 0:
            asyncio.get_running_loop().call_later(self._pause, self._answer, self._first)

    def _answer(self, first: bytes) -> None:
        verb, path, _ = first.decode().split(" ")
        body: object = {"id": "1"}
        if verb == "GET":
            body = []
        elif path.endswith("/SignIn"):
            body = "a-token"
        text = json.dumps(body).encode()
        kind = b"application/json"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(text))
        if not self._transport.is_closing():
            self._transport.write(head + text)


class Taker:
    """The server in a separate process, as a context manager.

    :param pause: seconds between the end of a request and its response.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.upload_sink", str(self._pause)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(cast("str", self._process.stdout and self._process.stdout.readline()))
        self.url = f"http://127.0.0.1:{self.port}/api"
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()


async def _serve(pause: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Exchange(pause), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    done = asyncio.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await done.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
