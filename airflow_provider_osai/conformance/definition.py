"""An API's definition (OpenAPI 3 or Swagger 2) as a list of operations; what is wrong in it is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from airflow_provider_osai.api.errors import OsaiContractError

__all__ = ["LARGEST", "Operation", "read_definition"]

LARGEST: Final = 32 * 2**20
"""Bytes that a definition may have."""
VERBS: Final = frozenset({"get", "put", "post", "delete", "patch"})
DEEPEST: Final = 8
"""Levels of objects in objects that are looked into; definitions may refer to themselves."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an API.

    :param method: the HTTP verb, in capitals.
    :param path: from the server's root, without a slash at the end.
    :param sends: all fields that it takes, dotted where they lie in objects; without those of the path.
    :param needs: those that it insists on.
    :param answers: all fields of its answer, dotted; of a list, those of an item. ``None``: it does not say.
    """

    method: str
    path: str
    sends: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    answers: frozenset[str] | None = None


def read_definition(text: bytes) -> list[Operation]:
    """Return the operations of a definition in JSON or YAML.

    :raises OsaiContractError: if it is none.
    """
    if len(text) > LARGEST:
        raise OsaiContractError(f"the definition is larger than {LARGEST // 2**20} MiB")
    document = _parsed(text)
    paths = document.get("paths") if isinstance(document, dict) else None
    if not isinstance(paths, dict):
        raise OsaiContractError("that is no API definition: it has no 'paths' (OpenAPI 3 or Swagger 2 is needed)")
    reader = _Reader(document)
    found = [reader.operation(path, verb, item) for path, verb, item in _items(paths)]
    if not found:
        raise OsaiContractError("the API definition has no operation")
    return found


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise OsaiContractError("that is no API definition: neither JSON nor YAML") from None


def _items(paths: Mapping[Any, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in paths.items():
        if isinstance(path, str) and isinstance(item, dict):
            shared = item.get("parameters")
            for verb, operation in item.items():
                if str(verb).lower() in VERBS and isinstance(operation, dict):
                    own = _list(operation.get("parameters"))
                    yield path, str(verb).lower(), {**operation, "parameters": [*_list(shared), *own]}


class _Reader:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        servers = _list(document.get("servers"))
        url = servers[0].get("url") if servers and isinstance(servers[0], dict) else document.get("basePath")
        self._base = urlsplit(url).path.rstrip("/") if isinstance(url, str) else ""

    def operation(self, path: str, verb: str, item: Mapping[str, Any]) -> Operation:
        sends: set[str] = set()
        needs: set[str] = set()
        for given in map(self._resolved, _list(item.get("parameters"))):
            name, where = given.get("name"), given.get("in")
            if where == "body":
                self._add_fields(given.get("schema"), sends, needs)
            elif isinstance(name, str) and where in ("query", "formData"):
                sends.add(name)
                needs |= {name} if given.get("required") is True else set()
        for content in self._contents(item.get("requestBody")):
            self._add_fields(content, sends, needs)
        return Operation(
            verb.upper(), self._base + path.rstrip("/"), frozenset(sends), frozenset(needs), self._answers(item)
        )

    def _answers(self, item: Mapping[str, Any]) -> frozenset[str] | None:
        responses = item.get("responses")
        if not isinstance(responses, dict):
            return None
        for status, response in responses.items():
            if str(status) in ("200", "201", "202", "2XX", "default"):
                told = self._resolved(response)
                for schema in [*self._contents(told), told.get("schema")]:
                    fields = set(self._fields(schema))
                    if fields:
                        return frozenset(fields)
        return None

    def _contents(self, body: Any) -> list[Any]:
        content = self._resolved(body).get("content")
        return (
            [one.get("schema") for one in content.values() if isinstance(one, dict)]
            if isinstance(content, dict)
            else []
        )

    def _add_fields(self, schema: Any, sends: set[str], needs: set[str]) -> None:
        sends |= set(self._fields(schema))
        required = self._resolved(schema).get("required")
        needs |= {name for name in _list(required) if isinstance(name, str)}

    def _fields(self, schema: Any, depth: int = 0) -> Iterator[str]:
        """Yield the names of an object's fields, dotted, and of the items if it is a list."""
        if depth > DEEPEST:
            return
        found = self._resolved(schema)
        for part in ("allOf", "anyOf", "oneOf"):
            for one in _list(found.get(part)):
                yield from self._fields(one, depth + 1)
        if "items" in found:
            yield from self._fields(found["items"], depth + 1)
        properties = found.get("properties")
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            yield str(name)
            for below in self._fields(inner, depth + 1):
                yield f"{name}.{below}"

    def _resolved(self, part: Any) -> dict[str, Any]:
        """Return an object, or what its reference leads to in this document; what leads nowhere is empty."""
        for _ in range(DEEPEST):
            if not isinstance(part, dict):
                return {}
            target = part.get("$ref")
            if not isinstance(target, str):
                return part
            part = self._document
            for step in target.removeprefix("#/").split("/") if target.startswith("#/") else ("",):
                part = part.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(part, dict) else None
        return {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
