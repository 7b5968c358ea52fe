"""Read recordings of a browser (HTTP Archive, HAR 1.2) as exchanges of one API. Nothing is sent, and nothing is run.

A recording is untrusted input: its size, its depth and its number of entries are limited, and an entry that is not
understood is counted and left out.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import Message
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.learning.json_limits import load_bounded, parse_bounded

__all__ = [
    "FILE",
    "MAX_BYTES",
    "Exchange",
    "Left",
    "Recording",
    "merge_recordings",
    "multipart_fields",
    "read_recording",
]

MAX_BYTES: Final = 256 * 2**20
"""Maximum size of a recording."""
MAX_ENTRIES: Final = 100_000
MAX_DEPTH: Final = 64
MAX_BODY: Final = 8 * 2**20
"""Bodies above this size are files; only their size counts."""
FILE: Final = "<file>"
"""Stands for the content of a file in a form."""
NO_BODY: Final = "none"
"""The form of a body that is not there."""
BINARY: Final = re.compile(r"image/|audio/|video/|application/(octet-stream|zip|gzip|x-)", re.IGNORECASE)
SEPARATOR: Final = "\x1e"
"""Ends each message of SignalR's JSON protocol."""
STATIC: Final = re.compile(r"\.(js|mjs|css|map|html?|ico|svg|woff2?|ttf|png|jpe?g|gif|webp)$", re.IGNORECASE)
STATIC_TYPES: Final = frozenset({"document", "script", "stylesheet", "font", "manifest"})
"""Chrome's types of resources that are no requests of an API."""
BASE_SEGMENT: Final = re.compile(r"(api|rest|service|services|gateway|v\d+(\.\d+)*)", re.IGNORECASE)
"""A first segment that is part of the base address."""
SIGN_IN_PATH: Final = re.compile(r"/Users/SignIn/?$", re.IGNORECASE)
"""The documented sign-in, below the base address."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response.

    :param source: the recording's name and the number of the entry in it, such as ``success.har#12``.
    :param path: decoded segments below the origin.
    :param encoding: of the request's body: ``json``, ``form``, ``multipart``, ``text``, or ``None`` without a body.
    :param body: the JSON value, or a mapping of a form's fields, in which :data:`FILE` stands for a file.
    :param is_complete: whether the body of the request and the response are in the recording, if there was one.
    :param response: the JSON value or text; ``None`` if there is none.
    :param form: of the response: ``json``, ``text``, ``file`` or ``none``.
    :param messages: JSON messages that a WebSocket pushed.
    """

    source: str
    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    request_headers: Mapping[str, str]
    encoding: str | None
    body: Any
    status: int
    response_headers: Mapping[str, str]
    response: Any
    form: str
    time: float = 0.0
    is_complete: bool = True
    messages: tuple[Any, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether the status says so."""
        return 200 <= self.status < 300


class Left(NamedTuple):
    """What was left out of a recording, and how often."""

    reason: str
    times: int


@dataclass(frozen=True, slots=True)
class Recording:
    """The exchanges with one API, in the order of time.

    :param origin: of the API, such as ``https://portal.example``.
    :param base: path of the base address, such as ``/api``; the paths of exchanges are below it.
    :param left: what was left out.
    """

    origin: str
    base: str
    exchanges: Sequence[Exchange]
    left: Sequence[Left] = ()


@dataclass
class _Raw:
    """The entries of one file, before an API is chosen."""

    rows: list[tuple[str, Exchange]] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def read_recording(paths: Iterable[Path], base_url: str | None = None) -> Recording:
    """Read recordings of one API.

    :param base_url: the API's base address; default: the origin with the most exchanges, and the path they begin with.
    :raises OsaiContractError: if a file is not a recording, is too large or too deep, or has no request of an API.
    """
    raw = _Raw()
    for path in paths:
        _read_file(path, raw)
    return merge_recordings(raw.rows, raw.left, base_url)


def merge_recordings(
    rows: Sequence[tuple[str, Exchange]], left: Counter[str], base_url: str | None = None
) -> Recording:
    """Choose the API's origin and base path, and leave the exchanges of others out."""
    by_file: dict[str, list[tuple[str, Exchange]]] = {}
    for row in rows:
        by_file.setdefault(row[1].source.rpartition("#")[0], []).append(row)
    # A second recording may be of another region: each has an origin of its own.
    addresses = {name: _address(own, base_url) for name, own in by_file.items()}
    origin, base = next(iter(addresses.values()), ("", ""))
    steps = tuple(part for part in base.split("/") if part)
    kept: list[Exchange] = []
    for other, exchange in rows:
        if other != addresses[exchange.source.rpartition("#")[0]][0]:
            left["of another origin"] += 1
        elif exchange.path[: len(steps)] != steps:
            left["outside the base address"] += 1
        else:
            kept.append(replace(exchange, path=exchange.path[len(steps) :]))
    if not kept:
        raise OsaiContractError(
            "The recording has no request of an API: record with 'Preserve log' (also called 'Keep log' or 'Persist "
            "Logs') switched on, from before the sign-in, and save it with content. --base-url names the API's address "
            "if it is another than that of the page"
        )
    counts = [Left(reason, count) for reason, count in sorted(left.items())]
    return Recording(origin, base, _in_order(kept), counts)


def _in_order(exchanges: list[Exchange]) -> list[Exchange]:
    """Sort by file, in the order in which they were given, and in each by time."""
    files = list(dict.fromkeys(exchange.source.rpartition("#")[0] for exchange in exchanges))
    rank = {name: number for number, name in enumerate(files)}
    return sorted(exchanges, key=lambda exchange: (rank[exchange.source.rpartition("#")[0]], exchange.time))


def _address(rows: Sequence[tuple[str, Exchange]], base_url: str | None) -> tuple[str, str]:
    if base_url:
        parts = urlsplit(base_url)
        return f"{parts.scheme}://{parts.netloc}".lower(), parts.path.rstrip("/")
    counts: Counter[str] = Counter()
    for origin, exchange in rows:
        counts[origin] += 1 + 10 * (exchange.method != "GET") + 10 * ("authorization" in exchange.request_headers)
    if not counts:
        return "", ""
    origin = counts.most_common(1)[0][0]
    paths = [exchange.path for other, exchange in rows if other == origin]
    for path in paths:
        if SIGN_IN_PATH.search("/" + "/".join(path)):
            return origin, "".join(f"/{part}" for part in path[:-2])
    base: list[str] = []
    for segments in zip(*paths, strict=False):
        if len(set(segments)) > 1 or not BASE_SEGMENT.fullmatch(segments[0]):
            break
        base.append(segments[0])
    return origin, "".join(f"/{part}" for part in base)


def _read_file(path: Path, raw: _Raw) -> None:
    if path.suffix == ".gz":
        document = parse_bounded(_unpacked(path), MAX_DEPTH)
    else:
        document = load_bounded(path, MAX_BYTES, MAX_DEPTH)
    entries = _get(document, "log", "entries")
    if not isinstance(entries, list):
        raise OsaiContractError(
            f"{path.name} is not a recording: it has no log.entries. Save all requests as HAR with content"
        )
    if len(entries) > MAX_ENTRIES:
        raise OsaiContractError(f"{path.name} has {len(entries)} entries; the maximum is {MAX_ENTRIES}")
    for number, entry in enumerate(entries):
        source = f"{path.name}#{number}"
        try:
            read = _read_entry(entry, source)
        except (TypeError, ValueError, KeyError, AttributeError):
            raw.left["not understood"] += 1
            continue
        if isinstance(read, str):
            raw.left[read] += 1
        else:
            raw.rows.append(read)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise OsaiContractError(f"{path.name} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise OsaiContractError(f"{path.name} is larger than {MAX_BYTES // 2**20} MiB")
    return content


def _read_entry(entry: Any, source: str) -> tuple[str, Exchange] | str:
    """Return the origin and the exchange, or why the entry is left out."""
    request, response = entry["request"], entry["response"]
    address = str(request["url"])
    # A WebSocket is of the same origin as the requests beside it.
    url = urlsplit(re.sub(r"^ws(s?):", r"http\1:", address))
    status = int(response.get("status") or 0)
    response_headers = _headers(response.get("headers"))
    kind = _media_type(str(_get(response, "content", "mimeType") or response_headers.get("content-type", "")))
    messages = tuple(_messages(entry.get("_webSocketMessages")))
    method = str(request["method"]).upper()
    is_static = STATIC.search(url.path) or entry.get("_resourceType") in STATIC_TYPES or kind == "text/html"
    reason = None
    if url.scheme not in ("http", "https"):
        reason = "not HTTP"
    elif method in ("OPTIONS", "HEAD"):
        reason = "OPTIONS and HEAD"
    elif not messages and status == 0:
        reason = "without a response"
    elif not messages and method == "GET" and is_static:
        reason = "pages, scripts and pictures"
    if reason is not None:
        return reason
    request_headers = _headers(request.get("headers"))
    sent = _request_body(request, request_headers)
    received = _response_body(response, kind, status)
    exchange = Exchange(
        source=source,
        method=method,
        path=tuple(unquote(part) for part in url.path.split("/") if part),
        query=tuple(parse_qsl(url.query, keep_blank_values=True)),
        request_headers=request_headers,
        encoding=None if sent.form == NO_BODY else sent.form,
        body=sent.value,
        status=status,
        response_headers=response_headers,
        response=received.value,
        form=received.form,
        time=_time(entry.get("startedDateTime")),
        is_complete=sent.is_complete and received.is_complete,
        messages=messages,
    )
    return f"{url.scheme}://{url.netloc}".lower(), exchange


def _media_type(mime: str) -> str:
    return mime.partition(";")[0].strip().lower()


def _headers(rows: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows if isinstance(rows, list) else ():
        name = str(row["name"]).lower()
        if not name.startswith(":"):  # HTTP/2's own
            found[name] = str(row["value"])
    return found


class _Body(NamedTuple):
    """A body: its form, its value, and whether it is in the recording."""

    form: str
    value: Any = None
    is_complete: bool = True


def _request_body(request: Mapping[str, Any], headers: Mapping[str, str]) -> _Body:
    data = request.get("postData")
    declared = headers.get("content-type", "")
    if not isinstance(data, Mapping):
        # Some browsers leave a body with files out.
        is_form = declared.startswith("multipart/")
        return _Body(
            "multipart" if is_form else NO_BODY,
            {} if is_form else None,
            not headers.get("content-length", "0").strip("0"),
        )
    mime = str(data.get("mimeType") or declared)
    kind = _media_type(mime)
    text = data.get("text")
    text = text if isinstance(text, str) else ""
    if "base64" in (data.get("encoding"), data.get("_encoding")):
        text = base64.b64decode(text).decode("latin-1")
    if kind == "multipart/form-data":
        fields = multipart_fields(text, mime if "boundary" in mime else declared) or _params(data.get("params"), kind)
        return _Body("multipart", fields, bool(fields))
    if kind == "application/x-www-form-urlencoded":
        return _Body("form", _collected(parse_qsl(text, keep_blank_values=True)) or _params(data.get("params"), kind))
    return _content(text, kind)


def _content(text: str, kind: str) -> _Body:
    """Return a body that is JSON, text or a file."""
    if not text:
        return _Body(NO_BODY)
    try:
        document = parse_bounded(text, MAX_DEPTH)
    except OsaiContractError:
        is_text = kind.startswith("text/") or kind.endswith("json") or not kind
        return _Body("text", text.strip()) if is_text else _Body("file", FILE)
    if kind == "text/plain" and not isinstance(document, (dict, list)):
        return _Body("text", document if isinstance(document, str) else text.strip())
    return _Body("json", document)


def _params(rows: Any, kind: str) -> dict[str, Any]:
    pairs: list[tuple[str, str]] = []
    for row in rows if isinstance(rows, list) else ():
        is_file = "fileName" in row or (kind == "multipart/form-data" and "value" not in row)
        pairs.append((str(row["name"]), FILE if is_file else str(row.get("value", ""))))
    return _collected(pairs)


def _collected(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return fields by name; the values of a name that occurs several times as a list."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            before = fields[name]
            fields[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            fields[name] = value
    return fields


def multipart_fields(text: str, mime: str) -> dict[str, Any]:
    """Return the fields of a multipart body, with JSON parts parsed and the contents of files left out."""
    message = Message()
    message["Content-Type"] = mime
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not text:
        return {}
    pairs: list[tuple[str, Any]] = []
    for part in text.split(f"--{boundary}")[1:-1]:
        head, _, content = part.lstrip("\r\n").partition("\r\n\r\n")
        named = re.search(r'(?<!file)name="([^"]*)"', head, re.IGNORECASE)
        if named:
            is_file = re.search(r"filename\*?=", head, re.IGNORECASE) is not None
            pairs.append((named[1], FILE if is_file else _text_part(content.removesuffix("\r\n"))))
    return _collected(pairs)


def _text_part(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return parse_bounded(text, MAX_DEPTH)
        except OsaiContractError:
            pass
    return text


def _response_body(response: Mapping[str, Any], kind: str, status: int) -> _Body:
    content = response.get("content")
    content = content if isinstance(content, Mapping) else {}
    text = content.get("text")
    size = content.get("size")
    if not isinstance(text, str) or not text:
        is_empty = not isinstance(size, (int, float)) or size <= 0
        # 304 and answers from a cache have no body.
        return _Body(NO_BODY, None, is_empty and status != 304) if is_empty or kind.endswith("json") else _Body("file")
    is_binary = BINARY.match(kind) is not None
    if content.get("encoding") == "base64" and not is_binary and len(text) <= MAX_BODY * 4 / 3:
        if not kind.endswith("json") and not kind.startswith("text/"):
            return _Body("file")
        text = base64.b64decode(text).decode("utf-8", "replace")
    if is_binary or len(text) > MAX_BODY * 4 / 3:
        return _Body("file")
    body = _content(text, kind)
    return _Body("file") if body.form == "file" else body


def _messages(rows: Any) -> Iterator[Any]:
    """Yield the JSON messages that were received over a WebSocket."""
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping) and row.get("type") == "receive" and isinstance(row.get("data"), str):
            for part in row["data"][:MAX_BODY].split(SEPARATOR):
                try:
                    yield parse_bounded(part, MAX_DEPTH) if part.strip() else None
                except OsaiContractError:
                    continue


def _time(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _get(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
