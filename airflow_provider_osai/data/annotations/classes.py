"""Lists of classes, which YOLO's numbers point into: classes.txt, *.names, and YAML with ``names``."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

import yaml

from airflow_provider_osai.data.annotations.box import Unfit, category_name, shown

__all__ = ["is_list", "is_yaml", "parse_list", "parse_yaml"]

LISTS: Final = frozenset({"classes.txt", "obj.names", "_darknet.labels"})


def is_list(name: str) -> bool:
    """Whether a file of this name holds one class by line."""
    path = PurePosixPath(name.lower())
    return path.name in LISTS or path.suffix == ".names"


def is_yaml(name: str) -> bool:
    """Whether a file of this name is YAML, which may hold anything."""
    return name.lower().endswith((".yaml", ".yml"))


def parse_list(data: bytes) -> dict[int, str]:
    """Return the classes of a list, by number from 0; empty lines are allowed at the end only.

    :raises Unfit: if a line is no name.
    """
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise Unfit(f"it is no UTF-8 text: {error.reason} at byte {error.start}") from error
    return {number: _named(f"line {number + 1}", line) for number, line in enumerate(lines)}


def parse_yaml(data: bytes) -> dict[int, str] | None:
    """Return the classes that a YAML file has under ``names``, a list or numbers with names; ``None`` without any.

    The document is never turned into objects: aliases and tags do nothing, and a class may be called ``no`` or ``1``.

    :raises Unfit: if it is no YAML, or its ``names`` is none of the two.
    """
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unfit(f"it is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(root, yaml.MappingNode):
        return None
    found = [value for key, value in root.value if isinstance(key, yaml.ScalarNode) and key.value == "names"]
    if not found:
        return None
    if len(found) > 1:
        raise Unfit("names: it is there twice")
    (names,) = found
    if isinstance(names, yaml.SequenceNode):
        return {number: _named(f"names[{number}]", _text(value)) for number, value in enumerate(names.value)}
    if not isinstance(names, yaml.MappingNode):
        raise Unfit("names: a list of names, or numbers with names, is needed")
    classes: dict[int, str] = {}
    for key, value in names.value:
        number = _text(key)
        if number is None or not number.isdecimal() or len(number) > 9:
            raise Unfit(f"names: {shown(number)} is no number of a class")
        if int(number) in classes:
            raise Unfit(f"names: the number {number} is there twice")
        classes[int(number)] = _named(f"names[{number}]", _text(value))
    return classes


def _text(node: yaml.Node) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _named(where: str, value: str | None) -> str:
    try:
        return category_name(value)
    except Unfit as error:
        raise Unfit(f"{where}: {error}") from error
