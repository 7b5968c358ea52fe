"""The sandbox's OpenAPI definition: operations derived from the contract's rows and models."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from airflow_provider_osai.api.contract import ACCESS_TOKEN, Endpoint
from airflow_provider_osai.api.field_rules import EVERY, FieldRule, PairsShape
from airflow_provider_osai.api.json_paths import EACH, JsonPath, json_path

__all__ = ["describe", "wire_placeholder"]

Schema = dict[str, Any]

LOCAL_FIELDS = frozenset({"kind", "state"})
"""Fields of jobs and conversions that are not on the wire: the call implies the kind, the contract maps the state."""
REQUIRED = frozenset({"file", "datasetId", "datasetUploadId", "id"})
"""Required fields that are not part of a request model."""
CONTENT_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data",
}
JSON_TYPES: Mapping[str, Schema] = {"text": {"type": "string"}, "number": {"type": "number"}, "parsed": {}}
NON_JSON_RESPONSES: Mapping[str, str] = {"auth.sign_in": "text/plain", "model.download": "application/octet-stream"}
"""Endpoints whose response is not JSON, with its content type."""


def describe(endpoint: Endpoint) -> Schema:
    """Return the OpenAPI operation of one endpoint, with the names of its contract."""
    operation: Schema = {
        "operationId": endpoint.name,
        "tags": [endpoint.name.partition(".")[0]],
        "description": f"Evidence: {endpoint.evidence}",
        "parameters": _parameters(endpoint),
        "responses": {"200": {"description": "Success", "content": _response_content(endpoint)}, **_error_responses()},
    }
    body = _body(endpoint)
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _parameters(endpoint: Endpoint) -> list[Schema]:
    in_path = [
        {"name": wire_placeholder(name), "in": "path", "required": True, "schema": {"type": "string"}}
        for name in endpoint.placeholders
    ]
    fields = _fields(endpoint)
    others = []
    for name, rule, place in _placed_fields(endpoint, fields):
        if place not in ("query", "header"):
            continue
        path = _path_of(name, rule)
        schema = _wire_schema(fields["properties"].get(name, {}), rule)
        required = name in fields["required"]
        others.append({"name": path.text, "in": place, "required": required, "schema": schema})
    constants = [("query", name, value) for name, value in endpoint.rules.query.items()]
    constants += [("header", name, value) for name, value in endpoint.rules.headers.items()]
    fixed = [
        {"name": name, "in": place, "required": True, "schema": {"type": "string", "enum": [_text(value)]}}
        for place, name, value in constants
    ]
    return [*in_path, *others, *fixed]


def wire_placeholder(name: str) -> str:
    """Return a placeholder's name in the sandbox's routes, where it is an identifier."""
    return name.replace(".", "_part_")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _path_of(name: str, rule: FieldRule | None) -> JsonPath:
    return rule.paths[0] if rule is not None and rule.paths else json_path(name)


def _placed_fields(endpoint: Endpoint, fields: Schema) -> list[tuple[str, FieldRule | None, str]]:
    """Return our name, the rule and the place of each field that is not (only) in the path."""
    rules = endpoint.rules.request
    plain = [name for name in fields["properties"] if name not in rules and name not in endpoint.path_fields]
    placed: list[tuple[str, FieldRule | None, str]] = [(name, None, endpoint.place_of(name)) for name in plain]
    placed += [
        (name, rule, rule.place or endpoint.place_of(name.partition(".")[0]))
        for name, each in rules.items()
        for rule in (each if isinstance(each, tuple) else (each,))
        if rule is not None
    ]
    return [(name, rule, place) for name, rule, place in placed if place != "path"]


def _body(endpoint: Endpoint) -> Schema:
    fields = _fields(endpoint)
    if endpoint.name == "auth.sign_in":
        token = {"type": "string", "description": "the access token"}
        if ACCESS_TOKEN not in endpoint.rules.request:
            return {"application/json": {"schema": token}}
        fields = {"properties": {ACCESS_TOKEN: token}, "required": [ACCESS_TOKEN]}
    schema: Schema = {"type": "object", "properties": {}, "required": []}
    for name, rule, place in _placed_fields(endpoint, fields):
        if place == "body":
            value = _wire_schema(fields["properties"].get(name, {}), rule)
            schema = _put_field(schema, name, rule, value, required=name in fields["required"])
    for name, constant in endpoint.rules.body.items():
        schema = _put_schema(schema, json_path(name), {"enum": [constant]}, required=True)
    if not schema.get("properties") and schema.get("type") == "object":
        return {}
    default = "multipart" if "file" in endpoint.extra_fields else "json"
    return {CONTENT_TYPES[endpoint.rules.encoding or default]: {"schema": schema}}


def _put_field(schema: Schema, name: str, rule: FieldRule | None, value: Schema, *, required: bool) -> Schema:
    """Return *schema* with the schema of a field's value in each of its places."""
    paths = rule.paths if rule is not None and rule.paths else (json_path(name),)
    for path in paths:
        if path.steps == () and value.get("type") == "object":  # its keys are keys of the body
            schema = {**schema, "additionalProperties": True}
        elif path.steps is None and path.first is not None:
            schema = _put_schema(schema, json_path(path.text.partition(EACH)[0]), {"type": "array"}, required=required)
        else:
            schema = _put_schema(schema, path, value if len(paths) == 1 else {}, required=required)
    return schema


