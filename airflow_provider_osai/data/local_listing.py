"""List the files in local folders, with the symbolic links that cannot be followed."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.hidden_files import is_ignored
from airflow_provider_osai.data.local_files import LocalFile, UnreadableFile, open_folder_beneath, resolve_beneath

__all__ = ["Listing", "list_files", "list_folder", "list_matches"]

BROKEN_LINK: Final = "broken link"
MAX_LINKED_FOLDERS: Final = 10_000
"""Maximum number of visits to folders through links: a few links can create very many paths."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder.

    :param files: the files by name, each with its size in bytes.
    :param invalid_files: the names that cannot be read, with the reasons.
    """

    files: dict[str, tuple[LocalFile, int]] = field(default_factory=dict)
    invalid_files: dict[str, str] = field(default_factory=dict)

    def add(self, root: str, name: str, *, listed_as: str | None = None, may_be_link: bool = True) -> str | None:
        """Add the file *name* in *root*; if it is a folder, return its path without links, relative to *root*.

        :param listed_as: the name in the listing, if different.
        :param may_be_link: whether the path may contain a link.
        """
        key = listed_as or name
        try:
            target = resolve_beneath(root, name) if may_be_link else name
            status = os.stat(os.path.join(root, target), follow_symlinks=False)
        except UnreadableFile as error:
            self.invalid_files[key] = str(error)
        except OSError:
            if os.path.islink(os.path.join(root, name)):  # a file deleted in the meantime is ignored
                self.invalid_files[key] = BROKEN_LINK
        else:
            if stat.S_ISDIR(status.st_mode):
                return target
            if stat.S_ISREG(status.st_mode):
                self.files[key] = LocalFile(root, name), status.st_size
        return None


def list_folder(folder: Path) -> Listing:
    """List all files below *folder* except hidden ones and those of file managers.

    Links to files and folders below *folder* are followed; a link to a folder that contains it is skipped.

    :raises OsaiArgumentError: if links lead to more than 10,000 folders.
    """
    root = os.path.realpath(folder)
    listing = Listing()
    linked_folders = 0
    pending: list[tuple[str, tuple[str, ...], bool]] = [("", (".",), False)]
    while pending:
        name, ancestors, is_linked = pending.pop()
        linked_folders += is_linked
        if linked_folders > MAX_LINKED_FOLDERS:
            msg = f"source = {str(folder)!r}: links lead to more than {MAX_LINKED_FOLDERS:,} folders, last {name!r}"
            raise OsaiArgumentError(msg)
        for entry, is_link in _entries(root, ancestors[-1]):
            if is_ignored(entry):
                continue
            path = f"{name}/{entry}" if name else entry
            target = listing.add(
                root, posixpath.normpath(f"{ancestors[-1]}/{entry}"), listed_as=path, may_be_link=is_link
            )
            if target is not None and target not in ancestors:
                pending.append((path, (*ancestors, target), is_linked or is_link))
    return listing


def _entries(root: str, folder: str) -> list[tuple[str, bool]]:
    """Return the names in a folder, sorted, with whether each is a link; none if the folder cannot be read."""
    try:
        opened = open_folder_beneath(root, folder)
    except OSError:
        return []
    if opened is None:
        return []
    try:
        with os.scandir(opened) as entries:
            return sorted((entry.name, entry.is_symlink()) for entry in entries)
    finally:
        os.close(opened)


def list_matches(folder: Path, pattern: str) -> Listing:
    """List the files below *folder* that match a pathlib pattern; links to paths below *folder* are followed."""
    root = os.path.realpath(folder)
    listing = Listing()
    for path in folder.glob(pattern):
        if path.is_dir():
            continue
        name = path.relative_to(folder).as_posix()
        listing.add(root, _escaping_prefix(root, name) or name)
    return listing


def _escaping_prefix(root: str, name: str) -> str | None:
    """Return the linked folder in a path that is outside *root*, to report the folder once instead of all its files."""
    parts = PurePosixPath(name).parts
    for end in range(1, len(parts)):
        prefix = "/".join(parts[:end])
        try:
            resolve_beneath(root, prefix)
        except UnreadableFile:
            return prefix
    return None


def list_files(files: Iterable[tuple[str, Path]]) -> Listing:
    """List files by the given names; a link is followed if its target is below the folder that contains the link."""
    listing = Listing()
    for name, path in files:
        listing.add(os.path.realpath(path.parent), path.name, listed_as=name)
    return listing
