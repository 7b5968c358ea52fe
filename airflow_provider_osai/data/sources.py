"""Where images lie: in folders, lists of files, object storage or archives. One way to look into all of them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Protocol, TypeAlias, cast

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.archives import Archive, is_archive
from airflow_provider_osai.data.images import HEAD, is_hidden, looks_like_image

__all__ = ["ArchiveSource", "File", "Opener", "PathSource", "Source", "source_of"]

Opener: TypeAlias = Callable[[], IO[bytes]]
"""Opens a file for reading, from its beginning."""
WILDCARDS: Final = frozenset("*?[")
MOST_HELD: Final = 64 * 2**20
"""Bytes of an archive's small files that are held while its annotations are read."""
SMALL: Final = 2**20
"""Bytes of a file that are held in memory; what is larger lies on disk until it is sent."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source.

    :param name: relative to the source, with ``/`` between its parts.
    :param size: in bytes.
    """

    name: str
    size: int


class Source(Protocol):
    """Files that can be listed, read, and walked through once from first to last."""

    label: str
    """What the user calls it."""

    def files(self) -> list[File]:
        """Return all files in the order of :meth:`walk`, without hidden ones."""

    def read(self, name: str) -> bytes:
        """Return a small file's content."""

    def walk(self, wanted: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield those of the files that are *wanted*; each opener may be called later, once, on any thread."""


class PathSource:
    """Files that can be opened one by one: on a disk, or in object storage.

    :param label: what the user calls them.
    :param paths: each with its size, by its relative name.
    """

    def __init__(self, label: str, paths: Mapping[str, tuple[Any, int]]) -> None:
        self.label = label
        self._paths = {name: paths[name] for name in sorted(paths) if not is_hidden(name)}

    def files(self) -> list[File]:
        """Return all files by name."""
        return [File(name, size) for name, (_, size) in self._paths.items()]

    def read(self, name: str) -> bytes:
        """Return a small file's content."""
        with self._open(name) as file:
            return file.read()

    def heads(self) -> dict[str, bytes]:
        """Return how each file begins, of those that lie on this machine."""
        heads = {}
        for name, (path, _) in self._paths.items():
            if isinstance(path, Path):
                with path.open("rb") as file:
                    heads[name] = file.read(HEAD)
        return heads

    def walk(self, wanted: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield the wanted files by name."""
        for name in self._paths:
            if name in wanted:
                yield name, lambda name=name: self._open(name)  # type: ignore[misc]  # a default binds the loop's variable

    def _open(self, name: str) -> IO[bytes]:
        path, size = self._paths[name]
        if isinstance(path, Path) and size > SMALL:
            return path.open("rb")
        with path.open("rb") as file:  # read once, whatever is done with it: object storage is far
            return _kept(file, size)


class ArchiveSource:
    """The files of a zip or tar archive, which is never unpacked as a whole.

    :param label: what the user calls it.
    :param path: of the archive.
    """

    def __init__(self, label: str, path: Any) -> None:
        self.label, self._path = label, path
        self._inside = ""
        self._small: dict[str, bytes] | None = None

    def files(self) -> list[File]:
        """Return all files in the archive's order; a folder that holds all of them is no part of their names."""
        with self._opened() as archive:
            entries = archive.entries()
        tops = {entry.name.partition("/")[0] for entry in entries}
        nested = all(entry.name.count("/") > 1 for entry in entries)
        self._inside = f"{tops.pop()}/" if len(tops) == 1 and nested else ""
        return [File(entry.name.removeprefix(self._inside), entry.size) for entry in entries]

    def read(self, name: str) -> bytes:
        """Return a small file's content. All that may be asked for is read in one pass, the first time."""
        if self._small is None:
            self._small = self._read(None)
        found = self._small.get(self._inside + name)
        return self._read({self._inside + name})[self._inside + name] if found is None else found

    def walk(self, wanted: Collection[str]) -> Iterator[tuple[str, Opener]]:
        """Yield the wanted files in the archive's order, each unpacked."""
        self._small = None
        with self._opened() as archive:
            for entry, file in archive.walk({self._inside + name for name in wanted}):
                kept = _kept(file, entry.size)
                yield entry.name.removeprefix(self._inside), lambda kept=kept: kept  # type: ignore[misc]  # same

    def _read(self, wanted: Collection[str] | None) -> dict[str, bytes]:
        """Return the files that are *wanted*; ``None``: small ones that are no images, as many as memory shall hold."""
        found, room = {}, MOST_HELD
        with self._opened() as archive:
            for entry, file in archive.walk(wanted):
                if wanted is not None or (entry.size <= min(SMALL, room) and not looks_like_image(entry.name)):
                    found[entry.name] = file.read()
                    room -= entry.size
        return found

    @contextmanager
    def _opened(self) -> Iterator[Archive]:
        with self._path.open("rb") as file, Archive(file, self.label) as archive:
            yield archive


def source_of(source: Any, path_of: Callable[[str], Any] = Path) -> Source:
    """Return what a user means by *source*.

    :param source: a folder, a pattern (``*``, ``?``, ``[...]``, ``**`` for folders below), a zip or tar archive, or a
        list of files; as text or as path objects, of this machine or of object storage.
    :param path_of: makes a path object of text.
    :raises OsaiArgumentError: if it is nothing of that, or nothing is there.
    """
    if isinstance(source, (list, tuple, set, frozenset)):
        return _listed([path_of(one) if isinstance(one, str) else one for one in source])
    label = str(source)
    if isinstance(source, str) and WILDCARDS & set(source):
        return _matching(source, path_of)
    path = path_of(source) if isinstance(source, str) else source
    if path.is_dir():
        return PathSource(label, dict(_below(path)))
    if not path.exists():
        raise OsaiArgumentError(f"source = {label!r}: it does not exist")
    if is_archive(path.name):
        return ArchiveSource(label, path)
    msg = f"source = {label!r}: it is a file; a folder, a pattern, a list of files, or a zip or tar archive is needed"
    raise OsaiArgumentError(msg)


def _listed(paths: list[Any]) -> Source:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        what = f"these are no files: {', '.join(missing[:5])}" if missing else "the list is empty"
        raise OsaiArgumentError(f"source = a list of {len(paths)} files: {what}")
    folders = [PurePosixPath(path.parent.as_posix()).parts for path in paths]
    shared = next(
        (n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders))
    )
    sized = {
        "/".join((*folder[shared:], path.name)): (path, path.stat().st_size)
        for folder, path in zip(folders, paths, strict=True)
    }
    return PathSource(f"a list of {len(paths)} files", sized)


def _matching(pattern: str, path_of: Callable[[str], Any]) -> Source:
    head = pattern[: min(pattern.index(sign) for sign in WILDCARDS & set(pattern))].rpartition("/")[0]
    root = path_of(head or ("/" if pattern.startswith("/") else "."))
    rest = pattern.removeprefix(head).lstrip("/")
    if storage := getattr(root, "fs", None):
        found = storage.glob(f"{root.path.rstrip('/')}/{rest}", detail=True)
        return PathSource(pattern, dict(_stored(root, found)))
    paths = (path for path in root.glob(rest) if path.is_file())
    return PathSource(pattern, {path.relative_to(root).as_posix(): (path, path.stat().st_size) for path in paths})


def _below(folder: Any) -> Iterable[tuple[str, tuple[Any, int]]]:
    if storage := getattr(folder, "fs", None):
        yield from _stored(folder, storage.find(folder.path, detail=True))
        return
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in seen]
        for name in names:
            path = Path(place, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix(), (path, path.stat().st_size)


def _stored(root: Any, found: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, tuple[Any, int]]]:
    """Yield what object storage says of its files: with one request for all of them, not one for each."""
    for path, info in found.items():
        name = path.removeprefix(root.path.rstrip("/")).lstrip("/")
        if info.get("type") == "file" and name:
            yield name, (root / name, int(info.get("size") or 0))


def _kept(file: IO[bytes], size: int) -> IO[bytes]:
    """Return a file of its own that holds what *file* does: in memory if it is small, on disk otherwise."""
    kept = cast("IO[bytes]", io.BytesIO() if size <= SMALL else tempfile.TemporaryFile())  # noqa: SIM115 - who sends it closes it
    shutil.copyfileobj(file, kept, 256 * 2**10)
    kept.seek(0)
    return kept
