"""The routes, made from the contract: they read requests, ask the operations, apply faults and write answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
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
from airflow_provider_osai.sandbox.control import Control, control_routes
from airflow_provider_osai.sandbox.definition import describe
from airflow_provider_osai.sandbox.operations import Operations, is_file
from airflow_provider_osai.sandbox.records import JobRecord, Refused
from airflow_provider_osai.sandbox.scripts import Fault, FaultKind
from airflow_provider_osai.sandbox.spoiling import TRANSPORT, Dropped, instead_of_an_answer, spoiled, with_word
from airflow_provider_osai.sandbox.state import SandboxState
from airflow_provider_osai.sandbox.webhooks import Webhooks

__all__ = ["TRANSPORT", "create_app"]

ENDPOINT = "osai.endpoint"
"""Where in the ASGI scope a route leaves the endpoint's name, for the record."""
SLOW = frozenset({"upload.image"})
"""Endpoints that read and write files, and so are handled off the event loop."""

Handler = Callable[[Request], Awaitable[Response]]
Faults = dict[FaultKind, Fault]


def create_app(state: SandboxState | None = None, *, contract: Contract | None = None) -> FastAPI:
    """Return a sandbox as an ASGI app: the API below ``/api``, job pages at the root, control below ``/sandbox``.

    ``app.state`` has ``sandbox`` (the state), ``control`` and ``webhooks``. A state that is made here is closed with
    the app's lifespan, which also goes on with the jobs that an earlier sandbox left in the state's folder.

    :param state: what the sandbox knows; an empty one if left out.
    :param contract: the words that it speaks; the defaults if left out.
    """
    contract, own = contract or Contract(), state is None
    state = state or SandboxState()
    control = Control(state)
    routes = _Routes(Operations(state, control, contract), control, state)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        await run_in_threadpool(state.jobs.resume)
        yield
        await run_in_threadpool(routes.webhooks.close)
        if own:
            await run_in_threadpool(state.close)

    app = FastAPI(title="OSAI sandbox", openapi_url=None, lifespan=lifespan)
    servers = [{"url": "/api"}]
    api = FastAPI(title="OSAI sandbox", version="1", servers=servers, root_path_in_servers=False, redoc_url=None)
    app.state.sandbox, app.state.control, app.state.webhooks = state, control, routes.webhooks
    rows = [row for row in contract.endpoints.values() if row is not None]
    routes.add(api, [row for row in rows if not is_page(row)])
    routes.add(app, [row for row in rows if is_page(row)])
    app.include_router(control_routes(control))
    app.mount("/api", api)
    app.add_middleware(_Recorder, control=control)
    for part in (app, api):
        part.add_exception_handler(HTTPException, _http_error)
        part.add_exception_handler(RequestValidationError, _bad_request)
        part.add_exception_handler(Refused, _refused)
    return app


