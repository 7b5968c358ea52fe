"""The sandbox's own API definition: each operation of OpenAPI derived from the contract's row and models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from airflow_provider_osai.api.contract import Endpoint

__all__ = ["describe"]

Schema = dict[str, Any]

OURS = frozenset({"kind", "state"})
"""Fields of jobs and conversions that never travel: the call knows the kind, the contract has the state."""
REQUIRED = frozenset({"file", "datasetId", "datasetUploadId", "id"})
"""Fields outside of request models that cannot be left out."""
WITHOUT_JSON: Mapping[str, str] = {"auth.sign_in": "text/plain", "model.download": "application/octet-stream"}
"""Operations whose answer is no JSON, with what it is."""


def describe(endpoint: Endpoint) -> Schema:
    """Return the OpenAPI operation of one endpoint, in the words of its contract."""
    operation: Schema = {
        "operationId": endpoint.name,
        "tags": [endpoint.name.partition(".")[0]],
        "description": f"Known from: {endpoint.evidence}",
        "parameters": _parameters(endpoint),
        "responses": {"200": {"description": "Success", "content": _answer(endpoint)}, **_refusals()},
    }
    body = _body(endpoint)
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _in_query(endpoint: Endpoint) -> frozenset[str]:
    if endpoint.method in ("GET", "DELETE"):
        return endpoint.sent_fields - {*endpoint.placeholders}
    return frozenset(endpoint.query) - {*endpoint.placeholders}


def _parameters(endpoint: Endpoint) -> list[Schema]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in endpoint.placeholders
    ]
    fields = _fields(endpoint)
    in_query = [
        {
            "name": endpoint.request_names.get(name, name),
            "in": "query",
            "required": name in fields["required"],
            "schema": fields["properties"][name],
        }
        for name in sorted(_in_query(endpoint))
    ]
    return [*in_path, *in_query]


def _body(endpoint: Endpoint) -> Schema:
    if endpoint.name == "auth.sign_in":
        return {"application/json": {"schema": {"type": "string", "description": "the access token"}}}
    elsewhere = {*endpoint.placeholders, *_in_query(endpoint)}
    schema = _renamed(_fields(endpoint), endpoint.request_names, without=frozenset(elsewhere))
    if not schema["properties"]:
        return {}
    return {"multipart/form-data" if "file" in endpoint.also else "application/json": {"schema": schema}}


def _fields(endpoint: Endpoint) -> Schema:
    """Return the schema of everything that is sent, under our names."""
    schema = _schema_of(endpoint.request) if endpoint.request else {}
    properties, required = dict(schema.get("properties", {})), set(schema.get("required", ()))
    for name in sorted(endpoint.sent_fields - properties.keys()):
        properties[name] = {"type": "string", **({"format": "binary"} if name == "file" else {})}
        if name in REQUIRED:
            required.add(name)
    return {"type": "object", "properties": properties, "required": sorted(required)}


def _answer(endpoint: Endpoint) -> Schema:
    if endpoint.name in WITHOUT_JSON:
        binary = {"format": "binary"} if endpoint.name == "model.download" else {}
        return {WITHOUT_JSON[endpoint.name]: {"schema": {"type": "string", **binary}}}
    if endpoint.answer is None:
        return {"application/json": {"schema": {"type": "object"}}}
    names = dict(endpoint.response_names)
    where = names.pop("items", None)
    model = _schema_of(endpoint.answer)
    schema = _renamed(model, names, without=OURS if "state" in model["properties"] else frozenset())
    if endpoint.many:
        schema = {"type": "array", "items": schema}
        if where:
            schema = _renamed({"properties": {"items": schema}, "required": ["items"]}, {"items": where})
    return {"application/json": {"schema": schema}}


def _refusals() -> Schema:
    message = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    refusal = {"content": {"application/json": {"schema": message}}}
    reasons = {"400": "A bad request", "401": "Not signed in", "404": "No such thing", "409": "A conflict"}
    return {status: {"description": reason, **copy.deepcopy(refusal)} for status, reason in reasons.items()}


def _renamed(schema: Schema, names: Mapping[str, str], *, without: frozenset[str] = frozenset()) -> Schema:
    """Return an object's schema with its fields renamed; dotted names become objects in objects."""
    result: Schema = {"type": "object", "properties": {}, "required": []}
    for name, value in schema.get("properties", {}).items():
        if name not in without:
            _place(result, names.get(name, name).split("."), value, name in schema.get("required", ()))
    for dotted, new in names.items():
        outer, _, inner = dotted.partition(".")
        if inner and outer in schema.get("properties", {}):
            _place(result, new.split("."), {}, required=False)
    return result


def _place(schema: Schema, parts: list[str], value: Schema, required: bool) -> None:
    first, *rest = parts
    if required and first not in schema["required"]:
        schema["required"].append(first)
    if not rest:
        schema["properties"][first] = value
        return
    inner = schema["properties"].get(first)
    if not inner or "properties" not in inner:
        inner = schema["properties"][first] = {"type": "object", "properties": {}}
    inner.setdefault("required", [])
    _place(inner, rest, value, required)


def _schema_of(model: type[BaseModel]) -> Schema:
    return copy.deepcopy(_inlined(model))


@cache
def _inlined(model: type[BaseModel]) -> Schema:
    """Return a model's schema without references, so that it can stand anywhere in a document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                target = definitions[part["$ref"].rpartition("/")[2]]
                return resolved({**target, **{key: value for key, value in part.items() if key != "$ref"}})
            if "discriminator" in part:  # its mapping would refer to what is inlined
                part = {**part, "discriminator": {"propertyName": part["discriminator"]["propertyName"]}}
            return {key: resolved(value) for key, value in part.items() if key != "title" or isinstance(value, dict)}
        return [resolved(item) for item in part] if isinstance(part, list) else part

    result: Schema = resolved(schema)
    return result
