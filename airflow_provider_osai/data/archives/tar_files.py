"""Reads tar archives, compressed or not, in one pass, one header at a time."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Container, Generator, Iterator
from typing import IO, Any, Final, NoReturn

from airflow_provider_osai.data.archives.decompression import (
    CHUNK,
    BoundedReader,
    ByteSource,
    DecompressingReader,
    bunzip,
    gunzip,
    unxz,
)
from airflow_provider_osai.data.archives.limits import ArchiveEntry, ArchiveValidator
from airflow_provider_osai.data.hidden_files import is_hidden

__all__ = ["DECOMPRESSORS", "entries", "walk"]

DECOMPRESSORS: Final[dict[str, Callable[[], Any] | None]] = {"": None, "gz": gunzip, "bz2": bunzip, "xz": unxz}
BLOCK: Final = tarfile.BLOCKSIZE
MAX_EXTENSION_BYTES: Final = 1 << 20
"""Maximum bytes of a header that describes the next entry."""
EXTENSION_HEADERS: Final = {b"x": "extended", b"g": "global", b"L": "long name", b"K": "long link"}
FILE_TYPES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
OTHER_TYPES: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
PAX_RECORD: Final = re.compile(rb"(\d{1,8}) ([^=]+)=")


def entries(file: IO[bytes], compression: str, validator: ArchiveValidator) -> list[ArchiveEntry]:
    """Return the files in archive order.

    :param compression: one of :data:`DECOMPRESSORS`.
    """
    source = _open_source(file, compression, validator)
    files = []
    for name, size in _members(source, validator):
        if not is_hidden(name):
            files.append(ArchiveEntry(name, size))
        source.skip(size + -size % BLOCK)
    return files


def walk(
    file: IO[bytes], compression: str, validator: ArchiveValidator, names: Container[str] | None
) -> Generator[tuple[ArchiveEntry, IO[bytes]], None, None]:
    """Yield the files in *names*, or all, with their content, in archive order."""
    source = _open_source(file, compression, validator)
    for name, size in _members(source, validator):
        remaining = size
        if not is_hidden(name) and (names is None or name in names):
            content = BoundedReader(source, size, _reject_truncated(validator, name))
            with io.BufferedReader(content, CHUNK) as opened:
                yield ArchiveEntry(name, size), opened
            remaining = content.remaining
        source.skip(remaining + -size % BLOCK)


def _open_source(file: IO[bytes], compression: str, validator: ArchiveValidator) -> ByteSource:
    new_decompressor = DECOMPRESSORS[compression]
    if new_decompressor is None:
        return _SeekableSource(file, validator)
    file.seek(0)
    return DecompressingReader(file, new_decompressor, validator)


def _members(source: ByteSource, validator: ArchiveValidator) -> Iterator[tuple[str, int]]:
    """Yield each file's name and size with the source at the start of its content, which the caller must consume."""
    extensions: dict[str, str] = {}
    seen: set[bytes] = set()
    while (header := _header(source, validator)) is not None:
        if header.type in EXTENSION_HEADERS:
            if header.type in seen:
                validator.reject(f"corrupt: two {EXTENSION_HEADERS[header.type]} headers in a row", header.name)
            seen.add(header.type)
            extensions |= _read_extension(source, header, validator)
            continue
        name = extensions.get("path", header.name)
        size = _size(extensions, header, validator)
        sparse = any(key.startswith("GNU.sparse") for key in extensions)
        extensions = {}
        seen = set()
        validator.count_entry(name)
        if isinstance(source, DecompressingReader):
            source.start_entry(name)
        if header.type == tarfile.DIRTYPE:
            validator.normalized(name)
        elif header.type not in FILE_TYPES or sparse:
            kind = (
                "a sparse file" if sparse else OTHER_TYPES.get(header.type, f"an entry of unknown type {header.type!r}")
            )
            validator.reject(f"{kind} instead of a regular file", name)
        else:
            validator.check_size(size, None, name)
            yield validator.file_name(name), size
    if seen:
        validator.reject("truncated: an extension header is not followed by its entry")


def _header(source: ByteSource, validator: ArchiveValidator) -> tarfile.TarInfo | None:
    """Return the next header; ``None`` at the end of the archive, which must also be the end of the file."""
    block = _read_exactly(source, BLOCK, validator)
    if not any(block):
        while rest := source.read(CHUNK):
            if any(rest):
                if isinstance(source, DecompressingReader):
                    source.drain()  # verifies the checksum: corrupt data is the better explanation
                validator.reject("data after the end of the archive, perhaps a second archive; split it")
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        validator.reject(f"corrupt: {error}")
    if header.size < 0:
        validator.reject("corrupt: negative size", header.name)
    return header


def _read_extension(source: ByteSource, header: tarfile.TarInfo, validator: ArchiveValidator) -> dict[str, str]:
    """Return the fields of a header that describes the next entry."""
    if header.size > MAX_EXTENSION_BYTES:
        validator.reject(
            f"the {EXTENSION_HEADERS[header.type]} header is longer than {MAX_EXTENSION_BYTES:,} bytes", header.name
        )
    data = _read_exactly(source, header.size, validator)
    source.skip(-header.size % BLOCK)
    if header.type == b"L":
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if header.type == b"K":
        return {}
    fields = {}
    while match := PAX_RECORD.match(data):
        length = int(match[1])
        if not match.end() < length <= len(data):
            break
        fields[match[2].decode("utf-8", "replace")] = data[match.end() : length - 1].decode("utf-8", "surrogateescape")
        data = data[length:]
    if data.strip(b"\0"):
        validator.reject(f"corrupt: the {EXTENSION_HEADERS[header.type]} header cannot be parsed", header.name)
    if header.type == b"g" and {"path", "size"} & set(fields):
        validator.reject("a global header sets the name or size of several entries", header.name)
    return fields


def _size(extensions: dict[str, str], header: tarfile.TarInfo, validator: ArchiveValidator) -> int:
    stated = extensions.get("size")
    if stated is None:
        return header.size
    if not re.fullmatch(r"[0-9]{1,19}", stated):
        validator.reject(f"corrupt: invalid size {stated!r}", header.name)
    return int(stated)


class _SeekableSource:
    """An uncompressed tar: skipped bytes are not read."""

    def __init__(self, file: IO[bytes], validator: ArchiveValidator) -> None:
        self._file = file
        self._validator = validator
        self._length = file.seek(0, os.SEEK_END)
        self._position = file.seek(0)

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size)
        self._position += len(chunk)
        return chunk

    def skip(self, size: int) -> None:
        self._position += size
        if self._position > self._length:
            self._validator.reject("truncated")
        if size:
            self._file.seek(self._position)


def _read_exactly(source: ByteSource, size: int, validator: ArchiveValidator) -> bytes:
    chunks = []
    while size:
        chunk = source.read(min(size, CHUNK))
        if not chunk:
            validator.reject("truncated")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _reject_truncated(validator: ArchiveValidator, name: str) -> Callable[[], NoReturn]:
    return lambda: validator.reject("truncated", name)
