"""Reading unpacked bytes out of packed ones, a piece at a time, with what comes out held against what went in."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_osai.data.archives.rules import Rules

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Part", "Readable", "Source", "Unpacked", "bunzip", "gunzip", "inflate", "unxz"]

CHUNK: Final = 1 << 16
"""Bytes that are read, or unpacked, at a time."""
XZ_MEMORY: Final = 128 << 20
"""Bytes that an xz stream may ask for; ``xz -9`` needs 65 MiB."""


class Readable(Protocol):
    """What bytes come from."""

    def read(self, most: int, /) -> bytes | None:
        """Return up to *most* bytes; none only at the end."""


class Source(Protocol):
    """Bytes in sequence, some of which need not be seen."""

    def read(self, most: int, /) -> bytes:
        """Return up to *most* bytes; none only at the end."""

    def skip(self, size: int) -> None:
        """Go *size* bytes ahead."""


class _Inflater:
    """zlib's way to unpack, with the words that bz2 and lzma use."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


def inflate() -> Any:
    """Unpack what a zip file holds."""
    return _Inflater(-zlib.MAX_WBITS)


def gunzip() -> Any:
    """Unpack gzip, with its checksum."""
    return _Inflater(16 + zlib.MAX_WBITS)


def bunzip() -> Any:
    """Unpack bzip2."""
    return bz2.BZ2Decompressor()


def unxz() -> Any:
    """Unpack xz, with no more memory than its tools ever ask for."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


class Unpacked:
    """A packed file, read as what it unpacks to.

    :param file: the packed bytes, from where it stands.
    :param unpacker: makes what unpacks one stream.
    :param rules: what it is held to, from :meth:`mark` to the next one and as a whole.
    :param several: whether more streams may follow the first, as gzip, bzip2 and xz allow.
    """

    def __init__(
        self, file: Readable, unpacker: Callable[[], Any], rules: Rules, *, several: bool = True, entry: str = ""
    ) -> None:
        self._file, self._unpacker, self._rules, self._several = file, unpacker, rules, several
        self._stream = unpacker()
        self._packed = self._unpacked = 0
        self._ahead = b""
        self._ended = False
        self.mark(entry)

    def mark(self, entry: str) -> None:
        """Measure the growth anew from here, as that of *entry*."""
        self._entry = entry or None
        self._from = self._packed, self._unpacked

    def read(self, most: int) -> bytes:
        """Return up to *most* bytes; none only at the end.

        :raises OsaiArgumentError: if the bytes are broken or cut off, or grow too much.
        """
        while not self._ended:
            piece = self._step(min(most, CHUNK))
            if piece:
                self._unpacked += len(piece)
                self._hold()
                return piece
        return b""

    def skip(self, size: int) -> None:
        """Go *size* bytes ahead, unpacking them."""
        while size:
            piece = self.read(min(size, CHUNK))
            if not piece:
                self._rules.refuse("it is cut off", self._entry)
            size -= len(piece)

    def _step(self, most: int) -> bytes:
        if self._stream.eof:
            self._next()
            return b""
        data, self._ahead = self._ahead, b""
        is_hungry = not data and self._stream.needs_input
        if is_hungry:
            data = self._more()
        try:
            piece: bytes = self._stream.decompress(data, most)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:  # bz2 says OSError
            self._rules.refuse(f"it is broken: {error}", self._entry)
        # One that is not hungry may still have nothing to give, and be hungry then.
        if is_hungry and not piece and not data and not self._stream.eof:
            self._rules.refuse("it is cut off", self._entry)
        return piece

    def _next(self) -> None:
        """Go on after the end of one stream: with the next one, or not."""
        if not self._several:
            self._ended = True
            return
        rest = self._stream.unused_data
        while not (rest := rest.lstrip(b"\0")):  # padding is allowed
            rest = self._more()
            if not rest:
                self._ended = True
                return
        self._stream, self._ahead = self._unpacker(), rest

    def _more(self) -> bytes:
        data = self._file.read(CHUNK) or b""
        self._packed += len(data)
        return data

    def _hold(self) -> None:
        packed, unpacked = self._from
        self._rules.growth(self._unpacked, self._packed)
        # What one entry takes is known but for the piece that was read ahead before it began.
        self._rules.growth(self._unpacked - unpacked, self._packed - packed + CHUNK, self._entry)


class Part(io.RawIOBase):
    """The next *size* bytes of a source, as a file that can be read.

    :param done: is called once with the checksum (CRC-32), as soon as the last byte is read.
    :param cut_off: is called if they end too early; must raise.
    """

    def __init__(
        self, source: Readable, size: int, cut_off: Callable[[], Any], done: Callable[[int], None] = lambda _crc: None
    ) -> None:
        self._source, self._cut_off, self._done = source, cut_off, done
        self._crc = 0
        self.left = size
        if not size:
            done(0)

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill *buffer* as far as one step goes, and return how far."""
        with memoryview(buffer) as view:
            piece = (self._source.read(min(len(view), self.left)) or b"") if self.left else b""
            if self.left and not piece:
                self._cut_off()
            view[: len(piece)] = piece
        self._crc = zlib.crc32(piece, self._crc)
        self.left -= len(piece)
        if piece and not self.left:
            self._done(self._crc)
        return len(piece)
