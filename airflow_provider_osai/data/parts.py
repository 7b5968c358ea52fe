"""The part of a file that has come so far, with a note of what it is a part of, so that a later try goes on with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_osai.api.errors import OsaiDownloadFailed

__all__ = ["Note", "Part"]

VERSION: Final = 1
UNLOCKABLE: Final = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.ENOSYS})
"""How file systems answer that have no locks."""


class Note(BaseModel):
    """What a part is a part of.

    :param source: which file of which model.
    :param validator: by what the server knows it again; ``None``: it cannot be resumed.
    :param total: bytes of the whole.
    :param digests: of the whole, hexadecimal, by hashlib's names.
    :param name: what the server calls it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = VERSION
    source: str
    validator: str | None = None
    total: int | None = None
    digests: dict[str, str] = {}
    name: str | None = None


class Part:
    """A ``.part`` file, open and locked, as a context manager; beside it lies its note (``.part.json``).

    When it is left it stays as it is, unless :meth:`move` or :meth:`remove` was called.

    :param path: where it lies; its folder exists.
    :param source: what shall be in it. What an earlier try left of something else is thrown away.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path, self._source = path, source
        self._beside = path.with_name(path.name + ".json")
        self._file: IO[bytes]
        self.note = Note(source=source)

    def __enter__(self) -> Self:
        self._file = _locked(self.path)
        try:
            self.note = self._read_note()
            if self.note.validator is None or (self.note.total is not None and self.have > self.note.total):
                self.clear()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # of what is still to be written; who cares for it has called `settle`
            self._file.close()

    @property
    def have(self) -> int:
        """Bytes that have come."""
        return self._file.seek(0, os.SEEK_END)

    def wish(self) -> dict[str, str]:
        """Return the headers that ask for the rest, or for all."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if (have := self.have) and self.note.validator:
            if have == self.note.total:  # nothing is left to ask for, but the file may have changed
                have -= 1
                self._file.truncate(have)
            headers |= {"Range": f"bytes={have}-", "If-Range": self.note.validator}
        return headers

    def begin(self, note: Note) -> None:
        """Start over with another file."""
        self.clear()
        self._write_note(note)

    def learn(self, note: Note) -> None:
        """Know more of the same file."""
        if note != self.note:
            self._write_note(note)

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._file.write(piece)

    def settle(self) -> None:
        """Have everything on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Throw away what has come."""
        self._file.truncate(0)
        self._file.seek(0)
        self._beside.unlink(missing_ok=True)
        self.note = Note(source=self._source)

    def move(self, to: Path) -> None:
        """Give the file its name, at once for everybody."""
        self.path.replace(to)
        self._beside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not every file system can
            folder = os.open(to.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def remove(self) -> None:
        """Leave nothing behind."""
        self._beside.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read_note(self) -> Note:
        try:
            note = Note.model_validate_json(self._beside.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Note(source=self._source)
        fits = (note.version, note.source) == (VERSION, self._source)
        return note if fits else Note(source=self._source)

    def _write_note(self, note: Note) -> None:
        self.note = note
        if note.validator is None:
            return
        new = self._beside.with_name(self._beside.name + ".new")
        new.write_text(note.model_dump_json())
        new.replace(self._beside)


def _locked(path: Path) -> IO[bytes]:
    """Return the file, open and ours alone; raise OsaiDownloadFailed if somebody else has it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OsaiDownloadFailed(f"{path}: another process is just writing it") from None
            except OSError as error:
                if error.errno not in UNLOCKABLE:
                    raise
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # whoever had it gave it its name meanwhile, and it is no part any more
