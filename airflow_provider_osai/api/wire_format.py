"""Convert requests and responses between our names and those of an API, by the rules of a contract document.

The client uses :func:`encode_request` and :func:`decode_response`, the sandbox their inverses
:func:`decode_request` and :func:`encode_response`. An operation without rules does not come here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiContractError,
    OsaiRequestError,
    sanitize_server_text,
)
from airflow_provider_osai.api.joined_ids import join_parts, json_word, split_parts
from airflow_provider_osai.api.json_paths import ABSENT, JsonPath, get_value, json_path, put_value

if TYPE_CHECKING:
    from airflow_provider_osai.api.contract import Endpoint
    from airflow_provider_osai.api.contract_rules import Reading
    from airflow_provider_osai.api.field_rules import FieldRule, Place

__all__ = [
    "EncodedResponse",
    "WireRequest",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "file_address",
    "path_field",
    "response_items",
    "response_paths",
    "unreadable_fields",
    "unwrapped",
]

log = logging.getLogger(__name__)

ESSENTIAL: Final = frozenset({"id", "status"})
"""Fields without which an object cannot be used: an unreadable value is an error, and not only a warning."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request with the API's names, as sent on the wire."""

    method: str
    path: str
    query: dict[str, Any]
    fields: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A response with the API's names: its JSON document (or text) and headers."""

    document: Any
    headers: dict[str, str] = field(default_factory=dict)


def path_field(placeholder: str) -> tuple[str, int | None]:
    """Return the field of a placeholder, and which part of it: ``id.2`` is the second part of the id."""
    name, _, part = placeholder.partition(".")
    return name, int(part) if part else None


