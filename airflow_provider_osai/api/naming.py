"""Says things in other words: keys of JSON objects under other names, status words without their dress."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

__all__ = ["ABSENT", "folded", "reach", "rename"]

ABSENT: Final = object()
"""What :func:`reach` finds where nothing is."""


@lru_cache(maxsize=256)
def folded(word: str) -> str:
    """Return *word* as status words are compared: without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", word).casefold()


def rename(data: Mapping[str, Any], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return *data* with its keys renamed (old, new). Dotted names reach into objects, on either side.

    A key that is called like a new name, but is not the one that becomes it, is something else and goes.
    """
    pairs = list(pairs)
    if not pairs:
        return dict(data)
    gone = {name for pair in pairs for name in pair}
    renamed: dict[str, Any] = {key: value for key, value in data.items() if key not in gone}
    for old, new in pairs:
        value = reach(data, old)
        if value is not ABSENT:
            _place(renamed, new, value)
    return renamed


def reach(data: Any, dotted: str) -> Any:
    """Return what *data* holds under a dotted name, or :data:`ABSENT`."""
    for part in dotted.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return ABSENT
        data = data[part]
    return data


def _place(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for part in parents:
        inner = data.get(part)
        data[part] = data = dict(inner) if isinstance(inner, Mapping) else {}  # a copy: never write into the caller's
    data[last] = value
