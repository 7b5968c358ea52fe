"""Recognise image files, and compute the key that identifies an image with its category and annotations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, Final

__all__ = ["HEAD", "OTHER", "dedup_key", "is_companion", "is_image", "looks_like_image", "sha256_of"]

OTHER: Final = "Other"
"""OSAI's category for images without one (documented: docs.onestepai.com/datasets/bulk_upload)."""
SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
"""The first bytes of PNG, JPEG, GIF, BMP and TIFF files. OSAI does not document the formats it accepts."""
SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
HEAD: Final = 12
"""Bytes at the start of a file that :func:`is_image` needs."""
CHUNK: Final = 256 * 2**10

COMPANIONS: Final = frozenset({"changelog", "copying", "license", "licence", "notice", "readme"})
"""Names, without suffixes, of files that labelling tools and data providers put beside images."""
COMPANION_SUFFIXES: Final = frozenset({".cfg", ".data", ".md", ".names", ".rst", ".txt", ".yaml", ".yml"})


def is_companion(name: str) -> bool:
    """Return whether a file that is neither image nor annotation is documentation or a tool's file, to be ignored.

    A README, a licence, notes, lists of files, a tool's settings.
    """
    path = PurePosixPath(name)
    base = path.name.lower().partition(".")[0]
    return base in COMPANIONS or base.startswith("readme") or path.suffix.lower() in COMPANION_SUFFIXES


def looks_like_image(name: str) -> bool:
    """Return whether a file's suffix is that of an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with *head* is an image: PNG, JPEG, GIF, BMP, TIFF or WebP."""
    return head.startswith(SIGNATURES) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def sha256_of(file: IO[bytes]) -> str:
    """Return the hexadecimal SHA-256 of a file from its current position to the end."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def dedup_key(digest: str, category: str | None, boxes: Sequence[Mapping[str, Any]]) -> str:
    """Return the key of an image with its category and annotations: equal for duplicates, 24 hexadecimal digits."""
    parts = [digest, category, list(boxes)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
