"""Build the rules of contract documents as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_osai.learning.values import Steps

__all__ = ["header_name", "objects_in", "put"]


def put(rules: dict[str, Any], our: str, rule: Any) -> None:
    """Add a rule unless it says nothing."""
    if isinstance(rule, dict) and set(rule) == {"name"}:
        rule = rule["name"]
    if rule not in ({}, our, None):
        rules[our] = rule


def objects_in(document: Any, steps: Steps = (), depth: int = 5) -> Iterator[tuple[Steps, Any]]:
    """Yield the objects and lists in a document with their steps, outermost first; not those in lists."""
    if isinstance(document, (dict, list)):
        yield steps, document
    if isinstance(document, dict) and depth:
        for name, value in document.items():
            yield from objects_in(value, (*steps, str(name)), depth - 1)


def header_name(name: str) -> str:
    """Return a header's name as it is usually written, such as ``X-Api-Key``."""
    return "-".join(part.capitalize() for part in name.split("-"))
