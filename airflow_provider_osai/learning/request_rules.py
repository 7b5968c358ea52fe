"""Learn the rules of requests: the place, type and unit of each field that an operation sends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_osai.api.contract import ENDPOINTS, Endpoint
from airflow_provider_osai.api.field_rules import SECONDS
from airflow_provider_osai.api.joined_ids import json_word
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.text import normalize_word
from airflow_provider_osai.learning.fields import is_file, named_request_field, value_rule
from airflow_provider_osai.learning.paging import PAGE_NAMES
from airflow_provider_osai.learning.provenance import Use
from airflow_provider_osai.learning.recording import FILE, Exchange
from airflow_provider_osai.learning.roles import Role
from airflow_provider_osai.learning.rules import header_name, objects_in, put
from airflow_provider_osai.learning.seen import Seen
from airflow_provider_osai.learning.states import Question
from airflow_provider_osai.learning.values import Steps, at, leaves, path_text, time_seconds, words
from airflow_provider_osai.learning.vocabulary import VALUES

__all__ = ["RequestRules"]

NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "dataset.create": ("name",),
    "category.create": ("name",),
    "upload.image": ("annotations",),
    "training.submit": ("modelName", "modelType", "parameters", "framework", "pretrainedModel", "template"),
    "retraining.submit": ("modelName", "parameters"),
    "conversion.submit": ("target",),
    "prediction.submit": ("minConfidence", "mode"),
    "device_rental.submit": ("device", "duration"),
    "manipulation.submit": ("name", "operations"),
}
"""The other fields of requests."""
MAX_DEVIATION: Final = 0.05
"""How much a rental may be shorter or longer than was asked for, as a fraction."""
UNITS: Final[Mapping[str, frozenset[str]]] = {
    "milliseconds": frozenset({"millisecond", "milli", "ms"}),
    "seconds": frozenset({"second", "sec", "s"}),
    "minutes": frozenset({"minute", "min"}),
    "hours": frozenset({"hour", "h"}),
    "days": frozenset({"day"}),
}
"""Words in the names of durations, by unit."""


@dataclass
class _Request:
    """One operation's request while it is learned.

    :param body: the values of the body that are not explained yet.
    :param query: the names of the query parameters that are not explained yet.
    :param rules: the operation's rules.
    :param request: the rules of its fields.
    """

    role: Role
    endpoint: Endpoint
    rules: dict[str, Any]
    doubts: list[str]
    body: dict[Steps, Any] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = dict(leaves(self.exchange.body))
        self.query = dict(self.exchange.query)

    @property
    def exchange(self) -> Exchange:
        """The exchange that is learned from."""
        return self.role.calls[0].exchange

    @property
    def name(self) -> str:
        """The operation."""
        return self.role.operation


class RequestRules:
    """Learns the rules of requests."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def learn(
        self,
        role: Role,
        endpoint: Endpoint,
        ids: Mapping[str, Sequence[Use]],
        rules: dict[str, Any],
        doubts: list[str],
    ) -> dict[str, Any]:
        """Return the rules of an operation's request fields.

        :param endpoint: the operation with its learned method and path.
        :param ids: the places of the ids, by our fields.
        :param rules: the operation's other rules, to which constants are added.
        """
        seen = _Request(role, endpoint, rules, doubts)
        for our, uses in ids.items():
            _place_ids(seen, our, uses)
        self._place_parameters(seen)
        for our in NAMED.get(role.operation, ()):
            if our not in seen.request:
                self._place_named(seen, our)
        self._place_query(seen)
        if role.operation == "upload.image":
            _place_file(seen)
            self._place_category(seen)
        _place_constants(seen)
        for our in sorted(endpoint.sent_fields | ENDPOINTS[role.operation].sent_fields):
            if our not in seen.request and our not in endpoint.path_fields and not _is_sent(our, seen, ids):
                seen.request[our] = None
        return seen.request

    def _place_parameters(self, seen: _Request) -> None:
        """Place the settings of a training: an object, or the text of one."""
        if "parameters" not in NAMED.get(seen.name, ()):
            return
        objects: dict[Steps, Any] = {
            steps: value for steps, value in objects_in(seen.exchange.body) if steps and isinstance(value, dict)
        }
        steps = named_request_field(objects, "parameters")
        if steps is not None:
            put(seen.request, "parameters", path_text(steps))
            seen.body = {place: value for place, value in seen.body.items() if place[: len(steps)] != steps}
            return
        texts = {place: value for place, value in seen.body.items() if isinstance(value, str) and value[:1] == "{"}
        steps = named_request_field(texts, "parameters")
        if steps is not None:
            put(seen.request, "parameters", {"name": path_text(steps), "shape": "json"})
            del seen.body[steps]

    def _place_named(self, seen: _Request, our: str) -> None:
        """Place a field that is known by its name and value."""
        if our == "operations":
            seen.doubts.append("operations: how they are written is not learned")
            return
        candidates = {steps: value for steps, value in seen.body.items() if _fits(our, value)}
        steps = named_request_field(candidates, our)
        if steps is None:
            if our == "mode":
                self._place_leftover_mode(seen)
            return
        value = seen.body.pop(steps)
        key = next((str(step) for step in reversed(steps) if isinstance(step, str)), "")
        rule: dict[str, Any] = {"name": path_text(steps)} if path_text(steps) != our else {}
        if our in VALUES:
            rule |= self._fixed_values(seen, our, key, value)
        elif our == "minConfidence" and float(value) > 1:
            rule["scale"] = 100 if float(value) <= 100 else 1000
        elif our == "duration":
            rule |= _duration(key, value, self._rented_seconds(), seen.doubts)
        put(seen.request, our, rule)

    def _place_leftover_mode(self, seen: _Request) -> None:
        """Take the words and flags that nothing else explains for the mode of a prediction."""
        left = [steps for steps, value in seen.body.items() if isinstance(value, (bool, str)) and _is_word(value)]
        if left:
            values = [seen.body.pop(steps) for steps in left]
            names = [path_text(steps) for steps in left]
            value = "/".join(map(json_word, values)) if len(left) > 1 else values[0]
            rule = self._fixed_values(seen, "mode", names[0], value)
            put(seen.request, "mode", {"name": names if len(names) > 1 else names[0], **rule})

    def _fixed_values(self, seen: _Request, our: str, key: str, value: Any) -> dict[str, Any]:
        """Return the values of a field of ours with fixed words, by an answer if the recording does not tell."""
        rule, is_clear = value_rule(our, key, value)
        if is_clear:
            return rule
        choices = tuple(VALUES[our])
        answer = self._seen.answers.get(our)
        if answer in choices:
            other = next(choice for choice in choices if choice != answer)
            is_flag = isinstance(value, bool) and len(choices) == len((answer, other))
            return {"values": {answer: value, other: not value} if is_flag else {answer: value}}
        what = "kind of model was trained" if our == "modelType" else "images were labelled by the prediction"
        self._seen.questions.append(Question(our, f"Which {what}? The request has {value!r}.", choices))
        seen.doubts.append(f"{our}: what {value!r} means was not seen")
        return rule

    def _place_query(self, seen: _Request) -> None:
        """Place the fields of the query that are no ids."""
        if seen.name == "dataset.find":
            made = [str(value) for call in self._seen.roles.datasets for _, value in leaves(call.exchange.body)]
            asked = (pair for call in seen.role.calls for pair in call.exchange.query)
            for name in (name for name, value in asked if value in made):
                put(seen.request, "name", name)
                seen.query.pop(name, None)
        elif seen.name == "device_rental.submit" and "duration" not in seen.request:
            key = _query_named(seen, "duration")
            if key is not None:
                more = _duration(key, seen.query.pop(key), self._rented_seconds(), seen.doubts)
                seen.request["duration"] = {"in": "query", "name": key, **more}
        elif seen.name == "model.download":
            key = _query_named(seen, "target")
            if key is not None:
                put(seen.request, "target", key)
                del seen.query[key]

    def _rented_seconds(self) -> float | None:
        """Return the seconds from a rental's start to its end, if a response had both."""
        mapped = self._seen.jobs.get(JobKind.DEVICE_RENTAL)
        jobs = [job for job in self._seen.roles.jobs if job.kind is JobKind.DEVICE_RENTAL]
        places = [mapped.steps.get(name) for name in ("startedAt", "result.expiresAt")] if mapped else []
        for document in (self._seen.inside(document) for job in jobs for document in job.documents):
            start, end = (time_seconds(at(document, place)) if place else None for place in places or (None, None))
            if start is not None and end is not None and end > start:
                return end - start
        return None

    def _place_category(self, seen: _Request) -> None:
        """Place the category's name, if images are sent with it instead of its id."""
        role = self._seen.roles.operations.get("category.create")
        names = {str(value) for call in (role.calls if role else ()) for _, value in leaves(call.exchange.body)}
        for steps in [steps for steps, value in seen.body.items() if str(value) in names]:
            seen.request["category"] = path_text(steps)
            del seen.body[steps]


