"""Compare the contract with the responses of a live OSAI. Only GET requests are sent, and the sign-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

import httpx

from airflow_provider_osai.api.calls import Call, OsaiApi
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.api.errors import OsaiAuthError, OsaiError, OsaiUnreachable, sanitize_server_text
from airflow_provider_osai.api.evidence import Evidence, OperationEvidence, Problem, ProblemKind
from airflow_provider_osai.api.misfits import difference_text
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.pagination import first_page
from airflow_provider_osai.api.response_watch import ResponseWatch
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli.response_check import CheckedResponse, check_response
from airflow_provider_osai.cli.time_limits import NotRun, TimeLimits, TookTooLong
from airflow_provider_osai.learning.definition_diff import PAGE_SUFFIX

__all__ = ["LiveRow", "LiveStatus", "check_live", "evidence_of", "is_fine"]

SIGN_IN: Final = "auth.sign_in"
MAX_NAMES: Final = 20
"""Maximum names of fields in one text."""


class LiveStatus(StrEnum):
    """What a live OSAI says of one row of the contract."""

    WORKS = "works"
    DIFFERS = "differs"
    ABSENT = "absent"
    NOT_TESTABLE = "not testable"


@dataclass(frozen=True, slots=True)
class LiveRow:
    """The result of one row of the contract.

    :param endpoint: the row; ``None`` if it is ``null`` in the contract.
    :param details: how it differs, or why it is not testable.
    :param response: what was seen; ``None`` if nothing was sent, or there is no response.
    :param is_open: whether it was not tested although it could be, since no time was left.
    """

    name: str
    endpoint: Endpoint | None
    status: LiveStatus
    details: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    response: CheckedResponse | None = None
    is_open: bool = False

    @property
    def is_fine(self) -> bool:
        """Whether nothing has to be done about it: it works, is ``null`` in the contract, or cannot be tested."""
        if self.status is LiveStatus.ABSENT:
            return self.endpoint is None
        return self.status is not LiveStatus.DIFFERS and not self.is_open

    def cells(self) -> tuple[str, str, str, str]:
        """Return the columns of a table: operation, endpoint, status and details."""
        endpoint = f"{self.endpoint.method} {self.endpoint.path}" if self.endpoint is not None else "null"
        return self.name, endpoint, self.status.value, "; ".join(self.details)

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        endpoint = self.endpoint
        return {
            "operation": self.name,
            "method": endpoint.method if endpoint is not None else None,
            "path": endpoint.path if endpoint is not None else None,
            "optional": endpoint is None or endpoint.optional,
            "status": self.status.value,
            "problems": [problem.model_dump() for problem in self.problems],
            "details": list(self.details),
            "unread": list(self.response.unread) if self.response is not None else [],
        }


class _Probe(NamedTuple):
    """How one row is requested: by *build*, with an id from the list of the row *ids_of* as *field*."""

    build: Callable[..., Call[Any]]
    ids_of: str = ""
    field: str = "id"


def _probes(api: OsaiApi) -> dict[str, _Probe]:
    """Return the probes by row, lists first. Rows that change something are not here, whatever their method is."""
    probes = {
        "user.me": _Probe(api.get_user),
        "dataset.find": _Probe(api.list_datasets),
        "model.list": _Probe(api.list_models),
        **{f"{kind}.list": _Probe(partial(api.list_all_jobs, kind)) for kind in JobKind},
        "dataset.get": _Probe(api.get_dataset, "dataset.find"),
        "category.list": _Probe(api.list_categories, "dataset.find", "datasetId"),
        "image.list": _Probe(api.list_images, "dataset.find", "datasetId"),
        "model.get": _Probe(api.get_model, "model.list"),
        "model.conversions": _Probe(api.list_conversions, "model.list"),
    }
    return probes | {f"{kind}.get": _Probe(partial(api.get_job, kind), f"{kind}.list") for kind in JobKind}


def check_live(settings: OsaiSettings, limits: TimeLimits) -> tuple[list[LiveRow], OsaiClient]:
    """Return the result for each row of the contract, in its order, and the client, which is closed.

    :raises OsaiError: if there is no sign-in, or no response at all.
    """
    settings = settings.model_copy(update={"timeout": min(settings.timeout, limits.each)})
    with OsaiClient(settings, retry_budget=0, read_only=True) as client:
        return _Check(client, limits).rows(), client


def is_fine(rows: Iterable[LiveRow]) -> bool:
    """Return whether no row differs, and none is absent that the contract has."""
    return all(row.is_fine for row in rows)


def evidence_of(rows: Iterable[LiveRow], watch: ResponseWatch) -> Evidence:
    """Return what was seen, without values.

    :param watch: of the client, which saw the same jobs, and compared them with each other, too.
    """
    operations = {}
    for row in rows:
        if row.endpoint is None or not (row.response or row.problems):
            continue
        seen = row.response
        watched = [
            Problem.model_validate({"kind": each.kind, "field": each.field, "seen": each.seen})
            for each in watch.differences(row.name)
        ]
        operations[row.name] = OperationEvidence(
            method=row.endpoint.method,
            path=row.endpoint.path,
            responses=0 if seen is None else 1,
            codes={} if seen is None else {seen.status: 1},
            fields={} if seen is None else {path: tuple(sorted(types)) for path, types in seen.fields.items()},
            words={} if seen is None else seen.words,
            problems=tuple(dict.fromkeys([*row.problems, *watched])),
        )
    return Evidence(operations=operations)


class _Check:
    """Requests each row that can be tested, and keeps one id of each list."""

    def __init__(self, client: OsaiClient, limits: TimeLimits) -> None:
        self._client = client
        self._contract: Contract = client.settings.contract
        self._limits = limits
        self._ids: dict[str, str] = {}
        self._rows: dict[str, LiveRow] = {}
        self._has_answered = False

    def rows(self) -> list[LiveRow]:
        """Return the result of each row, in the order of the contract."""
        names = [name for name in self._contract.endpoints if not name.endswith(PAGE_SUFFIX)]
        for name, probe in _probes(self._client.calls).items():
            self._rows[name] = self._row(name, probe)
        for name in names:
            if name not in self._rows:
                self._rows[name] = self._untested_row(name)
        return [self._rows[name] for name in names]

    def _row(self, name: str, probe: _Probe) -> LiveRow:
        endpoint = self._contract.endpoints[name]
        if endpoint is None or endpoint.method != "GET":
            return self._untested_row(name)
        arguments: list[str] = []
        if probe.ids_of:
            if (found := self._ids.get(probe.ids_of)) is None:
                reason = f"it needs an id, and none was found in {probe.ids_of}"
                return LiveRow(name, endpoint, LiveStatus.NOT_TESTABLE, (reason,))
            arguments = [found]
        try:
            call = probe.build(*arguments)
        except OsaiError as error:
            return LiveRow(name, endpoint, LiveStatus.NOT_TESTABLE, (str(error),))
        if call.rules.pages is not None:
            call = first_page(call, call.rules.pages)
        sent = {probe.field: arguments[0]} if arguments else {}
        return self._request(name, endpoint, lambda: self._check(call, sent))

    def _check(self, call: Call[Any], sent: dict[str, str]) -> CheckedResponse:
        return check_response(self._client, call, self._client.exchange(call), sent)

    def _request(self, name: str, endpoint: Endpoint, probe: Callable[[], CheckedResponse]) -> LiveRow:
        try:
            checked = self._limits.run(probe)
        except NotRun as error:
            return LiveRow(name, endpoint, LiveStatus.NOT_TESTABLE, (str(error),), is_open=True)
        except TookTooLong as error:
            if not self._has_answered:
                raise OsaiUnreachable(f"{endpoint.method} {endpoint.path}: {error} Check base_url") from None
            return _failed_row(name, endpoint, "no-response", str(error))
        except OsaiError as error:  # no response, or none that was read
            if not self._has_answered:
                raise
            is_too_large = isinstance(error, OsaiUnreachable) and error.too_large
            return _failed_row(name, endpoint, "too-large" if is_too_large else "no-response", str(error))
        if checked.status == httpx.codes.UNAUTHORIZED and not self._has_answered and SIGN_IN not in self._contract:
            raise OsaiAuthError(checked.message)
        self._has_answered = True
        self._keep_id(name, checked.result)
        return _checked_row(name, endpoint, checked)

    def _keep_id(self, name: str, result: Any) -> None:
        if isinstance(result, list) and result and (found := getattr(result[0], "id", None)):
            self._ids[name] = found

    def _untested_row(self, name: str) -> LiveRow:
        """Return the result of a row that is not requested by itself."""
        endpoint = self._contract.endpoints[name]
        if endpoint is None:
            return LiveRow(name, None, LiveStatus.ABSENT, ("null in the contract",))
        if name == SIGN_IN and self._client.auth.sign_ins:
            return LiveRow(name, endpoint, LiveStatus.WORKS)
        if name == "model.download":
            reason = "it would download a file"
        elif endpoint.method == "GET":
            reason = "it may change something, although it is a GET"
        else:
            reason = f"it is not a GET but a {endpoint.method}"
        return LiveRow(name, endpoint, LiveStatus.NOT_TESTABLE, (reason,))


def _failed_row(name: str, endpoint: Endpoint, kind: ProblemKind, text: str) -> LiveRow:
    return LiveRow(name, endpoint, LiveStatus.DIFFERS, (sanitize_server_text(text, 500),), (Problem(kind=kind),))


def _checked_row(name: str, endpoint: Endpoint, checked: CheckedResponse) -> LiveRow:
    """Return the row of a response that was compared."""
    if checked.is_absent:
        remedy = f"if OSAI lacks it, set {name}: null" if endpoint.optional else f"set the path of {name}"
        text = f"returned {checked.status}: {remedy}"
        return LiveRow(name, endpoint, LiveStatus.ABSENT, (text,), checked.problems, checked)
    if not checked.problems:
        details = ("it is empty, so only its form was compared",) if checked.result == [] else ()
        return LiveRow(name, endpoint, LiveStatus.WORKS, details, (), checked)
    texts = [difference_text(name, problem.kind, problem.field, problem.seen) for problem in checked.problems]
    if checked.message:
        texts.append(checked.message)
    elif checked.unread:
        texts.append(f"fields that are not read: {', '.join(checked.unread[:MAX_NAMES])}")
    return LiveRow(name, endpoint, LiveStatus.DIFFERS, tuple(texts), checked.problems, checked)
