"""Format names, counts and sizes for log lines: names quoted, and limited in length and number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["join_counts", "join_limited", "plural", "quoted", "size_text"]

MAX_NAMES: Final = 20
"""Maximum number of names in one line."""
MAX_NAME_LENGTH: Final = 60
"""Maximum number of characters of a name."""
MEGABYTE: Final = 999_950
"""Bytes from which a size is given in MB; fewer would be rounded to less than 1.0 MB."""


def quoted(name: str) -> str:
    """Return the ``repr`` of a name, shortened to 60 characters."""
    return repr(name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}...")


def join_limited(texts: Iterable[str]) -> str:
    """Join the first 20 texts, and append the number of the others."""
    items = list(texts)
    more = f" and {len(items) - MAX_NAMES:,} more" if len(items) > MAX_NAMES else ""
    return ", ".join(items[:MAX_NAMES]) + more


def join_counts(counts: Mapping[str, int]) -> str:
    """Join the first 20 names with their counts: ``'cat' (12), 'dog' (7)``."""
    return join_limited(f"{quoted(name)} ({count:,})" for name, count in counts.items())


def plural(count: int, singular: str, plural_form: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``."""
    return f"{count:,} {singular if count == 1 else plural_form or singular + 's'}"


def size_text(size: float) -> str:
    """Return a number of bytes with its unit: ``27.4 kB`` below 1 MB, ``1,234.5 MB`` from there."""
    return f"{size / 1e3:.1f} kB" if size < MEGABYTE else f"{size / 1e6:,.1f} MB"