def _put_schema(schema: Schema, path: JsonPath, value: Schema, *, required: bool) -> Schema:
    """Return *schema* with the schema of what is at a path; lists are not described further than their items."""
    steps = list(path.steps or ())
    if not steps:
        return value
    result = copy.deepcopy(schema)
    node = result
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        if isinstance(step, int):
            node["type"] = "array"
            node.pop("properties", None)
            node.pop("required", None)
            node = node.setdefault("items", {})
        else:
            node.setdefault("type", "object")
            if required and step not in node.setdefault("required", []):
                node["required"].append(step)
            node = node.setdefault("properties", {}).setdefault(step, {})
        if is_last:
            node.clear()
            node.update(value)
    return result


def _wire_schema(schema: Schema, rule: FieldRule | None) -> Schema:
    """Return the schema of a field's value on the wire."""
    if rule is None:
        return schema
    inner = schema
    for _ in range(2):
        inner = next((each for each in inner.get("anyOf", ()) if each.get("type") != "null"), inner)
    items = inner.get("items", {}) if inner.get("type") == "array" else None
    one = _one_schema(inner if items is None else items, rule)
    if rule.shape in ("csv", "json"):
        return {"type": "string"}
    if rule.shape == "pairs" or isinstance(rule.shape, PairsShape):
        pair = {"type": "array"} if rule.shape == "pairs" else {"type": "object", "required": [rule.shape.key]}
        return {"type": "array", "items": pair}
    if rule.keyed_by is not None:
        return {"type": "array", "items": {"type": "object"}} if rule.shape == "list" else {"type": "object"}
    if rule.shape == "list" or (items is not None and rule.shape != "one"):
        return {"type": "array", "items": one}
    nullable = inner is not schema and "null" in str(schema.get("anyOf"))
    return {"anyOf": [one, {"type": "null"}]} if nullable else one


def _one_schema(schema: Schema, rule: FieldRule) -> Schema:
    if rule.values is not None:
        return {"enum": list(rule.values.values())}
    if rule.items is not None:
        result: Schema = {"type": "object", "properties": dict(schema.get("properties", {}))}
        for name, each in rule.items.items():
            if name == EVERY:
                result["additionalProperties"] = True
                continue
            value = result["properties"].pop(name, {})
            result = _put_schema(result, _path_of(name, each), _wire_schema(value, each), required=False)
        return result
    if rule.unit in ("iso8601", "timespan"):
        return {"type": "string"}
    if rule.unit is not None or rule.scale is not None:
        return {"type": "number"}
    return dict(JSON_TYPES[rule.type]) if rule.type is not None else schema


