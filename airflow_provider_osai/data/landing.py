"""Where a download ends: a file of this machine, or an object of a storage."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiDownloadFailed
from airflow_provider_osai.data.parts import Part

__all__ = ["Landing", "LocalLanding", "ObjectLanding", "hashes", "landing_at"]

PIECE: Final = 2**20
LOCAL: Final = frozenset({"", "file", "local"})
"""How paths of storages call this machine."""


class Landing(ABC):
    """Where a file will be.

    :param shown: the destination as a message may show it.
    """

    shown: str

    @abstractmethod
    def part(self) -> Path:
        """Return where the part lies until the file is whole; its folder is made."""

    @abstractmethod
    def holds(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Return the digests of the file that is already there, if it is the one with *digests*."""

    @abstractmethod
    def place(self, part: Part, name: str | None) -> str:
        """Give the whole file its name, which a folder takes from *name*; return it. The part is gone then."""

    @abstractmethod
    def address(self, name: str | None) -> str:
        """Return the whole name of the file."""


class LocalLanding(Landing):
    """A file of this machine, under its name at once or not at all."""

    def __init__(self, destination: Path, default: str, *, is_folder: bool) -> None:
        self._folder = destination if is_folder else destination.parent
        self._fixed, self._default = None if is_folder else destination.name, default
        self.shown = str(destination)

    def _final(self, name: str | None) -> Path:
        return self._folder / (self._fixed or name or self._default)

    def part(self) -> Path:
        """Return a neighbour of the file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{self._fixed or self._default}.part"

    def holds(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Compare the size first."""
        final = self._final(name)
        if not final.is_file() or size not in (None, final.stat().st_size):
            return None
        with final.open("rb") as file:
            return _same(file, digests)

    def place(self, part: Part, name: str | None) -> str:
        """Rename the part."""
        final = self._final(name)
        part.move(final)
        return str(final)

    def address(self, name: str | None) -> str:
        """Return the file's path."""
        return str(self._final(name))


class ObjectLanding(Landing):
    """An object of a storage, written when the whole file lies on this machine.

    :param path: like Airflow's ``ObjectStoragePath``: ``fs`` (fsspec's), ``path``, ``/`` and the usual questions.
    """

    def __init__(self, path: Any, default: str, *, is_folder: bool) -> None:
        self._path, self._is_folder, self._default = path, is_folder, default
        self.shown = str(path)

    def _final(self, name: str | None) -> Any:
        return self._path / (name or self._default) if self._is_folder else self._path

    def part(self) -> Path:
        """Return a file in a folder that is ours alone, by a name that a later try on this machine finds again."""
        folder = Path(tempfile.gettempdir()) / f"osai-downloads-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OsaiDownloadFailed(f"{folder} must be a folder that is this user's alone; remove it")
        key = hashlib.sha256(f"{self.shown}\n{self._default}".encode()).hexdigest()[:32]
        return folder / f"{key}.part"

    def holds(self, name: str | None, size: int | None, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Compare the size first; then the object is read."""
        final = self._final(name)
        if not final.is_file() or size not in (None, final.fs.size(final.path)):
            return None
        with final.open("rb") as file:
            return _same(file, digests)

    def place(self, part: Part, name: str | None) -> str:
        """Send the part; what of it is there after a failure, and was not before, is removed."""
        final, size = self._final(name), part.have
        existed = final.exists()
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

    def address(self, name: str | None) -> str:
        """Return the object's address."""
        return str(self._final(name))


def landing_at(destination: Any, default: str, *, is_folder: bool = False) -> Landing:
    """Return where *destination* is: a path of this machine, or an object like Airflow's ``ObjectStoragePath``.

    A folder that exists, or a name with a slash at the end, takes the file's own name.

    :param default: the file's name in a folder, if the server has none for it.
    :param is_folder: whether it is certainly a folder.
    :raises OsaiArgumentError: if it is nothing.
    """
    text = str(destination).strip()
    if destination is None or text in ("", "None"):
        raise OsaiArgumentError(f"destination = {text!r}: a path is needed")
    if not hasattr(destination, "fs"):
        path = Path(text)
        return LocalLanding(path, default, is_folder=is_folder or text.endswith("/") or path.is_dir())
    is_folder = is_folder or text.endswith("/") or destination.is_dir()
    if destination.protocol in LOCAL:
        return LocalLanding(Path(destination.path), default, is_folder=is_folder)
    return ObjectLanding(destination, default, is_folder=is_folder)


def hashes(file: IO[bytes], algorithms: Collection[str]) -> dict[str, str]:
    """Return the digests of what is left of *file*, by hashlib's names."""
    found = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    while piece := file.read(PIECE):
        for one in found.values():
            one.update(piece)
    return {name: one.hexdigest() for name, one in found.items()}


def _check_size(written: Any, size: int) -> None:
    found = written.fs.size(written.path)
    if found != size:
        raise OsaiDownloadFailed(f"{written}: of {size} bytes {found} were written")


def _same(file: IO[bytes], digests: Mapping[str, str]) -> dict[str, str] | None:
    strong = {name: digest for name, digest in digests.items() if name != "md5"}
    found = hashes(file, {"sha256", *strong}) if strong else {}
    return found if strong and all(found[name] == digest for name, digest in strong.items()) else None
