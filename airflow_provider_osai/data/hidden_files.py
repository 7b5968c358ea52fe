"""Recognise hidden files and the files that operating systems add to folders."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

__all__ = ["is_hidden", "is_ignored"]

MACOS_FOLDER: Final = "__MACOSX"
SYSTEM_FILES: Final = frozenset({"Thumbs.db", "desktop.ini"})


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden, lies in a hidden folder, or belongs to macOS's ``__MACOSX``."""
    return any(part.startswith(".") or part == MACOS_FOLDER for part in PurePosixPath(name).parts)


def is_ignored(name: str) -> bool:
    """Return whether a source ignores a file: it is hidden, or a file manager created it."""
    return is_hidden(name) or not SYSTEM_FILES.isdisjoint(PurePosixPath(name).parts)
