"""Methods, operators and library functions for texts of which some parts are not known, and for lists of them."""

from __future__ import annotations

import re
import string
from typing import Final
from urllib.parse import urljoin

from airflow_provider_osai.learning.notebooks.code_values import (
    MAX_ITEMS,
    Constant,
    JsonText,
    Read,
    Text,
    Value,
    add_texts,
    as_parts,
    spell,
)
from airflow_provider_osai.learning.notebooks.stated_calls import Variable

__all__ = ["call_library_function", "call_text_method", "format_percent"]

_CONVERSION: Final = re.compile(r"%(?:\((\w+)\))?[-#0 +]*(?:\d+|\*)?(?:\.\d+)?([a-zA-Z%])")
_WITHOUT_ARGUMENTS: Final = frozenset({"strip", "rstrip", "lstrip", "lower", "upper", "title", "capitalize"})
_WITH_ARGUMENT: Final = frozenset({"strip", "rstrip", "lstrip", "removesuffix", "removeprefix"})
_AT_START: Final = {"strip": "lstrip", "lstrip": "lstrip", "removeprefix": "removeprefix"}
_AT_END: Final = {"strip": "rstrip", "rstrip": "rstrip", "removesuffix": "removesuffix"}
_SAME: Final = frozenset({"encode", "decode", "casefold", "replace"})
"""Methods whose result is taken for the text itself; only ``replace`` may change its words."""


def format_percent(text: Constant | Text, arguments: Value) -> Value:
    """Return ``text % arguments``; widths and precisions are ignored."""
    values = list(arguments) if isinstance(arguments, list) else [arguments]
    result: list[Value] = []
    for part in as_parts(text) or ():
        if not isinstance(part, Constant) or not isinstance(part.value, str):
            result.append(part)
            continue
        position = 0
        for match in _CONVERSION.finditer(part.value):
            result.append(Constant(part.value[position : match.start()]))
            position = match.end()
            if match[2] == "%":
                result.append(Constant("%"))
            elif match[1]:
                known = arguments if isinstance(arguments, dict) else {}
                result.append(known.get(match[1], Variable.of(match[1])))
            else:
                result.append(values.pop(0) if values else Variable("value"))
        result.append(Constant(part.value[position:]))
    return add_texts(*result)


def call_text_method(
    name: str, text: Constant | Text | list[Value], args: list[Value], kwargs: dict[str, Value]
) -> Value:
    """Return the result of a method of a text or list, or ``None`` if it is not known."""
    if isinstance(text, list):
        if name in ("append", "extend") and args and len(text) < MAX_ITEMS:
            text += args[0] if name == "extend" and isinstance(args[0], list) else args[:1]
        return None
    if name == "join":
        return _join(text, args[0]) if args and isinstance(args[0], list) else None
    return _call_text_method(name, text, args, kwargs)


def _call_text_method(name: str, text: Constant | Text, args: list[Value], kwargs: dict[str, Value]) -> Value:
    if name == "format":
        return _format(text, args, kwargs)
    if name in _SAME:
        return text
    constants = [each.value for each in args if isinstance(each, Constant) and isinstance(each.value, str)]
    is_known = name in (_WITH_ARGUMENT if args else _WITHOUT_ARGUMENTS) and len(constants) == len(args) <= 1
    if not is_known:
        return None
    parts = list(as_parts(text) or ())
    if len(parts) == 1:
        return _apply(name, parts[0], constants)
    if name in _AT_START:
        parts[0] = _apply(_AT_START[name], parts[0], constants)
    if name in _AT_END:
        parts[-1] = _apply(_AT_END[name], parts[-1], constants)
    return Text(tuple(parts))


def _apply(name: str, part: Value, constants: list[str]) -> Value:
    if isinstance(part, Constant) and isinstance(part.value, str):
        return Constant(getattr(part.value, name)(*constants), part.name)
    return part


def _format(text: Constant | Text, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Return ``text.format(...)``; format specifications are ignored."""
    result: list[Value] = []
    left = list(args)
    for part in as_parts(text) or ():
        if not isinstance(part, Constant) or not isinstance(part.value, str):
            result.append(part)
            continue
        try:
            pieces = list(string.Formatter().parse(part.value))
        except ValueError:  # an unmatched brace
            return text
        for literal, name, _, _ in pieces:
            result.append(Constant(literal))
            if name is None:
                continue
            key = re.split(r"[.\[]", name, maxsplit=1)[0]
            if not key:
                result.append(left.pop(0) if left else Variable("value"))
            elif key.isdecimal() and len(key) < 4:
                result.append(args[int(key)] if int(key) < len(args) else Variable("value"))
            else:
                result.append(kwargs.get(key, Variable.of(key)))
    return add_texts(*result)


def call_library_function(name: str, args: list[Value]) -> Value:
    """Return the result of a function of the standard library, or ``None`` if it is not known."""
    function = name.rpartition(".")[2]
    result: Value = None
    if name == "json.dumps" and args:
        result = JsonText(args[0])
    elif name == "json.loads" and args:
        result = args[0].value if isinstance(args[0], JsonText) else args[0] if isinstance(args[0], Read) else None
    elif name == "urllib.parse.urljoin" and len(args) > 1:
        result = _join_url(args[0], args[1])
    elif name in ("posixpath.join", "os.path.join"):
        result = _join(Constant("/"), args)
    elif function in ("quote", "quote_plus", "tqdm") and args:
        result = args[0]
    return result


def _join(separator: Value, values: list[Value]) -> Value:
    texts: list[Value] = []
    for value in values[:MAX_ITEMS]:
        texts += [separator, value] if texts else [value]
    return add_texts(*texts)


def _join_url(base: Value, relative: Value) -> Value:
    """Return what ``urljoin`` returns, as far as the parts are known."""
    text = spell(relative)
    if isinstance(base, Constant) and isinstance(relative, Constant):
        try:
            return Constant(urljoin(str(base.value), str(relative.value)))
        except ValueError:  # such as an invalid IPv6 address
            return Variable("url")
    if re.match(r"\w+://", text):
        return relative
    parts = as_parts(base) or (Variable("base"),)
    last = parts[-1]
    if not isinstance(last, Constant):
        return add_texts(*parts, Constant("/"), relative)
    if len(parts) == 1:
        start = urljoin(str(last.value), "/" if text.startswith("/") else ".")
    else:  # replace what follows the last slash
        start = str(last.value)[: str(last.value).rfind("/") + 1]
    return add_texts(*parts[:-1], Constant(start.removesuffix("/"), last.name), Constant("/"), relative)
