"""Learn the responses about jobs: of submissions, polls and lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.fields import RESULTS, Mapped
from airflow_provider_osai.learning.id_places import IdPlaces
from airflow_provider_osai.learning.recording import Exchange
from airflow_provider_osai.learning.roles import JobTrace, Role, list_in
from airflow_provider_osai.learning.rules import put
from airflow_provider_osai.learning.seen import Seen
from airflow_provider_osai.learning.values import Steps, at, leaves, path_text

__all__ = ["JobResponses"]

UNKNOWN_PART = "?"


class JobResponses:
    """Learns the rules of responses about jobs."""

    def __init__(self, seen: Seen, ids: IdPlaces) -> None:
        self._seen = seen
        self._ids = ids

    def submitted(self, role: Role, rules: dict[str, Any]) -> dict[str, Any]:
        """Return the rules of the response to a submission; its id may be in the header ``Location``."""
        exchange = role.calls[0].exchange
        job = next((each for each in self._seen.roles.jobs if each.submit in role.calls), None)
        if job is None:
            return {}
        own = "id"
        if exchange.form == "text":
            rules["answer"] = "text"
        else:
            places = [steps for steps, value in leaves(exchange.response) if str(value) == job.value]
            if not places:
                rules["answer"] = "none"
                return {"id": {"in": "header", "name": "Location"}}
            own = path_text(self._seen.relative(places[0])) if places[0] else own
        response: dict[str, Any] = {}
        if parents := self._ids.parents(job):
            response["id"] = [parent or own for parent in parents]
        elif own != "id":
            response["id"] = own
        mapped = self._seen.jobs.get(job.kind, Mapped())
        document = self._seen.inside(exchange.response)
        for our, place in mapped.steps.items():
            if our != "id" and our in mapped.rules and at(document, place, ...) is not ...:
                response[our] = mapped.rules[our]
        return response

    def got(
        self, kind: JobKind, exchange: Exchange, parents: Sequence[str], rules: dict[str, Any], doubts: list[str]
    ) -> dict[str, Any]:
        """Return the rules of the response to a poll.

        :param parents: the parts of the job's id, if it has several.
        """
        mapped = self._seen.jobs[kind]
        doubts += mapped.doubts
        result = next(iter(RESULTS[kind]), None)
        is_missing = result not in mapped.rules and result not in mapped.steps and kind is not JobKind.PREDICTION
        if exchange.form == "text":
            rules["answer"] = "text"
            doubts[:] = [doubt for doubt in doubts if not doubt.startswith("status")]
            own = {our: rule for our, rule in mapped.rules.items() if rule == "$id"}
            if is_missing and result is not None:
                doubts.append(f"{result}: the response is only a status, so the job's own id is assumed")
                own[result] = "$id"
            return {"id": None, "status": "@", **own}
        if is_missing:
            doubts.append(f"{result}: no response had it; if it is the job's own id, add {result}: $id")
        response = {**mapped.rules, "id": None} if parents else dict(mapped.rules)
        if any(job.is_listed and job.kind is kind for job in self._seen.roles.jobs):
            rules["pick"] = True
            rules.get("request", {}).pop("id", None)
            found = list_in(self._seen.inside(exchange.response))
            if found is not None and found[0] and path_text(found[0]) != "items":
                response["items"] = path_text(found[0])
        return response

    def listed(self, kind: JobKind, item: Any, response: dict[str, Any], doubts: list[str]) -> None:
        """Add the rules of an item of a list of jobs; it may lack an object in which a poll has the job."""
        mapped = self._seen.jobs.get(kind)
        if mapped is None:
            return
        outer = _outer_steps(mapped, item)
        for our, rule in mapped.rules.items():
            place = mapped.steps.get(our)
            if place is None or not outer:
                response[our] = rule
            else:
                path = path_text(place[len(outer) :])
                response[our] = {**rule, "name": path} if isinstance(rule, dict) else path
        for our, place in mapped.steps.items() if outer else ():
            if our not in mapped.rules:
                put(response, our, path_text(place[len(outer) :]))
        job = next(each for each in self._seen.roles.jobs if each.kind is kind)
        if parents := self._ids.parents(job):
            self._join_ids(job, parents, item, response, doubts)

    def _join_ids(
        self, job: JobTrace, parents: Sequence[str], item: Any, response: dict[str, Any], doubts: list[str]
    ) -> None:
        """Add the parts of an id, each of which is in the item of a list."""
        own = next((path_text(steps) for steps, value in leaves(item) if str(value) == job.value), "id")
        used = {use.value for use in job.submit.uses}
        places = [path_text(steps) for steps, value in leaves(item) if str(value) in used]
        parts = [own if not parent else next(iter(places), UNKNOWN_PART) for parent in parents]
        if UNKNOWN_PART in parts or len(parents) > 2:
            doubts.append("id: the list does not clearly have all parts of the jobs' ids")
            response["id"] = own
        else:
            response["id"] = parts


def _outer_steps(mapped: Mapped, item: Any) -> Steps:
    """Return the steps to the job in the response to a poll, which an item of a list does not have."""
    status = mapped.steps.get("status", ())
    if at(item, status, ...) is ...:
        for length in range(1, len(status)):
            if at(item, status[length:], ...) is not ...:
                return status[:length]
    return ()
