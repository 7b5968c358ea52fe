"""Text of responses: compare words, parse times, and replace or reject what databases, pages or URLs cannot hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

__all__ = ["MAX_ID", "MAX_TEXT", "id_error", "normalize_word", "parse_time", "storable", "truncate"]

MAX_ID: Final = 1_000
"""Maximum characters of an id."""
MAX_TEXT: Final = 10_000
"""Maximum characters kept of any other text in a response."""
_UNSTORABLE: Final = re.compile("[\ud800-\udfff\0]")


def storable(document: Any) -> Any:
    """Replace each lone surrogate and NUL in the keys and values of a JSON document with U+FFFD.

    UTF-8 cannot encode the former, and PostgreSQL cannot store the latter. Lists and objects are changed in place.
    """
    root = [document]
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        for key, value in list(node.items()) if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str):
                node[key] = _UNSTORABLE.sub("\ufffd", value)
            elif isinstance(value, (dict, list)):
                stack.append(value)
        if isinstance(node, dict) and any(map(_UNSTORABLE.search, node)):
            renamed = {_UNSTORABLE.sub("\ufffd", key): value for key, value in node.items()}
            node.clear()
            node.update(renamed)
    return root[0]


def id_error(text: str) -> str | None:
    """Return why *text* is not a valid id: its length or a character; ``None`` if it is valid."""
    if len(text) > MAX_ID:
        return f"id {text[:40]!a}... has {len(text)} characters; the maximum is {MAX_ID}"
    if not text.isprintable() or "\ufffd" in text:
        shown = ascii(text[:40]) + ("..." if len(text) > 40 else "")
        return f"id {shown} contains an invalid character, such as a control character or a lone surrogate"
    return None


def truncate(text: str) -> str:
    """Return *text* with at most :data:`MAX_TEXT` characters; an ellipsis marks a cut."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\u2026"


@lru_cache(maxsize=256)
def normalize_word(word: str) -> str:
    """Return *word* without case, spaces, hyphens and underscores, for comparison."""
    return re.sub(r"[\s_-]+", "", word).casefold()


def parse_time(text: str | None) -> float | None:
    """Return an ISO 8601 time in seconds since the epoch; ``None`` if it is missing or invalid.

    A time without a time zone is UTC.
    """
    try:
        moment = datetime.fromisoformat((text or "").strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
