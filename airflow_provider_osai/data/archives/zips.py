"""Zip archives: the directory at the end is believed only as far as the bytes before it bear it out."""

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

from airflow_provider_osai.data.archives.rules import Entry, Rules, is_hidden
from airflow_provider_osai.data.archives.streams import CHUNK, Part, Readable, Unpacked, inflate

__all__ = ["entries", "walk"]

END: Final = struct.Struct("<4s4H2LH")
END_SIGNATURE: Final = b"PK\x05\x06"
END64: Final = struct.Struct("<4sQ2H2L4Q")
BEFORE64: Final = END64.size + 20
"""Bytes of zip64's record and of its locator, which stand before the record at the end."""
CENTRAL: Final = struct.Struct("<4s24x3H12x")
LOCAL: Final = struct.Struct("<4sHHH16xHH")
LONGEST_COMMENT: Final = 0xFFFF
ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
UTF8: Final = 0x800
UNICODE_PATH: Final = 0x7075
DIRECTORY_BYTES: Final = 512
"""Bytes of the directory for each entry that is allowed; names of images are far shorter."""


def entries(file: IO[bytes], rules: Rules) -> list[Entry]:
    """Return the archive's files, in the order in which their bytes lie in it."""
    return [entry for entry, _, _ in _files(file, rules)]


def walk(
    file: IO[bytes], rules: Rules, wanted: Container[str] | None
) -> Generator[tuple[Entry, IO[bytes]], None, None]:
    """Yield each wanted file with its bytes, in the order in which they lie in the archive."""
    for entry, info, end in _files(file, rules):
        if wanted is None or entry.name in wanted:
            with io.BufferedReader(_open(file, info, end, rules), CHUNK) as opened:
                yield entry, opened


def _files(file: IO[bytes], rules: Rules) -> list[tuple[Entry, zipfile.ZipInfo, int]]:
    """Return the files to be seen, each with the offset at which its bytes must have ended."""
    found = []
    infos = _directory(file, rules)
    for info, after in zip(infos, [*(i.header_offset for i in infos[1:]), _start(file, rules)[0]], strict=True):
        raw = _name(info)
        rules.count(raw)
        _check(info, raw, after, rules)
        if raw.endswith(("/", "\\")):
            rules.safe(raw)
            continue
        name = rules.name(raw)
        rules.size(info.file_size, info.compress_size, raw)
        if not is_hidden(name):
            found.append((Entry(name, info.file_size), info, after))
    rules.whole(file.seek(0, os.SEEK_END))
    return found


def _name(info: zipfile.ZipInfo) -> str:
    """Return an entry's name, uncut, and as Unicode where its writer said or meant so.

    Info-ZIP and macOS write UTF-8 without the flag that says it; Info-ZIP says it in an extra field.
    """
    name = info.orig_filename
    if info.flag_bits & UTF8 or name.isascii():
        return _unicode(info.extra, name.encode("utf-8", "surrogatepass")) or name
    raw = name.encode("cp437")
    with contextlib.suppress(UnicodeDecodeError):
        name = raw.decode()
    return _unicode(info.extra, raw) or name


def _unicode(extra: bytes, raw: bytes) -> str | None:
    """Return what the extra field "Unicode path" says, if it speaks of this name."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        data = extra[at + 4 : at + 4 + size]
        if kind == UNICODE_PATH and len(data) > 5 and data[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return data[5:].decode("utf-8", "surrogateescape")
        at += 4 + size
    return None


def _directory(file: IO[bytes], rules: Rules) -> list[zipfile.ZipInfo]:
    _limit(file, rules)
    file.seek(0)
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Whole(file))) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        rules.refuse(f"it is broken: {error}")
    return sorted(infos, key=lambda info: info.header_offset)


def _limit(file: IO[bytes], rules: Rules) -> None:
    """Count the directory's entries before it is read as a whole, for each costs memory."""
    start, size = _start(file, rules)
    if size > DIRECTORY_BYTES * (rules.limits.entries + 1):
        rules.refuse(f"its directory of {size:,} bytes is too large for {rules.limits.entries:,} entries; split it")
    file.seek(start)
    directory = _read(file, size)
    at = count = 0
    while at + CENTRAL.size <= len(directory):
        signature, *lengths = CENTRAL.unpack_from(directory, at)
        if signature != b"PK\x01\x02" or count > rules.limits.entries:
            break
        at, count = at + CENTRAL.size + sum(lengths), count + 1
    if count > rules.limits.entries:
        rules.refuse(f"it has more than {rules.limits.entries:,} entries; split it")
    if at != size or len(directory) != size:
        rules.refuse("it is broken: its directory is no list of entries")


