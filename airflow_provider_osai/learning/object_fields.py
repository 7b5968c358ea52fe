"""Learn the fields of responses that are no jobs: of datasets, categories, images, models and conversions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from airflow_provider_osai.api.json_paths import ABSENT, json_path
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.fields import SURE, Mapped, best_named, is_metrics, metrics_rule
from airflow_provider_osai.learning.id_places import IdPlaces
from airflow_provider_osai.learning.roles import MAKERS, Role
from airflow_provider_osai.learning.rules import objects_in, put
from airflow_provider_osai.learning.seen import Seen
from airflow_provider_osai.learning.values import (
    Steps,
    at,
    is_id_name,
    leaves,
    path_text,
    similarity,
    time_unit,
    words,
)
from airflow_provider_osai.learning.vocabulary import RESPONSE

__all__ = ["ObjectFields"]

_DATASET: Final = ("name", "locked", "imageCount", "updatedAt")
_MODEL: Final = ("name", "modelType", "metrics", "createdAt")
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "dataset.create": _DATASET,
    "dataset.get": _DATASET,
    "dataset.find": _DATASET,
    "category.create": ("name", "datasetId"),
    "category.list": ("name", "datasetId"),
    "image.list": ("fileName", "digest", "categoryId", "category", "annotations"),
    "model.get": _MODEL,
    "model.list": _MODEL,
    "model.conversions": ("target", "status", "jobId", "message"),
}
"""The fields of each response but for the id."""
UNIQUE: Final = ("locked", "createdAt", "updatedAt", "imageCount")
"""Fields that are recognized without their names if only one value can be it."""
PREFIXED_DIGEST: Final = re.compile(r"([a-z0-9-]+:)[0-9a-f]{64}")


class ObjectFields:
    """Learns the id and the named fields of an object."""

    def __init__(self, seen: Seen, ids: IdPlaces) -> None:
        self._seen = seen
        self._ids = ids

    def add(
        self, role: Role, document: Any, response: dict[str, Any], doubts: list[str], *, is_item: bool = False
    ) -> None:
        """Add the rules of the fields of a response to *response*.

        :param document: the response without its envelope, or an item of a list.
        """
        if not isinstance(document, Mapping):
            return
        name = role.operation
        indexes = (0,) if name == "upload.image" else ()
        places = {
            steps: value
            for steps, value in leaves(document)
            if all(isinstance(step, str) or step in indexes for step in steps)
        }
        own = None if is_item else self._made_id(role)
        own = own if own in places else self._known_id(name, places)
        if own is None:
            own = _id_by_name(places)
            if own is not None and name != "upload.image":
                doubts.append("id: recognized by its name only")
        if own is not None:
            put(response, "id", path_text(own))
        elif places and name != "upload.image":
            response["id"] = None
        taken = {own} if own is not None else set()
        for our in FIELDS.get(name, ()):
            place = self._place(role, our, document, places, taken)
            if place is not None:
                taken.add(place)
                rule = self._rule(our, place, at(document, place), doubts)
                if rule is not None:
                    put(response, our, rule)
        if name == "model.conversions":
            self._add_job(document, own, response)

    def _place(
        self, role: Role, our: str, document: Any, places: Mapping[Steps, Any], taken: Iterable[Steps]
    ) -> Steps | None:
        """Return the place of one of our fields."""
        if our == "status" and self._flags(document):
            return None  # :meth:`_add_job` adds it
        fitting = {place: value for place, value in places.items() if place not in taken and _fits(our, value)}
        if our in ("metrics", "annotations"):
            objects = [(place, value) for place, value in objects_in(document) if place]
            fitting = {place: value for place, value in objects if our == "annotations" or is_metrics(value)}
        if our == "categoryId" and (known := self._category_ids()):
            fitting = {place: value for place, value in fitting.items() if str(value) in known} or fitting
        own = next(iter(taken), None)
        if own and len(own) > 1:  # the fields beside the id come first
            fitting = {place: value for place, value in fitting.items() if place[: len(own) - 1] == own[:-1]} or fitting
        place = best_named(fitting, our, RESPONSE, taken)
        if place is None and our in UNIQUE:
            place = self._only_one(role, our, fitting, taken)
        return place

    def _rule(self, our: str, place: Steps, value: Any, doubts: list[str]) -> dict[str, Any] | list[str] | None:
        """Return the rule of a field at a place."""
        rule: dict[str, Any] = {"name": path_text(place)} if path_text(place) != our else {}
        unit = time_unit(value) if our.endswith("At") else None
        if unit and unit != "iso":
            rule["unit"] = unit
        elif our == "modelType":
            rule |= self._model_type_values()
        elif our == "jobId" and (joined := self._joined_job(value)):
            return [part or path_text(place) for part in joined]
        elif our == "metrics":
            more, doubt = metrics_rule(value)
            rule |= more
            doubts += [f"metrics: {doubt}"] if doubt else []
        elif our == "digest" and isinstance(value, str) and (found := PREFIXED_DIGEST.fullmatch(value)):
            rule["match"] = f"{found[1]}{{value}}"
        return rule

    def _made_id(self, role: Role) -> Steps | None:
        """Return where the id is in the response of what made something: later requests have it."""
        counts: Counter[Steps] = Counter()
        numbers = {call.number for call in role.calls}
        for call in self._seen.calls:
            for use in call.uses:
                made = [source for source in use.sources if source.call in numbers and source.header is None]
                if made:
                    counts[self._seen.relative(made[0].steps)] += 1
        best = counts.most_common(1)
        return best[0][0] if best else None

    def _known_id(self, name: str, places: Mapping[Steps, Any]) -> Steps | None:
        """Return the place of a value that is used as an id elsewhere."""
        expected = self.ids_of(name)
        exact = [steps for steps, value in places.items() if str(value) in expected and steps]
        if exact:
            return min(exact, key=len)
        plain = [steps for steps in places if steps and words(str(steps[-1])) == ("id",)]
        used = {use.value for call in self._seen.calls for use in call.uses}
        named = [
            steps
            for steps, value in places.items()
            if str(value) in used and not isinstance(value, bool) and steps and is_id_name(str(steps[-1]))
        ]
        if name == "model.conversions":
            named = [steps for steps in named if similarity(str(steps[-1]), RESPONSE["jobId"]) < SURE]
        return min(plain or named, key=len, default=None)

    def ids_of(self, name: str) -> set[str]:
        """Return the ids of what an operation lists, as other operations show them."""
        if name == "category.list":
            return self._category_ids()
        if name == "image.list":
            role = self._seen.roles.operations.get("upload.image")
            found = (leaves(call.exchange.response) for call in (role.calls if role else ()))
            return {str(value) for each in found for steps, value in each if steps and is_id_name(str(steps[-1]))}
        if name == "model.conversions":
            mapped = self._seen.jobs.get(JobKind.CONVERSION, Mapped())
            return self._results((JobKind.CONVERSION,)) if "result.conversionId" in mapped.steps else set()
        return self._results(MAKERS) if name == "model.list" else set()

    def _results(self, kinds: Iterable[JobKind]) -> set[str]:
        return {text for job in self._seen.roles.jobs if job.kind in kinds for text in self._seen.results(job)}

    def _category_ids(self) -> set[str]:
        role = self._seen.roles.operations.get("category.create")
        row = self._seen.rows.get("category.create")
        if role is None or row is None or row.rules is None:
            return set()
        rule = row.rules.get("response", {}).get("id", "id")
        path = json_path(rule if isinstance(rule, str) else "id")
        found = [path.get(self._seen.inside(call.exchange.response)) for call in role.calls]
        found += [call.exchange.response for call in role.calls if call.exchange.form == "text"]
        return {str(value) for value in found if isinstance(value, (str, int))}

    def _only_one(self, role: Role, our: str, fitting: Mapping[Steps, Any], taken: Iterable[Steps]) -> Steps | None:
        """Return the place of a field that nothing else can be: the only flag or time, or the number of the images."""
        left = [place for place, value in fitting.items() if place not in taken and value is not None]
        if our == "imageCount":
            get = self._seen.roles.operations.get("dataset.get")
            counting = [place for place in left if get is not None and self._counts_images(get, place)]
            left = counting
        return left[0] if len(left) == 1 else None

    def _counts_images(self, get: Role, place: Steps) -> bool:
        """Whether a number of a dataset is that of the images sent before, at every look at it."""
        sent = self._seen.roles.operations.get("upload.image")
        counts = [
            sum(
                image.number < call.number and image.recording == call.recording
                for image in (sent.calls if sent else ())
            )
            for call in get.calls
        ]
        return any(counts) and counts == [at(self._seen.inside(call.exchange.response), place) for call in get.calls]

    def _flags(self, document: Any) -> list[str] | None:
        """Return the flags that are the status of jobs, if a document has them, too."""
        for mapped in self._seen.jobs.values():
            rule = mapped.rules.get("status")
            if isinstance(rule, list) and all(json_path(path).get(document) is not ABSENT for path in rule):
                return rule
        return None

    def _add_job(self, document: Any, own: Steps | None, response: dict[str, Any]) -> None:
        """Add what a conversion shares with its job: flags for a status, and an id with several parts."""
        if flags := self._flags(document):
            response["status"] = flags
        joined = self._joined_job(at(document, own)) if own is not None else []
        if joined and own is not None:
            response.setdefault("jobId", [part or path_text(own) for part in joined])

    def _joined_job(self, value: Any) -> list[str]:
        """Return the parts of the id of a conversion's job, as the list of a model's conversions has them."""
        jobs = (job for job in self._seen.roles.jobs if job.kind is JobKind.CONVERSION and job.value == str(value))
        job = next(jobs, None)
        parents = self._ids.parents(job) if job is not None else []
        return ["$id" if part == "$modelId" else part for part in parents]

    def _model_type_values(self) -> dict[str, Any]:
        row = self._seen.rows.get("training.submit")
        rule = (row.rules or {}).get("request", {}).get("modelType") if row else None
        return {"values": rule["values"]} if isinstance(rule, dict) and "values" in rule else {}


def _id_by_name(places: Mapping[Steps, Any]) -> Steps | None:
    named = [steps for steps in sorted(places, key=len) if steps and is_id_name(str(steps[-1]))]
    named = [steps for steps in named if places[steps] is not None]
    plain = [steps for steps in named if words(str(steps[-1]))[-1:] == ("id",)]
    return next(iter(plain or named), None)


def _fits(our: str, value: Any) -> bool:
    """Whether a value of a response can be that of one of our fields."""
    if our == "locked":
        return isinstance(value, bool)
    if our == "imageCount":
        return isinstance(value, int) and not isinstance(value, bool)
    if our.endswith("At"):
        return time_unit(value) is not None or value is None
    if our == "modelType":
        return isinstance(value, (bool, int, str))
    return isinstance(value, (str, int)) or value is None
