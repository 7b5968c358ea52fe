"""Sends a form in few large pieces: each piece is a system call, and lets other threads in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

__all__ = ["Gathered"]

PIECE = 256 * 2**10
"""Bytes of a piece at the least, but for the last."""


class Gathered(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The same bytes as another stream's, in pieces that are worth sending.

    :param stream: one that can be read on threads, such as httpx's of a form with files, and begins anew each time.
    """

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        length = 0
        for part in self._stream:  # type: ignore[union-attr]  # a form's stream is both
            parts.append(part)
            length += len(part)
            if length >= PIECE:
                yield b"".join(parts)
                parts, length = [], 0
        if parts:
            yield b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
