"""Streaming decompression with a compression-ratio limit."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_osai.data.archives.limits import ArchiveValidator

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BoundedReader", "ByteSource", "DecompressingReader", "Readable", "bunzip", "gunzip", "inflate", "unxz"]

CHUNK: Final = 1 << 16
"""Maximum bytes read or decompressed at a time."""
XZ_MEMORY: Final = 128 << 20
"""Maximum memory of the xz decompressor, in bytes; ``xz -9`` needs 65 MiB."""


class Readable(Protocol):
    """A binary input that may return less than requested."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most *size* bytes; none only at the end."""


class ByteSource(Protocol):
    """A sequential binary input that can skip bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes; none only at the end."""

    def skip(self, size: int) -> None:
        """Skip *size* bytes."""


class _ZlibDecompressor:
    """Gives zlib's decompressor the interface of bz2's and lzma's."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

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
    """Return a decompressor for the deflate method of zip."""
    return _ZlibDecompressor(-zlib.MAX_WBITS)


def gunzip() -> Any:
    """Return a decompressor for gzip; it verifies the checksum."""
    return _ZlibDecompressor(16 + zlib.MAX_WBITS)


def bunzip() -> Any:
    """Return a decompressor for bzip2."""
    return bz2.BZ2Decompressor()


def unxz() -> Any:
    """Return a decompressor for xz with bounded memory."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


class DecompressingReader:
    """Decompresses a file while it is read, and enforces the compression ratio per entry and in total.

    :param file: the compressed bytes, read from its current position.
    :param new_decompressor: returns a decompressor for one stream.
    :param validator: enforces the compression ratio.
    :param multistream: whether more streams may follow the first, as in gzip, bzip2 and xz.
    :param entry: the name of the first entry, for error messages.
    """

    def __init__(
        self,
        file: Readable,
        new_decompressor: Callable[[], Any],
        validator: ArchiveValidator,
        *,
        multistream: bool = True,
        entry: str = "",
    ) -> None:
        self._file = file
        self._new_decompressor = new_decompressor
        self._validator = validator
        self._multistream = multistream
        self._decompressor = new_decompressor()
        self._bytes_in = 0
        self._bytes_out = 0
        self._unread = b""
        self._ended = False
        self.start_entry(entry)

    def start_entry(self, entry: str) -> None:
        """Measure the compression ratio of *entry* from the current position."""
        self._entry = entry or None
        self._entry_start = self._bytes_in, self._bytes_out

    def read(self, size: int) -> bytes:
        """Return at most *size* bytes; none only at the end.

        :raises OsaiArgumentError: if the data is corrupt or truncated, or exceeds the compression ratio.
        """
        while not self._ended:
            chunk = self._decompress(min(size, CHUNK))
            if chunk:
                self._bytes_out += len(chunk)
                self._check_ratio()
                return chunk
        return b""

    def skip(self, size: int) -> None:
        """Decompress and discard *size* bytes."""
        while size:
            chunk = self.read(min(size, CHUNK))
            if not chunk:
                self._validator.reject("truncated", self._entry)
            size -= len(chunk)

    def drain(self) -> None:
        """Read to the end, which verifies the checksums.

        :raises OsaiArgumentError: if the data is corrupt or truncated, or exceeds the compression ratio.
        """
        while self.read(CHUNK):
            pass

    def _decompress(self, max_length: int) -> bytes:
        if self._decompressor.eof:
            self._next_stream()
            return b""
        data, self._unread = self._unread, b""
        needs_input = not data and self._decompressor.needs_input
        if needs_input:
            data = self._read_compressed()
        try:
            chunk: bytes = self._decompressor.decompress(data, max_length)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:  # bz2 raises OSError
            self._validator.reject(f"corrupt: {error}", self._entry)
        # A decompressor that does not need input may still return nothing, and need input after that.
        if needs_input and not chunk and not data and not self._decompressor.eof:
            self._validator.reject("truncated", self._entry)
        return chunk

    def _next_stream(self) -> None:
        if not self._multistream:
            self._ended = True
            return
        data = self._decompressor.unused_data
        while not (data := data.lstrip(b"\0")):  # padding is allowed
            data = self._read_compressed()
            if not data:
                self._ended = True
                return
        self._decompressor = self._new_decompressor()
        self._unread = data

    def _read_compressed(self) -> bytes:
        data = self._file.read(CHUNK) or b""
        self._bytes_in += len(data)
        return data

    def _check_ratio(self) -> None:
        start_in, start_out = self._entry_start
        self._validator.check_ratio(self._bytes_out, self._bytes_in)
        # Up to one chunk of the entry's compressed data was read before the entry started.
        self._validator.check_ratio(self._bytes_out - start_out, self._bytes_in - start_in + CHUNK, self._entry)


class BoundedReader(io.RawIOBase):
    """The next *size* bytes of a source, as a readable file.

    :param on_truncated: called if the source ends early; must raise.
    :param on_end: called once with the CRC-32 checksum when the last byte is read.
    """

    def __init__(
        self,
        source: Readable,
        size: int,
        on_truncated: Callable[[], Any],
        on_end: Callable[[int], None] = lambda _crc: None,
    ) -> None:
        self._source = source
        self._on_truncated = on_truncated
        self._on_end = on_end
        self._crc = 0
        self.remaining = size
        if not size:
            on_end(0)

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into *buffer* with one read of the source, and return the number of bytes."""
        with memoryview(buffer) as view:
            chunk = (self._source.read(min(len(view), self.remaining)) or b"") if self.remaining else b""
            if self.remaining and not chunk:
                self._on_truncated()
            view[: len(chunk)] = chunk
        self._crc = zlib.crc32(chunk, self._crc)
        self.remaining -= len(chunk)
        if chunk and not self.remaining:
            self._on_end(self._crc)
        return len(chunk)
