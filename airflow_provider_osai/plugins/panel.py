"""The job page of a task and the list of recent jobs, shown in Airflow's UI to users who may read the task or Dag."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import Field

from airflow_provider_osai.jobs.idempotency import JobKey
from airflow_provider_osai.plugins.job_cache import JobCache, JobUnavailable, Read, read_job
from airflow_provider_osai.plugins.job_queries import SubmittedJob, find_connection, find_job, recent_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.middleware.base import RequestResponseEndpoint

    from airflow_provider_osai.api.models import Job

__all__ = ["create_panel"]

STATIC: Final = Path(__file__).parent / "static"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every response: the pages show text from a server, and may be framed only by Airflow's own pages."""
MAY_READ: Final = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE))
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{up}static/uPlot.min.css"><link rel="stylesheet" href="{up}static/panel.css">
<script defer src="{up}static/uPlot.iife.min.js"></script><script defer src="{up}static/panel.js"></script></head>
<body>{body}</body></html>
"""
MapIndex = Annotated[int, Field(ge=-1)]


def create_panel(read: Read = read_job) -> FastAPI:
    """Return the ASGI app of the job pages, which the API server mounts.

    :param read: reads a job through a connection.
    """
    app = FastAPI(title="OSAI jobs", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_add_security_headers)
    jobs = JobCache(read)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/", response_class=HTMLResponse)
    async def list_page(user: GetUserDep) -> str:
        """Return the page with the recent jobs of the Dags that the user may read."""
        dags = await asyncio.to_thread(lambda: get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))
        return _list_page(await asyncio.to_thread(recent_jobs, dags))

    @app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}", response_class=HTMLResponse, dependencies=[MAY_READ])
    async def job_page(dag_id: str, run_id: str, task_id: str, map_index: str) -> str:  # noqa: ARG001 - in the path
        """Return the page of a task's job; its script fetches the job itself."""
        body = f'<main data-job="{escape(_parse_map_index(map_index))}/job"><p class="note">Loading...</p></main>'
        return PAGE.format(title="OSAI job", up="../../../../", body=body)

    @app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}/job", dependencies=[MAY_READ])
    async def job(dag_id: str, run_id: str, task_id: str, map_index: MapIndex) -> Response:
        """Return the current state of the task's job, as JSON for the page."""
        return _json(await _job_data(jobs, (dag_id, run_id, task_id, map_index)))

    return app


async def _add_security_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Forbid framing and loading from other origins, and caching of everything but static files."""
    is_static = request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/static/")
    response = await call_next(request)
    response.headers.update(HEADERS if is_static else {**HEADERS, "Cache-Control": "no-store"})
    return response


def _json(content: Mapping[str, Any]) -> Response:
    """Return a response of ASCII JSON; NaN and infinities become ``null``."""
    text = json.dumps(content, default=str)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None))
    return Response(text, media_type="application/json")


def _parse_map_index(map_index: str) -> str:
    """Return the map index, or -1 for the placeholder that Airflow's UI leaves in the path of an unmapped task."""
    return map_index if map_index.lstrip("-").isdecimal() else "-1"


async def _job_data(jobs: JobCache, task: tuple[str, str, str, int]) -> dict[str, Any]:
    """Return the data of a task's job, or an error message for the page."""
    submitted = await asyncio.to_thread(find_job, *task)
    if submitted is None:
        return {"error": "This task has not submitted an OSAI job yet.", "is_terminal": False}
    osai_conn_id = await asyncio.to_thread(find_connection, *task)
    if osai_conn_id is None:
        return {"error": "The id of the connection that this task used is no longer available.", "is_terminal": True}
    try:
        view = await jobs.get(osai_conn_id, submitted.kind, submitted.job_id)
    except JobUnavailable as error:
        return {"error": str(error), "is_terminal": error.is_final}
    job = view.job
    if _belongs_to_another_task(job, task):
        return {"error": "The job in this task's XCom belongs to another task.", "is_terminal": True}
    return {
        "kind": job.kind.value,
        "id": job.id,
        "state": job.state.value,
        "progress": job.progress,
        "is_terminal": job.is_terminal,
        "simulated": job.simulated,
        "portal_url": view.portal_url,
        "facts": _facts(job),
        "notes": list(view.notes),
        "history": [epoch.model_dump() for epoch in job.history or ()],
    }


def _belongs_to_another_task(job: Job, task: tuple[str, str, str, int]) -> bool:
    """Return whether the job's idempotency key identifies another task.

    A user who may write the XComs of one Dag must not be able to read the jobs of other Dags.
    """
    key = JobKey.parse(job.reference)
    if key is None or key.owner is None:
        return False
    owner = key.owner
    return (owner.dag_id, owner.run_id, owner.task_id, owner.map_index) != task


def _facts(job: Job) -> list[tuple[str, str]]:
    """Return the job's known properties as pairs of label and text."""
    result = job.references()
    labels = {
        "model_id": "Model",
        "dataset_id": "Dataset",
        "conversion_id": "Conversion",
        "device_id": "Device",
        "expires_at": "Rental ends",
    }
    facts = [
        ("Status at OSAI", job.status),
        ("Message", job.message or ""),
        ("Submitted", job.created_at or ""),
        ("Time in queue", _duration(job.created_at, job.started_at)),
        ("Started", job.started_at or ""),
        ("Ended", job.finished_at or ""),
        ("Run time", _duration(job.started_at, job.finished_at)),
    ]
    facts += [(label, str(result.get(name, ""))) for name, label in labels.items()]
    facts += [(name, str(value)) for name, value in result["metrics"].items()]
    return [(label, text) for label, text in facts if text]


def _duration(start: str | None, end: str | None) -> str:
    try:
        duration = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))
    except ValueError:
        return ""
    return f"{duration.total_seconds():.1f} s"


def _list_page(jobs: list[SubmittedJob]) -> str:
    rows = "".join(
        f'<tr><td><a href="task/{"/".join(quote(str(part), safe="") for part in job.task)}">{escape(job.kind)} '
        f"{escape(job.job_id)}</a></td>"
        + "".join(f"<td>{escape(str(part))}</td>" for part in (*job.task[:3], job.task_state or ""))
        + "</tr>"
        for job in jobs
    )
    head = "".join(f"<th>{name}</th>" for name in ("Job", "Dag", "Run", "Task", "Task state"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    empty = '<p class="note">No task in the Dags that you may read has submitted an OSAI job yet.</p>'
    return PAGE.format(title="OSAI jobs", up="", body=f"<h1>OSAI jobs</h1>{table if jobs else empty}")
