"""One interface to zip and tar archives; the suffix of the name selects the format."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator
from typing import IO, Final, Self

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import tar_files, zip_files
from airflow_provider_osai.data.archives.limits import DEFAULT_LIMITS, ArchiveEntry, ArchiveValidator, Limits

__all__ = ["Archive", "is_archive"]

ZIP: Final = "zip"
SUFFIXES: Final = {".zip": ZIP, ".tar": "", ".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tar.xz": "xz"}


def is_archive(name: str) -> bool:
    """Return whether a file of this name is read as an archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz."""
    return name.lower().endswith(tuple(SUFFIXES))


class Archive:
    """The files of an archive, read without extracting it.

    Hidden files and folders, and macOS's ``__MACOSX``, are validated like all others and then skipped; folders are not
    listed. Memory use depends on the number of entries, not on the archive's size.

    :param file: the archive, opened as a seekable binary file; it is not closed, and its own errors are not converted.
    :param name: the archive's name; its suffix selects the format, and errors contain it.
    :param limits: the maximum number of entries, compression ratio and size.
    :raises OsaiArgumentError: if the name does not have an archive's suffix.
    """

    def __init__(self, file: IO[bytes], name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        if not is_archive(name):
            raise OsaiArgumentError(f"archive {name!r}: unsupported suffix, use one of {', '.join(SUFFIXES)}")
        self._file = file
        self._name = name
        self._limits = limits
        self._kind = next(kind for suffix, kind in SUFFIXES.items() if name.lower().endswith(suffix))
        self._walk: Generator[tuple[ArchiveEntry, IO[bytes]], None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_walk()

    def entries(self) -> list[ArchiveEntry]:
        """Return the files in archive order. Reads a tar completely, once; of a zip, only the central directory.

        :raises OsaiArgumentError: if the archive is corrupt, unsafe or exceeds a limit; the message names the entry.
        """
        self._close_walk()
        validator = ArchiveValidator(self._name, self._limits)
        if self._kind == ZIP:
            return zip_files.entries(self._file, validator)
        return tar_files.entries(self._file, self._kind, validator)

    def walk(self, names: Container[str] | None = None) -> Iterator[tuple[ArchiveEntry, IO[bytes]]]:
        """Yield each file with its content, in one pass from front to back. All checks are repeated.

        Each file is closed when the next one is requested. A new walk closes the previous one.

        :param names: the files to yield; ``None`` yields all.
        :raises OsaiArgumentError: as :meth:`entries`, and while a file is read, if its content is corrupt or does not
            match its header.
        """
        self._close_walk()
        validator = ArchiveValidator(self._name, self._limits)
        self._walk = (
            zip_files.walk(self._file, validator, names)
            if self._kind == ZIP
            else tar_files.walk(self._file, self._kind, validator, names)
        )
        return self._walk

    def _close_walk(self) -> None:
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.close()
