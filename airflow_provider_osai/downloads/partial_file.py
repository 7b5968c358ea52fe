"""A partially downloaded file and its sidecar metadata, used to resume a download."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import IO, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiDownloadFailed
from airflow_provider_osai.data.local_files import CREATE, FILE_ERRORS, FOLDER, not_own_file_error, open_own_file

__all__ = ["PartialFile", "PartialFileMetadata"]

VERSION: Final = 1
LOCKS_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.ENOSYS})
"""Errors of file systems that do not support locks."""
MAX_METADATA_BYTES: Final = 64 * 2**10
"""Maximum bytes read from a metadata file, which normally has a few hundred."""
MAX_LOCK_ATTEMPTS: Final = 20
"""Maximum attempts to open and lock a partial file that another process renames or removes at the same time."""


class PartialFileMetadata(BaseModel):
    """Identifies the file that a partial file belongs to.

    :param source: the model and target.
    :param validator: the value for ``If-Range``; ``None`` if the download cannot be resumed.
    :param total: bytes of the complete file.
    :param digests: hexadecimal digests of the complete file, by their names in hashlib.
    :param name: the server's file name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = VERSION
    source: str
    validator: str | None = None
    total: int | None = None
    digests: dict[str, str] = {}
    name: str | None = None


class PartialFile:
    """A context manager for an open, locked ``.part`` file and its metadata file (``.part.json``).

    Leaving the context keeps both files, unless :meth:`move` or :meth:`remove` was called. The folder may be writable
    by other users: links are not followed, and another user's file is neither read nor written. All names are resolved
    relative to the folder that was opened on entry.

    :param path: the path of the partial file; its folder must exist.
    :param source: the model and target. Data of another source that an earlier try left is discarded.
    :param is_private: whether only this user may have access to the folder.
    """

    def __init__(self, path: Path, source: str, *, is_private: bool = False) -> None:
        self.path = path
        self._source = source
        self._is_private = is_private
        self._metadata_path = path.with_name(path.name + ".json")
        self._file: IO[bytes]
        self._folder: int
        self.metadata = PartialFileMetadata(source=source)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            self._folder = (
                _open_private_folder(self.path.parent) if self._is_private else os.open(self.path.parent, FOLDER)
            )
            opened.callback(os.close, self._folder)
            self._file = opened.enter_context(self._locked())
            self.metadata = self._read_metadata()
            if self.metadata.validator is None or (self.metadata.total is not None and self.size > self.metadata.total):
                self.clear()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # from flushing; a caller that needs the data on disk has called fsync()
            self._opened.close()

    @property
    def size(self) -> int:
        """Bytes downloaded so far."""
        return self._file.seek(0, os.SEEK_END)

    def range_headers(self) -> dict[str, str]:
        """Return the request headers for the missing range, or for the whole file."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if (size := self.size) and self.metadata.validator:
            if size == self.metadata.total:  # an empty range is invalid, but the server's file may have changed
                size -= 1
                self._file.truncate(size)
            headers |= {"Range": f"bytes={size}-", "If-Range": self.metadata.validator}
        return headers

    def restart(self, metadata: PartialFileMetadata) -> None:
        """Discard the data and start over with another file."""
        self.clear()
        self._write_metadata(metadata)

    def update_metadata(self, metadata: PartialFileMetadata) -> None:
        """Replace the metadata of the same file."""
        if metadata != self.metadata:
            self._write_metadata(metadata)

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        self._file.write(chunk)

    def fsync(self) -> None:
        """Flush the data to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def rewind(self) -> IO[bytes]:
        """Return the file, positioned at its beginning; the caller must not close it."""
        self._file.seek(0)
        return self._file

    def clear(self) -> None:
        """Discard the data and the metadata."""
        self._file.truncate(0)
        self._file.seek(0)
        self._unlink(self._metadata_path)
        self.metadata = PartialFileMetadata(source=self._source)

    def move(self, to: Path) -> None:
        """Rename the file atomically within its folder; replace a file or link of that name.

        :raises OsaiDownloadFailed: if the file or its folder was replaced during the download.
        """
        self.raise_if_replaced()
        try:
            os.replace(self.path.name, to.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except (PermissionError, IsADirectoryError) as error:
            raise not_own_file_error(to, error.strerror) from error
        self._unlink(self._metadata_path)
        if not _is_same(self._file, to):
            raise _replaced(to)
        with contextlib.suppress(OSError):  # not supported by every file system
            folder = os.open(".", os.O_RDONLY, dir_fd=self._folder)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def remove(self) -> None:
        """Delete the file and its metadata."""
        self._unlink(self._metadata_path)
        self._unlink(self.path)

    def raise_if_replaced(self) -> None:
        """Raise OsaiDownloadFailed if :attr:`path` now names another file."""
        if not _is_same(self._file, self.path):
            raise _replaced(self.path)

    def _read_metadata(self) -> PartialFileMetadata:
        try:
            with os.fdopen(open_own_file(self._metadata_path, os.O_RDONLY, self._folder), "rb") as file:
                metadata = PartialFileMetadata.model_validate_json(file.read(MAX_METADATA_BYTES))
        except (FileNotFoundError, ValidationError):
            return PartialFileMetadata(source=self._source)
        is_current = (metadata.version, metadata.source) == (VERSION, self._source)
        return metadata if is_current else PartialFileMetadata(source=self._source)

    def _write_metadata(self, metadata: PartialFileMetadata) -> None:
        self.metadata = metadata
        if metadata.validator is None:
            return
        new = self._metadata_path.with_name(self._metadata_path.name + ".new")
        self._unlink(new)  # left by a killed try, or a link: this removes the link, not its target
        try:
            descriptor = os.open(new.name, CREATE, 0o600, dir_fd=self._folder)
        except FileExistsError as error:
            raise not_own_file_error(new, "another process has just created it") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(metadata.model_dump_json().encode())
        os.replace(new.name, self._metadata_path.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _unlink(self, path: Path) -> None:
        try:
            os.unlink(path.name, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        except (PermissionError, IsADirectoryError) as error:
            raise not_own_file_error(path, error.strerror) from error

    def _locked(self) -> IO[bytes]:
        """Open the partial file with an exclusive lock, where the file system supports locks.

        :raises OsaiDownloadFailed: if another process holds the lock.
        :raises OsaiArgumentError: if the path is a link, not a regular file, or another user's file.
        """
        for _ in range(MAX_LOCK_ATTEMPTS):
            try:
                file = os.fdopen(self._create_or_open(), "r+b")
            except FileNotFoundError:
                continue
            try:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    msg = f"File {str(self.path)!r} is locked: another process is writing it"
                    raise OsaiDownloadFailed(msg) from None
                except OSError as error:
                    if error.errno not in LOCKS_UNSUPPORTED:
                        raise
                if _is_same(file, Path(self.path.name), self._folder):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # another process has renamed or removed it since: it is not the partial file anymore
        msg = f"Cannot lock {str(self.path)!r} in {MAX_LOCK_ATTEMPTS} attempts: other processes keep replacing it"
        raise OsaiDownloadFailed(msg)

    def _create_or_open(self) -> int:
        """Create the file, or open the one an earlier try left; raise FileNotFoundError if that was just removed."""
        try:
            return os.open(self.path.name, CREATE, 0o666, dir_fd=self._folder)
        except FileExistsError:
            return open_own_file(self.path, os.O_RDWR, self._folder)


def _is_same(file: IO[bytes], path: Path, folder: int | None = None) -> bool:
    """Return whether *path* names the open *file* itself, not a link to it."""
    try:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(os.fstat(file.fileno()), status)


def _replaced(path: Path) -> OsaiDownloadFailed:
    return OsaiDownloadFailed(f"File {str(path)!r} or its folder was replaced during the download")


def _open_private_folder(path: Path) -> int:
    """Open a folder that only this user can access.

    :raises OsaiArgumentError: if others can access it, or it is not a folder.
    """
    try:
        folder = os.open(path, FOLDER | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        raise _not_private(path) from error
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(folder)
        raise _not_private(path)
    return folder


def _not_private(path: Path) -> OsaiArgumentError:
    msg = f"{str(path)!r} must be a folder that only this user can access (0700, not a link). Remove it and try again"
    return OsaiArgumentError(msg)
