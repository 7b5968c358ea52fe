"""Tar archives, packed or not: one pass from front to back, one header at a time."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Container, Generator, Iterator
from typing import IO, Any, Final, NoReturn

from airflow_provider_osai.data.archives.rules import Entry, Rules, is_hidden
from airflow_provider_osai.data.archives.streams import CHUNK, Part, Source, Unpacked, bunzip, gunzip, unxz

__all__ = ["UNPACKERS", "entries", "walk"]

UNPACKERS: Final[dict[str, Callable[[], Any] | None]] = {"": None, "gz": gunzip, "bz2": bunzip, "xz": unxz}
BLOCK: Final = tarfile.BLOCKSIZE
LONGEST_NOTE: Final = 1 << 20
"""Bytes of a header that only says more about the next entry."""
NOTES: Final = {b"x": "extended", b"g": "global", b"L": "long name", b"K": "long link"}
FILES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
KINDS: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
RECORD: Final = re.compile(rb"(\d{1,8}) ([^=]+)=")


def entries(file: IO[bytes], kind: str, rules: Rules) -> list[Entry]:
    """Return the archive's files in its order.

    :param kind: how it is packed, one of :data:`UNPACKERS`.
    """
    source = _source(file, kind, rules)
    found = []
    for name, size in _members(source, rules):
        if not is_hidden(name):
            found.append(Entry(name, size))
        source.skip(size + -size % BLOCK)
    return found


def walk(
    file: IO[bytes], kind: str, rules: Rules, wanted: Container[str] | None
) -> Generator[tuple[Entry, IO[bytes]], None, None]:
    """Yield each wanted file with its bytes, in the archive's order."""
    source = _source(file, kind, rules)
    for name, size in _members(source, rules):
        left = size
        if not is_hidden(name) and (wanted is None or name in wanted):
            part = Part(source, size, _cut_off(rules, name))
            with io.BufferedReader(part, CHUNK) as opened:
                yield Entry(name, size), opened
            left = part.left
        source.skip(left + -size % BLOCK)


def _source(file: IO[bytes], kind: str, rules: Rules) -> Source:
    unpacker = UNPACKERS[kind]
    if unpacker is None:
        return _Seekable(file, rules)
    file.seek(0)
    return Unpacked(file, unpacker, rules)


def _members(source: Source, rules: Rules) -> Iterator[tuple[str, int]]:
    """Yield each file's name and size when the source stands at its bytes; the caller goes behind them."""
    notes: dict[str, str] = {}
    seen: set[bytes] = set()
    while (header := _header(source, rules)) is not None:
        if header.type in NOTES:
            if header.type in seen:
                rules.refuse(f"it is broken: two {NOTES[header.type]} headers in a row", header.name)
            seen.add(header.type)
            notes |= _note(source, header, rules)
            continue
        name, size = notes.get("path", header.name), _size(notes, header, rules)
        sparse = any(key.startswith("GNU.sparse") for key in notes)
        notes, seen = {}, set()
        rules.count(name)
        if isinstance(source, Unpacked):
            source.mark(name)
        if header.type == tarfile.DIRTYPE:
            rules.safe(name)
        elif header.type not in FILES or sparse:
            what = "a sparse file" if sparse else KINDS.get(header.type, f"of the unknown kind {header.type!r}")
            rules.refuse(f"it is {what}, no plain file", name)
        else:
            rules.size(size, None, name)
            yield rules.name(name), size
    if seen:
        rules.refuse("it is cut off: a header speaks of an entry that does not come")


def _header(source: Source, rules: Rules) -> tarfile.TarInfo | None:
    """Return the next header; ``None`` at the archive's end, which must be the file's, too."""
    block = _exactly(source, BLOCK, rules)
    if not any(block):
        while rest := source.read(CHUNK):
            if any(rest):
                rules.refuse("there is something after its end, perhaps a second archive; split it")
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        rules.refuse(f"it is broken: {error}")
    if header.size < 0:
        rules.refuse("it is broken: its size is negative", header.name)
    return header


def _note(source: Source, header: tarfile.TarInfo, rules: Rules) -> dict[str, str]:
    """Return what a header says about the entry that follows."""
    if header.size > LONGEST_NOTE:
        rules.refuse(f"its {NOTES[header.type]} header is longer than {LONGEST_NOTE:,} bytes", header.name)
    data = _exactly(source, header.size, rules)
    source.skip(-header.size % BLOCK)
    if header.type == b"L":
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if header.type == b"K":
        return {}
    said = {}
    while match := RECORD.match(data):
        length = int(match[1])
        if not match.end() < length <= len(data):
            break
        said[match[2].decode("utf-8", "replace")] = data[match.end() : length - 1].decode("utf-8", "surrogateescape")
        data = data[length:]
    if data.strip(b"\0"):
        rules.refuse(f"it is broken: its {NOTES[header.type]} header cannot be read", header.name)
    if header.type == b"g" and {"path", "size"} & set(said):
        rules.refuse("it states one name or size for several entries", header.name)
    return said


def _size(notes: dict[str, str], header: tarfile.TarInfo, rules: Rules) -> int:
    stated = notes.get("size")
    if stated is None:
        return header.size
    if not re.fullmatch(r"[0-9]{1,19}", stated):
        rules.refuse(f"it is broken: its size is {stated!r}", header.name)
    return int(stated)


class _Seekable:
    """A tar that is not packed: what is not wanted is passed by without being read."""

    def __init__(self, file: IO[bytes], rules: Rules) -> None:
        self._file, self._rules = file, rules
        self._length = file.seek(0, os.SEEK_END)
        self._at = file.seek(0)

    def read(self, most: int, /) -> bytes:
        piece = self._file.read(most)
        self._at += len(piece)
        return piece

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > self._length:
            self._rules.refuse("it is cut off")
        if size:
            self._file.seek(self._at)


def _exactly(source: Source, size: int, rules: Rules) -> bytes:
    pieces = []
    while size:
        piece = source.read(min(size, CHUNK))
        if not piece:
            rules.refuse("it is cut off")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _cut_off(rules: Rules, name: str) -> Callable[[], NoReturn]:
    return lambda: rules.refuse("it is cut off", name)
