"""The methods and operators of texts of which some parts are not known."""

from __future__ import annotations

import re
import string
from typing import Final

from airflow_provider_osai.learning.code_values import Constant, Text, Value, add_texts, as_parts
from airflow_provider_osai.learning.stated_calls import Variable

__all__ = ["call_text_method", "format_percent"]

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


def call_text_method(name: str, text: Constant | Text, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Return the result of a method, or ``None`` if it is not known."""
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