class _Encoder:
    """The parts of one request, as they are put together."""

    def __init__(self, endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
        self._endpoint = endpoint
        self._rest: Any = {name: value for name, value in fields.items() if value is not None}
        self._query: dict[str, Any] = {}
        self._headers: dict[str, str] = dict(endpoint.rules.headers)
        self._body: Any = {}
        self._path: dict[str, Any] = {name: self._rest.get(name) for name in endpoint.path_fields}

    def apply_rules(self) -> None:
        """Put each field that has a rule into its places."""
        for name, rules in self._endpoint.rules.request.items():
            steps = tuple(name.split("."))
            value = get_value(self._rest, steps)
            is_given = value is not ABSENT and value is not None
            if is_given and rules is None and name in self._endpoint.users_choices:
                msg = (
                    f"{self._endpoint.name}: {name} is given, and the contract does not send it (null). Leave it out, "
                    f"or give it a place in 'request.{name}' of {self._endpoint.name!r}"
                )
                raise OsaiArgumentError(msg)
            if is_given and steps[0] not in self._endpoint.path_fields:
                self._rest = _without(self._rest, steps)
            for rule in _each(rules):
                if is_given:
                    self._convert(name, rule, value)
                elif rule.default is not None:
                    self._place(name, rule, rule.path(name), rule.default)

    def _convert(self, name: str, rule: FieldRule, value: Any) -> None:
        operation = self._endpoint.name
        try:
            for path, converted in rule.places(name, rule.to_api(value)):
                self._place(name, rule, path, rule.embed(converted))
        except (ValueError, TypeError) as error:
            msg = f"{operation}: {name} = {str(value)[:100]!r}: {error}. Change 'request.{name}' of {operation!r}"
            raise OsaiArgumentError(msg) from None

    def _place(self, name: str, rule: FieldRule, path: JsonPath, converted: Any) -> None:
        base = name.partition(".")[0]
        place = rule.place or self._endpoint.place_of(base)
        if place == "path":
            self._path[base] = converted
        elif place == "query":
            self._query[path.text] = converted
        elif place == "header":
            self._headers[path.text] = _header(self._endpoint.name, name, converted)
        elif rule.write is not None:
            self._body = _merge(self._body, rule.fill_template(converted))
        elif path.steps == () and isinstance(converted, Mapping):
            self._body = {**self._body, **converted}
        else:
            self._body = path.put(self._body, converted)

    def add_others(self) -> None:
        """Put each other field into its default place, under its own name."""
        for name, value in self._rest.items():
            place = self._endpoint.place_of(name)
            if place == "query":
                self._query[name] = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            elif place == "body":
                self._body = put_value(self._body, (name,), value)

    def request(self, segment: Callable[[Any], str]) -> WireRequest:
        """Return the request, with the contract's constants."""
        endpoint = self._endpoint
        path = endpoint.path
        for placeholder in endpoint.placeholders:
            name, part = path_field(placeholder)
            value = self._path.get(name)
            text = segment(value if part is None else _part(endpoint.name, name, value, part))
            path = path.replace(f"{{{placeholder}}}", text)
        query = {name: value if isinstance(value, list) else _text(value) for name, value in self._query.items()}
        query |= {name: _text(value) for name, value in endpoint.rules.query.items()}
        body = self._body
        for name, value in endpoint.rules.body.items():
            path_in_body = json_path(name)
            sent = path_in_body.get(body)
            both = isinstance(value, Mapping) and isinstance(sent, Mapping)
            body = path_in_body.put(body, _merge(value, sent) if both else value)
        return WireRequest(endpoint.method, path, query, body, self._headers)


def encode_request(endpoint: Endpoint, fields: Mapping[str, Any], segment: Callable[[Any], str]) -> WireRequest:
    """Return the request for *fields*, by our names.

    :param segment: converts an id to a path segment.
    :raises OsaiArgumentError: if the contract has no form for a value.
    """
    encoder = _Encoder(endpoint, fields)
    encoder.apply_rules()
    encoder.add_others()
    return encoder.request(segment)


@dataclass(frozen=True, slots=True)
class _Wire:
    """A request as the sandbox received it."""

    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    rest: Any
    """What is in the body besides the named fields."""

    def value(self, name: str, rule: FieldRule, place: Place) -> Any:
        """Return the value of a field in a place; :data:`ABSENT` if it is not there."""
        if rule.parts is not None:
            parts = [self._at(path, name, rule, place) for path in rule.paths]
            return ABSENT if ABSENT in parts else join_parts(parts)
        value = self._at(rule.path(name), name, rule, place)
        if rule.is_none(value):
            return ABSENT
        return rule.extract(value) if rule.match or place == "header" else value

    def _at(self, path: JsonPath, name: str, rule: FieldRule, place: Place) -> Any:
        if place == "path":
            return self.path.get(name.partition(".")[0], ABSENT)
        if place == "query":
            return _query_value(self.query.get(path.text), rule)
        if place == "header":
            return self.headers.get(path.text.lower(), ABSENT)
        return self.rest if path.steps == () else path.get(self.body)


def decode_request(
    endpoint: Endpoint,
    path: Mapping[str, str],
    query: Mapping[str, list[str]],
    headers: Mapping[str, str],
    body: Any,
) -> tuple[dict[str, Any], set[str]]:
    """Return the fields of a request by our names, and the names in its body that the contract does not have.

    :raises ValueError: if a value does not have the contract's form, or a constant another value.
    """
    for name, value in endpoint.rules.body.items():
        if not _has(json_path(name).get(body), value):
            raise ValueError(f"{name}: must be {value!r}")
    renamed = {name for name in endpoint.rules.request if "." not in name}
    content = body if isinstance(body, Mapping) else {}
    in_rules = _names_in_body(endpoint)
    unknown = set(content) - (endpoint.placeable_fields - renamed) - in_rules
    rest = {name: content[name] for name in content if name in unknown} if content else body
    wire = _Wire(_joined(path), query, headers, body, rest)
    fields: Any = {}
    for name, rules in endpoint.rules.request.items():
        base = name.partition(".")[0]
        for rule in _each(rules):
            value = wire.value(name, rule, rule.place or endpoint.place_of(base))
            if value is not ABSENT and value is not None:
                fields = put_value(fields, tuple(name.split(".")), rule.from_api(value))
                break
    defaulted = {name for name, rules in endpoint.rules.request.items() if _has_default(rules)}
    for name in wire.path.keys() - fields.keys() - defaulted:
        fields[name] = wire.path[name]
    for name in endpoint.placeable_fields - renamed - set(fields):
        if endpoint.place_of(name) == "query" and name in query:
            fields[name] = query[name][-1]
        elif endpoint.place_of(name) == "body" and name in content and name not in in_rules:
            fields[name] = content[name]
    return fields, set() if _takes_rest(endpoint) else unknown


def _names_in_body(endpoint: Endpoint) -> set[str]:
    """Return the top-level names in the body that rules of the request have."""
    paths = [json_path(name) for name in endpoint.rules.body]
    for name, rules in endpoint.rules.request.items():
        for rule in _each(rules):
            paths += rule.paths or [json_path(name)]
            paths += [json_path(key) for key in rule.write] if isinstance(rule.write, Mapping) else []
    return {str(path.first) for path in paths if path.first is not None}


def _takes_rest(endpoint: Endpoint) -> bool:
    """Return whether a field of the request is an object whose keys are keys of the body."""
    rules = [rule for each in endpoint.rules.request.values() for rule in _each(each)]
    return any(path.steps == () for rule in rules for path in rule.paths)


def _has(value: Any, constant: Any) -> bool:
    """Return whether a value is the constant, or an object that has all of it."""
    if isinstance(value, Mapping) and isinstance(constant, Mapping):
        return all(_has(value.get(name, ABSENT), each) for name, each in constant.items())
    return bool(value == constant)


def decode_response(
    endpoint: Endpoint, document: Any, headers: Mapping[str, str], sent: Mapping[str, Any], *, is_all: bool = False
) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the response's fields by our names; for a list endpoint, a list.

    :param sent: the fields of the request, for what the response leaves out.
    :param is_all: whether *document* is the list of the items of all pages.
    :raises OsaiContractError: if the response does not have the contract's form.
    :raises OsaiRequestError: if the object that was asked for is not in the list that it is picked from.
    """
    if not (endpoint.is_list or endpoint.rules.pick):
        return _decode_one(endpoint, unwrapped(endpoint, document), headers, sent)
    items = document if is_all else response_items(endpoint, document)
    decoded = [_decode_one(endpoint, item, headers, sent) for item in items]
    return _pick(endpoint, decoded, sent) if endpoint.rules.pick else decoded


def response_items(endpoint: Endpoint, document: Any) -> list[Any]:
    """Return the items of a list in a response, as the API has them."""
    root = unwrapped(endpoint, document)
    at = _items_name(endpoint)
    items = root if isinstance(root, list) else json_path(at).get(root)
    if (rule := endpoint.rules.response.get("items")) is not None and items is not ABSENT:
        items = rule.from_api(items)
    if not isinstance(items, list):
        raise OsaiContractError(f"{endpoint.name}: the response contains no list at {at!r}")
    return items


def unwrapped(endpoint: Endpoint, document: Any) -> Any:
    """Return what is in the envelope of a response, or all of it if the contract has none."""
    envelope = endpoint.rules.envelope
    if envelope is None or endpoint.rules.answer in ("text", "none"):
        return document
    root = json_path(envelope).get(document)
    if root is ABSENT:
        seen = sanitize_server_text(", ".join(map(str, document))) if isinstance(document, Mapping) else "no object"
        raise OsaiContractError(f"{endpoint.name}: the response has no {envelope!r}, the contract's envelope: {seen}")
    return root


def encode_response(endpoint: Endpoint, result: Any) -> EncodedResponse:
    """Return the response for *result*, by our names."""
    headers: dict[str, str] = {}
    if endpoint.is_list or endpoint.rules.pick:
        items = [_encode_one(endpoint, item, headers) for item in (result if isinstance(result, list) else [result])]
        at = endpoint.rules.response.get("items")
        document: Any = items if at is None else at.path("items").put({}, at.to_api(items))
        if at is None and endpoint.rules.envelope is None and _has_values_beside_items(endpoint):
            document = {"items": items}
    elif endpoint.rules.answer == "text":
        return EncodedResponse(_encode_text(endpoint, result), headers)
    else:
        document = _encode_one(endpoint, result or {}, headers)
    if endpoint.rules.envelope is not None and endpoint.rules.answer not in ("text", "none"):
        document = json_path(endpoint.rules.envelope).put({}, document)
    if endpoint.rules.answer in ("text", "none"):
        return EncodedResponse(document, headers)
    for name, value in endpoint.rules.constants.items():
        document = json_path(name).put(document, value)
    return EncodedResponse(document, headers)


def _has_values_beside_items(endpoint: Endpoint) -> bool:
    """Return whether a page of a list is an object, which also says how the list continues."""
    rule = endpoint.rules.pages
    if rule is None:
        return False
    next_link = rule.next is not None and rule.next.lower() != "link"
    more = rule.more is not None and json_path(rule.more).steps is not None
    return bool(rule.total or rule.next_cursor or next_link or more)


def response_paths(endpoint: Endpoint) -> dict[str, str]:
    """Return our names and the API's, of the response's fields that have another name there."""
    names = {}
    for name, rule in endpoint.rules.response.items():
        if rule is not None and rule.name is not None:
            names[name] = rule.name if isinstance(rule.name, str) else " / ".join(rule.name)
    return names


def _decode_one(endpoint: Endpoint, item: Any, headers: Mapping[str, str], sent: Mapping[str, Any]) -> dict[str, Any]:
    rules = endpoint.rules.response
    if not isinstance(item, Mapping) and not any(_reads_root(rule) for rule in rules.values()):
        if isinstance(item, (str, int)) and not isinstance(item, bool):
            return {"id": item}
        if item is not None and not isinstance(item, list):
            raise OsaiContractError(f"{endpoint.name}: the response is not a JSON object")
    decoded: Any = {}
    if isinstance(item, dict):
        hidden = endpoint.rules.hidden_names
        decoded = {name: value for name, value in item.items() if name not in hidden}
    for reading in endpoint.rules.readings:
        if reading.rule is None:
            decoded = _unread(decoded, reading.steps)
            if reading.name == "id" and sent.get("id") is not None:
                decoded["id"] = sent["id"]
            continue
        value = _read_field(endpoint, reading, item, headers, sent)
        if value is ABSENT:
            continue
        first, *rest = reading.steps
        if not rest:
            decoded[first] = value
        elif len(rest) == 1:
            inner = decoded.get(first)
            decoded[first] = {**inner, rest[0]: value} if isinstance(inner, dict) else {rest[0]: value}
        else:
            decoded = put_value(decoded, reading.steps, value)
    return dict(decoded)


def _unread(decoded: Any, steps: Sequence[str]) -> Any:
    """Return *decoded* without the field at *steps*; the objects around it stay, and those of the response as well."""
    first, *rest = steps
    if not isinstance(decoded, dict) or first not in decoded:
        return decoded
    if rest:
        return {**decoded, first: _unread(decoded[first], rest)}
    return {name: value for name, value in decoded.items() if name != first}


def unreadable_fields(
    endpoint: Endpoint, item: Any, headers: Mapping[str, str], sent: Mapping[str, Any]
) -> dict[str, Any]:
    """Return our names of the fields of an object whose values do not fit the contract, with what is there."""
    found: dict[str, Any] = {}
    for reading in endpoint.rules.readings:
        if reading.rule is not None:
            _read_field(endpoint, reading, item, headers, sent, found)
    return found


def _read_field(
    endpoint: Endpoint,
    reading: Reading,
    item: Any,
    headers: Mapping[str, str],
    sent: Mapping[str, Any],
    unreadable: dict[str, Any] | None = None,
) -> Any:
    """Return a field of the response; :data:`ABSENT` if it is not there, or cannot be read and is not essential.

    :param unreadable: collects what cannot be read, instead of a warning or an error.
    """
    try:
        if reading.path is not None and reading.convert is not None:
            value = get_value(item, reading.path)
            return value if value is ABSENT or value is None else reading.convert(value)
        return _read_elsewhere(reading, item, headers, sent)
    except (ValueError, TypeError) as error:
        name = reading.name
        path = reading.rule.path(name) if reading.rule is not None else json_path(name)
        if unreadable is not None:
            unreadable[name] = path.get(item)
            return ABSENT
        place = path.text
        shown = sanitize_server_text(str(error), 200)
        msg = f"{endpoint.name}: response field {name!r} at {place!r} does not fit the contract: {shown}"
        if name in ESSENTIAL:
            raise OsaiContractError(f"{msg}. Change 'response.{name}' of {endpoint.name!r}") from None
        log.warning("%s. It is ignored; change 'response.%s' of %r", msg, name, endpoint.name)
        return ABSENT


def _read_elsewhere(reading: Reading, item: Any, headers: Mapping[str, str], sent: Mapping[str, Any]) -> Any:
    """Return a field that is joined, in a header, read with an expression, or in a text."""
    rule = reading.rule
    assert rule is not None  # noqa: S101 - the caller checks it
    if rule.parts is not None:
        value = _read_parts(rule.parts, item, sent)
        return value if value is ABSENT else rule.reader(value)
    path = rule.path(reading.name)
    if rule.place == "header":
        text = headers.get(path.text.lower())
        return ABSENT if text is None else rule.from_api(rule.extract(text))
    value = path.get(item)
    if rule.is_none(value):
        return None if value is None else ABSENT
    return rule.reader(rule.extract(value) if rule.match else value)


def _read_parts(parts: Sequence[str | JsonPath], item: Any, sent: Mapping[str, Any]) -> Any:
    values: list[Any] = []
    for part in parts:
        if isinstance(part, JsonPath):
            value = part.get(item)
            if value is ABSENT or value is None:
                return ABSENT
            values.append(value)
            continue
        name, index = path_field(part)
        value = sent.get(name)
        if isinstance(value, (list, tuple)):
            value = value[0] if len(value) == 1 else None
        if value is None:
            return ABSENT
        pieces = split_parts(value)
        values.extend(pieces if index is None else pieces[index - 1 : index])
    return join_parts(values)


def _encode_one(endpoint: Endpoint, item: Any, headers: dict[str, str]) -> Any:
    if not isinstance(item, Mapping):
        return item
    rules = endpoint.rules.response
    names = {name for name, rule in rules.items() if "." not in name}
    document: Any = {name: value for name, value in item.items() if name not in names}
    for name, rule in rules.items():
        value = get_value(item, tuple(name.split(".")))
        if "." in name:
            document = _without(document, tuple(name.split(".")))
        else:  # what has a rule of its own is not written with the whole, too
            for inner in rules:
                if inner.startswith(f"{name}."):
                    value = _without(value, tuple(inner.split(".")[1:]))
        if rule is None or name == "items":
            continue
        if value is ABSENT or value is None:
            if rule.default is not None:
                document = rule.path(name).put(document, rule.default)
        else:
            document = _write_field(document, name, rule, value, headers)
    return document


def _write_field(document: Any, name: str, rule: FieldRule, value: Any, headers: dict[str, str]) -> Any:
    """Return *document* with a field of a response in its place; a field of a header goes to *headers*."""
    if rule.parts is not None:
        pieces = split_parts(value if rule.type else rule.to_api(value))  # a type is that of each part
        for part, piece in zip(rule.parts[::-1], pieces[::-1], strict=False):
            if isinstance(part, JsonPath):
                written = _unword(piece) if name == "status" else rule.to_api(piece) if rule.type else piece
                document = part.put(document, written)
        return document
    converted = rule.to_api(value)
    path = rule.paths[0] if rule.paths else json_path(name)
    if rule.place == "header":
        headers[path.text] = str(rule.embed(converted))
        return document
    if rule.write is not None:
        return _merge(document, rule.fill_template(converted))
    if rule.writes is not None:
        return _merge(document, rule.writes.get(json_word(converted), {}))
    return path.put(document, rule.embed(converted) if rule.match else converted)


def _encode_text(endpoint: Endpoint, item: Any) -> Any:
    """Return the field that a bare text is: the one that is read from the whole of it, by default the id."""
    if not isinstance(item, Mapping):
        return item
    for name, rule in endpoint.rules.response.items():
        value = get_value(item, tuple(name.split(".")))
        if rule is not None and any(path.steps == () for path in rule.paths) and value is not ABSENT:
            return rule.embed(rule.to_api(value))
    return item.get("id", "")


def _pick(endpoint: Endpoint, items: list[dict[str, Any]], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item with the id that was asked for."""
    wanted = str(sent.get("id"))
    found = next((item for item in items if str(item.get("id")) == wanted), None)
    if found is None:
        reason = f"none of the {len(items)} items in the list has the id {wanted[:100]!r}"
        raise OsaiRequestError(404, endpoint.method, endpoint.path, reason, received=200)
    return found


def file_address(endpoint: Endpoint, document: Any, sent: Mapping[str, Any]) -> Any:
    """Return the address of a download in the response; with ``pick``, that of the list's item with the target.

    :param sent: the fields of the request, which have the ``target``.
    :raises OsaiRequestError: if no item has the target.
    """
    path = json_path(endpoint.rules.url or "@")
    if not endpoint.rules.pick:
        return path.get(document)
    rule = endpoint.rules.response.get("target") or FieldRule()
    at = rule.paths[0] if rule.paths else json_path("target")
    items = response_items(endpoint, document)
    wanted = str(sent.get("target") or "").casefold()
    for item in items:
        value = at.get(item)
        if value is not ABSENT and (not wanted or str(rule.from_api(value)).casefold() == wanted):
            return path.get(item)
    reason = f"none of the {len(items)} items in the list has the target {wanted[:100]!r}"
    raise OsaiRequestError(404, endpoint.method, endpoint.path, reason, received=200)


def _items_name(endpoint: Endpoint) -> str:
    rule = endpoint.rules.response.get("items")
    return rule.paths[0].text if rule is not None and rule.paths else "items"


def _reads_root(rule: FieldRule | None) -> bool:
    return rule is not None and (rule.place == "header" or any(path.steps in ((), None) for path in rule.paths))


def _each(rules: FieldRule | tuple[FieldRule, ...] | None) -> Iterable[FieldRule]:
    if rules is None:
        return ()
    return rules if isinstance(rules, tuple) else (rules,)


def _has_default(rules: FieldRule | tuple[FieldRule, ...] | None) -> bool:
    return any(rule.default is not None for rule in _each(rules))


def _part(operation: str, name: str, value: Any, number: int) -> str:
    parts = split_parts("" if value is None else value)
    if number > len(parts):
        msg = f"{operation}: {name} = {value!r} has {len(parts)} parts, and the contract's path needs part {number}"
        raise OsaiArgumentError(msg)
    return parts[number - 1]


def _joined(path: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of path placeholders; parts of one field are joined in their order."""
    parts: dict[str, dict[int, str]] = {}
    fields: dict[str, str] = {}
    for placeholder, value in path.items():
        name, number = path_field(placeholder)
        if number is None:
            fields[name] = value
        else:
            parts.setdefault(name, {})[number] = value
    return fields | {name: join_parts([each[n] for n in sorted(each)]) for name, each in parts.items()}


def _query_value(values: list[str] | None, rule: FieldRule) -> Any:
    if not values:
        return ABSENT
    return values if rule.shape == "repeat" or len(values) > 1 else values[0]


def _header(operation: str, name: str, value: Any) -> str:
    text = _text(value)
    if not (text.isascii() and text.isprintable()):
        raise OsaiArgumentError(f"{operation}: {name} = {text[:40]!r} cannot be sent in a header")
    return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (bool, dict, list)) else str(value)


def _unword(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _without(data: Any, steps: Sequence[str]) -> Any:
    """Return a copy of *data* without the value at *steps*; objects that become empty go, too."""
    if not isinstance(data, Mapping) or steps[0] not in data:
        return data
    rest = dict(data)
    if len(steps) == 1:
        del rest[steps[0]]
        return rest
    rest[steps[0]] = _without(rest[steps[0]], steps[1:])
    if rest[steps[0]] == {}:
        del rest[steps[0]]
    return rest


def _merge(document: Any, other: Any) -> Any:
    """Return *document* with *other* merged into its objects and lists."""
    if isinstance(document, Mapping) and isinstance(other, Mapping):
        merged = dict(document)
        for key, value in other.items():
            merged[key] = _merge(merged[key], value) if key in merged else value
        return merged
    if isinstance(document, list) and isinstance(other, list):
        return [*document, *other]
    return other
