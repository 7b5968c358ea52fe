"""Archive limits and the validation of entry names, entry counts, sizes and compression ratios."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = ["DEFAULT_LIMITS", "ArchiveEntry", "ArchiveValidator", "Limits"]

FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories forbidden in names: control characters, line and paragraph separators, undecodable bytes."""
DRIVE: Final = re.compile(r"[A-Za-z]:")
MAX_NAME_BYTES: Final = 4_096
"""Linux's PATH_MAX."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The maximum size of an archive.

    :param entries: maximum number of files and folders.
    :param ratio: maximum compression ratio of a file and of the whole archive.
    :param floor: decompressed bytes up to which the ratio is not checked.
    :param bytes: maximum decompressed bytes of all files together.
    """

    entries: int = 99_999
    ratio: int = 200
    floor: int = 1 << 20
    bytes: int = 200 << 30


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A file in an archive: its relative name with slashes, and its decompressed size in bytes."""

    name: str
    size: int


class ArchiveValidator:
    """Validates the entries of an archive during one pass.

    :param archive: the archive's name, for error messages.
    :param limits: the limits to enforce.
    """

    def __init__(self, archive: str, limits: Limits) -> None:
        self.archive = archive
        self.limits = limits
        self._names: set[str] = set()
        self._entries = 0
        self._bytes = 0

    def reject(self, reason: str, entry: str | None = None) -> NoReturn:
        """Raise the error for an invalid archive or entry.

        :raises OsaiArgumentError: always.
        """
        location = f"archive {self.archive!r}" + ("" if entry is None else f", entry {_shortened(entry)}")
        raise OsaiArgumentError(f"{location}: {reason}")

    def count_entry(self, name: str) -> None:
        """Count an entry of any type and enforce the maximum."""
        self._entries += 1
        if self._entries > self.limits.entries:
            self.reject(f"more than {self.limits.entries:,} entries; split the archive", name)

    def file_name(self, raw: str) -> str:
        r"""Return the normalized name of a file; reject empty and duplicate names.

        Names that differ only in case are not duplicates: nothing is written to a file system where they could clash.
        """
        name = self.normalized(raw)
        if not name:
            self.reject("the name is empty", raw)
        if name in self._names:
            self.reject("duplicate name", raw)
        self._names.add(name)
        return name

    def normalized(self, raw: str) -> str:
        r"""Return the name of a file or folder as a relative path with slashes; reject unsafe names.

        Backslashes are converted to slashes (archives from Windows); ``.`` and empty parts are removed.
        """
        if any(unicodedata.category(char) in FORBIDDEN_CATEGORIES for char in raw):
            self.reject("the name contains control characters or is not valid Unicode", raw)
        if len(raw.encode()) > MAX_NAME_BYTES:
            self.reject(f"the name is longer than {MAX_NAME_BYTES:,} bytes", raw)
        slashed = raw.replace("\\", "/")
        if slashed.startswith("/") or DRIVE.match(slashed):
            self.reject("the name is an absolute path", raw)
        parts = slashed.split("/")
        if any(part.rstrip(" .") == "" and part.strip() not in {"", "."} for part in parts):
            self.reject("the name contains '..'", raw)
        return "/".join(part for part in parts if part not in {"", "."})

    def check_size(self, size: int, compressed: int | None, entry: str) -> None:
        """Enforce the limits on a file and on the total so far.

        :param size: the file's decompressed bytes.
        :param compressed: the file's bytes in the archive; ``None`` if they are measured while reading.
        """
        self._bytes += size
        if self._bytes > self.limits.bytes:
            self.reject(f"the files up to this one exceed {self.limits.bytes:,} bytes; split the archive", entry)
        if compressed is not None:
            self.check_ratio(size, compressed, entry)

    def check_total_ratio(self, compressed: int) -> None:
        """Enforce the compression ratio on all files together.

        :param compressed: the archive's bytes.
        """
        self.check_ratio(self._bytes, compressed)

    def check_ratio(self, size: int, compressed: int, entry: str | None = None) -> None:
        """Enforce the compression ratio."""
        if size > self.limits.floor and size > self.limits.ratio * compressed:
            self.reject(
                f"{compressed:,} bytes decompress to at least {size:,}, a ratio of more than {self.limits.ratio}: "
                "suspected zip bomb",
                entry,
            )


def _shortened(name: str) -> str:
    return repr(name) if len(name) <= 200 else f"{name[:200]!r}..."