def _place_ids(seen: _Request, our: str, uses: Sequence[Use]) -> None:
    """Add the rules of an id's places; one in its own place under its own name needs none."""
    rules: list[dict[str, Any]] = []
    for use in uses:
        if use.place == "body":
            seen.body.pop(use.steps, None)
        elif use.place == "query":
            seen.query.pop(str(use.steps[0]), None)
        rule = _id_rule(our, use, seen)
        if rule not in rules:
            rules.append(rule)
    if len(rules) == 1:
        put(seen.request, our, rules[0])
    else:
        seen.request[our] = [{"in": seen.endpoint.place_of(our), **rule} for rule in rules]


def _id_rule(our: str, use: Use, seen: _Request) -> dict[str, Any]:
    """Return the rule of one place of an id."""
    is_list = our.endswith("Ids")
    if use.place == "path":
        return {"in": "path", "shape": "one"} if is_list else {}
    rule: dict[str, Any] = {}
    if use.place != seen.endpoint.place_of(our):
        rule["in"] = use.place
    path = _list_path(use.steps) if use.place == "body" else str(use.steps[0])
    if use.place == "header":
        path = header_name(path)
    if path != our:
        rule["name"] = path
    if use.place == "body" and isinstance(at(seen.exchange.body, use.steps), int):
        rule["type"] = "number"
    in_list = any(isinstance(step, int) for step in use.steps)
    if is_list != in_list and use.place in ("body", "query"):
        rule["shape"] = "one" if is_list else "list"
    return rule


