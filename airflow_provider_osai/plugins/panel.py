"""The panel of a task's OSAI job, and a list of recent ones, for Airflow's pages. Who may read the task may see it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import Field

from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.plugins.found import FoundJob, find_job, recent_jobs
from airflow_provider_osai.triggers.sharing import join, leave

if TYPE_CHECKING:
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.triggers.sharing import Shared

__all__ = ["create_panel"]

STATIC: Final = Path(__file__).parent / "static"
LINGER: Final = 60.0
"""Seconds for which a connection to OSAI is kept open for the next look."""
MAY_READ: Final = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE))
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{up}static/uPlot.min.css"><link rel="stylesheet" href="{up}static/panel.css">
<script defer src="{up}static/uPlot.iife.min.js"></script><script defer src="{up}static/panel.js"></script></head>
<body>{body}</body></html>
"""
MapIndex = Annotated[int, Field(ge=-1)]


def create_panel() -> FastAPI:
    """Return the application that the API server mounts."""
    app = FastAPI(title="OSAI jobs", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/", response_class=HTMLResponse)
    async def recent(user: GetUserDep) -> str:
        """Show the recent jobs of the Dags that the user may read."""
        dags = await asyncio.to_thread(lambda: get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))
        return _list(await asyncio.to_thread(recent_jobs, dags))

    @app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}", response_class=HTMLResponse, dependencies=[MAY_READ])
    async def panel(dag_id: str, run_id: str, task_id: str, map_index: str) -> str:  # noqa: ARG001 - the address has it
        """Show the panel of a task's job; the job itself is asked for by the page."""
        body = f'<main data-job="{escape(_number(map_index))}/job"><p class="note">Looking at OSAI ...</p></main>'
        return PAGE.format(title="OSAI job", up="../../../../", body=body)

    @app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}/job", dependencies=[MAY_READ])
    async def job(dag_id: str, run_id: str, task_id: str, map_index: MapIndex) -> dict[str, Any]:
        """Return the task's job as OSAI has it now, for the page."""
        found = await asyncio.to_thread(find_job, dag_id, run_id, task_id, map_index)
        if found is None:
            return {"error": "This task has submitted no OSAI job yet.", "is_terminal": False}
        return await _look(found)

    return app


def _number(map_index: str) -> str:
    """Return a map index; the pages of a task that is not mapped leave it out of their address."""
    return map_index if map_index.lstrip("-").isdecimal() else "-1"


async def _look(found: FoundJob) -> dict[str, Any]:
    """Read a job, and say in words if that does not work."""
    try:
        shared = await join(OsaiHook(found.osai_conn_id))
        asyncio.get_running_loop().call_later(LINGER, _let_go, shared)
        job = await shared.client.send(shared.client.calls.get_job(JobKind.parse(found.kind), found.job_id))
        url = OsaiPortalLink.url(shared.client.settings, job.kind, job.id)
    except OsaiError as error:
        return {"error": f"{type(error).__name__}: {error}", "is_terminal": not error.retryable}
    except Exception as error:  # noqa: BLE001 - of Airflow's secrets backends, whatever they are
        return {
            "error": f"The connection {found.osai_conn_id} cannot be used: {type(error).__name__}",
            "is_terminal": True,
        }
    return {
        "kind": job.kind.value,
        "id": job.id,
        "state": job.state.value,
        "progress": job.progress,
        "is_terminal": job.is_terminal,
        "portal_url": url,
        "facts": _facts(job),
        "history": [epoch.model_dump() for epoch in job.history or ()],
    }


_leaving: set[asyncio.Task[None]] = set()


def _let_go(shared: Shared) -> None:
    task = asyncio.get_running_loop().create_task(leave(shared))
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


def _facts(job: Job) -> list[tuple[str, str]]:
    """Return what is known of a job, in words."""
    result = job.references()
    facts = [("Status at OSAI", job.status), ("Message", job.message or "")]
    facts += [("Submitted", job.created_at or ""), ("Waited in the queue", _between(job.created_at, job.started_at))]
    facts += [
        ("Started", job.started_at or ""),
        ("Ended", job.finished_at or ""),
        ("Ran", _between(job.started_at, job.finished_at)),
    ]
    names = {"model_id": "Model", "dataset_id": "Dataset", "conversion_id": "Conversion", "device_id": "Device"}
    facts += [(label, str(result.get(name, ""))) for name, label in {**names, "expires_at": "Lease ends"}.items()]
    facts += [(name, str(value)) for name, value in result["metrics"].items()]
    return [(name, value) for name, value in facts if value]


def _between(start: str | None, end: str | None) -> str:
    try:
        passed = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))
    except ValueError:
        return ""
    return f"{passed.total_seconds():.1f} s"


def _list(jobs: list[FoundJob]) -> str:
    rows = "".join(
        f'<tr><td><a href="task/{"/".join(quote(str(part), safe="") for part in job.task)}">{escape(job.kind)} '
        f"{escape(job.job_id)}</a></td>"
        + "".join(f"<td>{escape(str(part))}</td>" for part in (*job.task[:3], job.task_state or ""))
        + "</tr>"
        for job in jobs
    )
    head = "".join(f"<th>{name}</th>" for name in ("Job", "Dag", "Run", "Task", "Task state"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    empty = '<p class="note">No task of a Dag that you may read has submitted an OSAI job yet.</p>'
    return PAGE.format(title="OSAI jobs", up="", body=f"<h1>OSAI jobs</h1>{table if jobs else empty}")
