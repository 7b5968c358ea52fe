"""State a call of ``requests`` or ``httpx`` from its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_osai.learning.notebooks.code_values import (
    MAX_ITEMS,
    CallRecord,
    Constant,
    JsonText,
    Session,
    Text,
    Value,
    add_texts,
    as_data,
    as_parts,
    parse_address,
    spell,
)
from airflow_provider_osai.learning.notebooks.stated_calls import Variable

__all__ = ["METHODS", "is_client_name", "is_url", "state_call"]

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_POSITIONAL: Final = {
    "DELETE": ("url",),
    "GET": ("url", "params"),
    "HEAD": ("url",),
    "OPTIONS": ("url",),
    "PATCH": ("url", "data"),
    "POST": ("url", "data", "json"),
    "PUT": ("url", "data"),
    "REQUEST": ("method", "url", "params", "data", "headers"),
    "STREAM": ("method", "url"),
}
"""The arguments that may be given without a name, by the function's name."""
_CLIENT: Final = re.compile(r"session|client|http|request|(^|_)api$", re.IGNORECASE)
_URL: Final = re.compile(r"https?://|/[^/]|\{\w+\}(/|$)")


def is_client_name(name: str) -> bool:
    """Return whether a variable of this name seems to be a client or session."""
    return bool(_CLIENT.search(name))


def is_url(value: Value) -> bool:
    """Return whether a value seems to be a URL or the path of one, so that a call with it seems to be an HTTP call."""
    return isinstance(value, (Constant, Text)) and bool(_URL.match(_spell_start(value)))


def _spell_start(value: Constant | Text) -> str:
    """Return the text without recording that the code reads parts of it."""
    parts = as_parts(value) or ()
    return "".join(str(part.value) if isinstance(part, Constant) else "{value}" for part in parts[:2])


def state_call(verb: str, args: list[Value], kwargs: dict[str, Value], session: Session | None) -> CallRecord | None:
    """Return the call of a function or method named *verb*; ``None`` if this is no HTTP call."""
    names = _POSITIONAL.get(verb.upper())
    if names is None:
        return None
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    given = {name: value for name, value in given.items() if getattr(value, "value", value) is not None}
    address = parse_address(_with_base(given.get("url"), session))
    if address is None:
        return None
    method = spell(given["method"]).upper() if "method" in given else verb.upper()
    headers = {**(session.headers if session else {}), **_names(given.get("headers"))}
    call = CallRecord(method, address, query=dict(address.query), headers=tuple(headers)[:MAX_ITEMS])
    call.query |= _query(given.get("params"))
    call.files = tuple(_names(given.get("files"), unknown=True))[:MAX_ITEMS]
    data = given.get("data", given.get("content"))
    if "json" in given:
        call.body = as_data(given["json"])
    elif (fields := _fields(data)) is not None:
        call.form = fields
    elif data is not None:
        call.body = _parse_body(data)
    return call


def _with_base(url: Value, session: Session | None) -> Value:
    """Return a URL below the address of its session."""
    parts = as_parts(url)
    if session is None or session.base is None or parts is None:
        return url
    first = parts[0]
    if isinstance(first, Constant) and "://" in str(first.value)[:20]:
        return url
    return add_texts(session.base, Constant("/"), url)


def _names(value: Value, *, unknown: bool = False) -> dict[str, None]:
    """Return the names of headers or files.

    :param unknown: whether to return a variable if they are not known.
    """
    if isinstance(value, dict):
        return {str(name): None for name in value}
    if isinstance(value, list):
        return {spell(pair[0]): None for pair in value if isinstance(pair, list) and pair}
    return {f"{{{Variable.of(getattr(value, 'name', '') or 'value').name}}}": None} if unknown and value else {}


def _query(params: Value) -> dict[str, Any]:
    fields = _fields(params)
    if fields is None and isinstance(params, (Constant, Text)):
        address = parse_address(add_texts(Constant("/?"), params))
        return dict(address.query) if address else {}
    return fields or {}


def _fields(value: Value) -> dict[str, Any] | None:
    """Return the fields of a form or query; ``None`` if *value* is neither a dict nor a list of pairs."""
    if isinstance(value, dict):
        fields = as_data(value)
        return fields if isinstance(fields, dict) else None
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return {(name := spell(pair[0])): as_data(pair[1], name) for pair in value[:MAX_ITEMS]}
    return None


def _parse_body(value: Value) -> Any:
    """Return the JSON of a body; a variable if it is not JSON."""
    if isinstance(value, JsonText):
        return as_data(value)
    if isinstance(value, Constant) and isinstance(value.value, str):
        return _parse_json(value.value)
    return Variable.of(getattr(value, "name", "") or "data")


def _parse_json(text: str) -> Any:
    try:
        return as_data(_as_values(json.loads(text, parse_constant=lambda _: None)))
    except (ValueError, RecursionError):
        return Variable("data")


def _as_values(document: Any) -> Value:
    if isinstance(document, dict):
        return dict(_value_items(document))
    return [_as_values(each) for each in document] if isinstance(document, list) else Constant(document)


def _value_items(document: dict[str, Any]) -> Iterator[tuple[str, Value]]:
    for name, value in document.items():
        yield name, _as_values(value)
