"""A few functions that spare the servers the same lines: reading a request, and a table of routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from inspect import isawaitable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.gallery.world import NotFound, Refused, World

__all__ = [
    "Body",
    "File",
    "account",
    "bearer",
    "chosen",
    "download",
    "fields",
    "form",
    "iso",
    "json_body",
    "json_text",
    "number",
    "numbers",
    "query",
    "renamed",
    "routes",
]

Handler = Callable[[Request], Any]


class Body(dict[str, Any]):
    """The fields of a request; a missing one is refused."""

    def __missing__(self, key: str) -> Any:
        raise Refused(f"The field '{key}' is missing.")


class File(NamedTuple):
    """A file of a multipart request."""

    name: str
    data: bytes


async def json_body(request: Request) -> Body:
    """Return the JSON object of a request; an empty body is an empty object."""
    try:
        content = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise Refused("The body is not JSON.") from error
    if not isinstance(content, dict):
        raise Refused("The body is not a JSON object.")
    return Body(content)


async def form(request: Request) -> list[tuple[str, Any]]:
    """Return the fields of a form in their order, each a string or a File."""
    async with request.form() as fields:
        return [
            (name, value if isinstance(value, str) else File(value.filename or "", await value.read()))
            for name, value in fields.multi_items()
        ]


async def fields(request: Request) -> Body:
    """Return the fields of a form by name; of several with one name the last."""
    return Body(await form(request))


def query(request: Request) -> Body:
    """Return the query of a request."""
    return Body(request.query_params)


def number(value: object, prefix: str = "") -> int:
    """Return the number of an id such as ``ds-12``."""
    text = str(value)
    if not text.startswith(prefix) or not text.removeprefix(prefix).isdecimal():
        raise NotFound(f"There is no object {text[:40]}.")
    return int(text.removeprefix(prefix))


def numbers(values: object, prefix: str = "") -> list[int]:
    """Return the numbers of a list of ids."""
    if not isinstance(values, list):
        raise Refused("A list of ids is missing.")
    return [number(value, prefix) for value in values]


def chosen(value: object, words: Mapping[Any, str]) -> str:
    """Return the world's word for one of a vendor's words."""
    if not isinstance(value, str | int) or value not in words:
        raise Refused(f"{str(value)[:40]!r} is not one of {', '.join(map(str, words))}.")
    return words[value]


def json_text(text: str | None) -> Any:
    """Return what a text of JSON holds; None for no text."""
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise Refused("A field is not JSON.") from error


def renamed(values: Mapping[str, Any], names: Mapping[str, str], time: Callable[[datetime], Any] | None = None) -> Any:
    """Return the values that have a name in *names*, under that name; times as *time* shows them, by default ISO."""
    return {
        names[key]: (time or iso)(value) if isinstance(value, datetime) else value
        for key, value in values.items()
        if key in names
    }


def iso(time: datetime | None) -> str | None:
    """Return a time as ``2026-01-01T08:00:00Z``."""
    return time and f"{time:%Y-%m-%dT%H:%M:%SZ}"


def bearer(world: World) -> Callable[[Request], None]:
    """Return a check of the header ``Authorization: Bearer <token>``."""

    def check(request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        world.check_token(token if scheme.lower() == "bearer" else None)

    return check


def download(data: bytes, name: str) -> Response:
    """Return a file as an attachment."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


def routes(
    table: Mapping[str, Handler],
    check: Callable[[Request], None] | None = None,
    answer: Callable[[Any], Response] = JSONResponse,
) -> list[Route]:
    """Return a route for each ``METHOD /path`` of the table.

    *check* comes before each handler; *answer* makes the response of what a handler returns, unless it is one.
    """

    def route(address: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            if check:
                check(request)
            try:
                content = handler(request)
                if isawaitable(content):
                    content = await content
            except (AttributeError, LookupError, TypeError, ValueError) as error:  # what a typed framework refuses
                raise Refused(f"A value is invalid ({type(error).__name__}).") from error
            return content if isinstance(content, Response) else answer(content)

        method, path = address.split()
        return Route(path, endpoint, methods=[method])

    return [route(address, handler) for address, handler in table.items()]


def account(world: World) -> list[Route]:
    """Return the routes of sign-in (a bare JSON string, answered with a token as text) and of the own account."""

    async def sign_in(request: Request) -> Response:
        try:
            access_token = json.loads(await request.body())
        except ValueError as error:
            raise Refused("The body is not a JSON string.") from error
        return PlainTextResponse(world.sign_in(access_token))

    def me(request: Request) -> Any:
        return {"id": 1, "name": "Gallery", "email": "gallery@example.com"}

    return [*routes({"POST /api/Users/SignIn": sign_in}), *routes({"GET /api/Users": me}, bearer(world))]
