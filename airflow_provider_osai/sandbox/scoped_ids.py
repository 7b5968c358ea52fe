"""Ids that a contract document joins from several parts, such as ``<project>/<iteration>``.

The sandbox's own ids have one part. Where the contract's rule for an id has more, the others are ids of what the object
belongs to: a dataset, a model, or a field of the request. Where the contract reads the id of a model from the place of
the id of its training, or as ``$id``, the model and the training have one id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.field_rules import FieldRule
from airflow_provider_osai.api.joined_ids import join_parts, split_parts
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.wire_format import path_field
from airflow_provider_osai.sandbox.models import JobRecord
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["ScopedIds"]

MODEL: Final = "model"
NO_PARENT: Final = "1"
"""The id of what an object belongs to, if the sandbox does not know it."""


class ScopedIds:
    """Translates between the sandbox's ids and those of a contract.

    :param contract: the contract.
    :param state: the sandbox's state.
    """

    def __init__(self, contract: Contract, state: SandboxState) -> None:
        self._contract = contract
        self._state = state
        self._rules = {kind: self._rule(kind, "id") for kind in JobKind}
        self._model_rules = {kind: self._rule(kind, "result.modelId") for kind in JobKind}
        shared = [kind for kind in JobKind if (rule := self._model_rules[kind]) and _same(rule, self._rules[kind])]
        self._shares_model_id = frozenset(shared)
        joined = [rule for rule in (*self._rules.values(), *self._model_rules.values()) if rule and rule.parts]
        self.is_needed = bool(joined or shared)
        self._plain: dict[tuple[str, str], str] = {}
        self._scoped: dict[tuple[str, str], str] = {}

    def to_plain(self, operation: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a request with the sandbox's ids."""
        if not self.is_needed:
            return fields
        thing = operation.partition(".")[0]
        plain = dict(fields)
        if "id" in plain:
            plain["id"] = self._find(thing, str(plain["id"]))
        if "modelId" in plain:
            plain["modelId"] = self._find(MODEL, str(plain["modelId"]))
        if "ids" in plain:
            ids = plain["ids"] if isinstance(plain["ids"], list) else str(plain["ids"]).split(",")
            plain["ids"] = [self._find(thing, text.strip()) for text in ids]
        return plain

    def to_scoped(self, operation: str, result: Any) -> Any:
        """Return the result of an operation with the contract's ids."""
        if not self.is_needed:
            return result
        if isinstance(result, list):
            return [self.to_scoped(operation, item) for item in result]
        if not isinstance(result, dict):
            return result
        thing = operation.partition(".")[0]
        scoped = dict(result)
        for name, kind in (("id", thing), ("jobId", JobKind.CONVERSION)):
            if scoped.get(name) is not None:
                scoped[name] = self._scope(kind, scoped[name])
        inner = scoped.get("result")
        if isinstance(inner, Mapping) and inner.get("modelId") is not None:
            scoped["result"] = {**inner, "modelId": self._scope(MODEL, inner["modelId"])}
        return scoped

    def jobs_below(self, kind: JobKind, prefix: str | None) -> list[str]:
        """Return the sandbox's ids of the jobs of a kind whose ids begin with *prefix*; of all without one."""
        begin = "" if prefix is None else f"{prefix}/"
        return [
            job.id
            for job in self._state.jobs.all_jobs()
            if job.kind is kind and (self._scope(kind, job.id).startswith(begin) or job.id == prefix)
        ]

    def _rule(self, kind: JobKind, field: str) -> FieldRule | None:
        for operation in ("submit", "get", "list"):
            endpoint = self._contract.endpoints.get(f"{kind}.{operation}")
            rule = endpoint.rules.response.get(field) if endpoint is not None else None
            if rule is not None:
                return rule
        return None

    def _find(self, thing: str, scoped: str) -> str:
        key = (thing, scoped)
        if key not in self._plain:
            for job in self._state.jobs.all_jobs():
                self._scope(job.kind, job.id)
                if model_id := (job.result or {}).get("modelId"):
                    self._scope(MODEL, model_id)
        if key in self._plain:
            return self._plain[key]
        # Where a path has only the first part of an id, it means the newest.
        below = [
            plain for (kind, text), plain in self._plain.items() if kind == thing and text.startswith(f"{scoped}/")
        ]
        return below[-1] if below else scoped

    def _scope(self, thing: str, plain: str) -> str:
        key = (str(thing), plain)
        if key not in self._scoped:
            job = self._job_of(str(thing), plain)
            scoped = plain if job is None else self._compose(str(thing), plain, job)
            self._scoped[key] = scoped
            self._plain[str(thing), scoped] = plain
        return self._scoped[key]

    def _job_of(self, thing: str, plain: str) -> JobRecord | None:
        """Return the job with this id, or the one that made the model."""
        for job in self._state.jobs.all_jobs():
            if (job.id == plain and job.kind == thing) or (
                thing == MODEL and (job.result or {}).get("modelId") == plain
            ):
                return job
        return None

    def _compose(self, thing: str, plain: str, job: JobRecord) -> str:
        if thing == MODEL and job.kind in self._shares_model_id:
            return self._scope(job.kind, job.id)
        rule = self._model_rules[job.kind] if thing == MODEL else self._rules[job.kind]
        if rule is None or rule.parts is None:
            return plain
        sent = job.request.wire()
        values: list[str] = []
        for number, part in enumerate(rule.parts, start=1):
            if isinstance(part, str):
                name, index = path_field(part)
                pieces = split_parts(self._value(name, sent))
                values += pieces if index is None else pieces[index - 1 : index]
            elif (text := self._sent_at(job.kind, str(part.steps[-1]) if part.steps else "", sent)) is not None:
                values.append(text)
            else:
                values.append(plain if number == len(rule.parts) else self._parent(sent))
        return join_parts(values)

    def _value(self, name: str, sent: Mapping[str, Any]) -> str:
        value = sent.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        return self._scope(MODEL, str(value)) if name == "modelId" else str(value or NO_PARENT)

    def _sent_at(self, kind: JobKind, name: str, sent: Mapping[str, Any]) -> str | None:
        """Return the value of the request's field that the API calls *name*."""
        endpoint = self._contract.endpoints.get(f"{kind}.submit")
        for ours, theirs in (endpoint.request_names if endpoint is not None else {}).items():
            if theirs == name and sent.get(ours) is not None and endpoint is not None:
                rule = endpoint.rules.request[ours]
                first = rule[0] if isinstance(rule, tuple) else rule
                return str(first.to_api(sent[ours]) if first is not None else sent[ours])
        return None

    def _parent(self, sent: Mapping[str, Any]) -> str:
        for name in ("datasetIds", "datasetId", "modelId"):
            if sent.get(name):
                return split_parts(self._value(name, sent))[0]
        return NO_PARENT


def _same(one: FieldRule, other: FieldRule | None) -> bool:
    return one.name == "$id" or (other is not None and one.name is not None and one.name == other.name)
