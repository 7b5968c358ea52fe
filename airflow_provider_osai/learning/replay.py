"""Prove a learned contract: send our own client's requests to a server that is made of the recording.

Nothing leaves the process. A request must be one that was recorded, to the field; then the recorded responses are
returned in their order, and must be read without an error.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx

from airflow_provider_osai.api.calls import FilePart
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import JOB_REQUESTS, Contract, Endpoint
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.api.wire_format import decode_request
from airflow_provider_osai.learning.learner import Learned, Row
from airflow_provider_osai.learning.provenance import Call
from airflow_provider_osai.learning.recording import FILE, Exchange, multipart_fields

__all__ = ["decoded_request", "prove"]

BASE: Final = "https://replay.invalid"
"""A host that does not exist, should a request ever leave the process."""
TOKEN: Final = "replay-token"  # noqa: S105 - no secret: nothing checks it
MAX_POLLS: Final = 1000
"""Polls of one job that are replayed."""
MAX_REQUESTS: Final = 50
"""Different requests of one operation that are replayed."""
MAX_PROBLEM: Final = 300
ORDER: Final = ("auth", "user", "dataset", "category", "upload", "image", "training", "retraining", "manipulation",
                "conversion", "prediction", "device_rental", "model")  # fmt: skip


def prove(learned: Learned) -> None:
    """Replay each row, and write what does not work to its ``proof``."""
    _drop_invalid(learned)
    contract = apply_overrides(Contract(), json.loads(json.dumps(learned.document)))
    for name, row in sorted(learned.rows.items(), key=lambda item: ORDER.index(item[0].partition(".")[0])):
        role = learned.roles.operations.get(name)
        if row.rules is None or role is None:
            continue
        row.proof = list(dict.fromkeys(_problems(contract, learned, row, role.calls)))


def _drop_invalid(learned: Learned) -> None:
    """Take rows out whose rules do not make a valid document, and say so."""
    for name, row in list(learned.rows.items()):
        try:
            apply_overrides(Contract(), json.loads(json.dumps({name: row.rules})))
        except OsaiContractError as error:
            learned.notes.append(
                f"{name} was seen ({', '.join(row.entries[:3])}), but not understood: {_short(str(error))}"
            )
            del learned.rows[name]


def _problems(contract: Contract, learned: Learned, row: Row, calls: list[Call]) -> Iterator[str]:
    """Yield what goes wrong with the calls of one operation."""
    endpoint = contract[row.operation]
    for recording in dict.fromkeys(call.recording for call in calls):
        own = [call for call in calls if call.recording == recording]
        server = _ReplayServer(
            [each for each in learned.recording.exchanges if each.source.rpartition("#")[0] == recording]
        )
        with _client(contract, server) as client:
            requests, unread = _distinct_requests(endpoint, own)
            yield from unread
            for fields, count in requests:
                try:
                    yield from _send(client, row.operation, fields, count)
                except OsaiError as error:
                    yield _short(str(error))
                yield from server.problems
                server.problems.clear()


@contextlib.contextmanager
def _client(contract: Contract, server: _ReplayServer) -> Iterator[OsaiClient]:
    endpoints = {**contract.endpoints, "auth.sign_in": None}  # proven by itself
    settings = OsaiSettings(
        base_url=BASE, access_token=TOKEN, contract=Contract(endpoints, contract.states, contract.words_by_state)
    )
    quiet = logging.getLogger("airflow_provider_osai.api")
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with OsaiClient(settings, retry_budget=0, transport=httpx.MockTransport(server)) as client:
            yield client
    finally:
        quiet.setLevel(before)


def decoded_request(endpoint: Endpoint, exchange: Exchange) -> tuple[dict[str, Any], set[str]] | str:
    """Return the fields of a recorded request by our names, and the names that the contract does not have.

    If the request is not one of the operation, return why.
    """
    pattern = re.sub(r"\\{(\w+)(?:\\\.(\d))?\\}", _group, re.escape(endpoint.path))
    match = re.fullmatch(pattern, "/" + "/".join(exchange.path))
    if match is None or exchange.method != endpoint.method:
        return f"{exchange.source} is {exchange.method} /{'/'.join(exchange.path)[:100]}"
    path = {name.replace("__", "."): value for name, value in match.groupdict().items()}
    query: dict[str, list[str]] = defaultdict(list)
    for name, value in exchange.query:
        query[name].append(value)
    try:
        return decode_request(endpoint, path, query, exchange.request_headers, exchange.body)
    except (ValueError, TypeError) as error:
        return f"{exchange.source} cannot be read: {_short(str(error))}"


def _distinct_requests(endpoint: Endpoint, calls: list[Call]) -> tuple[list[tuple[dict[str, Any], int]], list[str]]:
    """Return the fields of each different request by our names with their number, and why others cannot be read."""
    counts: Counter[str] = Counter()
    requests: dict[str, dict[str, Any]] = {}
    unread: list[str] = []
    for call in calls:
        decoded = decoded_request(endpoint, call.exchange)
        if isinstance(decoded, str):
            unread.append(decoded)
            continue
        fields, unknown = decoded
        if unknown - set(fields) and isinstance(call.exchange.body, Mapping):
            unread.append(f"{call.exchange.source} also has {', '.join(sorted(map(str, unknown)))[:100]}")
        shown = json.dumps(fields, sort_keys=True, default=str)
        counts[shown] += 1
        requests.setdefault(shown, fields)
    return [(fields, counts[shown]) for shown, fields in list(requests.items())[:MAX_REQUESTS]], unread


def _group(match: re.Match[str]) -> str:
    name = match[1] + (f"__{match[2]}" if match[2] else "")
    return f"(?P<{name}>[^/]+?)"


def _send(client: OsaiClient, operation: str, fields: Mapping[str, Any], count: int) -> Iterator[str]:
    """Send one request by the client's own method; yield what is wrong with the result.

    :param count: how often it was recorded.
    """
    thing, _, verb = operation.partition(".")
    if thing in set(JobKind):
        yield from _send_job(client, JobKind(thing), verb, fields, count)
        return
    get = fields.get
    senders: Mapping[str, Callable[[], Any]] = {
        "user.me": client.get_user,
        "dataset.create": lambda: client.create_dataset(str(get("name", "-"))),
        "dataset.get": lambda: client.get_dataset(str(get("id"))),
        "dataset.find": lambda: client.list_datasets(get("name")),
        "dataset.delete": lambda: client.delete_dataset(str(get("id"))),
        "category.create": lambda: client.create_category(str(get("datasetId")), str(get("name", "-"))),
        "category.list": lambda: client.list_categories(str(get("datasetId"))),
        "upload.start": lambda: client.start_upload(str(get("id"))),
        "upload.image": lambda: _upload(client, fields),
        "upload.finish": lambda: client.finish_upload(str(get("id", "-")), str(get("datasetUploadId", "-"))),
        "image.list": lambda: client.list_images(str(get("datasetId"))),
        "model.get": lambda: client.get_model(str(get("id"))),
        "model.list": client.list_models,
        "model.conversions": lambda: client.list_conversions(str(get("id"))),
    }
    if operation in senders:
        senders[operation]()


def _upload(client: OsaiClient, fields: Mapping[str, Any]) -> Any:
    return client.upload_image(
        str(fields.get("datasetId", "-")),
        fields.get("datasetUploadId"),
        FilePart("image.png", lambda: io.BytesIO(b"image")),
        category_id=fields.get("categoryId"),
        category=fields.get("category"),
        annotations=fields.get("annotations"),
    )


def _send_job(client: OsaiClient, kind: JobKind, verb: str, fields: Mapping[str, Any], count: int) -> Iterator[str]:
    if verb == "submit":
        given = {name: value for name, value in fields.items() if name not in ("reference", "webhookUrl")}
        try:
            request = JOB_REQUESTS[kind].model_validate(given)
        except ValueError:
            missing = sorted(set(_required(kind)) - set(given))
            yield f"the request has not all fields that ours has: {', '.join(missing) or 'a value does not fit'}"
            return
        client.submit_job(request, str(fields.get("reference", "replay")))
    elif verb == "get":
        job = None
        for _ in range(min(count, MAX_POLLS)):
            job = client.get_job(kind, str(fields.get("id")))
            if job.is_terminal:
                break
        if job is not None and job.state is JobState.UNKNOWN:
            yield f"the status {job.status[:50]!r} has no meaning yet"
    elif verb == "list":
        client.list_all_jobs(kind)
    elif verb == "cancel":
        client.cancel_job(kind, str(fields.get("id")))


def _required(kind: JobKind) -> list[str]:
    fields = JOB_REQUESTS[kind].model_fields
    return [field.alias or name for name, field in fields.items() if field.is_required()]


class _ReplayServer:
    """Answers requests that were recorded, with the responses in their order; the last one is repeated."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._by_address: dict[tuple[str, str], list[Exchange]] = defaultdict(list)
        self._by_query: dict[tuple[str, str, str], list[Exchange]] = defaultdict(list)
        for exchange in exchanges:
            address = (exchange.method, "/" + "/".join(exchange.path))
            self._by_address[address].append(exchange)
            self._by_query[(*address, repr(sorted(exchange.query)))].append(exchange)
        self._next: dict[str, int] = defaultdict(int)
        self.problems: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        address = (request.method, request.url.path)
        recorded = self._by_address.get(address, [])
        if not recorded:
            self.problems.append(f"{request.method} {request.url.path[:100]} was not recorded")
            return httpx.Response(404, stream=httpx.ByteStream(b"{}"))
        query = sorted(parse_qsl(request.url.query.decode(), keep_blank_values=True))
        same = self._by_query.get((*address, repr(query)), [])
        if not same:
            self.problems.append(f"the query {query!r}"[:150] + f" was not recorded; {recorded[0].source} has another")
            same = recorded
        return _response(self._following(repr((address, query)), same, _body(request)))

    def _following(self, key: str, same: Sequence[Exchange], sent: Any) -> Exchange:
        """Return the next exchange with a request's body; a request without one is the same each time."""
        exact = same if sent is None else [exchange for exchange in same if _alike(exchange.body, sent)]
        if not exact or not _alike(exact[0].body, sent):
            self.problems.append(_difference(same[0], sent))
            exact = same
        number = self._next[key + repr(sent)]
        self._next[key + repr(sent)] += 1
        return exact[min(number, len(exact) - 1)]