def _start(file: IO[bytes], rules: Rules) -> tuple[int, int]:
    """Return where the directory begins and its bytes, from the record at the end as zipfile finds it."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - END.size - LONGEST_COMMENT))
    tail = _read(file, END.size + LONGEST_COMMENT)
    at = len(tail) - END.size
    if at < 0 or tail[at : at + 4] != END_SIGNATURE or tail[-2:] != b"\0\0":
        at = tail.rfind(END_SIGNATURE)
    if at < 0 or at + END.size > len(tail):
        rules.refuse("it is no zip file, or cut off: the record at its end is missing")
    *_, size, offset, _comment = END.unpack_from(tail, at)
    end = length - len(tail) + at
    if end >= BEFORE64:
        file.seek(end - BEFORE64)
        record = _read(file, BEFORE64)
        if record[END64.size :].startswith(b"PK\x06\x07"):
            if not record.startswith(b"PK\x06\x06"):
                rules.refuse("it is broken: the zip64 record at its end is missing")
            *_, size, offset = END64.unpack_from(record)
            end -= BEFORE64
    if size > end or offset > end - size:
        rules.refuse("it is broken or cut off: its directory lies outside it")
    return end - size, size


def _check(info: zipfile.ZipInfo, name: str, after: int, rules: Rules) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & ENCRYPTED:
        rules.refuse("it is encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        rules.refuse(f"it is packed by method {info.compress_type}; only 'store' and 'deflate' are read", name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        rules.refuse("it is a link, a device or a pipe, no file", name)
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        rules.refuse("it states two sizes, though it is not compressed", name)
    if info.header_offset + LOCAL.size + len(info.orig_filename) + info.compress_size > after:
        rules.refuse("its bytes overlap those of another entry, as a bomb's do", name)


def _open(file: IO[bytes], info: zipfile.ZipInfo, after: int, rules: Rules) -> Part:
    """Return a file's bytes, after a look at what stands before them."""
    name = _name(info)
    file.seek(info.header_offset)
    head = _read(file, LOCAL.size)
    if len(head) < LOCAL.size or not head.startswith(b"PK\x03\x04"):
        rules.refuse("it is broken: its bytes are not where the directory says", name)
    _, _, flags, method, *lengths = LOCAL.unpack(head)
    raw = _read(file, lengths[0])
    start = info.header_offset + LOCAL.size + sum(lengths)
    if flags & ENCRYPTED:
        rules.refuse("it is encrypted", name)
    if (
        method != info.compress_type
        or raw.decode("utf-8" if flags & UTF8 else "cp437", "replace") != info.orig_filename
    ):
        rules.refuse("its own header and the directory differ", name)
    if start + info.compress_size > after:
        rules.refuse("its bytes overlap those of another entry, as a bomb's do", name)
    file.seek(start)
    packed = Part(file, info.compress_size, lambda: rules.refuse("it is cut off", name))
    source: Readable = packed
    if info.compress_type == zipfile.ZIP_DEFLATED and info.compress_size:
        source = Unpacked(packed, inflate, rules, several=False, entry=name)

    def done(crc: int) -> None:
        if crc != info.CRC:
            rules.refuse("it is broken: its checksum is wrong", name)
        if source.read(1):
            rules.refuse(f"it unpacks to more than the {info.file_size:,} bytes that it states", name)

    return Part(source, info.file_size, lambda: rules.refuse("it is shorter than it states", name), done)


class _Whole:
    """A file that gives all that is asked for: zipfile takes a short answer for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        return self._file.read() if size < 0 else _read(self._file, size)


def _read(file: IO[bytes], size: int) -> bytes:
    """Return *size* bytes, fewer only at the end: what is remote may give them in pieces."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
