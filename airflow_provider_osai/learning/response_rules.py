"""Learn the rules of responses: where each field is, and in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.id_places import IdPlaces
from airflow_provider_osai.learning.job_responses import JobResponses
from airflow_provider_osai.learning.object_fields import ObjectFields
from airflow_provider_osai.learning.paging import pages_rule
from airflow_provider_osai.learning.recording import Exchange
from airflow_provider_osai.learning.roles import Role, list_in
from airflow_provider_osai.learning.rules import objects_in
from airflow_provider_osai.learning.seen import JOBS, Seen
from airflow_provider_osai.learning.values import leaves, path_text

__all__ = ["TWINS", "ResponseRules"]

TWINS: Final[Mapping[str, str]] = {
    "dataset.find": "dataset.create",
    "category.list": "category.create",
    "model.list": "model.get",
}
"""Where the fields of the items of an empty list are seen instead."""


class ResponseRules:
    """Learns the rules of responses."""

    def __init__(self, seen: Seen, ids: IdPlaces) -> None:
        self._seen = seen
        self._jobs = JobResponses(seen, ids)
        self._objects = ObjectFields(seen, ids)

    def learn(self, role: Role, parents: Sequence[str], rules: dict[str, Any], doubts: list[str]) -> dict[str, Any]:
        """Return the rules of an operation's response fields.

        :param parents: the parts of the job's id, if it has several.
        :param rules: the operation's other rules, to which those of the whole response are added.
        """
        name = role.operation
        exchange = role.calls[-1].exchange
        kind, _, verb = name.partition(".")
        if kind in JOBS and verb == "submit":
            return self._jobs.submitted(role, rules)
        if kind in JOBS and verb == "get":
            return self._jobs.got(JobKind(kind), exchange, parents, rules, doubts)
        if name == "model.download":
            _learn_address(exchange, rules, doubts)
            return {}
        if verb == "cancel" or name in ("dataset.delete", "upload.finish"):
            if exchange.form != "json":
                rules["answer"] = "none"
            return {}
        if ENDPOINTS[name].is_list:
            return self._listed(role, rules, doubts)
        return self._one(role, exchange, rules, doubts)

    def _one(self, role: Role, exchange: Exchange, rules: dict[str, Any], doubts: list[str]) -> dict[str, Any]:
        document = self._seen.inside(exchange.response)
        if exchange.form == "text" and role.operation != "user.me":
            rules["answer"] = "text"
            return {}
        if exchange.form != "json" or (role.operation == "user.me" and not isinstance(document, Mapping)):
            rules["answer"] = "none"
            return {}
        response: dict[str, Any] = {}
        if role.operation != "user.me":
            self._objects.add(role, document, response, doubts)
        return response

    def _listed(self, role: Role, rules: dict[str, Any], doubts: list[str]) -> dict[str, Any]:
        """Return the rules of a list and its items, of the first response that has any."""
        full = (call for call in role.calls if (list_in(call.exchange.response) or ((), ()))[1])
        exchange = next(full, role.calls[-1]).exchange
        document = self._seen.inside(exchange.response)
        found = list_in(document)
        if found is None:
            return self._keyed(role, document)
        steps, items = found
        response: dict[str, Any] = {}
        if steps and path_text(steps) != "items":
            response["items"] = path_text(steps)
        if pages := pages_rule(exchange, doubts):
            rules["pages"] = pages
        kind, _, verb = role.operation.partition(".")
        if not items:
            made = self._seen.rows.get(TWINS.get(role.operation, ""))
            if made is None or not made.rules:
                doubts.append("the list was empty, so its items were not seen")
                return response
            doubts.append(f"the list was empty: its items are assumed to be as in {made.operation}")
            return response | _without_outer(made.rules.get("response", {}))
        if kind in JOBS and verb == "list":
            self._jobs.listed(JobKind(kind), items[0], response, doubts)
        else:
            self._objects.add(role, items[0], response, doubts, is_item=True)
        return response

    def _keyed(self, role: Role, document: Any) -> dict[str, Any]:
        """Return the rules of a list that is an object with names or ids as keys."""
        for steps, value in objects_in(document):
            if isinstance(value, dict) and len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
                response: dict[str, Any] = {}
                self._objects.add(role, next(iter(value.values())), response, [], is_item=True)
                key = "id" if set(value) & self._objects.ids_of(role.operation) else "name"
                response.pop(key, None)
                path = path_text(steps)
                return {"items": {**({} if path == "items" else {"name": path}), "keyed_by": key}, **response}
        return {}


def _learn_address(exchange: Exchange, rules: dict[str, Any], doubts: list[str]) -> None:
    """Learn where the address of a file is in the response to a download, if it is JSON."""
    if exchange.form == "json":
        places = (
            path_text(steps)
            for steps, value in leaves(exchange.response)
            if isinstance(value, str) and value.startswith(("http://", "https://", "/"))
        )
        url = next(places, None)
        if url is None:
            doubts.append("where the file's address is in the response was not seen")
        else:
            rules["url"] = url


def _without_outer(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of a response without the object in which it has all fields; items of a list do not have it."""
    paths = [rule.get("name") if isinstance(rule, Mapping) else rule for rule in response.values()]
    outer = {path.partition(".")[0] if isinstance(path, str) and "." in path else None for path in paths}
    if len(outer) != 1 or None in outer or "id" not in response:
        return dict(response)
    start = f"{outer.pop()}."
    return {
        our: {**rule, "name": rule["name"].removeprefix(start)}
        if isinstance(rule, Mapping)
        else rule.removeprefix(start)
        for our, rule in response.items()
    }
