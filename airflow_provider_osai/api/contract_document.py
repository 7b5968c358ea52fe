"""Read a contract document: JSON or YAML, inline in the connection or a file on this machine.

A document is data, not code: YAML tags and aliases are rejected, and so are duplicate keys, of which one would be
ignored in silence. Errors name the line and at most a key, since the path may lead to any file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiContractError

__all__ = ["INLINE", "ContractDocument", "is_path", "read_document"]

INLINE: Final = "the connection's 'contract' extra"
MAX_BYTES: Final = 1 << 20
"""Maximum bytes of a document."""
MAX_DEPTH: Final = 20
"""Maximum nesting of a document."""
TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
"""The tag that YAML gives to what looks like a date; it stays text."""
PLAIN_TYPES: Final = ("bool", "float", "int", "map", "null", "seq", "str")
TAGS: Final = {TIMESTAMP, *(f"tag:yaml.org,2002:{name}" for name in PLAIN_TYPES)}
"""The tags of plain data."""


@dataclass(frozen=True, slots=True)
class ContractDocument:
    """The content of a document.

    :param content: the keys and values.
    :param source: where the document is, for messages.
    :param lines: the line of each key, by the keys that lead to it; empty for a document without lines.
    """

    content: Mapping[str, Any]
    source: str = INLINE
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def location(self, *keys: str) -> str:
        """Return where the keys are: ``line 7 of /etc/osai.yaml``, or the document if the line is unknown."""
        for length in range(len(keys), 0, -1):
            if line := self.lines.get(keys[:length]):
                return f"line {line} of {self.source}"
        return self.source


def is_path(value: object) -> bool:
    """Return whether a ``contract`` extra is the absolute path of a file."""
    return isinstance(value, str) and value.strip().startswith("/")


def read_document(value: Mapping[str, Any] | str | None) -> ContractDocument:
    """Read a ``contract`` extra. Blocks for the file, if it is a path.

    :param value: an object, JSON or YAML text, or the absolute path of a JSON or YAML file of at most 1 MiB.
    :raises OsaiContractError: if there is no such file, or it is not a document.
    """
    if value is None:
        return ContractDocument({})
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise OsaiContractError("contract: a key of the object is not text")
        return ContractDocument(value)
    if not isinstance(value, str):
        msg = f"contract: must be a JSON object, JSON or YAML text, or a path, not {type(value).__name__}"
        raise OsaiContractError(msg)
    if not is_path(value):
        return _parse(value, INLINE)
    path = Path(value.strip())
    return _parse(_read_file(path), str(path))


def _read_file(path: Path) -> str:
    try:
        # O_NONBLOCK: opening a pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OsaiContractError(f"contract = {str(path)!r}: not a file")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise OsaiContractError(f"contract = {str(path)!r}: {reason}. It must be a file on this machine") from None
    if len(data) > MAX_BYTES:
        raise OsaiContractError(f"contract = {str(path)!r}: larger than {MAX_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OsaiContractError(f"contract = {str(path)!r}: not UTF-8 text") from None


def _parse(text: str, source: str) -> ContractDocument:
    if not text.strip():
        return ContractDocument({}, source)
    if text.lstrip().startswith("{"):
        content = _parse_json(text, source)
        lines: dict[tuple[str, ...], int] = {}
    else:
        content, lines = _parse_yaml(text, source)
    if content is None:  # comments only
        content = {}
    if not isinstance(content, dict):
        raise OsaiContractError(f"contract: {source} must be a JSON object or a YAML mapping, with operations as keys")
    return ContractDocument(content, source, lines)


def _parse_json(text: str, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            duplicate = next(name for name in names if names.count(name) > 1)
            raise OsaiContractError(f"contract: duplicate key {duplicate!r} in {source}")
        return content

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        msg = f"contract: not valid JSON, {error.msg.lower()} in line {error.lineno} of {source}"
        raise OsaiContractError(msg) from None
    except RecursionError:
        raise OsaiContractError(f"contract: nested too deeply in {source}") from None
    except ValueError:  # such as a number with thousands of digits
        raise OsaiContractError(f"contract: a value cannot be read in {source}") from None


def _parse_yaml(text: str, source: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    import yaml  # only users with a YAML document need it

    lines: dict[tuple[str, ...], int] = {}

    def fail(reason: str, mark: yaml.Mark | None) -> OsaiContractError:
        line = "" if mark is None else f"line {mark.line + 1} of "
        return OsaiContractError(f"contract: {reason} in {line}{source}")

    def build(node: yaml.Node, keys: tuple[str, ...]) -> Any:
        if len(keys) > MAX_DEPTH:
            raise fail("nested too deeply", node.start_mark)
        if node.tag not in TAGS:
            raise fail(f"the tag {node.tag!r} is not allowed", node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            return [build(item, keys) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            content: dict[str, Any] = {}
            for key_node, value_node in node.value:
                # Keys are names, whatever YAML makes of them: 1, yes and null stay as they are written.
                if not isinstance(key_node, yaml.ScalarNode):
                    raise fail("a key is not text", key_node.start_mark)
                key = str(key_node.value)
                if key in content:
                    raise fail(f"duplicate key {key!r}", key_node.start_mark)
                lines[*keys, key] = key_node.start_mark.line + 1
                content[key] = build(value_node, (*keys, key))
            return content
        return node.value if node.tag == TIMESTAMP else constructor.construct_object(node)

    constructor = yaml.SafeLoader(text)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # before the nodes are built, which takes seconds for thousands of levels
                raise fail("nested too deeply", event.start_mark)
            if isinstance(event, yaml.AliasEvent):
                raise fail("an alias is not allowed", event.start_mark)
        node = constructor.get_single_node()
        return (None if node is None else build(node, ())), lines
    except yaml.YAMLError as error:
        raise fail("not valid YAML", getattr(error, "problem_mark", None)) from None
    except (RecursionError, ValueError):
        raise OsaiContractError(f"contract: a value cannot be read in {source}") from None
    finally:
        constructor.dispose()
