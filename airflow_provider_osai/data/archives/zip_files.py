"""Reads zip archives; cross-checks the central directory against the local headers."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Container, Generator
from typing import IO, Final, cast

from airflow_provider_osai.data.archives.decompression import (
    CHUNK,
    BoundedReader,
    DecompressingReader,
    Readable,
    inflate,
)
from airflow_provider_osai.data.archives.limits import ArchiveEntry, ArchiveValidator
from airflow_provider_osai.data.hidden_files import is_hidden

__all__ = ["entries", "walk"]

END: Final = struct.Struct("<4s4H2LH")
END_SIGNATURE: Final = b"PK\x05\x06"
END64: Final = struct.Struct("<4sQ2H2L4Q")
END64_BYTES: Final = END64.size + 20
"""Bytes of the zip64 end record and its locator, which precede the end record."""
CENTRAL: Final = struct.Struct("<4s24x3H12x")
LOCAL: Final = struct.Struct("<4sHHH16xHH")
MAX_COMMENT_BYTES: Final = 0xFFFF
ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
UTF8: Final = 0x800
UNICODE_PATH: Final = 0x7075
DIRECTORY_BYTES: Final = 512
"""Maximum average size of a central directory entry; names of images are far shorter."""


def entries(file: IO[bytes], validator: ArchiveValidator) -> list[ArchiveEntry]:
    """Return the files in the order of their content in the archive."""
    return [entry for entry, _, _ in _files(file, validator)]


def walk(
    file: IO[bytes], validator: ArchiveValidator, names: Container[str] | None
) -> Generator[tuple[ArchiveEntry, IO[bytes]], None, None]:
    """Yield the files in *names*, or all, with their content, in the order of :func:`entries`."""
    for entry, info, next_offset in _files(file, validator):
        if names is None or entry.name in names:
            with io.BufferedReader(_open(file, info, next_offset, validator), CHUNK) as opened:
                yield entry, opened


def _files(file: IO[bytes], validator: ArchiveValidator) -> list[tuple[ArchiveEntry, zipfile.ZipInfo, int]]:
    """Return the files that are not hidden, each with the offset before which its content must end."""
    files = []
    infos = _read_directory(file, validator)
    next_offsets = [*(info.header_offset for info in infos), _locate_directory(file, validator)[0]][1:]
    # [1:] pairs each entry with the next one, and leaves no offset for an empty archive.
    for info, next_offset in zip(infos, next_offsets, strict=True):
        raw = _decoded_name(info)
        validator.count_entry(raw)
        _check(info, raw, next_offset, validator)
        if raw.endswith(("/", "\\")):
            validator.normalized(raw)
            continue
        name = validator.file_name(raw)
        validator.check_size(info.file_size, info.compress_size, raw)
        if not is_hidden(name):
            files.append((ArchiveEntry(name, info.file_size), info, next_offset))
    validator.check_total_ratio(file.seek(0, os.SEEK_END))
    return files


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """Return an entry's name without truncation at NUL, decoded as UTF-8 where that applies.

    Info-ZIP and macOS write UTF-8 without setting the flag; Info-ZIP adds an extra field.
    """
    name = info.orig_filename
    if info.flag_bits & UTF8 or name.isascii():
        return _unicode_path(info.extra, name.encode("utf-8", "surrogatepass")) or name
    raw = name.encode("cp437")
    with contextlib.suppress(UnicodeDecodeError):
        name = raw.decode()
    return _unicode_path(info.extra, raw) or name


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in the "Unicode path" extra field, if there is one for this raw name."""
    offset = 0
    while offset + 4 <= len(extra):
        field, size = struct.unpack_from("<HH", extra, offset)
        data = extra[offset + 4 : offset + 4 + size]
        if field == UNICODE_PATH and len(data) > 5 and data[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return data[5:].decode("utf-8", "surrogateescape")
        offset += 4 + size
    return None


def _read_directory(file: IO[bytes], validator: ArchiveValidator) -> list[zipfile.ZipInfo]:
    """Return the central directory, sorted by the offset of the entries."""
    _check_directory(file, validator)
    file.seek(0)
    try:
        with zipfile.ZipFile(cast(IO[bytes], _FullReads(file))) as archive:
            infos = archive.infolist()
    # zipfile raises NotImplementedError for a version or a compression that it does not know.
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        validator.reject(f"corrupt: {error}")
    return sorted(infos, key=lambda info: info.header_offset)


def _check_directory(file: IO[bytes], validator: ArchiveValidator) -> None:
    """Limit the number of directory entries before zipfile loads them, since each takes memory."""
    start, size = _locate_directory(file, validator)
    if size > DIRECTORY_BYTES * (validator.limits.entries + 1):
        validator.reject(
            f"the central directory of {size:,} bytes is too large for {validator.limits.entries:,} entries; "
            "split the archive"
        )
    file.seek(start)
    directory = _read_fully(file, size)
    offset = 0
    count = 0
    while offset + CENTRAL.size <= len(directory):
        signature, *lengths = CENTRAL.unpack_from(directory, offset)
        if signature != b"PK\x01\x02" or count > validator.limits.entries:
            break
        offset += CENTRAL.size + sum(lengths)
        count += 1
    if count > validator.limits.entries:
        validator.reject(f"more than {validator.limits.entries:,} entries; split the archive")
    if offset != size or len(directory) != size:
        validator.reject("corrupt: the central directory is not a list of entries")


def _locate_directory(file: IO[bytes], validator: ArchiveValidator) -> tuple[int, int]:
    """Return the central directory's offset and size from the end record, located as zipfile does."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - END.size - MAX_COMMENT_BYTES))
    tail = _read_fully(file, END.size + MAX_COMMENT_BYTES)
    position = len(tail) - END.size
    if position < 0 or tail[position : position + 4] != END_SIGNATURE or tail[-2:] != b"\0\0":
        position = tail.rfind(END_SIGNATURE)
    if position < 0 or position + END.size > len(tail):
        validator.reject("not a zip file, or truncated: no end record")
    *_, size, offset, _comment = END.unpack_from(tail, position)
    end = length - len(tail) + position
    if end >= END64_BYTES:
        file.seek(end - END64_BYTES)
        record = _read_fully(file, END64_BYTES)
        if record[END64.size :].startswith(b"PK\x06\x07"):
            if not record.startswith(b"PK\x06\x06"):
                validator.reject("corrupt: no zip64 end record")
            *_, size, offset = END64.unpack_from(record)
            end -= END64_BYTES
    if size > end or offset > end - size:
        validator.reject("corrupt or truncated: the central directory lies outside the file")
    return end - size, size


def _check(info: zipfile.ZipInfo, name: str, next_offset: int, validator: ArchiveValidator) -> None:
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & ENCRYPTED:
        validator.reject("encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        validator.reject(f"unsupported compression method {info.compress_type}; use 'store' or 'deflate'", name)
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        validator.reject("a link, device or pipe instead of a regular file", name)
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        validator.reject("two different sizes, though it is not compressed", name)
    if info.header_offset + LOCAL.size + len(info.orig_filename) + info.compress_size > next_offset:
        validator.reject("its content overlaps another entry: suspected zip bomb", name)


def _open(file: IO[bytes], info: zipfile.ZipInfo, next_offset: int, validator: ArchiveValidator) -> BoundedReader:
    """Check a file's local header and return a reader of its content."""
    name = _decoded_name(info)
    file.seek(info.header_offset)
    head = _read_fully(file, LOCAL.size)
    if len(head) < LOCAL.size or not head.startswith(b"PK\x03\x04"):
        validator.reject("corrupt: no local header at the offset in the central directory", name)
    _, _, flags, method, *lengths = LOCAL.unpack(head)
    raw = _read_fully(file, lengths[0])
    start = info.header_offset + LOCAL.size + sum(lengths)
    if flags & ENCRYPTED:
        validator.reject("encrypted", name)
    if (
        method != info.compress_type
        or raw.decode("utf-8" if flags & UTF8 else "cp437", "replace") != info.orig_filename
    ):
        validator.reject("the local header and the central directory differ", name)
    if start + info.compress_size > next_offset:
        validator.reject("its content overlaps another entry: suspected zip bomb", name)
    file.seek(start)
    compressed = BoundedReader(file, info.compress_size, lambda: validator.reject("truncated", name))
    source: Readable = compressed
    if info.compress_type == zipfile.ZIP_DEFLATED and info.compress_size:
        source = DecompressingReader(compressed, inflate, validator, multistream=False, entry=name)

    def check_end(crc: int) -> None:
        if crc != info.CRC:
            validator.reject("corrupt: wrong checksum", name)
        if source.read(1):
            validator.reject(f"decompresses to more than the {info.file_size:,} bytes in its header", name)

    return BoundedReader(
        source, info.file_size, lambda: validator.reject("shorter than the size in its header", name), check_end
    )


class _FullReads:
    """Completes short reads, which zipfile would take for the end of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        return self._file.read() if size < 0 else _read_fully(self._file, size)


def _read_fully(file: IO[bytes], size: int) -> bytes:
    """Return *size* bytes, fewer only at the end: remote storage may return short reads."""
    chunks = []
    while size and (chunk := file.read(size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
