"""The ASGI app of the pages in Airflow's UI, shown to users who may read the task, the Dag or the asset."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from airflow_provider_osai.plugins.pages import batch, gate, models, run, upload
from airflow_provider_osai.plugins.pages.access import MAY_READ_ASSET, MAY_READ_TASK, may_use_asset, readable_dags
from airflow_provider_osai.plugins.pages.job_cache import JobCache, JobUnavailable, JobView, Read, read_job
from airflow_provider_osai.plugins.pages.jobs import PERIODS, TASK_STATES, job_rows, parse_filter, query_string
from airflow_provider_osai.plugins.pages.queries import (
    AssetRecord,
    GateTask,
    TaskAddress,
    TaskRecord,
    downstream_tasks,
    find_asset,
    find_connection,
    find_task,
    gate_results,
    gate_tasks,
    instance_states,
    list_jobs,
    model_events,
    previous_result,
)
from airflow_provider_osai.plugins.pages.rendering import render
from airflow_provider_osai.promotion.champion import Champion, current_champion

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint

__all__ = ["create_pages"]

STATIC: Final = Path(__file__).parent / "static"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every response: the pages show text from a server, and may be framed only by Airflow's own pages."""
FIRST_WAIT: Final = 1.0
"""Maximum seconds for which a page waits for OSAI; after that it is shown without the job, and refreshes itself."""


def create_pages(read: Read = read_job) -> FastAPI:
    """Return the ASGI app of the pages, which the API server mounts.

    :param read: reads a job through a connection.
    """
    app = FastAPI(title="OSAI jobs", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_add_security_headers)
    cache = JobCache(read)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/", response_class=HTMLResponse)
    async def jobs_page(request: Request, user: GetUserDep) -> str:
        """Return the page with the jobs of the Dags that the user may read."""
        return await asyncio.to_thread(_jobs_page, request, user)

    @app.get("/models", response_class=HTMLResponse)
    async def models_page(request: Request, user: GetUserDep) -> str:
        """Return the page with the champions that the user may read."""
        return await asyncio.to_thread(_models_page, request, user)

    @app.get("/models/{asset_id}", response_class=HTMLResponse, dependencies=MAY_READ_ASSET)
    async def model_page(request: Request, asset_id: int, user: GetUserDep) -> str:
        """Return the page with the history of a model's champions."""
        return await asyncio.to_thread(_model_page, request, user, asset_id)

    @app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}", response_class=HTMLResponse, dependencies=MAY_READ_TASK)
    async def task_page(
        request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, user: GetUserDep
    ) -> str:
        """Return the page of a task: its job or jobs, its gate's decision, or its upload."""
        address = TaskAddress(dag_id, run_id, task_id, _parse_map_index(map_index))
        return await _task_page(request, cache, address, user)

    return app


async def _add_security_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Forbid framing and loading from other origins, and caching of everything but static files."""
    is_static = request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/static/")
    response = await call_next(request)
    response.headers.update(HEADERS if is_static else {**HEADERS, "Cache-Control": "no-store"})
    return response


def _parse_map_index(map_index: str) -> int:
    """Return the map index, or -1 for the placeholder that Airflow's UI leaves in the path of an unmapped task."""
    return int(map_index) if map_index.isascii() and map_index.isdigit() and len(map_index) < 10 else -1


def _page(request: Request, template: str, **values: Any) -> str:
    """Return a page.

    :param values: what the template uses besides ``up``, the relative path to the app's root, and ``refresh``, the
        seconds after which the page refreshes itself; 0 = never.
    """
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return render(template, **{"up": "../" * (path.count("/") - 1), "refresh": 0, **values})


