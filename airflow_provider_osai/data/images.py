"""What an image file is, and how one is told from others like it: by content, category and annotations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, Final

__all__ = ["HEAD", "OTHER", "digest_of", "is_companion", "is_hidden", "is_image", "key_of", "looks_like_image"]

OTHER: Final = "Other"
"""Where OSAI puts images without a category (docs.onestepai.com/datasets/bulk_upload)."""
SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
"""How PNG, JPEG, GIF, BMP and TIFF files begin. Which formats OSAI takes is not described."""
SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
HEAD: Final = 12
"""Bytes by which an image is known."""
PIECE: Final = 256 * 2**10
NOT_DATA: Final = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})

COMPANIONS: Final = frozenset({"changelog", "copying", "license", "licence", "notice", "readme"})
"""Files that labelling tools and data providers put beside images, by their names without suffixes."""
COMPANION_SUFFIXES: Final = frozenset({".cfg", ".data", ".md", ".names", ".rst", ".txt", ".yaml", ".yml"})


def is_companion(name: str) -> bool:
    """Whether a file that is neither image nor annotation tells people or tools of the images, and is nothing to send.

    A README, a licence, notes, lists of files, a tool's settings.
    """
    path = PurePosixPath(name)
    first = path.name.lower().partition(".")[0]
    return first in COMPANIONS or first.startswith("readme") or path.suffix.lower() in COMPANION_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file manager made it, not the user: something of its name, or of a folder's above it, says so."""
    return any(part.startswith(".") or part in NOT_DATA for part in PurePosixPath(name).parts)


def looks_like_image(name: str) -> bool:
    """Whether a file's name is an image's."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_image(head: bytes) -> bool:
    """Whether a file that begins with *head* is an image: PNG, JPEG, GIF, BMP, TIFF or WebP."""
    return head.startswith(SIGNATURES) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file from here to its end, as hexadecimal digits."""
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def key_of(digest: str, category: str | None, boxes: Sequence[Mapping[str, Any]]) -> str:
    """Return what two uploads of the same image, with the same category and annotations, have in common: 24 digits."""
    parts = [digest, category, list(boxes)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
