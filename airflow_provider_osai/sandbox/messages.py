"""Requests and responses of the sandbox on the wire: by default with our names, else by a contract document."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from airflow_provider_osai.api.contract import ACCESS_TOKEN, NO_RULES, Endpoint
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.api.pagination import page_of
from airflow_provider_osai.api.wire_format import decode_request, encode_response
from airflow_provider_osai.sandbox.models import ApiError

__all__ = ["error_response", "plain_error", "request_fields", "response_of"]

FORMS: Final = ("multipart/form-data", "application/x-www-form-urlencoded")
MEANINGS: Final[Mapping[int, tuple[str, ...]]] = {
    400: ("invalid", "rejected"),
    404: ("absent",),
    409: ("locked", "ended"),
    413: ("invalid",),
    422: ("invalid",),
    429: ("busy",),
}
"""What the sandbox's own error statuses mean in a contract."""


async def request_fields(row: Endpoint, request: Request, path: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the path, query, form or JSON body, under our names.

    :raises ApiError: 400, if the body is not what the operation expects.
    """
    body = await _body(row, request)
    if row.name == "auth.sign_in":
        rule = row.rules.request.get(ACCESS_TOKEN)
        first = rule[0] if isinstance(rule, tuple) else rule
        return {"": body if first is None else (first.paths[0] if first.paths else json_path(ACCESS_TOKEN)).get(body)}
    if row.rules is NO_RULES:
        if body is not None and not isinstance(body, dict):
            raise ApiError(400, "The body must be a JSON object")
        sent = {**request.query_params, **(body or {})}
        unknown = set(body or {}) - row.sent_fields
        fields = {**{name: value for name, value in sent.items() if name in row.sent_fields}, **path}
    else:
        query: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            query.setdefault(name, []).append(value)
        fields, unknown = decode_request(row, path, query, request.headers, body)
    if unknown and not _is_form(request):
        raise ApiError(400, f"Unknown fields for this operation: {', '.join(sorted(unknown))}")
    return fields


async def _body(row: Endpoint, request: Request) -> Any:
    """Return the JSON body or the form; ``None`` if there is none."""
    if _is_form(request):
        form: dict[str, Any] = {}
        for name, value in (await _form(row, request)).multi_items():
            form[name] = [*_listed(form[name]), value] if name in form else value
        for rules in row.rules.request.values():
            for rule in (rules,) if not isinstance(rules, tuple) else rules:
                for path in rule.paths if rule is not None else ():
                    if path.steps and len(path.steps) > 1 and isinstance(form.get(str(path.steps[0])), str):
                        form[str(path.steps[0])] = _json(form[str(path.steps[0])])
        return form
    content = await request.body()
    return _json(content) if content else None


async def _form(row: Endpoint, request: Request) -> FormData:
    """Return the form, whose file part may lack a file name: some clients send only its bytes."""
    if not request.headers["content-type"].startswith(FORMS[0]):
        return await request.form()
    try:
        form = await _FormParser(request.headers, request.stream(), row.request_names.get("file", "file")).parse()
    except MultiPartException as error:
        raise ApiError(400, error.message) from None
    request._form = form  # so that closing the request closes the files
    return form


class _FormParser(MultiPartParser):
    """Reads the part *file* as a file even if it has no file name.

    :param file: the name of the part.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], file: str) -> None:
        super().__init__(headers, stream)
        self._file = file.encode()

    def on_headers_finished(self) -> None:
        """Create the part's file or text."""
        _, options = parse_options_header(self._current_part.content_disposition)
        if options.get(b"name") == self._file and b"filename" not in options:
            self._current_part.content_disposition = (self._current_part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith(FORMS)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ApiError(400, "The body is not valid JSON") from None


def response_of(row: Endpoint, result: Any, request: Request) -> Response:
    """Return the response to a request with a result."""
    if row.name == "auth.sign_in":
        return _sign_in_response(row, result)
    if row.rules is NO_RULES:
        return JSONResponse({} if result is None else result)
    extras: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if row.rules.pages is not None and isinstance(result, list):
        url = str(request.url.replace(query=""))
        result, extras, headers = page_of(row.rules.pages, result, request.query_params, url)
    encoded = encode_response(row, result)
    document = encoded.document
    for path, value in extras.items():
        document = json_path(path).put(document, value)
    headers |= encoded.headers
    status = row.rules.success or 200
    if row.rules.answer == "none":
        return Response(status_code=status, headers=headers)
    if row.rules.answer == "text":
        text = document if isinstance(document, str) else json.dumps(document)
        return PlainTextResponse(text, status, headers=headers)
    return JSONResponse(document, status, headers=headers)


def _sign_in_response(row: Endpoint, token: str) -> Response:
    rule = row.rules.response.get("token")
    if rule is None:
        return PlainTextResponse(token)
    path = rule.paths[0] if rule.paths else json_path("token")
    return JSONResponse(path.put({}, token.strip('"')))


def plain_error(status: int, text: str) -> JSONResponse:
    """Return an error response in the sandbox's own form."""
    return JSONResponse({"message": text}, status)


def error_response(row: Endpoint, status: int, text: str) -> JSONResponse:
    """Return an error response in the form that the contract describes for its meaning, if it does."""
    meanings = MEANINGS.get(status, ())
    for rule in row.rules.error or ():
        if rule.means in meanings and rule.example is not None:
            return JSONResponse(_with_message(rule.example, rule.message, text))
    for other, cases in row.rules.statuses.items():
        for case in cases:
            if case.means in meanings and (case.example is not None or case.when is None):
                document = {"message": text} if case.example is None else case.example
                return JSONResponse(_with_message(document, case.message, text), other)
    return plain_error(status, text)


def _with_message(document: Any, path: str | None, text: str) -> Any:
    if path is None or json_path(path).steps is None:
        return document
    return json_path(path).put(document, text)
