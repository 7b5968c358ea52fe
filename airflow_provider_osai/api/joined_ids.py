"""Ids of several parts in one text, such as ``<project>/<training>``, which contract documents join."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

__all__ = ["join_parts", "json_word", "split_parts"]


def join_parts(parts: Iterable[Any]) -> str:
    """Join the parts of an id; a ``/`` within a part is escaped."""
    return "/".join([_escape(part if type(part) is str else json_word(part)) for part in parts])


def split_parts(text: Any) -> list[str]:
    """Return the parts of an id that :func:`join_parts` joined."""
    return [part.replace("%2F", "/").replace("%25", "%") for part in str(text).split("/")]


def json_word(value: Any) -> str:
    """Return a JSON scalar as text: ``true`` and ``null`` as in JSON, a text without quotes."""
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def _escape(text: str) -> str:
    return text if text.isalnum() else text.replace("%", "%25").replace("/", "%2F")
