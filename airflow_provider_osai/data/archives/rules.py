"""What is refused of any archive: names that lead elsewhere, and more than the limits allow."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = ["NORMAL", "Entry", "Limits", "Rules", "is_hidden"]

UNREADABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories that no name may hold: control characters, line ends, and what was no text at all."""
DRIVE: Final = re.compile(r"[A-Za-z]:")
LONGEST_NAME: Final = 4_096
"""Bytes, as Linux's PATH_MAX."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold.

    :param entries: files and folders.
    :param ratio: times that a file, or all of them, may grow when unpacked.
    :param floor: bytes up to which anything may grow more than that.
    :param bytes: bytes of all files together, unpacked.
    """

    entries: int = 99_999
    ratio: int = 200
    floor: int = 1 << 20
    bytes: int = 200 << 30


NORMAL: Final = Limits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its relative name with slashes, and its size in bytes when unpacked."""

    name: str
    size: int


class Rules:
    """Holds one pass over an archive to its limits.

    :param archive: the archive's name, for messages.
    """

    def __init__(self, archive: str, limits: Limits) -> None:
        self.archive, self.limits = archive, limits
        self._names: set[str] = set()
        self._entries = self._bytes = 0

    def refuse(self, reason: str, entry: str | None = None) -> NoReturn:
        """Raise the error that says what is wrong with the archive, or with one of its entries.

        :raises OsaiArgumentError: always.
        """
        where = f"archive {self.archive!r}" + ("" if entry is None else f", entry {_short(entry)}")
        raise OsaiArgumentError(f"{where}: {reason}")

    def count(self, name: str) -> None:
        """Count one more entry, of whatever kind."""
        self._entries += 1
        if self._entries > self.limits.entries:
            self.refuse(f"it has more than {self.limits.entries:,} entries; split it", name)

    def name(self, raw: str) -> str:
        r"""Return a file's name as a relative one with slashes, and remember it.

        Backslashes are slashes, since archives from Windows have them; ``.`` and empty parts go. Names that differ in
        case only are two names: nothing is written where they could meet.
        """
        name = self.safe(raw)
        if not name:
            self.refuse("it has no name", raw)
        if name in self._names:
            self.refuse("this name is in it twice", raw)
        self._names.add(name)
        return name

    def safe(self, raw: str) -> str:
        """Return a file's or folder's name as a relative one with slashes."""
        if any(unicodedata.category(char) in UNREADABLE for char in raw):
            self.refuse("the name holds control characters, or is no Unicode", raw)
        if len(raw.encode()) > LONGEST_NAME:
            self.refuse(f"the name is longer than {LONGEST_NAME:,} bytes", raw)
        slashed = raw.replace("\\", "/")
        if slashed.startswith("/") or DRIVE.match(slashed):
            self.refuse("the name is an absolute path", raw)
        parts = slashed.split("/")
        if any(part.rstrip(" .") == "" and part.strip() not in {"", "."} for part in parts):
            self.refuse("the name leads upwards with '..'", raw)
        return "/".join(part for part in parts if part not in {"", "."})

    def size(self, size: int, packed: int | None, entry: str) -> None:
        """Hold one file to the limits.

        :param packed: its bytes in the archive, or ``None`` where that is measured on the way.
        """
        self._bytes += size
        if self._bytes > self.limits.bytes:
            self.refuse(f"all files to here are larger than {self.limits.bytes:,} bytes; split it", entry)
        if packed is not None:
            self.growth(size, packed, entry)

    def whole(self, packed: int) -> None:
        """Hold all files together to the ratio.

        :param packed: the archive's bytes.
        """
        self.growth(self._bytes, packed)

    def growth(self, size: int, packed: int, entry: str | None = None) -> None:
        """Refuse what grows too much."""
        if size > self.limits.floor and size > self.limits.ratio * packed:
            self.refuse(
                f"{packed:,} bytes unpack to {size:,} or more, over {self.limits.ratio} times as many; "
                "images do not, a bomb does",
                entry,
            )


def is_hidden(name: str) -> bool:
    """Whether a file is passed over: hidden, in a hidden folder, or macOS's own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _short(name: str) -> str:
    return repr(name) if len(name) <= 200 else f"{name[:200]!r}..."
