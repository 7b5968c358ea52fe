"""Read JSON files that somebody else made, with limits on size, depth and values.

The limit in bytes does not bound the memory: 1 MiB of ``[[],[],[]]`` needs twenty times as much as 1 MiB of text.
Therefore the values are counted before decoding. No message quotes the file, which may contain secrets.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.text import storable

__all__ = ["MAX_VALUES", "load_bounded", "parse_bounded", "read_bounded"]

MAX_VALUES: Final = 5_000_000
"""Maximum number of values in a document; they need at most about 1.5 GB."""

_STRING_OR_SIGN: Final = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)|[\[{,]', re.DOTALL)
"""A string, also an unterminated one, or a sign that precedes a value. Possessive: it never backtracks."""


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file.

    :raises OsaiContractError: if it cannot be read, is not a regular file, or is larger than *max_bytes*.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _error(path, "not a file")
            content = file.read(max_bytes + 1) if status.st_size <= max_bytes else None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise _error(path, f"{reason}. Check the path") from None
    if content is None or len(content) > max_bytes:
        limit = f"{max_bytes // 2**20} MiB" if max_bytes >= 2**20 else f"{max_bytes} bytes"
        raise _error(path, f"larger than {limit}")
    return content


def load_bounded(path: Path, max_bytes: int, max_depth: int, max_values: int = MAX_VALUES) -> Any:
    """Return the JSON document in a file.

    Numbers that JSON does not have (NaN, Infinity, 1e999) are read as null; invalid UTF-8, lone surrogates and NUL as
    U+FFFD; of duplicate keys, the last one. A byte order mark, UTF-16 and UTF-32 are understood. Besides the document,
    this needs the file's text in memory: one, two or four bytes a character, by the widest character.

    :param max_bytes: the maximum size of the file.
    :param max_depth: the maximum number of objects and lists inside each other.
    :param max_values: the maximum number of values, not counting what is inside strings.
    :raises OsaiContractError: if the file cannot be read, is not JSON, or exceeds a limit.
    """
    document, problem = _parsed(read_bounded(path, max_bytes), max_depth, max_values)
    if problem is not None:
        raise _error(path, problem)
    return document


def parse_bounded(content: bytes | str, max_depth: int, max_values: int = MAX_VALUES) -> Any:
    """Return the JSON document in a text, by the rules of :func:`load_bounded`.

    :raises OsaiContractError: if it is not JSON, or exceeds a limit.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    document, problem = _parsed(content, max_depth, max_values)
    if problem is not None:  # raised here, since the decoder's error would keep the whole text alive
        raise OsaiContractError(problem)
    return document


def _parsed(content: bytes, max_depth: int, max_values: int) -> tuple[Any, str | None]:
    """Return the document, or why it is not read."""
    may_be_unstorable = any(sign in content for sign in (b"\\u", b"\xed", b"\0"))
    text = content.decode(json.detect_encoding(content), "replace")
    del content
    if _has_more_values(text, max_values):
        return None, f"more than {max_values} values"
    document, problem = _decode(text)
    del text
    if problem is None and _is_deeper(document, max_depth):
        problem = f"nested more than {max_depth} levels deep"
    return storable(document) if problem is None and may_be_unstorable else document, problem


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe would wait for a writer


def _decode(text: str) -> tuple[Any, str | None]:
    """Return the document, or a description of why it cannot be read."""
    try:
        return json.loads(text, parse_constant=_null, parse_float=_finite), None
    except json.JSONDecodeError as error:
        return None, f"not valid JSON, {error.msg.lower()} in line {error.lineno}, column {error.colno}"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError:
        return None, "not valid JSON, a number has too many digits"


def _has_more_values(text: str, maximum: int) -> bool:
    """Count commas and opening brackets; where there are too many, again without those in strings."""
    if sum(map(text.count, "[{,")) < maximum:
        return False
    count = 1
    for match in _STRING_OR_SIGN.finditer(text):
        count += text[match.start()] != '"'
        if count > maximum:
            return True
    return False


def _is_deeper(document: Any, maximum: int) -> bool:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(maximum):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def _null(_: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _error(path: Path, problem: str) -> OsaiContractError:
    return OsaiContractError(f"{str(path)!a}: {problem}")
