"""The portal's requests and responses as templates, so that its page needs no encoder of its own in JavaScript.

The contract's encoders run once with marks (numbers that occur nowhere else) in place of values. In a request, the page
replaces the marks with values; in a response, the places of the marks are where the page reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_osai.api.contract import ACCESS_TOKEN, Contract, Endpoint, WireRequest
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.field_rules import FieldRule
from airflow_provider_osai.api.joined_ids import join_parts
from airflow_provider_osai.api.json_paths import Steps, get_value, json_path, put_value
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.wire_format import EncodedResponse, encode_response, path_field

__all__ = ["MARKS", "OPERATIONS", "marked_fields", "portal_templates"]

OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "user.me": (),
    "dataset.find": (),
    "dataset.create": ("name",),
    "dataset.get": ("id",),
    "category.create": ("datasetId", "name"),
    "category.list": ("datasetId",),
    "upload.start": ("id",),
    "upload.image": ("datasetId", "datasetUploadId", "categoryId", "category", "fileName"),
    "upload.finish": ("id", "datasetUploadId"),
    "image.list": ("datasetId",),
    "training.submit": ("datasetIds", "modelName", "epochs"),
    "training.get": ("id",),
    "training.list": (),
    "training.cancel": ("id",),
    "model.get": ("id",),
    "model.list": (),
    "model.conversions": ("id",),
    "model.download": ("id", "target", "conversionId"),
    "conversion.submit": ("modelId", "target"),
    "conversion.get": ("id",),
    "prediction.submit": ("modelId", "datasetId"),
    "prediction.get": ("id",),
    "device_rental.submit": ("device",),
    "device_rental.get": ("id",),
    "device_rental.cancel": ("id",),
}
"""The operations that the page uses, and the fields for which it has values."""
CONSTANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "training.submit": {"modelType": "classification"},
    "prediction.submit": {"minConfidence": 0.6, "mode": "all"},
    "device_rental.submit": {"duration": 1800},
}
"""Fields that have the same value each time."""
ON_DEMAND: Final = ("category", "fileName", "conversionId")
"""Fields that are sent only if the contract gives them a place."""
READ: Final = ("id", "name", "email", "target", "message", "imageCount", "result.modelId", "result.conversionId")
"""Fields that the page reads from responses."""
MAX_PARTS: Final = 5
"""Maximum parts of a joined id."""
FIRST_MARK: Final = 9_100_000_000_000
FIELDS: Final = sorted({*READ, ACCESS_TOKEN, *(name for names in OPERATIONS.values() for name in names)})
MARKS: Final[Mapping[str, tuple[str, int]]] = {
    str(FIRST_MARK + 10 * index + part): (name, part) for index, name in enumerate(FIELDS) for part in range(MAX_PARTS)
}
"""Mark -> the field, and the number of its part in a joined id (0: the whole)."""
BY_FIELD: Final = {field: mark for mark, field in MARKS.items()}


def portal_templates(contract: Contract, base_path: str) -> dict[str, Any]:
    """Return what the page has to know of the API: plain JSON, without secrets.

    :param base_path: the path of the API.
    """
    header = contract.token_header
    rows = {name: contract.endpoints.get(name) for name in OPERATIONS}
    return {
        "base": base_path,
        "marks": MARKS,
        "auth": {"header": header.name, "prefix": header.prefix},
        "signIn": _sign_in(contract),
        "operations": {name: None if row is None else _operation(contract, row) for name, row in rows.items()},
    }


def marked_fields(endpoint: Endpoint) -> dict[str, Any]:
    """Return the fields of a request, by our names, with marks as values."""
    parts = max((part or 0 for name, part in map(path_field, endpoint.placeholders) if name == "id"), default=0)
    fields: dict[str, Any] = dict(CONSTANTS.get(endpoint.name, {}))
    for name in OPERATIONS[endpoint.name]:
        mark = BY_FIELD[name, 0]
        if name == "id" and parts:
            fields[name] = _joined(name, parts)
        elif name == "epochs":
            fields["parameters"] = {name: int(mark)}
        elif name not in ON_DEMAND or endpoint.takes(name):
            fields[name] = [mark] if name == "datasetIds" else mark
    return {name: value for name, value in fields.items() if name not in endpoint.unsent_fields}


def _operation(contract: Contract, endpoint: Endpoint) -> dict[str, Any] | None:
    """Return the template of an operation; ``None`` if the contract has no form for one of its fields."""
    try:
        request = endpoint.to_wire(marked_fields(endpoint))
    except OsaiArgumentError:
        return None
    is_upload = endpoint.name == "upload.image"
    file = endpoint.request_names.get("file", "file") if is_upload else None
    return {**_request(endpoint, request), "file": file, "reads": _reads(contract, endpoint)}


def _request(endpoint: Endpoint, request: WireRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body": request.fields,
        "encoding": endpoint.rules.encoding or ("multipart" if endpoint.name == "upload.image" else "json"),
    }


def _sign_in(contract: Contract) -> dict[str, Any] | None:
    endpoint = contract.endpoints["auth.sign_in"]
    if endpoint is None:
        return None
    token = contract.token_path
    reads: dict[str, Any] = {"isText": token is None, "token": [] if token is None else token.steps}
    return {**_request(endpoint, contract.sign_in_request(BY_FIELD[ACCESS_TOKEN, 0])), "file": None, "reads": reads}


def _reads(contract: Contract, endpoint: Endpoint) -> dict[str, Any]:
    """Return where the fields of a response are."""
    rules = endpoint.rules
    marked: Any = {}
    names = [name for name in READ if name.partition(".")[0] in endpoint.response_fields]
    for name in names:
        rule = rules.response.get(name)
        parts = len(rule.parts) if rule is not None and rule.parts is not None else 0
        value = _joined(name, parts) if parts else BY_FIELD[name, 0]
        marked = put_value(marked, tuple(name.split(".")), int(value) if name == "imageCount" else value)
    is_list = endpoint.is_list or bool(rules.pick)
    items = _items(endpoint) if is_list else None
    begin = 0 if items is None else len(items) + 1
    response = encode_response(endpoint, [marked] if is_list else marked)
    fields = {name: _places(name, rules.response.get(name), response, begin) for name in names}
    kind = endpoint.name.partition(".")[0]
    return {
        "isText": rules.answer == "text",
        "envelope": json_path(rules.envelope).steps if rules.envelope else [],
        "items": items,
        "fields": {name: places for name, places in fields.items() if places},
        "job": _job(contract, endpoint, begin) if kind in set(JobKind) and endpoint.response_model else None,
        "pages": _pages(endpoint) if endpoint.is_list else None,
        "url": json_path(rules.url).steps if rules.url else None,
    }


def _items(endpoint: Endpoint) -> Steps:
    """Return where the list is in a response."""
    outer = (json_path(endpoint.rules.envelope).steps or ()) if endpoint.rules.envelope else ()
    rule = endpoint.rules.response.get("items")
    if rule is not None:
        return (*outer, *(rule.path("items").steps or ()))
    content = get_value(encode_response(endpoint, []).document, outer)
    return outer if isinstance(content, list) else (*outer, "items")


def _places(name: str, rule: FieldRule | None, response: EncodedResponse, begin: int) -> list[dict[str, Any]]:
    """Return the place of each part of a field; none if the response does not have it.

    :param begin: steps to skip, to an item of a list.
    """
    if rule is None or rule.parts is None:
        place = _place(BY_FIELD[name, 0], response, begin)
        return [] if place is None else [place]
    places = []
    for number, part in enumerate(rule.parts, 1):
        place = _place(BY_FIELD[name, number], response, begin)
        if place is None and isinstance(part, str):
            sent, index = path_field(part)
            place = {"sent": sent, "part": index or 0}
        if place is None:
            return []
        places.append(place)
    return places


def _place(mark: str, response: EncodedResponse, begin: int) -> dict[str, Any] | None:
    for path, value in _leaves(response.document):
        before, found, after = str(value).partition(mark)
        if found:
            return {"path": path[begin:], "before": before, "after": after}
    for header, value in response.headers.items():
        before, found, after = value.partition(mark)
        if found:
            return {"header": header, "before": before, "after": after}
    return None


def _job(contract: Contract, endpoint: Endpoint, begin: int) -> dict[str, Any]:
    """Return how the state and the progress of a job are read: by the values that they have in responses."""

    def leaves(fields: Mapping[str, Any]) -> dict[Steps, Any]:
        result = {"id": BY_FIELD["id", 0], **fields}
        encoded = encode_response(endpoint, [result] if begin else result)
        return {path[begin:]: value for path, value in _leaves(encoded.document)}

    order = (JobState.RUNNING, JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    by_state = {state: leaves({"status": contract.word(state, endpoint.name)}) for state in order}
    every = [path for each in by_state.values() for path in each]
    paths = [
        path for path in dict.fromkeys(every) if len({json.dumps(each.get(path)) for each in by_state.values()}) > 1
    ]
    low, high = leaves({"progress": 0.25}), leaves({"progress": 0.75})
    progress = next(
        ({"path": path, "at": [low[path], high[path]]} for path in low if low[path] != high.get(path)), None
    )
    states = {state.value: [each.get(path) for path in paths] for state, each in by_state.items()}
    return {"paths": paths, "states": states, "progress": progress}


def _pages(endpoint: Endpoint) -> dict[str, Any] | None:
    rule = endpoint.rules.pages
    if rule is None:
        return None
    next_link = rule.next if rule.next is None or rule.next.lower() == "link" else json_path(rule.next).steps
    return {
        "page": rule.page,
        "first": rule.first,
        "offset": rule.offset,
        "cursor": rule.cursor,
        "nextCursor": json_path(rule.next_cursor).steps if rule.next_cursor else None,
        "next": next_link,
        "size": rule.size,
        "of": rule.of,
        "total": json_path(rule.total).steps if rule.total else None,
    }


def _leaves(node: Any, at: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield each value of a document that is neither an object nor a list, with its place."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, (*at, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, (*at, index))
    else:
        yield at, node


def _joined(name: str, parts: int) -> str:
    return join_parts(BY_FIELD[name, part] for part in range(1, parts + 1))
