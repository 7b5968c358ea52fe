"""The JSON Schema of contract documents, for editors, and the tables of docs/contract-reference.md."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.api.contract_rules import (
    AnnotationsRule,
    AuthRule,
    ErrorRule,
    OperationRules,
    PagesRule,
    StatusCase,
)
from airflow_provider_osai.api.field_rules import FieldRule, PairsShape
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import ALL, JOBS

__all__ = ["EXAMPLES", "json_schema", "rule_tables"]

Schema = dict[str, Any]

TABLES: Final[Mapping[type[BaseModel], str]] = {
    OperationRules: "Rules of an operation",
    FieldRule: "Rules of a field",
    PagesRule: "Pages of a list: `pages`",
    ErrorRule: "Errors in a response with a status of success: `error`",
    StatusCase: "Meanings of a status: `statuses`",
    AnnotationsRule: "Boxes of an image: `annotations` of `upload.image`",
    AuthRule: "Authentication: `auth`, beside the operations",
}
EXAMPLES: Final[Mapping[str, str]] = {
    "OperationRules.method": "training.submit: {method: PUT}",
    "OperationRules.path": "training.get: {path: '/projects/{id.1}/trainings/{id.2}'}",
    "OperationRules.encoding": "training.submit: {encoding: form}",
    "OperationRules.headers": "'*': {headers: {api-version: '2'}}",
    "OperationRules.query": "'*': {query: {api-version: '2'}}",
    "OperationRules.body": "training.submit: {body: {source: api}}",
    "OperationRules.request": "training.submit: {request: {modelName: name, reference: null}}",
    "OperationRules.response": "training.get: {response: {status: state, items: null}, pick: true}",
    "OperationRules.answer": "training.submit: {answer: text}",
    "OperationRules.envelope": "'*': {envelope: data}",
    "OperationRules.constants": "'*': {constants: {success: true}}",
    "OperationRules.evidence": "training.get: {evidence: 'learned: success.har#23-31'}",
    "OperationRules.success": "dataset.delete: {success: 204, answer: none}",
    "OperationRules.error": "'*': {error: {when: 'success == `false`', message: error}}",
    "OperationRules.statuses": "dataset.delete: {statuses: {423: locked, 400: {means: absent, when: 'code == `7`'}}}",
    "OperationRules.busy": "job.submit: {busy: [423]}",
    "OperationRules.states": "device_rental.*: {states: {Completed: running}}",
    "OperationRules.pages": "dataset.find: {pages: {page: page, size: pageSize}}",
    "OperationRules.pick": "training.get: {path: /trainings, pick: true}",
    "OperationRules.url": "model.download: {url: link.url}",
    "OperationRules.annotations": "upload.image: {annotations: {format: yolo}}",
    "FieldRule.name": "training.get: {response: {status: [finished, failed]}}",
    "FieldRule.in": "training.submit: {request: {reference: {in: header, name: X-Request-Id}}}",
    "FieldRule.values": "training.submit: {request: {modelType: {values: {classification: 1, detection: 2}}}}",
    "FieldRule.scale": "training.get: {response: {progress: {scale: 100}}}",
    "FieldRule.unit": "device_rental.submit: {request: {duration: {name: minutes, unit: minutes}}}",
    "FieldRule.type": "prediction.submit: {request: {datasetId: {type: number}}}",
    "FieldRule.default": "model.download: {request: {target: {default: original}}}",
    "FieldRule.shape": "training.submit: {request: {datasetIds: {name: datasetId, shape: one}}}",
    "FieldRule.keyed_by": "manipulation.submit: {request: {operations: {keyed_by: type}}}",
    "FieldRule.items": "training.get: {response: {history: {items: {valLoss: test_loss}}}}",
    "FieldRule.match": "training.submit: {response: {id: {in: header, name: Location, match: '/jobs/{value}'}}}",
    "FieldRule.write": "training.get: {response: {message: {name: 'a || b', write: {a: '{value}'}}}}",
    "FieldRule.writes": "training.get: {response: {status: {name: 'x || y', writes: {ok: {x: ok}}}}}",
    "PagesRule.page": "dataset.find: {pages: {page: page, size: pageSize}}",
    "PagesRule.first": "dataset.find: {pages: {page: page, first: 0, size: pageSize}}",
    "PagesRule.offset": "dataset.find: {pages: {offset: skip, size: take}}",
    "PagesRule.cursor": "training.list: {pages: {cursor: after, next_cursor: meta.next}}",
    "PagesRule.next_cursor": "training.list: {pages: {cursor: after, next_cursor: meta.next}}",
    "PagesRule.next": "model.list: {pages: {next: Link}}",
    "PagesRule.size": "dataset.find: {pages: {page: page, size: pageSize}}",
    "PagesRule.of": "dataset.find: {pages: {page: page, size: pageSize, of: 50}}",
    "PagesRule.total": "dataset.find: {pages: {page: page, total: count}}",
    "PagesRule.more": "dataset.find: {pages: {page: page, more: '!isLast'}}",
    "ErrorRule.when": "'*': {error: {when: 'code != `0`'}}",
    "ErrorRule.message": "'*': {error: {when: 'code != `0`', message: text}}",
    "ErrorRule.means": "job.get: {error: {when: 'code == `404`', means: absent}}",
    "ErrorRule.example": "'*': {error: {when: 'code != `0`', message: text, example: {code: 1}}}",
    "StatusCase.means": "job.cancel: {statuses: {400: ended}}",
    "StatusCase.when": "job.get: {statuses: {400: [{means: absent, when: 'code == `7`'}, rejected]}}",
    "StatusCase.message": "job.get: {statuses: {400: {means: absent, message: detail}}}",
    "StatusCase.example": "job.get: {statuses: {400: {means: absent, when: 'code == `7`', example: {code: 7}}}}",
    "AnnotationsRule.format": "upload.image: {annotations: {format: coco}}",
    "AnnotationsRule.units": "upload.image: {annotations: {units: pixel}}",
    "AnnotationsRule.category": "upload.image: {annotations: {category: id}}",
    "AuthRule.header": "auth: {header: X-Api-Key}",
    "AuthRule.prefix": "auth: {header: X-Api-Key, prefix: ''}",
}
"""An example of each rule, as a line of a document."""


def json_schema() -> Schema:
    """Return the JSON Schema of a document, including the short forms."""
    operation = OperationRules.model_json_schema()
    definitions: Schema = operation.pop("$defs")
    field = {"$ref": "#/$defs/FieldRule"}
    text: Schema = {"type": "string"}
    definitions["FieldRule"] = FieldRule.model_json_schema()
    definitions |= definitions["FieldRule"].pop("$defs", {})
    response = {"anyOf": [text, {"type": "array", "items": text}, field, {"type": "null"}]}
    request = {"anyOf": [text, field, {"type": "array", "items": {"anyOf": [text, field]}}, {"type": "null"}]}
    definitions["FieldRule"]["properties"]["items"] = _map_of({"anyOf": [text, field]})
    properties = operation["properties"]
    properties["request"] = _map_of(request)
    properties["response"] = _map_of(response)
    properties["error"] = _one_or_more({"$ref": "#/$defs/ErrorRule"})
    meaning = copy.deepcopy(definitions["StatusCase"]["properties"]["means"])
    properties["statuses"] = _map_of(_one_or_more({"anyOf": [meaning, {"$ref": "#/$defs/StatusCase"}]}))
    properties["states"] = {"$ref": "#/$defs/States"}
    for name in ("pages", "annotations"):
        properties[name] = {"$ref": f"#/$defs/{'PagesRule' if name == 'pages' else 'AnnotationsRule'}"}
    states = [state.value for state in JobState if state is not JobState.UNKNOWN]
    definitions["States"] = _map_of({"enum": states})
    definitions["Operation"] = operation
    rules = {"anyOf": [{"$ref": "#/$defs/Operation"}, {"type": "null"}]}
    auth = AuthRule.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Contract document of airflow-provider-osai",
        "type": "object",
        "properties": {
            "auth": auth,
            "states": {"$ref": "#/$defs/States"},
            **dict.fromkeys(_keys(), rules),
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _map_of(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _one_or_more(value: Schema) -> Schema:
    return {"anyOf": [value, {"type": "array", "items": value}]}


def _keys() -> Iterator[str]:
    """Yield all keys of operations: single ones and those that stand for several."""
    yield ALL
    yield from ENDPOINTS
    yield from (f"{thing}.{ALL}" for thing in dict.fromkeys(name.partition(".")[0] for name in ENDPOINTS))
    suffixes = dict.fromkeys(name.partition(".")[2] for name in ENDPOINTS if name.partition(".")[0] in tuple(JobKind))
    yield from (f"{JOBS}.{suffix}" for suffix in (*suffixes, ALL))


def rule_tables() -> str:
    """Return the tables of all rules, as Markdown, with their meaning and an example of each."""
    lines: list[str] = []
    for model, title in TABLES.items():
        lines += ["", f"### {title}", "", "| rule | values | meaning | example |", "|---|---|---|---|"]
        meanings = _param_texts(model)
        for name, field in model.model_fields.items():
            key = field.alias or name
            example = EXAMPLES[f"{model.__name__}.{key}"].replace("|", "\\|")
            values = _values(model, key)
            lines.append(f"| `{key}` | {values} | {meanings[name]} | `` {example} `` |")
    lines += ["", f"`shape` as an object has `key` and `value`: {_summary(PairsShape)}"]
    return "\n".join(lines).strip("\n") + "\n"


def _summary(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split()).replace("``", "`")


def _param_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return the text of each ``:param name:`` in a class's docstring."""
    doc = inspect.getdoc(model) or ""
    found = re.findall(r":param (\w+): (.*?)(?=\n:param |\Z)", doc, re.DOTALL)
    clean = {name: " ".join(text.split()).replace("``", "`").replace("|", "\\|") for name, text in found}
    return {name: re.sub(r":\w+:`[.~]?([^`]+)`", r"`\1`", text) for name, text in clean.items()}


def _values(model: type[BaseModel], key: str) -> str:
    schema = model.model_json_schema()["properties"][key]
    options = [schema, *schema.get("anyOf", ())]
    words = [f"`{word}`" for option in options for word in option.get("enum", ())]
    types = [option["type"] for option in options if option.get("type") not in (None, "null") and "enum" not in option]
    return ", ".join(dict.fromkeys([*words, *types])) or "object"