def _fields(endpoint: Endpoint) -> Schema:
    """Return the schema of all request fields, under our names."""
    schema = _schema_of(endpoint.request) if endpoint.request else {}
    properties, required = dict(schema.get("properties", {})), set(schema.get("required", ()))
    for name in sorted(endpoint.sent_fields - properties.keys()):
        properties[name] = {"type": "string", **({"format": "binary"} if name == "file" else {})}
        if name in REQUIRED:
            required.add(name)
    return {"type": "object", "properties": properties, "required": sorted(required)}


def _response_content(endpoint: Endpoint) -> Schema:
    if endpoint.name in NON_JSON_RESPONSES:
        binary = {"format": "binary"} if endpoint.name == "model.download" else {}
        return {NON_JSON_RESPONSES[endpoint.name]: {"schema": {"type": "string", **binary}}}
    if endpoint.response_model is None:
        return {"application/json": {"schema": {"type": "object"}}}
    if endpoint.rules.answer == "text":
        return {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.rules.answer == "none":
        return {}
    schema = _response_schema(endpoint, endpoint.response_model)
    if endpoint.is_list or endpoint.rules.pick:
        schema = {"type": "array", "items": schema}
        at = endpoint.rules.response.get("items")
        if at is not None:
            schema = _put_schema({"type": "object"}, _path_of("items", at), schema, required=True)
    if endpoint.rules.envelope is not None:
        schema = _put_schema({"type": "object"}, json_path(endpoint.rules.envelope), schema, required=True)
    for name, value in endpoint.rules.constants.items():
        schema = _put_schema(schema, json_path(name), {"enum": [value]}, required=True)
    return {"application/json": {"schema": schema}}


def _response_schema(endpoint: Endpoint, model: type[BaseModel]) -> Schema:
    """Return the schema of one object in the response."""
    full = _schema_of(model)
    without = LOCAL_FIELDS if "state" in full["properties"] else frozenset()
    required = set(full.get("required", ()))
    rules = endpoint.rules.response
    schema: Schema = {"type": "object", "properties": {}, "required": []}
    for name, value in full["properties"].items():
        if name not in rules and name not in without:
            schema = _put_schema(schema, json_path(name), value, required=name in required)
    for name, rule in rules.items():
        if rule is None or name == "items" or rule.place == "header":
            continue
        value = full["properties"].get(name, {})
        for path in rule.paths:
            if path.steps is not None:
                is_required = name in required and len(rule.paths) == 1
                schema = _put_schema(schema, path, _wire_schema(value, rule), required=is_required)
    return schema


def _error_responses() -> Schema:
    message = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    content = {"content": {"application/json": {"schema": message}}}
    reasons = {"400": "Bad request", "401": "Not signed in", "404": "Not found", "409": "Conflict"}
    return {status: {"description": reason, **copy.deepcopy(content)} for status, reason in reasons.items()}


def _schema_of(model: type[BaseModel]) -> Schema:
    return copy.deepcopy(_inlined(model))


@cache
def _inlined(model: type[BaseModel]) -> Schema:
    """Return a model's schema with all references inlined, so that it is valid anywhere in a document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                target = definitions[node["$ref"].rpartition("/")[2]]
                return inline({**target, **{key: value for key, value in node.items() if key != "$ref"}})
            if "discriminator" in node:  # its mapping has references to the inlined definitions
                node = {**node, "discriminator": {"propertyName": node["discriminator"]["propertyName"]}}
            return {key: inline(value) for key, value in node.items() if key != "title" or isinstance(value, dict)}
        return [inline(item) for item in node] if isinstance(node, list) else node

    result: Schema = inline(schema)
    return result