def _is_sent(our: str, seen: _Request, ids: Mapping[str, Sequence[Use]]) -> bool:
    """Whether a field without a rule is in the request, under our own name."""
    if our in ids:
        return True
    if seen.endpoint.place_of(our) == "query":
        return any(name == our for name, _ in seen.exchange.query)
    return isinstance(seen.exchange.body, Mapping) and our in seen.exchange.body


def _duration(key: str, value: Any, seconds: float | None, doubts: list[str]) -> dict[str, Any]:
    """Return the unit of a duration, by its name, its form, or how long the rental took.

    :param seconds: from the start of the rental to its end, if a response had both.
    """
    unit = next((unit for unit, theirs in UNITS.items() if theirs & set(words(key))), None)
    if unit is not None:
        return {} if unit == "seconds" else {"unit": unit}
    if isinstance(value, str) and (suffix := re.fullmatch(r"\d+([a-z]+)", value)):
        return {"match": f"{{value}}{suffix[1]}"}
    if isinstance(value, str) and not value.isdigit():
        return {"unit": "iso8601" if value.startswith("P") else "timespan"}
    for unit, length in SECONDS.items():
        if seconds is not None and abs(float(value) * length - seconds) <= MAX_DEVIATION * seconds:
            return {} if unit == "seconds" else {"unit": unit}
    doubts.append(f"duration: the unit of {value} was not seen; seconds are assumed")
    return {}


def _query_named(seen: _Request, our: str) -> str | None:
    """Return the query parameter that is one of our fields by its name."""
    return next((key for key in seen.query if named_request_field({(key,): None}, our) is not None), None)


def _place_file(seen: _Request) -> None:
    parts = [steps for steps, value in seen.body.items() if is_file(value)]
    if parts:
        put(seen.request, "file", str(parts[0][0]))
        for steps in parts:
            del seen.body[steps]
    elif seen.exchange.encoding == "file":
        seen.doubts.append("file: the image is the whole body, which a contract cannot say")
    else:
        seen.request["file"] = "file"
        seen.doubts.append("file: the recording does not have the form's fields; a definition or another browser may")


def _place_constants(seen: _Request) -> None:
    """Keep what is left and short: words, numbers and flags that are always sent."""
    constants: dict[str, Any] = {}
    for steps, value in seen.body.items():
        if not steps or not all(isinstance(step, str) for step in steps) or value in (None, "", FILE, {}, []):
            continue
        path = path_text(steps)
        if _is_word(value):
            constants[path] = value
            seen.doubts.append(f"{path}: always sent as {value!r}, as in the recording")
        else:
            seen.doubts.append(f"{path}: not understood, and left out")
    if constants and seen.name not in ("auth.sign_in", "upload.image"):
        seen.rules["body"] = constants
    is_page = {key: normalize_word(key) in PAGE_NAMES for key in seen.query}
    query = {key: value for key, value in seen.query.items() if _is_word(value) and not is_page[key]}
    if query and seen.name != "auth.sign_in" and not seen.name.startswith("dataset."):
        seen.rules["query"] = query


def _list_path(steps: Steps) -> str:
    """Return the path of an id, with every item of a list for one."""
    text = ""
    for index, step in enumerate(steps):
        if isinstance(step, int):
            text += "[*]" if index < len(steps) - 1 else ""
        else:
            text += ("." if text else "") + path_text((step,))
    return text


def _fits(our: str, value: Any) -> bool:
    """Whether a value of a request can be that of one of our fields."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if our == "minConfidence":
        return is_number or (isinstance(value, str) and re.fullmatch(r"[\d.]+", value) is not None)
    if our == "duration":
        return is_number or isinstance(value, str)
    if our in ("modelType", "mode"):
        return isinstance(value, (bool, int, str))
    if our == "annotations":
        return True
    return isinstance(value, str)


def _is_word(text: Any) -> bool:
    if not isinstance(text, str):
        return True
    return (
        0 < len(text) <= 40
        and text.isascii()
        and all(part.isalpha() for part in text.replace("-", "_").split("_") if part)
    )