async def _task_page(request: Request, cache: JobCache, address: TaskAddress, user: Any) -> str:
    """Return the page of a task by what the task is."""
    task = await asyncio.to_thread(find_task, address)
    if task is None:
        return await asyncio.to_thread(_batch_page, request, address)
    is_running = task.state in run.RUNNING_IN_AIRFLOW
    if gate.is_gate(task):
        return await asyncio.to_thread(_gate_page, request, task, user)
    if upload.is_upload(task):
        return _page(request, "upload.html", task=task, refresh=5 if is_running else 0, **upload.upload_values(task))
    if batch.is_batch(task):
        return _page(request, "job_batch.html", task=task, refresh=5 if is_running else 0, **batch.batch_values(task))
    if task.job is None:
        message = run.capacity_message(task) or "This task has not submitted an OSAI job yet."
        return _page(request, "message.html", title="OSAI job", message=message, refresh=5)
    return await _run_page(request, cache, task, user)


def _batch_page(request: Request, address: TaskAddress) -> str:
    """Return the page with the jobs of all instances of a mapped task."""
    counts = instance_states(address)
    if not counts or address.map_index >= 0:
        return _page(request, "message.html", title="OSAI", message="Airflow has no such task.")
    wanted = replace(parse_filter({"page": request.query_params.get("page", "")}), task=address)
    records, has_more = list_jobs([address.dag_id], wanted)
    return _page(
        request,
        "batch.html",
        address=address,
        counts=counts,
        rows=job_rows(records, datetime.now(UTC)),
        number=wanted.page + 1,
        has_more=has_more,
        refresh=10 if counts.keys() & run.RUNNING_IN_AIRFLOW else 0,
    )


async def _run_page(request: Request, cache: JobCache, task: TaskRecord, user: Any) -> str:
    """Return the page of a task's job: as OSAI reports it, or else what Airflow has of it."""
    found, (comparison, surroundings) = await asyncio.gather(
        _read_job(cache, task), asyncio.to_thread(_surroundings, task, user)
    )
    shared = {"task": task, "parameters": run.parameter_rows(task), **surroundings}
    if isinstance(found, JobUnavailable):
        refresh = 2 if found.is_pending else 0 if found.is_final else 10
        values = run.task_values(task, comparison)
        return _page(request, "run.html", error=str(found), refresh=refresh, **shared, **values)
    if run.belongs_to_another_task(found.job, task.address):
        message = "The job in this task's XCom belongs to another task."
        return _page(request, "message.html", title="OSAI job", message=message)
    refresh = 0 if found.job.is_terminal and task.state not in run.RUNNING_IN_AIRFLOW else 3
    values = run.job_values(found, task, comparison, time.time())
    return _page(request, "run.html", error=None, refresh=refresh, **shared, **values)


async def _read_job(cache: JobCache, task: TaskRecord) -> JobView | JobUnavailable:
    """Return the task's job, or why it cannot be shown."""
    osai_conn_id = await asyncio.to_thread(find_connection, task)
    if osai_conn_id is None:
        text = "The id of the connection that this task used is no longer available."
        return JobUnavailable(text, is_final=True)
    assert task.job is not None  # noqa: S101 - for the type
    try:
        async with asyncio.timeout(FIRST_WAIT):
            return await cache.get(osai_conn_id, task.job.kind, task.job.job_id)
    except TimeoutError:
        return JobUnavailable("Waiting for OSAI to answer...", is_final=False, is_pending=True)
    except JobUnavailable as error:
        return error


def _gates(task: TaskRecord) -> list[GateTask]:
    """Return the gates of the task's Dag."""
    return [each for _, each in gate_tasks([task.address.dag_id])]


def _surroundings(task: TaskRecord, user: Any) -> tuple[run.Comparison, dict[str, Any]]:
    """Return what the job's metrics are compared with, and the tasks after it, as far as the user may read them."""
    next_tasks, later_tasks = downstream_tasks(task.address)
    gates = [each for each in _gates(task) if each.task_id in later_tasks and may_use_asset(user, each.asset_id)]
    champion = _current_champion(gates[0].asset_id) if len({each.asset_id for each in gates}) == 1 else None
    previous = previous_result(task.address).get("metrics")
    comparison = run.Comparison(
        champion_id=champion.model.model_id if champion else None,
        champion=champion.model.metrics if champion else None,
        same_data=champion is not None and champion.model.measured_on in run.measured_on(task),
        previous=previous if isinstance(previous, dict) else None,
    )
    return comparison, {"gates": gates, "next_tasks": next_tasks}


