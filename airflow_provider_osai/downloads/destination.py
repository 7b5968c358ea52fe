"""Download destinations: a local file or an object in object storage."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiDownloadFailed
from airflow_provider_osai.data.local_files import as_local, is_empty_path, open_own_file
from airflow_provider_osai.downloads.partial_file import PartialFile

__all__ = ["Destination", "LocalDestination", "ObjectStoreDestination", "compute_digests", "resolve_destination"]

CHUNK_SIZE: Final = 2**20


class Destination(ABC):
    """Where a downloaded file is stored.

    :param display_name: the destination as shown in messages.
    :param is_private: whether only this user may have access to the partial file's folder.
    """

    display_name: str
    is_private = False

    @abstractmethod
    def partial_path(self) -> Path:
        """Return the local path of the partial file; create its folder if necessary."""

    @abstractmethod
    def existing_digests(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Return the digests of the existing file if it matches *size* and *digests*, otherwise ``None``."""

    @abstractmethod
    def commit(self, part: PartialFile, name: str | None) -> str:
        """Move the complete file to its final path and return that path; in a folder, *name* is the file's name."""

    @abstractmethod
    def final_path(self, name: str | None) -> str:
        """Return the final path of the file."""


class LocalDestination(Destination):
    """A local file, committed with an atomic rename."""

    def __init__(self, destination: Path, default: str, *, is_folder: bool) -> None:
        self._folder = destination if is_folder else destination.parent
        self._name = None if is_folder else destination.name
        self._default = default
        self.display_name = str(destination)

    def _resolve(self, name: str | None) -> Path:
        return self._folder / (self._name or name or self._default)

    def partial_path(self) -> Path:
        """Return a path in the destination's folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{self._name or self._default}.part"

    def existing_digests(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Compare the size, then the content. A link or another user's file never matches: it could change later."""
        try:
            file = os.fdopen(open_own_file(self._resolve(name), os.O_RDONLY), "rb")
        except (FileNotFoundError, OsaiArgumentError):
            return None
        with file:
            return _matching_digests(file, digests) if size in (None, os.fstat(file.fileno()).st_size) else None

    def commit(self, part: PartialFile, name: str | None) -> str:
        """Rename the partial file."""
        final = self._resolve(name)
        part.move(final)
        return str(final)

    def final_path(self, name: str | None) -> str:
        """Return the file's path."""
        return str(self._resolve(name))


class ObjectStoreDestination(Destination):
    """An object in object storage, written once the complete file is on the local disk.

    :param path: an object like Airflow's ``ObjectStoragePath``, with ``fs`` (fsspec), ``path``, ``/`` and the usual
        methods of a path.
    """

    is_private = True

    def __init__(self, path: Any, default: str, *, is_folder: bool) -> None:
        self._path = path
        self._is_folder = is_folder
        self._default = default
        self.display_name = str(path)

    def _resolve(self, name: str | None) -> Any:
        return self._path / (name or self._default) if self._is_folder else self._path

    def partial_path(self) -> Path:
        """Return a path in a private temporary folder; a later try on the same machine gets the same path."""
        folder = Path(tempfile.gettempdir()) / f"osai-downloads-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        key = hashlib.sha256(f"{self.display_name}\n{self._default}".encode()).hexdigest()[:32]
        return folder / f"{key}.part"

    def existing_digests(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Compare the size, then read the object and compare its content."""
        final = self._resolve(name)
        if not final.is_file() or size not in (None, final.fs.size(final.path)):
            return None
        with final.open("rb") as file:
            return _matching_digests(file, digests)

    def commit(self, part: PartialFile, name: str | None) -> str:
        """Upload the partial file, then remove it. If the upload fails, remove the object unless it existed before."""
        final = self._resolve(name)
        size = part.size
        existed = final.exists()
        part.raise_if_replaced()
        try:
            final.fs.put_file(str(part.path), final.path)
            final.fs.invalidate_cache()
            _check_size(final, size)
        except BaseException:
            with contextlib.suppress(Exception):
                if not existed:
                    final.fs.rm_file(final.path)
            raise
        part.remove()
        return str(final)

    def final_path(self, name: str | None) -> str:
        """Return the object's address."""
        return str(self._resolve(name))


def resolve_destination(destination: Any, default: str, *, is_folder: bool = False) -> Destination:
    """Return the destination for a local path, or for an object like Airflow's ``ObjectStoragePath``.

    In an existing folder, or if the path ends with a slash, the file keeps its own name.

    :param default: the file's name in a folder if the server sends none.
    :param is_folder: whether *destination* is known to be a folder.
    :raises OsaiArgumentError: if *destination* is empty.
    """
    text = "" if destination is None else str(destination).strip()
    if is_empty_path(destination):
        raise OsaiArgumentError(f"destination = {text!r}: is empty. Does the template have a value?")
    path = as_local(destination if hasattr(destination, "fs") else Path(text))
    is_folder = is_folder or text.endswith("/") or path.is_dir()
    kind = ObjectStoreDestination if hasattr(path, "fs") else LocalDestination
    return kind(path, default, is_folder=is_folder)


def compute_digests(file: IO[bytes], algorithms: Collection[str]) -> dict[str, str]:
    """Return the hexadecimal digests of *file* from its current position, by their names in hashlib."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    while chunk := file.read(CHUNK_SIZE):
        for digest in hashes.values():
            digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def _check_size(path: Any, expected: int) -> None:
    size = path.fs.size(path.path)
    if size != expected:
        raise OsaiDownloadFailed(f"Object {path} has {size} bytes after the upload, expected {expected}")


def _matching_digests(file: IO[bytes], expected: Mapping[str, str]) -> dict[str, str] | None:
    """Return the digests of *file*, or ``None`` unless all of *expected* match; MD5 alone is not enough."""
    strong = {name: digest for name, digest in expected.items() if name != "md5"}
    if not strong:
        return None
    digests = compute_digests(file, {"sha256", *strong})
    return digests if all(digests[name] == digest for name, digest in strong.items()) else None
