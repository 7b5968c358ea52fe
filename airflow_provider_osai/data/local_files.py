"""Open local files safely in folders that other users can write to.

Another user may create a symbolic link in such a folder, also between a check and its use. Therefore checks are made
on the open file, never on its path, and each folder on the path is opened before the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES

__all__ = [
    "CREATE",
    "FILE_ERRORS",
    "FOLDER",
    "LocalFile",
    "UnreadableFile",
    "as_local",
    "is_empty_path",
    "not_own_file_error",
    "open_folder_beneath",
    "open_own_file",
    "resolve_beneath",
]

LOCAL: Final = frozenset({"", "file", "local"})
"""Protocols of storage paths for local files."""
SAFE_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Do not follow links, and do not block on a named pipe."""
CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Create a new file; FileExistsError if the name exists, also as a link."""
FOLDER: Final = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""Open a folder to open its entries."""
LINKS: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.ENOTDIR})
"""Errors for a link with O_NOFOLLOW; ENOTDIR also with O_DIRECTORY."""
FILE_ERRORS: Final = LINKS | {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
"""Errors that concern only this file, not the machine."""
OUTSIDE: Final = "the link points outside the source's folder and is not followed"


class UnreadableFile(OSError):
    """A file of a source cannot be read; other files may be readable. The message is the reason."""


def as_local(place: Any) -> Any:
    """Return the ``Path`` of an ``ObjectStoragePath`` for local files; any other *place* unchanged."""
    is_local = hasattr(place, "fs") and getattr(place, "protocol", None) in LOCAL
    return Path(place.path) if is_local else place


def is_empty_path(place: Any) -> bool:
    """Return whether *place* is what a template without a value renders to: as a path it means the current directory.

    So does text with only a scheme. An ``ObjectStoragePath`` converts empty text to ``.``.
    """
    if isinstance(place, str):
        text = place.strip()
        return text in EMPTY_TEMPLATE_VALUES or text.endswith("://")
    return place is None or (hasattr(place, "fs") and str(place) in {*EMPTY_TEMPLATE_VALUES, "."})


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below a folder. Links are followed if their target is below the folder.

    :param root: the folder's real path (``os.path.realpath``).
    :param name: the path relative to *root*.
    """

    root: str
    name: str

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file for reading.

        :raises UnreadableFile: if it is outside the folder, is not a regular file, does not exist, or is not readable.
        """
        try:
            descriptor = _open_beneath(self.root, self.name)
            if descriptor is None:
                descriptor = _open_beneath(self.root, resolve_beneath(self.root, self.name))
        except UnreadableFile:
            raise
        except OSError as error:
            if error.errno in FILE_ERRORS:
                raise UnreadableFile(f"cannot be read: {error.strerror}") from error
            raise
        if descriptor is None:
            raise UnreadableFile("cannot be read: its path was replaced by a link in the meantime")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UnreadableFile("cannot be read: not a regular file")
        return os.fdopen(descriptor, mode)


def resolve_beneath(root: str, name: str) -> str:
    """Return the path of *name* without links, relative to the folder *root*.

    The path may change at any time: open it without following links.

    :param root: the folder's real path.
    :raises UnreadableFile: if the path is outside the folder.
    """
    real = os.path.realpath(os.path.join(root, name))
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise UnreadableFile(OUTSIDE)
    return os.path.relpath(real, root)


def open_folder_beneath(root: str, name: str) -> int | None:
    """Open a folder below *root* for listing; ``None`` if a part of the path is a link or not a folder."""
    return _open_beneath(root, name, os.O_RDONLY | os.O_DIRECTORY)


def _open_beneath(root: str, name: str, flags: int = os.O_RDONLY) -> int | None:
    """Open each part of the path *name* from *root* down without following links; ``None`` if one is a link."""
    parts = PurePosixPath(name).parts or (".",)
    if os.pardir in parts:
        return None
    folder = os.open(root, FOLDER)
    try:
        for part in parts[:-1]:
            subfolder = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = subfolder
        return os.open(parts[-1], flags | SAFE_FLAGS, dir_fd=folder)
    except OSError as error:
        if error.errno in LINKS:
            return None
        raise
    finally:
        os.close(folder)


def open_own_file(path: Path, flags: int, folder: int | None = None) -> int:
    """Open an existing file of this user: a regular file without hard links, not a symbolic link.

    :param path: the file; with *folder*, only the last part is opened and the rest is for messages.
    :param flags: the flags of ``os.open``.
    :param folder: the descriptor of the file's folder, if it is already open.
    :return: the file's descriptor.
    :raises FileNotFoundError: if the file does not exist.
    :raises OsaiArgumentError: if the path is anything else; the message says what to remove.
    """
    name = path if folder is None else Path(path.name)
    try:
        descriptor = os.open(name, flags | SAFE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in FILE_ERRORS:
            raise not_own_file_error(path, error.strerror) from error
        raise
    reason = _reason_not_own(os.fstat(descriptor), name, folder)
    if reason:
        os.close(descriptor)
        raise not_own_file_error(path, reason)
    return descriptor


def _reason_not_own(status: os.stat_result, name: Path, folder: int | None) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink > 1:
        return f"it has {status.st_nlink} names (hard links)"
    if status.st_uid != os.geteuid() and status.st_uid != _owner_of_new_files(name, folder):
        return f"it belongs to another user, uid {status.st_uid}"
    return ""


def not_own_file_error(path: Path, reason: str | None) -> OsaiArgumentError:
    """Return the error for a *path* that is not a regular file of this user."""
    msg = f"{str(path)!r} must be a regular file owned by this user: {reason}. Remove it and retry"
    return OsaiArgumentError(msg)


def _owner_of_new_files(beside: Path, folder: int | None) -> int:
    """Return the owner of a new file: on network shares (NFS with user squashing, SMB) it may be another user."""
    probe = beside.with_name(f".osai-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(probe, CREATE, 0o600, dir_fd=folder)
    except OSError:
        return os.geteuid()
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(probe, dir_fd=folder)
