"""One interface to all sources of images: folders, patterns, lists of files, object storage and archives."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Protocol, TypeAlias, cast

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import Archive, is_archive
from airflow_provider_osai.data.hidden_files import is_ignored
from airflow_provider_osai.data.images import HEAD, looks_like_image
from airflow_provider_osai.data.local_files import LocalFile, UnreadableFile, as_local, is_empty_path
from airflow_provider_osai.data.local_listing import list_files, list_folder, list_matches

__all__ = ["ArchiveSource", "File", "Opener", "PathSource", "Source", "open_source"]

Opener: TypeAlias = Callable[[], IO[bytes]]
"""Opens a file for reading from the start."""
WILDCARDS: Final = frozenset("*?[")
CACHE_SIZE: Final = 64 * 2**20
"""Maximum bytes of an archive's small files that are cached while its annotations are read."""
SMALL: Final = 2**20
"""Maximum bytes of a file that is held in memory; a larger one is stored on disk until it is uploaded."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source.

    :param name: the path relative to the source, with slashes.
    :param size: the size in bytes.
    """

    name: str
    size: int


class Source(Protocol):
    """Files that can be listed, read, and walked through in one pass."""

    label: str
    """The source as the user wrote it, for messages."""
    invalid_files: dict[str, str]
    """The files that cannot be read, with the reasons, by name; listing and reading the source may add some."""

    def files(self) -> list[File]:
        """Return all files that are not ignored, in the order of :meth:`walk`."""

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""

    def walk(self, names: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield the files with these names. Each opener may be called once, later and in any thread."""


class PathSource:
    """Files on disk or in object storage that can be opened independently.

    :param label: the source as the user wrote it.
    :param paths: the paths by relative name, each with its size in bytes.
    :param invalid_files: the files that cannot be read, with the reasons.
    """

    def __init__(
        self, label: str, paths: Mapping[str, tuple[Any, int]], invalid_files: Mapping[str, str] | None = None
    ) -> None:
        self.label = label
        invalid_files = invalid_files or {}
        printable = {name: _printable(name) for name in {*paths, *invalid_files} if not is_ignored(name)}
        self._paths = {name: paths[name] for name in sorted(paths) if printable.get(name) == name}
        self.invalid_files = {
            printable[name]: reason for name, reason in sorted(invalid_files.items()) if name in printable
        }
        self.invalid_files |= {
            text: "the name is not valid Unicode" for name, text in sorted(printable.items()) if name != text
        }

    def files(self) -> list[File]:
        """Return all files, sorted by name."""
        return [File(name, size) for name, (_, size) in self._paths.items()]

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        :raises UnreadableFile: if it is a local file and cannot be read.
        """
        path, size = self._paths[name]
        if not isinstance(path, LocalFile):
            with self._open(name) as file:
                return file.read()
        with path.open() as file:
            content = file.read(size + 1)
        if len(content) > size:
            raise UnreadableFile("cannot be read: it has grown in the meantime")
        return content

    def heads(self) -> dict[str, bytes]:
        """Return the first bytes of each local file. Files that cannot be read become invalid files."""
        heads = {}
        for name, (path, _) in self._paths.items():
            if isinstance(path, LocalFile):
                try:
                    with path.open() as file:
                        heads[name] = file.read(HEAD)
                except UnreadableFile as error:
                    self.invalid_files[name] = str(error)
        return heads

    def walk(self, names: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield the files with these names, sorted by name."""
        for name in self._paths:
            if name in names:
                yield name, partial(self._open, name)

    def _open(self, name: str) -> IO[bytes]:
        path, size = self._paths[name]
        opened: IO[bytes] = path.open("rb")
        if isinstance(path, LocalFile) and (size := os.fstat(opened.fileno()).st_size) > SMALL:
            return opened
        with opened as file:  # buffered, or hashing and uploading would read it twice from object storage
            return _buffered(file, size)


def _already_open(file: IO[bytes]) -> IO[bytes]:
    """Return a file that is open already; partially applied, its opener."""
    return file


class ArchiveSource:
    """The files of a zip or tar archive, read without extracting it.

    :param label: the source as the user wrote it.
    :param path: the path of the archive.
    """

    def __init__(self, label: str, path: Any) -> None:
        self.label = label
        self._path = path
        self.invalid_files: dict[str, str] = {}  # always empty: an invalid entry makes the whole archive invalid
        self._prefix = ""
        self._cache: dict[str, bytes] | None = None

    def files(self) -> list[File]:
        """Return all files in archive order. A top-level folder that contains all others is removed from the names."""
        with self._opened() as archive:
            entries = [entry for entry in archive.entries() if not is_ignored(entry.name)]
        top_folders = {entry.name.partition("/")[0] for entry in entries}
        all_nested = all(entry.name.count("/") > 1 for entry in entries)
        self._prefix = f"{top_folders.pop()}/" if len(top_folders) == 1 and all_nested else ""
        return [File(entry.name.removeprefix(self._prefix), entry.size) for entry in entries]

    def read(self, name: str) -> bytes:
        """Return the content of a small file. The first call caches all small files in one pass."""
        if self._cache is None:
            self._cache = self._read(None)
        path = self._prefix + name
        content = self._cache.get(path)
        return self._read({path})[path] if content is None else content

    def walk(self, names: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield the files with these names in archive order, decompressed."""
        self._cache = None
        with self._opened() as archive:
            for entry, file in archive.walk({self._prefix + name for name in names}):
                yield entry.name.removeprefix(self._prefix), partial(_already_open, _buffered(file, entry.size))

    def _read(self, paths: Collection[str] | None) -> dict[str, bytes]:
        """Return the content of *paths*; for ``None``, that of small files other than images, up to the cache size."""
        contents = {}
        remaining = CACHE_SIZE
        with self._opened() as archive:
            for entry, file in archive.walk(paths):
                if paths is not None or (entry.size <= min(SMALL, remaining) and not looks_like_image(entry.name)):
                    contents[entry.name] = file.read()
                    remaining -= entry.size
        return contents

    @contextmanager
    def _opened(self) -> Iterator[Archive]:
        with self._path.open("rb") as file, Archive(file, self.label) as archive:
            yield archive


def open_source(source: Any, parse_path: Callable[[str], Any] = Path) -> Source:
    """Return the source of images that an argument of the user denotes.

    :param source: a folder, a pattern (``*``, ``?``, ``[...]``, and ``**`` for nested folders), a zip or tar archive,
        or a list of files; text or path objects, local or in object storage.
        Local links are followed if their target is below the folder, below the part of the pattern before the first
        wildcard, or, for a file in a list, below the folder that contains the link. The source itself may be a link.
    :param parse_path: converts text to a path object.
    :raises OsaiArgumentError: if the source is none of these, is empty, or does not exist.
    """
    if isinstance(source, (list, tuple, set, frozenset)):
        for item in source:
            _check_path(item)
        return _from_list([as_local(parse_path(item) if isinstance(item, str) else item) for item in source])
    _check_path(source)
    label = str(source)
    if isinstance(source, str) and WILDCARDS & set(source):
        return _from_pattern(source, parse_path)
    path = as_local(parse_path(source) if isinstance(source, str) else source)
    if path.is_dir():
        if hasattr(path, "fs"):
            return PathSource(label, dict(_from_storage(path, path.fs.find(path.path, detail=True))))
        listing = list_folder(path)
        return PathSource(label, listing.files, listing.invalid_files)
    if not path.exists():
        raise OsaiArgumentError(f"source = {label!r}: does not exist")
    if is_archive(path.name):
        return ArchiveSource(label, path)
    msg = f"source = {label!r}: is a file; use a folder, a pattern, a list of files, or a zip or tar archive"
    raise OsaiArgumentError(msg)


def _check_path(source: Any) -> None:
    """Raise OsaiArgumentError if an argument, or an item of a list, is not a path, or is empty."""
    if is_empty_path(source):
        text = "" if source is None else str(source)
        raise OsaiArgumentError(f"source = {text!r}: is empty. Does the template or the variable have a value?")
    if not isinstance(source, str) and not hasattr(source, "is_dir"):
        raise OsaiArgumentError(f"source = {source!r:.200}: a path or a list of files is needed")


def _from_list(paths: list[Any]) -> Source:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        reason = f"not files: {', '.join(missing[:5])}" if missing else "the list is empty"
        raise OsaiArgumentError(f"source = a list of {len(paths)} files: {reason}")
    folders = [PurePosixPath(path.parent.as_posix()).parts for path in paths]
    common_parts = next(
        (n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders))
    )
    by_name = {"/".join((*folder[common_parts:], path.name)): path for folder, path in zip(folders, paths, strict=True)}
    listing = list_files((name, path) for name, path in by_name.items() if not hasattr(path, "fs"))
    remote = {name: (path, path.stat().st_size) for name, path in by_name.items() if hasattr(path, "fs")}
    return PathSource(f"a list of {len(paths)} files", {**listing.files, **remote}, listing.invalid_files)


def _from_pattern(pattern: str, parse_path: Callable[[str], Any]) -> Source:
    folder = pattern[: min(pattern.index(wildcard) for wildcard in WILDCARDS & set(pattern))].rpartition("/")[0]
    root = as_local(parse_path(folder or ("/" if pattern.startswith("/") else ".")))
    relative = pattern.removeprefix(folder).lstrip("/")
    if storage := getattr(root, "fs", None):
        matches = storage.glob(f"{root.path.rstrip('/')}/{relative}", detail=True)
        return PathSource(pattern, dict(_from_storage(root, matches)))
    listing = list_matches(root, relative)
    return PathSource(pattern, listing.files, listing.invalid_files)


def _from_storage(root: Any, infos: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, tuple[Any, int]]]:
    """Yield the paths and sizes in a listing of object storage, which takes one request instead of one per file."""
    for path, info in infos.items():
        name = path.removeprefix(root.path.rstrip("/")).lstrip("/")
        if info.get("type") == "file" and name:
            yield name, (root / name, int(info.get("size") or 0))


def _printable(name: str) -> str:
    """Return the name, with backslash escapes for bytes that are not valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()


def _buffered(file: IO[bytes], size: int) -> IO[bytes]:
    """Return a copy of *file*: in memory if it is small, otherwise in a temporary file."""
    copy = cast("IO[bytes]", io.BytesIO() if size <= SMALL else tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(file, copy, 256 * 2**10)
    copy.seek(0)
    return copy
