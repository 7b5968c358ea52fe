"""The sandbox's ASGI app: routes built from the contract, which call the handlers and apply injected faults."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.sandbox.control import Control, control_routes
from airflow_provider_osai.sandbox.fault_responses import (
    TRANSPORT,
    DroppedConnection,
    apply_faults,
    fault_response,
    with_status,
)
from airflow_provider_osai.sandbox.handlers import Handlers
from airflow_provider_osai.sandbox.messages import error_response, plain_error, request_fields, response_of
from airflow_provider_osai.sandbox.models import ApiError, JobRecord
from airflow_provider_osai.sandbox.openapi import describe, wire_placeholder
from airflow_provider_osai.sandbox.portal import portal_routes
from airflow_provider_osai.sandbox.portal_push import JobHub
from airflow_provider_osai.sandbox.scenarios import Fault, FaultKind
from airflow_provider_osai.sandbox.scoped_ids import ScopedIds
from airflow_provider_osai.sandbox.state import SandboxState
from airflow_provider_osai.sandbox.webhooks import Webhooks

__all__ = ["TRANSPORT", "create_app"]

ENDPOINT = "osai.endpoint"
"""Key in the ASGI scope for the endpoint's name, which the request log reads."""
FILES = "/files/{key}"
"""Where the files are whose addresses are in responses, for which the key is the permission."""
BLOCKING = frozenset({"upload.image"})
"""Endpoints that do file I/O and are therefore handled in a thread."""

Handler = Callable[[Request], Awaitable[Response]]
Faults = dict[FaultKind, Fault]


def create_app(
    state: SandboxState | None = None, *, contract: Contract | None = None, base_path: str = "/api"
) -> FastAPI:
    """Return a sandbox as an ASGI app: the API below ``/api``, job pages at the root, control below ``/sandbox``.

    ``app.state`` has ``sandbox`` (the state), ``control`` and ``webhooks``. A state that is created here is closed with
    the app's lifespan, which also resumes the unfinished jobs in the state's folder.

    :param state: the sandbox's state; default: a new, empty one.
    :param contract: the endpoints and names to serve; default: the default contract.
    :param base_path: the path of the API, without a trailing slash; may be empty.
    """
    contract = contract or Contract()
    owns_state = state is None
    state = state or SandboxState()
    control = Control(state)
    handlers, ids = Handlers(state, control, contract), ScopedIds(contract, state)
    routes = _RouteBuilder(handlers, control, state, contract, ids)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        await run_in_threadpool(state.jobs.resume)
        yield
        await run_in_threadpool(routes.webhooks.close)
        if owns_state:
            await run_in_threadpool(state.close)

    app = FastAPI(title="OSAI sandbox", openapi_url=None, lifespan=lifespan)
    servers = [{"url": base_path or "/"}]
    api = FastAPI(title="OSAI sandbox", version="1", servers=servers, root_path_in_servers=False, redoc_url=None)
    app.state.sandbox, app.state.control, app.state.webhooks = state, control, routes.webhooks
    rows = [row for row in contract.endpoints.values() if row is not None]
    routes.add(api, [row for row in rows if not is_page(row)])
    routes.add(app, [row for row in rows if is_page(row)])
    app.include_router(control_routes(control))
    app.include_router(portal_routes(contract, base_path, JobHub(state, contract, handlers, ids)))
    app.add_api_route(FILES, routes.send_file, include_in_schema=False)
    app.mount(base_path, api)
    app.add_middleware(_RequestLog, control=control)
    for application in (app, api):
        application.add_exception_handler(HTTPException, _on_http_exception)
        application.add_exception_handler(RequestValidationError, _on_validation_error)
        application.add_exception_handler(ApiError, _on_api_error)
    return app


