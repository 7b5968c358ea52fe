"""Test control of the sandbox: script jobs, inject faults, and read the request log. Served below ``/sandbox/``.

The routes need no sign-in, so they reject requests from web pages: DNS rebinding is detected by ``Host``, pages of
other sites by ``Origin``.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastapi import APIRouter, Depends, Request

from airflow_provider_osai.api.addresses import is_loopback_url
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.sandbox.device_pool import rental_summary
from airflow_provider_osai.sandbox.models import ApiError, timestamp
from airflow_provider_osai.sandbox.scenarios import Fault, FaultKind, Script, Timing
from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Control", "control_routes"]

MAX_RECORD = 100_000
"""Maximum number of requests in the record; the oldest are dropped."""
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
"""A ``Host`` header: a name or an address, and optionally a port."""


@dataclass(slots=True)
class _ArmedFault:
    fault: Fault
    skips: int
    hits: int


class Control:
    """Controls how one sandbox behaves, and returns what it has recorded.

    :param state: the sandbox's state; its lock guards the control too.
    """

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._scripts: dict[JobKind | None, Script] = {}
        self._armed: list[_ArmedFault] = []
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_RECORD)
        self._counts: Counter[str] = Counter()

    def script(self, kind: JobKind | str | None = None, timing: Timing = "work", **details: Any) -> None:
        """Script all jobs of a kind (default: all kinds) that are submitted from now on.

        :param details: further fields of :class:`Script`.
        """
        self.add_script(Script.model_validate({"kind": kind, "timing": timing, **details}))

    def add_script(self, script: Script) -> None:
        """Set a script. A script for all kinds replaces all earlier ones."""
        with self._state.lock:
            if script.kind is None:
                self._scripts = {}
            self._scripts[script.kind] = script

    def script_for(self, kind: JobKind) -> Script:
        """Return the script for a new job of this kind."""
        with self._state.lock:
            return self._scripts.get(kind) or self._scripts.get(None) or Script()

    def fault(self, kind: FaultKind, endpoint: str = "*", **details: Any) -> None:
        """Arm a fault.

        :param details: further fields of :class:`Fault`.
        """
        self.add_fault(Fault.model_validate({"kind": kind, "endpoint": endpoint, **details}))

    def add_fault(self, fault: Fault) -> None:
        """Arm a fault; it is applied after those that are already armed."""
        with self._state.lock:
            self._armed.append(_ArmedFault(fault, fault.after, fault.times))

    def clear_faults(self) -> None:
        """Disarm all faults."""
        with self._state.lock:
            self._armed = []

    def faults(self) -> list[dict[str, Any]]:
        """Return the armed faults, with the remaining requests that each skips (``after``) and hits (``times``)."""
        with self._state.lock:
            return [{**armed.fault.model_dump(), "after": armed.skips, "times": armed.hits} for armed in self._armed]

    def take_faults(self, endpoint: str) -> dict[FaultKind, Fault]:
        """Return the faults for a request, at most one of each kind, and count them as used."""
        taken: dict[FaultKind, Fault] = {}
        with self._state.lock:
            for armed in self._armed:
                if armed.fault.kind in taken or not fnmatchcase(endpoint, armed.fault.endpoint):
                    continue
                if armed.fault.kind == "duplicate_webhook" and not endpoint.endswith(".webhook"):
                    continue
                if armed.skips:
                    armed.skips -= 1
                    continue
                armed.hits -= 1
                taken[armed.fault.kind] = armed.fault
            self._armed = [armed for armed in self._armed if armed.hits]
        return taken

    def record_request(self, endpoint: str, method: str, path: str, status: int | None) -> None:
        """Record one request; never its query, headers or body.

        :param endpoint: the endpoint's name, or ``""`` if there is none at this address.
        :param status: the response status, or ``None`` if the connection was dropped.
        """
        path = path.replace(self._state.access_token, "***")  # a client may put the access token into a path
        entry = {"endpoint": endpoint, "method": method, "path": path, "status": status}
        with self._state.lock:
            self._requests.append({**entry, "at": timestamp(self._state.clock())})
            if endpoint:
                self._counts[endpoint] += 1

    def record(self) -> dict[str, Any]:
        """Return the recorded ``requests``, their ``counts`` by endpoint, and all ``jobs`` with their states."""
        with self._state.lock:
            jobs = [
                {"id": job.id, "kind": job.kind.value, "reference": job.reference, "state": job.state.value}
                for job in self._state.jobs.all_jobs()
            ]
            return {"requests": list(self._requests), "counts": dict(self._counts), "jobs": jobs}

    def devices(self, count: int | None = None) -> None:
        """Set the number of devices that can be rented; further rentals stay queued. ``None``: unlimited."""
        with self._state.lock:
            self._state.jobs.devices.count = count
            self._state.jobs.tick()

    def rentals(self) -> list[dict[str, Any]]:
        """Return all device rentals with the ``seconds`` that each has held its device, which determine its cost."""
        with self._state.lock:
            self._state.jobs.tick()
            now = self._state.clock()
            return [rental_summary(job, now) for job in self._state.jobs.all_jobs() if job.is_lease]

    def end(self, job_id: str) -> None:
        """End a job now, with the outcome of its script; only device rentals and jobs with a scripted timing."""
        self._state.jobs.end(job_id)

    def reset(self) -> None:
        """Delete scripts, faults, the record, jobs, models and datasets."""
        with self._state.lock:
            self._scripts, self._armed = {}, []
            self._requests.clear()
            self._counts.clear()
            self._state.jobs.devices.count = None
        self._state.reset()

    def images(self, dataset_id: str) -> list[dict[str, Any]]:
        """Return the images of a dataset with their categories and predicted labels."""
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


async def reject_web_pages(request: Request) -> None:
    """Reject requests of web pages: ``Host`` must be loopback or the server's address, ``Origin``, if any, the same.

    :raises ApiError: 403, if they are not.
    """
    hosts = request.headers.getlist("host")
    host = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    bound, *_ = request.scope.get("server") or ("",)
    if host is None or not (host[1].strip("[]").lower() == str(bound).lower() or is_loopback_url(f"http://{host[0]}")):
        raise ApiError(403, "Host: the control routes are for this machine only; use 127.0.0.1, [::1] or localhost")
    if any(origin.partition("://")[2].lower() != host[0].lower() for origin in request.headers.getlist("origin")):
        raise ApiError(403, "Origin: the control routes reject requests from web pages of other sites")


def control_routes(control: Control) -> APIRouter:
    """Return the HTTP routes of *control*."""
    router = APIRouter(prefix="/sandbox", include_in_schema=False, dependencies=[Depends(reject_web_pages)])
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
