"""Scripts how jobs go, arms faults, and records what the server saw. The routes are below ``/sandbox/``, unsigned."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastapi import APIRouter

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.sandbox.leases import billed
from airflow_provider_osai.sandbox.records import timestamp
from airflow_provider_osai.sandbox.scripts import Fault, FaultKind, Script, Timing
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Control", "control_routes"]

MAX_RECORD = 100_000
"""Requests that the record holds; the oldest go first."""


@dataclass(slots=True)
class _Armed:
    fault: Fault
    spared: int
    left: int


class Control:
    """Tells one sandbox how to behave, and what it has seen.

    :param state: the sandbox's state; its lock guards this too.
    """

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._scripts: dict[JobKind | None, Script] = {}
        self._armed: list[_Armed] = []
        self._seen: deque[dict[str, Any]] = deque(maxlen=MAX_RECORD)
        self._counts: Counter[str] = Counter()

    def script(self, kind: JobKind | str | None = None, timing: Timing = "work", **details: Any) -> None:
        """Set how jobs of a kind (or all) go that are submitted from now on; *details* as in :class:`Script`."""
        self.add_script(Script.model_validate({"kind": kind, "timing": timing, **details}))

    def add_script(self, script: Script) -> None:
        """Set a script. One for all kinds replaces all that were set before."""
        with self._state.lock:
            if script.kind is None:
                self._scripts = {}
            self._scripts[script.kind] = script

    def script_for(self, kind: JobKind) -> Script:
        """Return the script for a new job of this kind."""
        with self._state.lock:
            return self._scripts.get(kind) or self._scripts.get(None) or Script()

    def fault(self, kind: FaultKind, endpoint: str = "*", **details: Any) -> None:
        """Arm a fault; *details* as in :class:`Fault`."""
        self.add_fault(Fault.model_validate({"kind": kind, "endpoint": endpoint, **details}))

    def add_fault(self, fault: Fault) -> None:
        """Arm a fault behind those that are armed."""
        with self._state.lock:
            self._armed.append(_Armed(fault, fault.after, fault.times))

    def clear_faults(self) -> None:
        """Disarm all faults."""
        with self._state.lock:
            self._armed = []

    def faults(self) -> list[dict[str, Any]]:
        """Return the armed faults with how many requests each spares and hits yet."""
        with self._state.lock:
            return [{**armed.fault.model_dump(), "after": armed.spared, "times": armed.left} for armed in self._armed]

    def take(self, endpoint: str) -> dict[FaultKind, Fault]:
        """Return the faults that hit this request, at most one of each kind, and count them."""
        taken: dict[FaultKind, Fault] = {}
        with self._state.lock:
            for armed in self._armed:
                if armed.fault.kind in taken or not fnmatchcase(endpoint, armed.fault.endpoint):
                    continue
                if armed.fault.kind == "duplicate_webhook" and not endpoint.endswith(".webhook"):
                    continue
                if armed.spared:
                    armed.spared -= 1
                    continue
                armed.left -= 1
                taken[armed.fault.kind] = armed.fault
            self._armed = [armed for armed in self._armed if armed.left]
        return taken

    def saw(self, endpoint: str, method: str, path: str, status: int | None) -> None:
        """Record one request; never its query, headers or body.

        :param endpoint: the endpoint's name, or ``""`` if there is none at this address.
        :param status: the status of the answer, or ``None`` if the connection was dropped.
        """
        path = path.replace(self._state.access_token, "***")  # a client may still use an address that carries it
        entry = {"endpoint": endpoint, "method": method, "path": path, "status": status}
        with self._state.lock:
            self._seen.append({**entry, "at": timestamp(self._state.clock())})
            if endpoint:
                self._counts[endpoint] += 1

    def record(self) -> dict[str, Any]:
        """Return what the server saw: ``requests``, ``counts`` by endpoint, and all ``jobs``."""
        with self._state.lock:
            jobs = [
                {"id": job.id, "kind": job.kind.value, "reference": job.reference, "state": job.state.value}
                for job in self._state.jobs.everything()
            ]
            return {"requests": list(self._seen), "counts": dict(self._counts), "jobs": jobs}

    def devices(self, count: int | None = None) -> None:
        """Set how many devices there are to be rented; further rentals stay queued. ``None``: enough for everybody."""
        with self._state.lock:
            self._state.jobs.leases.devices = count
            self._state.jobs.tick()

    def rentals(self) -> list[dict[str, Any]]:
        """Return all leases with the ``seconds`` for which each had its device, which are what a rental costs."""
        with self._state.lock:
            self._state.jobs.tick()
            now = self._state.clock()
            return [billed(job, now) for job in self._state.jobs.everything() if job.is_lease]

    def end(self, job_id: str) -> None:
        """End a job now, as its script says; for leases and jobs whose timing is scripted."""
        self._state.jobs.end(job_id)

    def reset(self) -> None:
        """Forget scripts, faults, the record, jobs, models and datasets."""
        with self._state.lock:
            self._scripts, self._armed = {}, []
            self._seen.clear()
            self._counts.clear()
            self._state.jobs.leases.devices = None
        self._state.reset()

    def images(self, dataset_id: str) -> list[dict[str, Any]]:
        """Return the images of a dataset with their category and the labels that predictions wrote."""
        with self._state.lock:
            return [
                {
                    "id": image.id,
                    "fileName": image.file_name,
                    "category": category,
                    "labels": [
                        {"categoryId": label.category_id, "name": label.name, "confidence": label.confidence}
                        for label in image.labels
                    ],
                }
                for image, category in self._state.datasets.get(dataset_id).snapshot()
            ]


def control_routes(control: Control) -> APIRouter:
    """Return the routes that drive *control*."""
    router = APIRouter(prefix="/sandbox", include_in_schema=False)
    rows = (
        ("POST", "/scripts", control.add_script, 204),
        ("POST", "/faults", control.add_fault, 204),
        ("GET", "/faults", control.faults, 200),
        ("DELETE", "/faults", control.clear_faults, 204),
        ("GET", "/record", control.record, 200),
        ("POST", "/jobs/{job_id}/end", control.end, 204),
        ("POST", "/devices", control.devices, 204),
        ("GET", "/rentals", control.rentals, 200),
        ("POST", "/reset", control.reset, 204),
        ("GET", "/datasets/{dataset_id}/images", control.images, 200),
    )
    for method, path, call, status in rows:
        router.add_api_route(path, call, methods=[method], status_code=status, response_model=None)
    return router