class _RouteBuilder:
    """Builds routes from the contract's rows."""

    def __init__(
        self, handlers: Handlers, control: Control, state: SandboxState, contract: Contract, ids: ScopedIds
    ) -> None:
        self._handlers = handlers
        self._contract = contract
        self._ids = ids
        self._control = control
        self._state = state
        self._file_keys: dict[Path, str] = {}
        self.webhooks = Webhooks(handlers.status, self._webhook_copies)
        state.jobs.on_end = self.webhooks.job_ended

    def add(self, app: FastAPI, rows: Iterable[Endpoint]) -> None:
        """Add the routes of *rows*, fixed paths before those with placeholders."""
        by_address: dict[tuple[str, str], list[Endpoint]] = {}
        for row in sorted(rows, key=lambda row: len(row.placeholders)):
            by_address.setdefault((row.method, re.sub(r"{[\w.]+}", "{}", row.path)), []).append(row)
        for (method, _), group in by_address.items():
            group.sort(key=lambda row: row.rules.answer == "none")  # its answer would hide those of others
            first = group[0]
            download = next((row for row in group if row.rules.pick and row.rules.url), None)
            if download is not None and len(group) > 1:
                group.remove(download)  # the other operations' items have the addresses
            app.add_api_route(
                re.sub(r"{([\w.]+)}", lambda found: f"{{{wire_placeholder(found[1])}}}", first.path),
                self._route(group, download),
                methods=[method],
                operation_id=first.name,
                summary=" or ".join(row.name for row in group),
                include_in_schema=not is_page(first),
                response_class=Response,
                openapi_extra=describe(first),
            )

    def _webhook_copies(self, job: JobRecord) -> int:
        return 2 if "duplicate_webhook" in self._control.take_faults(f"{job.kind}.webhook") else 1

    async def send_file(self, key: str) -> Response:
        """Send the file with an address in a response, without a sign-in."""
        path = next((path for path, each in self._file_keys.items() if each == key), None)
        if path is None or not path.exists():
            return plain_error(404, "There is no such file")
        return await run_in_threadpool(_file_response, path)

    def _address(self, path: Path, request: Request) -> str:
        key = self._file_keys.setdefault(path, secrets.token_urlsafe(16))
        return str(request.url.replace(path=FILES.format(key=key), query=""))

    def _with_addresses(self, download: Endpoint, items: list[dict[str, Any]], request: Request) -> Any:
        """Return a model's conversions with the addresses of their files, where the contract has them."""
        found = []
        for item in items:
            path = self._state.written_file(str(item.get("jobId") or item["id"]))
            address = None if path is None else self._address(path, request)
            found.append(json_path(download.rules.url or "@").put(item, address))
        return found

    def _route(self, rows: list[Endpoint], download: Endpoint | None) -> Handler:
        async def handle(request: Request) -> Response:
            """Try the rows that share this address in turn, until one returns a result."""
            values = list(request.path_params.values())
            try:
                for row in rows:
                    path = dict(zip(row.placeholders, values, strict=True))
                    response = await self._respond(row, request, path, download)
                    if not _is_without_result(response):
                        break
                return response
            finally:
                await request.close()  # closes the files of a form

        return handle

    async def _respond(
        self, row: Endpoint, request: Request, path: dict[str, Any], download: Endpoint | None
    ) -> Response:
        """Handle one request, with the faults that are armed for it."""
        request.scope[ENDPOINT] = row.name
        faults = self._control.take_faults(row.name)
        if delay := faults.get("delay"):
            await asyncio.sleep(delay.seconds)
        if (response := fault_response(faults)) is not None:
            return response
        if "expired_token" in faults:
            self._state.accounts.expire_all()
        try:
            response = await self._handle(row, request, path, faults, download)
        except ApiError as error:
            response = error_response(row, error.status, error.message)
        except ValueError as error:
            response = error_response(row, 400, str(error))
        except ClientDisconnect:  # while the client was sending the request
            return DroppedConnection()
        return apply_faults(response, faults)

    async def _handle(
        self, row: Endpoint, request: Request, path: dict[str, Any], faults: Faults, download: Endpoint | None
    ) -> Response:
        self._authenticate(row, request)
        fields = await request_fields(row, request, path)
        if row.rules.pick:
            result: Any = self._handle_pick(row, fields)
        else:
            fields = self._ids.to_plain(row.name, fields)
            if row.name in BLOCKING:
                result = await run_in_threadpool(self._handlers.handle, row.name, fields)
            else:
                result = self._handlers.handle(row.name, fields)
        if isinstance(result, Path) and row.rules.url is not None:
            return JSONResponse(json_path(row.rules.url).put({}, self._address(result, request)))
        if isinstance(result, Path):
            return await run_in_threadpool(_file_response, result)
        if isinstance(result, str) and row.name != "auth.sign_in":
            return HTMLResponse(result) if is_page(row) else PlainTextResponse(result)
        if fault := faults.get("unknown_state"):
            result = with_status(result, fault.word)
        if download is not None and isinstance(result, list):
            result = self._with_addresses(download, result, request)
        return response_of(row, self._ids.to_scoped(row.name, result), request)

    def _handle_pick(self, row: Endpoint, fields: dict[str, Any]) -> Any:
        """Return all jobs below the id: the client picks the one that it asked for."""
        kind = JobKind.parse(row.name.partition(".")[0])
        ids = self._ids.jobs_below(kind, fields.get("id"))
        return self._handlers.handle(f"{kind}.list", {"ids": ids})

    def _authenticate(self, row: Endpoint, request: Request) -> None:
        if row.name == "auth.sign_in" or is_page(row):
            return
        header = self._contract.token_header
        given = request.headers.get(header.name)
        if "auth.sign_in" not in self._contract:
            self._state.accounts.check_key((given or "").removeprefix(header.prefix))
        elif given is not None and given.startswith(header.prefix):
            self._state.accounts.check(f"Bearer {given.removeprefix(header.prefix)}")
        else:
            self._state.accounts.check(given)


def _is_without_result(response: Response) -> bool:
    return response.status_code in (400, 404) or getattr(response, "body", None) == b"[]"


def _file_response(path: Path) -> FileResponse:
    """Return a file response that supports range requests, with the file's digest (RFC 9530)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    headers = {
        "ETag": f'"{digest.hexdigest()[:32]}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    return FileResponse(path, headers=headers, filename=path.name, media_type="application/octet-stream")


def is_page(row: Endpoint) -> bool:
    """Whether a row is a page of the portal, which is not below ``/api`` and needs no sign-in."""
    return row.name.endswith(".page")


async def _on_api_error(_: Request, error: Exception) -> Response:
    return plain_error(error.status, error.message) if isinstance(error, ApiError) else plain_error(500, "")


async def _on_http_exception(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return plain_error(500, "")
    return plain_error(error.status_code, str(error.detail))


async def _on_validation_error(_: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return plain_error(400, "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problems))


class _RequestLog:
    """ASGI middleware that records every request outside of ``/sandbox``."""

    def __init__(self, app: ASGIApp, control: Control) -> None:
        self._app, self._control = app, control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/sandbox"):
            await self._app(scope, receive, send)
            return
        path, status = scope["path"], None

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._control.record_request(scope.get(ENDPOINT, ""), scope["method"], path, status)
            await send(message)

        await self._app(scope, receive, record_status)
        if status is None:
            self._control.record_request(scope.get(ENDPOINT, ""), scope["method"], path, None)
