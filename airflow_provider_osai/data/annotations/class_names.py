"""Class lists for YOLO's class numbers: classes.txt, *.names, and YAML with ``names``."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

import yaml

from airflow_provider_osai.data.annotations.bounding_box import InvalidAnnotation, category_name, shown

__all__ = ["is_list", "is_yaml", "parse_list", "parse_yaml"]

LISTS: Final = frozenset({"classes.txt", "obj.names", "_darknet.labels"})


def is_list(name: str) -> bool:
    """Return whether a file of this name has one class per line."""
    path = PurePosixPath(name.lower())
    return path.name in LISTS or path.suffix == ".names"


def is_yaml(name: str) -> bool:
    """Return whether a file of this name is YAML, with or without classes."""
    return name.lower().endswith((".yaml", ".yml"))


def parse_list(data: bytes) -> dict[int, str]:
    """Return the classes of a list by number, from 0. Only trailing lines may be empty.

    :raises InvalidAnnotation: if the file is not UTF-8 or a line is not a valid name.
    """
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidAnnotation(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    return {number: _category_name(line, f"line {number + 1}") for number, line in enumerate(lines)}


def parse_yaml(data: bytes) -> dict[int, str] | None:
    """Return the classes under ``names`` in a YAML file by number; ``None`` without ``names``.

    ``names`` is a list of names, or a mapping of numbers to names. Only the YAML nodes are read, no objects are
    constructed: aliases and tags have no effect, and a class may be called ``no`` or ``1``.

    :raises InvalidAnnotation: if the file is not YAML or ``names`` is invalid.
    """
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidAnnotation(f"not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(root, yaml.MappingNode):
        return None
    nodes = [value for key, value in root.value if isinstance(key, yaml.ScalarNode) and key.value == "names"]
    if not nodes:
        return None
    if len(nodes) > 1:
        raise InvalidAnnotation("names: duplicate key")
    (names,) = nodes
    if isinstance(names, yaml.SequenceNode):
        return {number: _category_name(_text(value), f"names[{number}]") for number, value in enumerate(names.value)}
    if not isinstance(names, yaml.MappingNode):
        raise InvalidAnnotation("names: must be a list of names, or a mapping of numbers to names")
    classes: dict[int, str] = {}
    for key, value in names.value:
        number = _text(key)
        if number is None or not number.isdecimal() or len(number) > 9:
            raise InvalidAnnotation(f"names: invalid class number {shown(number)}")
        if int(number) in classes:
            raise InvalidAnnotation(f"names: duplicate class number {number}")
        classes[int(number)] = _category_name(_text(value), f"names[{number}]")
    return classes


def _text(node: yaml.Node) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _category_name(value: str | None, location: str) -> str:
    try:
        return category_name(value)
    except InvalidAnnotation as error:
        raise InvalidAnnotation(f"{location}: {error}") from error
