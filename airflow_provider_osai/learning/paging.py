"""Learn how a list continues, from the query and the response of one of its pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_osai.api.misfits import LINK_NEXT, TOTALS
from airflow_provider_osai.api.text import normalize_word
from airflow_provider_osai.learning.recording import Exchange
from airflow_provider_osai.learning.values import leaves, path_text

__all__ = ["PAGE_NAMES", "pages_rule"]

SIZES: Final = ("pagesize", "size", "limit", "take", "perpage", "top", "maxresultcount")
NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "page": ("page", "pagenumber", "pageindex"),
    "offset": ("offset", "skip", "skipcount", "start"),
}
CURSORS: Final = ("cursor", "after", "token", "continuation", "continuationtoken", "pagetoken")
NEXT_CURSORS: Final = frozenset({"nextcursor", "nexttoken", "nextpagetoken", "continuationtoken"})
PAGE_NAMES: Final = frozenset({*SIZES, *CURSORS, *(name for names in NUMBERS.values() for name in names)})
"""Names of query parameters that only select a page."""


def pages_rule(exchange: Exchange, doubts: list[str]) -> dict[str, Any]:
    """Return the rule ``pages`` of a list; empty if the list has no pages."""
    names = {normalize_word(name): name for name, _ in exchange.query}
    numbers = {normalize_word(name): int(value) for name, value in exchange.query if value.isdecimal()}
    pages: dict[str, Any] = {}
    for style, choices in NUMBERS.items():
        word = next((word for word in choices if word in numbers), None)
        if word is not None and not pages:
            pages[style] = names[word]
            if style == "page" and numbers[word] == 0:
                pages["first"] = 0
    if pages:
        if total := _plain_place(
            exchange.response, lambda word, value: word in {*TOTALS, "count"} and _is_count(value)
        ):
            pages["total"] = total
    elif LINK_NEXT.search(exchange.response_headers.get("link", "")):
        pages["next"] = "Link"
    elif cursor := _plain_place(exchange.response, lambda word, _: word in NEXT_CURSORS):
        sent = next((names[word] for word in CURSORS if word in names), None)
        pages |= {"cursor": sent or "cursor", "next_cursor": cursor}
        if sent is None:
            doubts.append("pages: the query name of the cursor was not seen; cursor is assumed")
    size = next((word for word in SIZES if word in numbers), None)
    if pages and size is not None:
        pages |= {"size": names[size], "of": max(1, numbers[size])}
    return pages


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain_place(document: Any, fits: Any) -> str | None:
    """Return the path of the first value that fits, at most two levels deep and not in a list."""
    for steps, value in leaves(document):
        is_plain = 0 < len(steps) <= 2 and all(isinstance(step, str) for step in steps)
        if is_plain and fits(normalize_word(str(steps[-1])), value):
            return path_text(steps)
    return None
