"""One archive of whichever kind, by its name."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator
from typing import IO, Final, Self

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import tars, zips
from airflow_provider_osai.data.archives.rules import NORMAL, Entry, Limits, Rules

__all__ = ["Archive", "is_archive"]

ZIP: Final = "zip"
SUFFIXES: Final = {".zip": ZIP, ".tar": "", ".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tar.xz": "xz"}


def is_archive(name: str) -> bool:
    """Whether a file of this name is read as an archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz."""
    return name.lower().endswith(tuple(SUFFIXES))


class Archive:
    """The files of an archive, read where it lies.

    Hidden files and folders, and macOS's ``__MACOSX``, are held to the same rules and then passed over; folders are
    no entries of their own. Memory does not grow with the archive's size, only with the number of its entries.

    :param file: the archive, opened as a seekable binary file; it stays open, and its own errors pass through.
    :param name: its name: tells its kind, and is named by errors.
    :param limits: how much it may hold.
    :raises OsaiArgumentError: if the name is not that of an archive.
    """

    def __init__(self, file: IO[bytes], name: str, limits: Limits = NORMAL) -> None:
        if not is_archive(name):
            raise OsaiArgumentError(f"archive {name!r}: choose one of {', '.join(SUFFIXES)}")
        self._file, self._name, self._limits = file, name, limits
        self._kind = next(kind for suffix, kind in SUFFIXES.items() if name.lower().endswith(suffix))
        self._walk: Generator[tuple[Entry, IO[bytes]], None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def entries(self) -> list[Entry]:
        """Return the files in the archive's order; a tar is read through for that, once, a zip's directory only.

        :raises OsaiArgumentError: if the archive is broken, breaks a rule or goes beyond a limit; it names the entry.
        """
        self._end()
        rules = Rules(self._name, self._limits)
        if self._kind == ZIP:
            return zips.entries(self._file, rules)
        return tars.entries(self._file, self._kind, rules)

    def walk(self, wanted: Container[str] | None = None) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Yield each file with its bytes, in one pass from front to back; all checks are made again.

        A file can be read until the next one is asked for; then it is closed, and so is a walk when the next begins.

        :param wanted: names to yield; ``None`` yields all.
        :raises OsaiArgumentError: also while a file is read: if it is broken, or not what its header says.
        """
        self._end()
        rules = Rules(self._name, self._limits)
        self._walk = (
            zips.walk(self._file, rules, wanted)
            if self._kind == ZIP
            else tars.walk(self._file, self._kind, rules, wanted)
        )
        return self._walk

    def _end(self) -> None:
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.close()
