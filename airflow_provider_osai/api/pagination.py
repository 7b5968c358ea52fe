"""Follow the pages of a list, by the contract's rule for it; and serve pages, in the sandbox."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from airflow_provider_osai.api.error_mapping import is_true
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.json_paths import ABSENT, json_path
from airflow_provider_osai.api.misfits import sign_of_more

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.api.contract_rules import PagesRule

__all__ = ["MAX_PAGES", "first_page", "next_page", "page_of"]

MAX_PAGES: Final = 1_000
"""Maximum pages of one list."""
_NEXT_LINK: Final = re.compile(r"""<([^>]*)>[^,]*;\s*rel\s*=\s*"?next"?""", re.IGNORECASE)


def first_page(call: Call[Any], rule: PagesRule) -> Call[Any]:
    """Return the call for the first page."""
    query = dict(call.query)
    if rule.size:
        query[rule.size] = str(rule.of)
    if rule.page:
        query[rule.page] = str(rule.first)
    if rule.offset:
        query[rule.offset] = "0"
    return replace(call, query=query)


def next_page(
    call: Call[Any],
    rule: PagesRule,
    document: Any,
    headers: Mapping[str, str],
    *,
    items: int,
    seen: int,
    base_url: str,
) -> Call[Any] | None:
    """Return the call for the page after *call*'s; ``None`` if it was the last.

    :param items: the number of items in this page.
    :param seen: the number of items in all pages so far.
    :raises OsaiContractError: if the next page is at another server.
    """
    query = dict(call.query)
    if rule.next:
        return _follow(call, _link(rule.next, document, headers), base_url)
    if rule.cursor and rule.next_cursor:
        cursor = json_path(rule.next_cursor).get(document)
        if cursor in (ABSENT, None, "", False):
            return None
        if query.get(rule.cursor) == str(cursor):
            raise OsaiContractError(f"{call.name}: the next page has the same cursor as this one")
        return replace(call, query={**query, rule.cursor: str(cursor)})
    if items == 0 or _is_last(rule, document, headers, items=items, seen=seen):
        return None
    if rule.page:
        query[rule.page] = str(int(query[rule.page]) + 1)
    elif rule.offset:
        query[rule.offset] = str(seen)
    return replace(call, query=query)


def _is_last(rule: PagesRule, document: Any, headers: Mapping[str, str], *, items: int, seen: int) -> bool:
    if rule.more is not None:
        return not is_true(rule.more, document)
    if (total := _total(rule, document)) is not None:
        return seen >= total
    # A total that is not there says nothing: then only an empty page is the last one for certain.
    is_short = rule.total is None and rule.size is not None and items < rule.of
    return is_short and sign_of_more(document, headers, seen) is None


def _total(rule: PagesRule, document: Any) -> int | None:
    value = json_path(rule.total).get(document) if rule.total else None
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _link(path: str, document: Any, headers: Mapping[str, str]) -> str | None:
    if path.lower() == "link":
        found = _NEXT_LINK.search(headers.get("link", ""))
        return found.group(1) if found else None
    value = json_path(path).get(document)
    return value if isinstance(value, str) and value else None


def _follow(call: Call[Any], link: str | None, base_url: str) -> Call[Any] | None:
    """Return the call for a link, which must lead to the same server: the JWT is sent there."""
    if not link:
        return None
    base = urlsplit(base_url)
    target = urlsplit(link)
    path = target.path
    if target.netloc and (target.scheme, target.netloc) != (base.scheme, base.netloc):
        raise OsaiContractError(f"{call.name}: the next page is at another server than {base.netloc}")
    path = path.removeprefix(base.path) if path.startswith(f"{base.path}/") else path or call.path
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    if (path, query) == (call.path, dict(call.query)):
        raise OsaiContractError(f"{call.name}: the link to the next page leads to this one")
    return replace(call, path=path, query=query)


def page_of(
    rule: PagesRule, items: Sequence[Any], query: Mapping[str, str], url: str
) -> tuple[list[Any], dict[str, Any], dict[str, str]]:
    """Return one page of *items*, the values by path that the response has besides them, and its headers.

    :param query: the request's query.
    :param url: the request's URL without its query, for links.
    :raises ValueError: if a number in the query is invalid.
    """
    size = int(query.get(rule.size, rule.of)) if rule.size else rule.of
    start = 0
    if rule.page:
        start = (int(query.get(rule.page, rule.first)) - rule.first) * size
    elif rule.offset:
        start = int(query.get(rule.offset, 0))
    elif cursor := query.get(rule.cursor or "cursor"):
        start = int(base64.urlsafe_b64decode(cursor.encode()).decode())
    if size < 1 or start < 0:
        raise ValueError("invalid page")
    values: dict[str, Any] = {rule.total: len(items)} if rule.total else {}
    if rule.more is not None and json_path(rule.more).steps is not None:
        values[rule.more] = start + size < len(items)
    headers: dict[str, str] = {}
    more = start + size < len(items)
    token = base64.urlsafe_b64encode(str(start + size).encode()).decode() if more else None
    if rule.next_cursor:
        values[rule.next_cursor] = token
    if rule.next:
        link = f"{url}?{urlencode({**query, 'cursor': token})}" if token else None
        if rule.next.lower() != "link":
            values[rule.next] = link
        elif link:
            headers["Link"] = f'<{link}>; rel="next"'
    return list(items[start : start + size]), values, headers
