"""Places in JSON documents: read any with JMESPath, and write those that are plain.

A plain path is made of names and indexes: ``data.items[0].id``; a name with other characters is quoted (``"a.b"``), and
``@`` is the document itself. Everything else is a JMESPath expression, which can be read but not written, except for a
plain path in each object of a list: ``datasets[*].id``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias

__all__ = ["ABSENT", "EACH", "JsonPath", "Steps", "get_value", "json_path", "put_value"]

ABSENT: Final = object()
"""Stands for no value: the place is not in the document."""
EACH: Final = "[*]"
"""Stands for each item of a list."""
MAX_INDEX: Final = 100
"""Maximum index in a plain path."""

Steps: TypeAlias = tuple[str | int, ...]
_STEP: Final = re.compile(r"""(?:^|\.)(?:"((?:[^"\\]|\\.)+)"|([^\s.\[\]|&!=<>()*`{}?,'"\\]+))|\[(\d+)\]""")


def get_value(document: Any, steps: Steps) -> Any:
    """Return the value at *steps*, or :data:`ABSENT`."""
    for step in steps:
        if type(document) is dict:  # the usual case, which must be fast
            document = document.get(step, ABSENT)
            if document is ABSENT:
                return ABSENT
        elif isinstance(step, str):
            if not isinstance(document, Mapping) or step not in document:
                return ABSENT
            document = document[step]
        elif not isinstance(document, list) or step >= len(document):
            return ABSENT
        else:
            document = document[step]
    return document


def put_value(document: Any, steps: Steps, value: Any) -> Any:
    """Return *document* with *value* at *steps*; what is changed is copied. Missing objects and lists are created."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, int):
        items = list(document) if isinstance(document, list) else []
        items += [None] * (step + 1 - len(items))
        items[step] = put_value(items[step], tuple(rest), value)
        return items
    content = dict(document) if isinstance(document, Mapping) else {}
    content[step] = put_value(content.get(step), tuple(rest), value)
    return content


@lru_cache(maxsize=1024)
def _plain_steps(text: str) -> Steps | None:
    if text == "@":
        return ()
    steps: list[str | int] = []
    position = 0
    for match in _STEP.finditer(text):
        if match.start() != position:
            return None
        position = match.end()
        quoted, name, index = match.groups()
        if index is not None:
            if int(index) > MAX_INDEX:
                return None
            steps.append(int(index))
        else:
            steps.append(re.sub(r"\\(.)", r"\1", quoted) if quoted else name)
    return tuple(steps) if steps and position == len(text) else None


@cache
def _interpreter() -> Any:
    """Return the interpreter of all expressions; a new one for each search would begin without its cache."""
    from jmespath.visitor import TreeInterpreter

    return TreeInterpreter()


def _unknown_function(node: Any) -> str | None:
    """Return the first function in a parsed expression that JMESPath does not have."""
    from jmespath.functions import Functions

    if node["type"] == "function_expression" and node["value"] not in Functions.FUNCTION_TABLE:
        return str(node["value"])
    return next(
        (name for child in node["children"] if isinstance(child, dict) and (name := _unknown_function(child))), None
    )


class JsonPath:
    """A compiled path.

    :param text: a plain path, or a JMESPath expression.
    :raises ValueError: if it is neither.

    Use :func:`json_path`, which compiles each text once.
    """

    __slots__ = ("_parsed", "_search", "_search_errors", "steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = _plain_steps(text)
        if self.steps is not None:
            return
        import jmespath  # only documents with expressions need it
        from jmespath.exceptions import JMESPathError

        # Besides its own errors, a comparison of a text with a number raises what Python does.
        self._search_errors: tuple[type[Exception], ...] = (
            *(JMESPathError, TypeError, ValueError),
            *(AttributeError, LookupError, ArithmeticError),
        )
        try:
            self._parsed = jmespath.compile(text).parsed
        except JMESPathError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{text!r} is neither a path nor a JMESPath expression: {reason}") from None
        if unknown := _unknown_function(self._parsed):
            raise ValueError(f"{text!r} is no JMESPath expression: there is no function {unknown!r}")
        self._search: Callable[[Any, Any], Any] = _interpreter().visit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonPath) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonPath({self.text!r})"

    def get(self, document: Any) -> Any:
        """Return the value, or :data:`ABSENT`. An expression that does not fit the document is absent, too."""
        if self.steps is not None:
            return get_value(document, self.steps)
        try:
            value = self._search(self._parsed, document)
        except self._search_errors:  # a function or a comparison got a value of another type
            return ABSENT
        return ABSENT if value is None else value

    def put(self, document: Any, value: Any) -> Any:
        """Return *document* with *value* at this place; raise ValueError if this is an expression."""
        if self.steps is not None:
            return put_value(document, self.steps, value)
        before, _, after = self.text.partition(f"{EACH}.")
        at, below = _plain_steps(before), _plain_steps(after)
        if at is None or below is None or not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.text!r} is an expression, and cannot be written; add 'write'")
        there = get_value(document, at)
        items = list(there) if isinstance(there, list) else []
        items += [{}] * (len(value) - len(items))
        return put_value(document, at, [put_value(item, below, each) for item, each in zip(items, value, strict=False)])

    @property
    def first(self) -> str | int | None:
        """The first name or index; ``None`` for the document itself, and for other expressions."""
        steps = _plain_steps(self.text.partition(EACH)[0]) if self.steps is None else self.steps
        return steps[0] if steps else None


@lru_cache(maxsize=1024)
def json_path(text: str) -> JsonPath:
    """Return the compiled path of a text; see :class:`JsonPath`."""
    return JsonPath(text)
