"""Find where the ids of things are in requests: which field of ours each is, and which are parts of a job's id."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.learning.fields import named_request_field
from airflow_provider_osai.learning.provenance import Call, Source, Use
from airflow_provider_osai.learning.roles import JobTrace
from airflow_provider_osai.learning.seen import JOBS, Seen
from airflow_provider_osai.learning.values import leaves

__all__ = ["IdPlaces"]

THINGS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "dataset.get": (("id", "dataset"),),
    "dataset.delete": (("id", "dataset"),),
    "category.create": (("datasetId", "dataset"),),
    "category.list": (("datasetId", "dataset"),),
    "upload.start": (("id", "dataset"),),
    "upload.image": (("datasetUploadId", "upload"), ("categoryId", "category"), ("datasetId", "dataset")),
    "upload.finish": (("datasetUploadId", "upload"), ("id", "dataset")),
    "image.list": (("datasetId", "dataset"),),
    "model.get": (("id", "model"),),
    "model.conversions": (("id", "model"),),
    "model.download": (("conversionId", "conversion"), ("id", "model")),
    "training.submit": (("datasetIds", "dataset"),),
    "retraining.submit": (("modelId", "model"), ("datasetIds", "dataset")),
    "prediction.submit": (("modelId", "model"), ("datasetId", "dataset")),
    "conversion.submit": (("modelId", "model"),),
    "manipulation.submit": (("datasetId", "dataset"),),
    **{f"{kind}.{verb}": (("id", "job"),) for kind in JOBS for verb in ("get", "cancel")},
}
"""The ids in the requests of each operation: our field, and what it is the id of."""


class IdPlaces:
    """The places of ids in the requests of each operation."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._device_segment = self._find_device_segment()

    def find(self, name: str, call: Call) -> tuple[dict[str, list[Use]], str, list[str]]:
        """Return the places of the ids by our field, the path, and the parts of the job's id if it has several.

        A part is ``$name`` for a field of the submission, and empty for the id that the submission returned.
        """
        expected = THINGS.get(name, ())
        found: dict[str, list[Use]] = {}
        is_job = name.endswith((".get", ".cancel")) and name.partition(".")[0] in JOBS
        for use in call.uses:
            choices = [
                (rank, our)
                for our, thing in expected
                for rank, source in enumerate(use.sources)
                if self.is_thing(source, thing, use, name)
            ]
            if choices:
                _, our = min(choices, key=lambda choice: choice[0])
                found.setdefault(our, []).append(use)
        parents: list[str] = []
        segments = list(call.exchange.path)
        templates = call.template.strip("/").split("/")
        own = {use.steps[0]: our for our, uses in found.items() for use in uses if use.place == "path"}
        if is_job and name.startswith("device_rental.") and self._device_segment in segments:
            templates[segments.index(self._device_segment)] = "{}"
        parts = [index for index, part in enumerate(templates) if "{}" in part]
        submit = self._submission_of(name, call) if is_job else None
        fields = {index: self._parent_field(submit, segments[index].partition(":")[0], name) for index in parts}
        joined = any(fields[index] is not None for index in parts if index not in own)
        number = 0
        for index, part in enumerate(templates):
            if "{}" not in part:
                continue
            parent = "" if index in own else fields.get(index)
            if joined and parent is not None:
                number += 1
                templates[index] = part.replace("{}", f"{{id.{number}}}")
                parents.append(parent)
            elif index in own:
                templates[index] = part.replace("{}", f"{{{own[index]}}}")
            else:  # a constant of the account, such as the id of its project
                templates[index] = part.replace("{}", segments[index].partition(":")[0])
        path = "/" + "/".join(templates)
        if name == "device_rental.submit" and self._device_segment is not None:
            path = "/" + "/".join("{device}" if part == self._device_segment else part for part in templates)
        if name == "model.download":
            path = self._with_target(path)
        return found, path, parents if joined else []

    def parents(self, job: JobTrace) -> list[str]:
        """Return the parts of a joined id, the job's own as an empty text."""
        role = self._seen.roles.operations.get(f"{job.kind}.get")
        if role is None:
            return []
        _, _, parents = self.find(role.operation, role.calls[0])
        return parents

    def is_thing(self, source: Source, thing: str, use: Use, operation: str) -> bool:
        """Return whether a value of a request is the id of a thing, by where it comes from."""
        call = self._seen.calls[source.call]
        if thing == "dataset":
            made = [each.submit for each in self._seen.roles.jobs if each.kind is JobKind.MANIPULATION]
            found = self._seen.roles.operations.get("dataset.find")
            return call in self._seen.roles.datasets or call in made or (found is not None and call in found.calls)
        if thing == "upload":
            start = self._seen.roles.operations.get("upload.start")
            return start is not None and call in start.calls
        if thing == "category":
            return call in self._seen.roles.categories
        kind = operation.partition(".")[0]
        for job in self._seen.roles.jobs:
            is_job = use.value == job.value and (call is job.submit or call in job.gets)
            is_result = (call is job.submit or call in job.gets) and use.value in self._seen.results(job)
            if thing == "job" and is_job and job.kind == kind:
                return True
            makes = {
                "model": (JobKind.TRAINING, JobKind.RETRAINING),
                "conversion": (JobKind.CONVERSION,),
            }.get(thing, ())
            if is_result and job.kind in makes:
                return True
        return False

    def _find_device_segment(self) -> str | None:
        """Return the segment of a rental's path that names the device: nothing else of the request does."""
        role = self._seen.roles.operations.get("device_rental.submit")
        if role is None:
            return None
        call = role.calls[0]
        body = {steps: value for steps, value in leaves(call.exchange.body) if isinstance(value, str)}
        if named_request_field(body, "device") is not None:
            return None
        parts = call.exchange.path
        for before, segment in pairwise(parts):
            if named_request_field({(before,): None}, "device") is not None and call.template.split("/")[-1] != segment:
                return segment
        return None

    def _with_target(self, path: str) -> str:
        """Put ``{target}`` in a download's path where it has the target of a conversion."""
        role = self._seen.roles.operations.get("conversion.submit")
        if role is None:
            return path
        sent = {str(value) for _, value in leaves(role.calls[0].exchange.body) if isinstance(value, str)}
        return "/".join("{target}" if part in sent else part for part in path.split("/"))

    def _submission_of(self, name: str, call: Call) -> Call | None:
        """Return the submission of the job that a call is about."""
        values = {use.value for use in call.uses}
        kind = name.partition(".")[0]
        jobs = (job for job in self._seen.roles.jobs if job.kind == kind and job.value in values)
        job = next((job for job in jobs if job.submit.recording == call.recording), None)
        return job.submit if job is not None else None

    def _parent_field(self, submit: Call | None, value: str, name: str) -> str | None:
        """Return the field of the submission that has a value which is in the path of the job, too; ``None``: none."""
        if submit is None:
            return None
        operation = name.partition(".")[0] + ".submit"
        for our, thing in THINGS.get(operation, ()):
            for use in submit.uses:
                if use.value == value and any(self.is_thing(source, thing, use, operation) for source in use.sources):
                    return f"${our}"
        is_device = operation == "device_rental.submit" and value == self._device_segment
        return "$device" if is_device else None
