"""What is known of the values in source code: constants, texts with variables, responses and what is read from them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_plus

from airflow_provider_osai.learning.notebooks.secret_text import is_secret_name
from airflow_provider_osai.learning.notebooks.stated_calls import Variable

__all__ = [
    "MAX_ITEMS",
    "Address",
    "Attached",
    "CallRecord",
    "Class",
    "Constant",
    "Function",
    "Instance",
    "JsonText",
    "Library",
    "Read",
    "Response",
    "Scope",
    "Session",
    "SessionHeaders",
    "Text",
    "Value",
    "add_texts",
    "as_data",
    "as_parts",
    "constants_in",
    "named",
    "parse_address",
    "spell",
]

MAX_TEXT: Final = 2_000
"""Maximum characters of a text that is put together."""
MAX_STATED: Final = 200
"""Maximum characters of a text that is stated in a call; a longer one is data."""
MAX_ITEMS: Final = 200
"""Maximum number of items of a list, and of fields of an object."""
MAX_VALUES: Final = 2_000
"""Maximum number of values in one body."""
MAX_LEVELS: Final = 20
"""Maximum depth of a body."""

Value: TypeAlias = Any
"""One of the classes of this module, a ``Variable``, or a dict or list of values."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant, with the name of the variable that it was first assigned to."""

    value: str | int | float | bool | None
    name: str = ""


@dataclass(slots=True, eq=False)
class CallRecord:
    """A call while its notebook is still read."""

    method: str
    address: Address
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    form: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    source: str = ""
    reads: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a call."""

    call: CallRecord


@dataclass(frozen=True, slots=True)
class Read:
    """A value in the JSON of a response, with the name of the variable that it was first assigned to."""

    call: CallRecord
    path: str = ""
    name: str = ""

    def at(self, key: str | int) -> Read | Variable:
        """Return the value below this one."""
        if isinstance(key, int):
            path = f"{self.path}[{key}]"
        else:
            step = key if re.fullmatch(r"[^\W\d]\w*", key) else json.dumps(key)
            path = f"{self.path}.{step}".removeprefix(".")
        return Read(self.call, path) if len(path) <= MAX_STATED else Variable("value")

    def each(self) -> Read | Variable:
        """Return an item of this list."""
        path = f"{self.path}[*]"
        return Read(self.call, path) if len(path) <= MAX_STATED else Variable("value")

    @property
    def field_name(self) -> str:
        """The last name in the path, or ``value``."""
        names = re.findall(r"[^\W\d]\w*", self.path)
        return Variable.of(names[-1] if names else self.name or "value").name

    def note(self) -> str:
        """Record that the code uses this value, and return its name."""
        name = self.name or self.field_name
        reads = self.call.reads
        if len(reads) < MAX_ITEMS:
            reads.setdefault(name, self.path or "@")
        return name


@dataclass(frozen=True, slots=True)
class Text:
    """A text of which some parts are not known."""

    parts: tuple[Constant | Variable | Read, ...]


@dataclass(frozen=True, slots=True)
class JsonText:
    """A value as JSON text: the result of ``json.dumps``."""

    value: Value


@dataclass(frozen=True, slots=True)
class Library:
    """A module of a library, or what is in it, by its full name."""

    name: str


@dataclass(slots=True, eq=False)
class Session:
    """A client or session of an HTTP library."""

    base: Value = None
    headers: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionHeaders:
    """The headers of a session."""

    session: Session


@dataclass(slots=True, eq=False)
class Scope:
    """The variables of a function or module."""

    parent: Scope | None = None
    values: dict[str, Value] = field(default_factory=dict)

    def get(self, name: str) -> Value:
        """Return the value of a variable, or ``None``."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function or method."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    scope: Scope
    owner: Class | None = None

    def has_decorator(self, *names: str) -> bool:
        """Return whether it has one of these decorators, without arguments."""
        decorators = self.node.decorator_list
        return any(getattr(each, "attr", getattr(each, "id", "")) in names for each in decorators)