def _response(exchange: Exchange) -> httpx.Response:
    """Return a recorded response. Its body is a stream, as from the network: the client counts its bytes."""
    headers = {name: value for name, value in exchange.response_headers.items() if name in ("location", "link")}
    content = {"json": json.dumps(exchange.response), "text": str(exchange.response), "file": "file"}
    headers["content-type"] = {"json": "application/json", "text": "text/plain"}.get(exchange.form, "")
    stream = httpx.ByteStream(content.get(exchange.form, "").encode())
    return httpx.Response(exchange.status, headers=headers, stream=stream)


def _body(request: httpx.Request) -> Any:
    """Return the fields of a request's body."""
    content = request.read()
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        return multipart_fields(content.decode("latin-1"), kind)
    if kind.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(content.decode(), keep_blank_values=True))
    return json.loads(content) if content else None


def _alike(recorded: Any, sent: Any) -> bool:
    """Whether two bodies say the same. A number differs from its text; a missing field equals ``null``."""
    if isinstance(recorded, Mapping) and isinstance(sent, Mapping):
        names = {*recorded, *sent}
        return all(_alike(recorded.get(name), sent.get(name)) for name in names)
    if isinstance(recorded, list) and isinstance(sent, list):
        return len(recorded) == len(sent) and all(map(_alike, recorded, sent))
    if recorded in (None, "", {}) and sent in (None, "", {}):
        return True
    return bool(recorded == sent) or FILE in (recorded, sent)


def _difference(exchange: Exchange, body: Any) -> str:
    if isinstance(exchange.body, Mapping) and isinstance(body, Mapping):
        names = sorted(
            str(name) for name in {*exchange.body, *body} if not _alike(exchange.body.get(name), body.get(name))
        )
        return f"the request differs from {exchange.source} in {', '.join(names)[:150]}"
    return f"the body of the request is not that of {exchange.source}"


def _short(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= MAX_PROBLEM else line[:MAX_PROBLEM] + "..."