class _Routes:
    """Makes routes of the contract's rows."""

    def __init__(self, operations: Operations, control: Control, state: SandboxState) -> None:
        self._operations, self._control, self._state = operations, control, state
        self.webhooks = Webhooks(operations.word, self._copies)
        state.jobs.on_end = self.webhooks.job_ended

    def add(self, app: FastAPI, rows: Iterable[Endpoint]) -> None:
        """Add the routes of *rows*, fixed paths before those with placeholders."""
        shared: dict[tuple[str, str], list[Endpoint]] = {}
        for row in sorted(rows, key=lambda row: len(row.placeholders)):
            shared.setdefault((row.method, re.sub(r"{\w+}", "{}", row.path)), []).append(row)
        for (method, _), same in shared.items():
            first = same[0]
            app.add_api_route(
                first.path,
                self._handler(same),
                methods=[method],
                operation_id=first.name,
                summary=" or ".join(row.name for row in same),
                include_in_schema=not is_page(first),
                response_class=Response,
                openapi_extra=describe(first),
            )

    def _copies(self, job: JobRecord) -> int:
        return 2 if "duplicate_webhook" in self._control.take(f"{job.kind}.webhook") else 1

    def _handler(self, rows: list[Endpoint]) -> Handler:
        async def handle(request: Request) -> Response:
            """Let the rows that share this address answer in turn, until one has something to say."""
            values = list(request.path_params.values())
            try:
                for row in rows:
                    response = await self._exchange(row, request, dict(zip(row.placeholders, values, strict=True)))
                    if not _says_nothing(response):
                        break
                return response
            finally:
                await request.close()  # the files of a form

        return handle

    async def _exchange(self, row: Endpoint, request: Request, path: dict[str, Any]) -> Response:
        """Answer one request, with whatever faults are armed for it."""
        request.scope[ENDPOINT] = row.name
        faults = self._control.take(row.name)
        if delay := faults.get("delay"):
            await asyncio.sleep(delay.seconds)
        if (response := instead_of_an_answer(faults)) is not None:
            return response
        if "expired_token" in faults:
            self._state.accounts.expire_all()
        try:
            response = await self._answer(row, request, path, faults)
        except Refused as refusal:
            response = _message(refusal.status, refusal.message)
        except ValueError as error:
            response = _message(400, str(error))
        except ClientDisconnect:  # it gave up while it was sending; nobody is there to be answered
            return Dropped()
        return spoiled(response, faults)

    async def _answer(self, row: Endpoint, request: Request, path: dict[str, Any], faults: Faults) -> Response:
        if row.name != "auth.sign_in" and not is_page(row):
            self._state.accounts.check(request.headers.get("authorization"))
        fields = await _fields(row, request, path)
        if row.name in SLOW:
            answer = await run_in_threadpool(self._operations.run, row.name, fields)
        else:
            answer = self._operations.run(row.name, fields)
        if is_file(answer):
            return await run_in_threadpool(_file, answer)
        if isinstance(answer, str):
            return HTMLResponse(answer) if is_page(row) else PlainTextResponse(answer)
        if fault := faults.get("unknown_state"):
            answer = with_word(answer, fault.word)
        return JSONResponse({} if answer is None else row.write(answer))


async def _fields(row: Endpoint, request: Request, path: dict[str, Any]) -> dict[str, Any]:
    """Return what was sent, under our names."""
    if row.name == "auth.sign_in":
        return {"": await _json(request)}
    sent: dict[str, Any] = dict(request.query_params)
    strict: set[str] = set()
    if request.headers.get("content-type", "").startswith(("multipart/form-data", "application/x-www-form-urlencoded")):
        sent |= await request.form()
    elif await request.body():
        body = await _json(request)
        if not isinstance(body, dict):
            raise Refused(400, "a JSON object is needed")
        sent |= body
        outer = {theirs.partition(".")[0] for theirs in row.request_names.values()}  # what held renamed fields stays
        strict = set(row.incoming(body)) - row.sent_fields - outer
    fields = row.incoming(sent)
    if strict:
        raise Refused(400, f"fields that this operation does not have: {', '.join(sorted(strict))}")
    return {**{name: value for name, value in fields.items() if name in row.sent_fields}, **path}


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        raise Refused(400, "the body is no JSON") from None


def _says_nothing(response: Response) -> bool:
    return response.status_code in (400, 404) or getattr(response, "body", None) == b"[]"


def _file(path: Path) -> FileResponse:
    """Return a file that can be had in parts, with its digest (RFC 9530)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    headers = {
        "ETag": f'"{digest.hexdigest()[:32]}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    return FileResponse(path, headers=headers, filename=path.name, media_type="application/octet-stream")


def is_page(row: Endpoint) -> bool:
    """Whether a row is a page of the portal, which has no ``/api`` before it and needs no sign-in."""
    return row.name.endswith(".page")


def _message(status: int, text: str) -> JSONResponse:
    return JSONResponse({"message": text}, status)


async def _refused(_: Request, error: Exception) -> Response:
    return _message(error.status, error.message) if isinstance(error, Refused) else _message(500, "")


async def _http_error(_: Request, error: Exception) -> Response:
    return _message(error.status_code, str(error.detail)) if isinstance(error, HTTPException) else _message(500, "")


async def _bad_request(_: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return _message(400, "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems))


class _Recorder:
    """Records every request outside of ``/sandbox``."""

    def __init__(self, app: ASGIApp, control: Control) -> None:
        self._app, self._control = app, control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/sandbox"):
            await self._app(scope, receive, send)
            return
        path, status = scope["path"], None

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._control.saw(scope.get(ENDPOINT, ""), scope["method"], path, status)
            await send(message)

        await self._app(scope, receive, watch)
        if status is None:
            self._control.saw(scope.get(ENDPOINT, ""), scope["method"], path, None)