@dataclass(slots=True, eq=False)
class Class:
    """A class with its methods and other attributes."""

    name: str
    attributes: dict[str, Value] = field(default_factory=dict)
    bases: tuple[Class, ...] = ()
    is_session: bool = False
    fields: tuple[str, ...] = ()
    instance: Instance | None = None

    def get(self, name: str) -> Value:
        """Return an attribute, also of a base class, or ``None``."""
        queue, seen = [self], {id(self)}
        for cls in queue:
            if name in cls.attributes:
                return cls.attributes[name]
            new = [base for base in cls.bases if id(base) not in seen]
            seen.update(map(id, new))
            queue += new
        return None


@dataclass(slots=True, eq=False)
class Instance:
    """An object of a class; ``session`` if the class extends one of an HTTP library."""

    cls: Class
    attributes: dict[str, Value] = field(default_factory=dict)
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A method of an object."""

    function: Function
    instance: Value


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL; see :class:`.StatedCall`."""

    path: str
    base_known: bool
    origin: str = ""
    query: tuple[tuple[str, Any], ...] = ()
    is_stated: bool = True
    """Whether a part of the path is stated, or a variable of it was read from a response."""


def as_parts(value: Value) -> tuple[Constant | Variable | Read, ...] | None:
    """Return the parts of what may be a text; ``None`` for what cannot be one."""
    if isinstance(value, Text):
        return value.parts
    return (value,) if isinstance(value, (Constant, Variable, Read)) else None


def add_texts(*values: Value) -> Value:
    """Return texts as one."""
    parts: list[Constant | Variable | Read] = []
    for value in values:
        for part in as_parts(value) or (Variable("value"),):
            last = parts[-1] if parts else None
            if isinstance(last, Constant) and isinstance(part, Constant) and not last.name and not part.name:
                parts[-1] = Constant(f"{last.value}{part.value}")
            elif part != Constant(""):
                parts.append(part)
    length = sum(
        len(part.value) if isinstance(part, Constant) and isinstance(part.value, str) else 20 for part in parts
    )
    if length > MAX_TEXT:
        return Variable("value")
    if not parts:
        return Constant("")
    single = parts[0]
    return single if len(parts) == 1 and isinstance(single, Constant) else Text(tuple(parts))


def spell(value: Value, name: str = "value") -> str:
    """Return a text with ``{name}`` for each part that is not stated."""
    return "".join(map(_spell_part, as_parts(value) or (Variable.of(name),)))


def _spell_part(part: Constant | Variable | Read) -> str:
    if isinstance(part, Constant):
        return f"{{{Variable.of(part.name).name}}}" if is_secret_name(part.name) else str(part.value)
    return f"{{{part.note() if isinstance(part, Read) else part.name}}}"


def constants_in(value: Value, limit: int = MAX_VALUES) -> Iterator[Constant]:
    """Yield the constants in a value."""
    stack = [value]
    for _ in range(limit):
        if not stack:
            return
        node = stack.pop()
        if isinstance(node, Constant):
            yield node
        elif isinstance(node, dict):
            stack += node.values()
        elif isinstance(node, list):
            stack += node
        elif isinstance(node, Text):
            stack += node.parts
        elif isinstance(node, JsonText):
            stack.append(node.value)