def _current_champion(asset_id: int) -> Champion | None:
    return current_champion(event.extra for event in model_events([asset_id])[asset_id])


def _gate_page(request: Request, task: TaskRecord, user: Any) -> str:
    mine = next((each for each in _gates(task) if each.task_id == task.address.task_id), None)
    may_read = mine is not None and may_use_asset(user, mine.asset_id)
    values = gate.gate_values(task, _current_champion(mine.asset_id) if mine and may_read else None)
    refresh = 5 if task.state in run.RUNNING_IN_AIRFLOW else 0
    return _page(request, "gate.html", task=task, gate=mine if may_read else None, refresh=refresh, **values)


def _jobs_page(request: Request, user: Any) -> str:
    query = request.query_params
    wanted = parse_filter(query)
    dag_ids = sorted(readable_dags(user))
    records, has_more = list_jobs(dag_ids, wanted)
    number = wanted.page + 1
    return _page(
        request,
        "jobs.html",
        rows=job_rows(records, datetime.now(UTC)),
        dag_ids=dag_ids,
        wanted=wanted,
        days=query.get("days", ""),
        task_states=TASK_STATES,
        periods=PERIODS,
        number=number,
        earlier=query_string(query, number - 1) if number > 1 else None,
        later=query_string(query, number + 1) if has_more else None,
        refresh=10 if number == 1 else 0,
    )


def _models_page(request: Request, user: Any) -> str:
    """Return the page with the readable champion assets: those of gates of readable Dags."""
    readable = readable_dags(user)
    gates = [(dag_id, each) for dag_id, each in gate_tasks(readable)]
    assets: dict[int, tuple[str, list[str]]] = {}
    for dag_id, each in gates:
        if each.asset_id in assets or may_use_asset(user, each.asset_id):
            assets.setdefault(each.asset_id, (each.uri, []))[1].append(dag_id)
    events = model_events(assets)
    rows = []
    for asset_id, (uri, dag_ids) in assets.items():
        visible = [event for event in events[asset_id] if event.source is None or event.source.dag_id in readable]
        champion = current_champion(event.extra for event in visible)
        rows.append(
            {
                "asset_id": asset_id,
                "uri": uri,
                "dag_ids": sorted(set(dag_ids)),
                "champion": champion,
                "at": visible[-1].at if visible else None,
            }
        )
    return _page(request, "models.html", rows=sorted(rows, key=lambda row: str(row["uri"])))


def _model_page(request: Request, user: Any, asset_id: int) -> str:
    asset = find_asset(asset_id)
    if asset is None:
        raise HTTPException(404, "Airflow has no such model asset")
    return _render_model(request, user, asset)


def _render_model(request: Request, user: Any, asset: AssetRecord) -> str:
    readable = readable_dags(user)
    events = [
        event for event in model_events([asset.id])[asset.id] if event.source is None or event.source.dag_id in readable
    ]
    gates = [(dag_id, each.task_id) for dag_id, each in gate_tasks(readable, asset.id)]
    entries = models.history(events, gate_results(gates))
    metric = models.shown_metric(entries, events, request.query_params.get("metric"))
    return _page(
        request,
        "model.html",
        asset=asset,
        entries=entries[::-1],
        metric=metric,
        metrics=models.metric_names(entries),
        chart=models.chart_values(entries, metric) if metric else None,
        champion=current_champion(event.extra for event in events),
        may_roll_back=may_use_asset(user, asset.id, "POST"),
    )
