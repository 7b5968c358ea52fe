"""Decompress response bodies incrementally, so that limits apply before the memory is used.

Only the codings of :data:`ACCEPT_ENCODING` are accepted, applied at most once. Nested codings multiply: two layers of
gzip turn 64 KiB into 60 GiB, and chained decoders would hold all of it before a limit is checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

import httpx

__all__ = ["ACCEPT_ENCODING", "CHUNK", "Decoder", "UnacceptedCoding", "coding_of"]

ACCEPT_ENCODING: Final = "gzip, deflate"
"""The accepted compressions of a response."""
CHUNK: Final = 256 * 2**10
"""Maximum bytes decompressed before the caller decides whether to continue."""


class UnacceptedCoding(httpx.DecodingError):
    """A response has a coding that is not in :data:`ACCEPT_ENCODING`, or more than one."""


def coding_of(headers: httpx.Headers) -> str:
    """Return ``gzip``, ``deflate`` or ``identity``; repeated headers are combined.

    :raises UnacceptedCoding: if it is another coding, or more than one.
    """
    codings = [coding.strip().lower() for coding in headers.get_list("content-encoding", split_commas=True)]
    applied = [coding for coding in codings if coding not in ("", "identity")]
    if not applied:
        return "identity"
    if len(applied) > 1 or applied[0] not in ("gzip", "deflate"):
        shown = ascii(", ".join(applied)[:100])
        raise UnacceptedCoding(f"Content-Encoding {shown} is not accepted; must be one of: {ACCEPT_ENCODING}")
    return applied[0]


class Decoder:
    """Decompresses one body, piece by piece.

    :param coding: ``gzip``, ``deflate`` or ``identity``.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._head = b""
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16) if coding == "gzip" else None

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decompressed *piece*, at most :data:`CHUNK` bytes at a time; nothing is decompressed in advance.

        :raises httpx.DecodingError: if the data is corrupt, or continues after the end of the compressed stream.
        """
        if self._coding == "identity":
            yield piece
            return
        if self._inflate is None:
            piece = self._head = self._head + piece
            if len(piece) < 2:
                return
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_header(piece) else -zlib.MAX_WBITS)
        out = b""
        while piece or len(out) == CHUNK:
            if piece and self._inflate.eof:
                raise httpx.DecodingError(f"the {self._coding} data continues after its end")
            try:
                out = self._inflate.decompress(piece, CHUNK)
            except zlib.error as error:
                raise httpx.DecodingError(f"the {self._coding} data is corrupt: {error}") from None
            piece = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield out

    def finish(self) -> None:
        """Check that the compressed stream has ended; an empty body is valid.

        :raises httpx.DecodingError: if the data is incomplete.
        """
        started = bool(self._head) if self._coding == "deflate" else self._inflate is not None
        if started and not (self._inflate and self._inflate.eof):
            raise httpx.DecodingError(f"the {self._coding} data is incomplete")


def _has_zlib_header(data: bytes) -> bool:
    """Return whether deflate data is in zlib format, as RFC 9110 requires, or raw, as some servers send it."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