class _Data:
    """Converts a value to JSON-like data, of limited size; values may contain themselves."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def convert(self, value: Value, name: str, level: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or level > MAX_LEVELS:
            return Variable.of(name)
        if isinstance(value, dict):
            items = list(value.items())[:MAX_ITEMS]
            return {(key := str(each)[:MAX_STATED]): self.convert(item, key, level + 1) for each, item in items}
        if isinstance(value, list):
            return [self.convert(item, name, level + 1) for item in value[:MAX_ITEMS]]
        if isinstance(value, JsonText):
            return self.convert(value.value, name, level + 1)
        return _scalar(value, name)


def _scalar(value: Value, name: str) -> Any:
    if isinstance(value, Constant):
        if value.name and value.value is None:  # a default, which the code replaces
            return Variable.of(value.name)
        if not isinstance(value.value, bool) and is_secret_name(value.name):
            return Variable.of(value.name)
        return value.value if len(str(value.value)) <= MAX_STATED else Variable.of(value.name or name)
    if isinstance(value, Read):
        return Variable(value.note())
    if isinstance(value, Text):
        text = spell(value)
        return text if len(text) <= MAX_STATED else Variable.of(name)
    return value if isinstance(value, Variable) else Variable.of(name)


def as_data(value: Value, name: str = "value") -> Any:
    """Return a value as JSON-like data, with variables; see :class:`.StatedCall`."""
    return _Data().convert(value, name)


_ORIGIN: Final = re.compile(r"((?:[a-zA-Z][a-zA-Z0-9+.-]*|\{\w+\})://)([^/?#\\]*)")
_BASE: Final = re.compile(r"\{\w+\}(:\d+(?=/|$))?")
_PATH_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]*|v\d+(\.\d+)*")
"""A constant in a path that is part of the API: a resource, or a version."""
_ID_NAME: Final = re.compile(r"(id|name|key|uuid|guid|slug)$", re.IGNORECASE)
_HOST_NAME: Final = re.compile(r"(host|server|domain|port)", re.IGNORECASE)


def parse_address(value: Value) -> Address | None:
    """Return the parts of a URL; ``None`` if *value* is none."""
    parts = as_parts(value)
    if parts is None:
        return None
    text = "".join(map(_spell_url_part, parts))
    text = "".join(character for character in text if character.isprintable() and character != " ")
    if len(text) > MAX_TEXT or not text:
        return None
    origin, base_known = "", False
    if match := _ORIGIN.match(text):
        if match[1].lower() not in ("http://", "https://") and not match[1].startswith("{"):
            return None
        host = match[2].rpartition("@")[2]
        origin = "" if "{" in match[0] else f"{match[1].lower()}{host}"
        base_known = True
        text = text[match.end() :]
    elif match := _BASE.match(text):
        if match.end() == len(text):
            return Address(match[0], base_known=False, is_stated=isinstance(parts[-1], Read))
        base_known = bool(match[1])
        text = text[match.end() :]
    path, _, query = text.partition("#")[0].partition("?")
    path = _normalize(path)
    rest = re.sub(r"\{\w+\}", "", path).strip("/")
    is_stated = bool(rest) or any(isinstance(part, Read) for part in parts) or (path == "/" and base_known)
    return Address(path, base_known, origin, tuple(_parse_query(query)), is_stated)


def _spell_url_part(part: Constant | Variable | Read) -> str:
    """Spell a part of a URL; a named constant that seems to be an id is a variable of the path."""
    if isinstance(part, Constant) and part.name and not is_secret_name(part.name):
        text = str(part.value)
        is_literal = "/" in text or _HOST_NAME.search(part.name) or not text
        if not is_literal and (not _PATH_WORD.fullmatch(text) or _ID_NAME.search(part.name)):
            return f"{{{Variable.of(part.name).name}}}"
    return _spell_part(part)


def _normalize(path: str) -> str:
    """Return a path that begins with a slash, without empty and dot segments."""
    segments: list[str] = []
    for segment in re.split(r"[/\\]", path):
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def _parse_query(query: str) -> Iterator[tuple[str, Any]]:
    for pair in query.split("&")[:MAX_ITEMS]:
        name, _, text = pair.partition("=")
        if name:
            variable = re.fullmatch(r"\{(\w+)\}", text)
            yield unquote_plus(name), Variable(variable[1]) if variable else unquote_plus(text)[:MAX_STATED]


def named(value: Value, name: str) -> Value:
    """Return a value that is assigned to a variable for the first time with its name."""
    return replace(value, name=name) if isinstance(value, (Constant, Read)) and not value.name else value
