"""What values of recordings look like: ids, times, names, and the leaves of JSON documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

__all__ = [
    "Steps",
    "at",
    "is_id_name",
    "is_opaque",
    "leaves",
    "path_text",
    "same_thing",
    "similarity",
    "time_seconds",
    "time_unit",
    "words",
]

Steps: TypeAlias = tuple[str | int, ...]
"""Keys and indexes that lead to a value."""

MAX_LEAVES: Final = 20_000
ID_NAME: Final = re.compile(r"(^|[a-z_.-])(ids?|uuid|guid|key|number|no|ref|ticket|handle|token)s?$", re.IGNORECASE)
OPAQUE: Final = re.compile(
    r"\d+|[0-9a-f]{8,}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{4,}|(?=.*\d)[A-Za-z0-9_-]{6,}|[\w-]*secret-\d+",
    re.ASCII,
)
"""A value that looks like an id: a number, hexadecimal digits, or letters with digits."""
PLAIN: Final = re.compile(r"[A-Za-z_$][\w$-]*")
YEARS: Final = (1_262_304_000, 4_102_444_800)
"""Seconds since 1970 of 2010 and 2100."""
TICKS_AT_EPOCH: Final = 621_355_968_000_000_000
PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def leaves(document: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield the scalars and the empty containers of a JSON document with their steps; at most 20,000."""
    stack: list[tuple[Steps, Any]] = [(steps, document)]
    count = 0
    while stack and count < MAX_LEAVES:
        where, value = stack.pop()
        if isinstance(value, Mapping) and value:
            stack += [((*where, str(key)), inner) for key, inner in reversed(list(value.items()))]
        elif isinstance(value, list) and value:
            stack += [((*where, index), inner) for index, inner in reversed(list(enumerate(value)))]
        else:
            count += 1
            yield where, value


def at(document: Any, steps: Steps, default: Any = None) -> Any:
    """Return the value at *steps*, or *default*."""
    for step in steps:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return default
    return document


def path_text(steps: Steps) -> str:
    """Return the path of a contract document for *steps*; ``@`` for the whole answer."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if PLAIN.fullmatch(step) and "-" not in step else '"' + step.replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text or "@"


def is_id_name(name: str) -> bool:
    """Return whether a field of this name usually holds an id."""
    return ID_NAME.search(name) is not None


def is_opaque(text: str) -> bool:
    """Return whether a text looks like an id and not like a word."""
    return OPAQUE.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """Return the lower-case words of a name in any spelling, in the singular: ``modelIds`` is ``model``, ``id``."""
    return tuple(_singular(part.lower()) for part in PARTS.findall(name))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "sis", "xis")) and len(word) > 2 else word


def same_thing(first: str, second: str) -> bool:
    """Return whether two names are about the same thing, such as ``albums`` and ``albumId``."""
    return bool((set(words(first)) - {"id"}) & (set(words(second)) - {"id"}))


def similarity(name: str, vocabulary: Mapping[str, float]) -> float:
    """Return the highest weight of the words of *name* in a vocabulary; the whole name counts most."""
    parts = words(name)
    whole = vocabulary.get("".join(parts), 0.0)
    return max([whole, *(vocabulary.get(part, 0.0) * 0.9 for part in parts)])


def time_unit(value: Any) -> str | None:
    """Return the unit of a time, as in contract documents; ``iso`` for a text; ``None`` if it is not a time."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        for unit, scale, start in (("epoch", 1, 0), ("epoch_milliseconds", 1000, 0), ("ticks", 10**7, TICKS_AT_EPOCH)):
            if YEARS[0] <= (value - start) / scale <= YEARS[1]:
                return unit
        return None
    return "iso" if isinstance(value, str) and _moment(value) is not None else None


def time_seconds(value: Any) -> float | None:
    """Return a point in time in seconds since 1970; ``None`` if it is not a time."""
    unit = time_unit(value)
    if unit == "iso":
        moment = _moment(value)
        return moment.timestamp() if moment is not None else None
    scales = {"epoch": (1, 0), "epoch_milliseconds": (1000, 0), "ticks": (10**7, TICKS_AT_EPOCH)}
    scale, start = scales.get(str(unit), (0, 0))
    return (value - start) / scale if scale else None


def _moment(text: str) -> datetime | None:
    if not re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:", text):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"\.(\d{6})\d+", r".\1", text.replace("Z", "+00:00")))
    except ValueError:
        return None
