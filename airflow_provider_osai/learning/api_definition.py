"""Parse an API definition (OpenAPI 3 or Swagger 2) into a list of operations. Malformed parts of it are skipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from airflow_provider_osai.api.errors import OsaiContractError

__all__ = ["MAX_BYTES", "ApiOperation", "parse_definition"]

MAX_BYTES: Final = 32 * 2**20
"""Maximum size of a definition."""
METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})
MAX_LIST_DEPTH: Final = 3
"""Maximum depth of the list in a response."""
MAX_DEPTH: Final = 8
"""Maximum depth of nested objects; definitions may be recursive."""


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One operation of an API.

    :param method: the HTTP method, in capitals.
    :param path: from the server's root, without a trailing slash.
    :param sends: all fields that it accepts, without those in the path; fields of nested objects are dotted.
    :param needs: the required ones among these.
    :param returns: all fields of its response, dotted; for a list, those of an item. ``None`` if undefined.
    :param list_at: where the outermost list of objects is in the response; empty if it is the response.
    """

    method: str
    path: str
    sends: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    returns: frozenset[str] | None = None
    list_at: str | None = None


def parse_definition(text: bytes) -> list[ApiOperation]:
    """Return the operations of a definition in JSON or YAML.

    :raises OsaiContractError: if *text* is not an API definition, or is larger than 32 MiB.
    """
    if len(text) > MAX_BYTES:
        raise OsaiContractError(f"The API definition is larger than {MAX_BYTES // 2**20} MiB")
    document = _parse(text)
    paths = document.get("paths") if isinstance(document, dict) else None
    if not isinstance(paths, dict):
        raise OsaiContractError("Not an API definition: it has no 'paths'. OpenAPI 3 or Swagger 2 is needed")
    parser = _OperationParser(document)
    operations = [parser.operation(path, method, item) for path, method, item in _items(paths)]
    if not operations:
        raise OsaiContractError("The API definition has no operations")
    return operations


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise OsaiContractError(
            "Not an API definition: neither JSON nor YAML. OpenAPI 3 or Swagger 2 is needed"
        ) from None


def _items(paths: Mapping[Any, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation of each operation.

    :raises OsaiContractError: if the path of one cannot be that of a request.
    """
    for path, item in paths.items():
        if isinstance(path, str) and isinstance(item, dict) and not path.startswith("x-"):
            shared = item.get("parameters")
            for key, operation in item.items():
                method = str(key).lower()
                if method in METHODS and isinstance(operation, dict):
                    if not re.fullmatch(r"/[^?#\s]*", path):
                        msg = f"Invalid path {path[:100]!r} in an API definition: paths start with '/', without query"
                        raise OsaiContractError(msg)
                    own = _list(operation.get("parameters"))
                    yield path, method, {**operation, "parameters": [*_list(shared), *own]}


class _OperationParser:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        servers = _list(document.get("servers"))
        url = servers[0].get("url") if servers and isinstance(servers[0], dict) else document.get("basePath")
        self._base = urlsplit(url).path.rstrip("/") if isinstance(url, str) else ""

    def operation(self, path: str, method: str, item: Mapping[str, Any]) -> ApiOperation:
        sends: set[str] = set()
        needs: set[str] = set()
        for parameter in map(self._resolve, _list(item.get("parameters"))):
            name, location = parameter.get("name"), parameter.get("in")
            if location == "body":
                self._add_fields(parameter.get("schema"), sends, needs)
            elif isinstance(name, str) and location in ("query", "formData"):
                sends.add(name)
                needs |= {name} if parameter.get("required") is True else set()
        for schema in self._content_schemas(item.get("requestBody")):
            self._add_fields(schema, sends, needs)
        return ApiOperation(
            method=method.upper(),
            path=self._base + path.rstrip("/"),
            sends=frozenset(sends),
            needs=frozenset(needs),
            returns=self._response_fields(item),
            list_at=self._list_in_response(item),
        )

    def _response_fields(self, item: Mapping[str, Any]) -> frozenset[str] | None:
        for schema in self._response_schemas(item):
            if fields := set(self._fields(schema)):
                return frozenset(fields)
        return None

    def _list_in_response(self, item: Mapping[str, Any]) -> str | None:
        return next(
            (at for schema in self._response_schemas(item) if (at := self._list_at(schema, "", 0)) is not None), None
        )

    def _list_at(self, schema: Any, path: str, depth: int) -> str | None:
        resolved = self._resolve(schema)
        if "items" in resolved and any(True for _ in self._fields(resolved["items"])):
            return path
        properties = resolved.get("properties")
        if depth == MAX_LIST_DEPTH or not isinstance(properties, dict):
            return None
        inner = (self._list_at(each, f"{path}.{name}".lstrip("."), depth + 1) for name, each in properties.items())
        return next((at for at in inner if at is not None), None)

    def _response_schemas(self, item: Mapping[str, Any]) -> Iterator[Any]:
        responses = item.get("responses")
        for status, response in responses.items() if isinstance(responses, dict) else ():
            if str(status) in ("200", "201", "202", "2XX", "default"):
                resolved = self._resolve(response)
                yield from (*self._content_schemas(resolved), resolved.get("schema"))

    def _content_schemas(self, body: Any) -> list[Any]:
        content = self._resolve(body).get("content")
        media_types = content.values() if isinstance(content, dict) else ()
        return [media_type.get("schema") for media_type in media_types if isinstance(media_type, dict)]

    def _add_fields(self, schema: Any, sends: set[str], needs: set[str]) -> None:
        sends |= set(self._fields(schema))
        required = self._resolve(schema).get("required")
        needs |= {name for name in _list(required) if isinstance(name, str)}

    def _fields(self, schema: Any, depth: int = 0) -> Iterator[str]:
        """Yield the dotted names of an object's fields; for a list, those of its items."""
        if depth > MAX_DEPTH:
            return
        resolved = self._resolve(schema)
        for key in ("allOf", "anyOf", "oneOf"):
            for subschema in _list(resolved.get(key)):
                yield from self._fields(subschema, depth + 1)
        if "items" in resolved:
            yield from self._fields(resolved["items"], depth + 1)
        properties = resolved.get("properties")
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            yield str(name)
            for nested in self._fields(inner, depth + 1):
                yield f"{name}.{nested}"

    def _resolve(self, node: Any) -> dict[str, Any]:
        """Return an object with its ``$ref`` into this document followed; ``{}`` if the reference is broken."""
        for _ in range(MAX_DEPTH):
            if not isinstance(node, dict):
                return {}
            target = node.get("$ref")
            if not isinstance(target, str):
                return node
            node = self._document
            for key in target.removeprefix("#/").split("/") if target.startswith("#/") else ("",):
                node = node.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        return {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
