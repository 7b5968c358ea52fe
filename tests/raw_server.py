"""A server of raw bytes: what a real OSAI, or a proxy before it, may put on the wire on its worst day."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

RESET = b"reset"
"""A piece that stands for the end of the connection by RST."""
Pieces = Iterable[bytes]


def http(body: bytes = b"", status: int = 200, *, length: int | None = None, **headers: str) -> bytes:
    """Return an answer as bytes; a *length* that is not that of the body is a lie."""
    given = {"Content-Type": "application/json", "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    given["Content-Length"] = str(len(body) if length is None else length)
    lines = [f"HTTP/1.1 {status} Odd", *(f"{name}: {value}" for name, value in given.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def document(value: Any, status: int = 200, **headers: str) -> bytes:
    """Return an answer with JSON."""
    return http(json.dumps(value).encode(), status, **headers)


class RawServer:
    """Answers the sign-in, and every other request from a script, with one connection for each response.

    :param answer: gives the pieces of the next answer, for the line of a request. A generator is closed when the client
        has gone.
    :param sign_in: the answer to the sign-in.
    """

    def __init__(self, answer: Callable[[str], Pieces], sign_in: bytes | None = None) -> None:
        self._answer = answer
        self._sign_in = sign_in or http(b"jwt", Content_Type="text/plain")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._exchange(connection)

    def _exchange(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = _request(connection)
        signs_in = "/Users/SignIn" in asked
        pieces = iter([self._sign_in] if signs_in else self._answer(asked))
        try:
            for piece in pieces:
                if piece == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(piece)
        finally:
            if isinstance(pieces, Generator):
                pieces.close()


class ThreadedRawServer(RawServer):
    """The same, for clients that leave a request behind: each connection has its own thread.

    ``requests`` has the line of each request; *signs_in* is false for one that answers the sign-in from the script too.
    """

    def __init__(self, answer: Callable[[str], Pieces], *, signs_in: bool = True) -> None:
        super().__init__(answer)
        self._signs_in = signs_in
        self.requests: list[str] = []

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            line = _request(connection).strip()
            self.requests.append(line)
            pieces = [self._sign_in] if self._signs_in and "/Users/SignIn" in line else self._answer(line)
            for piece in pieces:
                connection.sendall(piece)


def _request(connection: socket.socket) -> str:
    """Read a whole request, so that nothing unread turns the end of the connection into a reset; return its line."""
    with connection.makefile("rb") as stream:
        line = stream.readline().decode()
        length = 0
        while (header := stream.readline().strip().lower()) != b"":
            if header.startswith(b"content-length:"):
                length = int(header.partition(b":")[2])
        stream.read(length)
    return line
