"""An Airflow seen over its REST API: trigger, watch, read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx

__all__ = ["AirflowClient", "Login", "WholeAirflowError"]

POLL: Final = 0.25
BROKEN_PATIENCE: Final = 10.0
TERMINAL: Final = frozenset({"success", "failed"})
EXCERPT_LINES: Final = 40
CONTAINERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "builtins.tuple": tuple,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
}
LOG_CONTEXT: Final = frozenset(
    {"timestamp", "level", "event", "logger", "loc", "filename", "lineno", "chan", "error_detail"}
    | {"ti_id", "dag_id", "run_id", "task_id", "map_index", "try_number"}
)
"""What a line of a task's log carries besides its words: shown first, or the same in each line."""


class WholeAirflowError(RuntimeError):
    """Airflow did not start, a part of it ended, or what was waited for did not come."""


class Login(NamedTuple):
    """A user of the demo's Airflow, and the password made for this run."""

    user: str
    password: str


class AirflowClient:
    """The few calls of Airflow's REST API that a demo and end-to-end tests need.

    :param url: the API server's address, without a slash at the end.
    :param login: who we are there.
    """

    def __init__(self, url: str, login: Login) -> None:
        self.url = url
        self.login = login
        # Proxies are for the world; this server is on this machine.
        self._http = httpx.Client(base_url=url, auth=_Token(url, login), timeout=30.0, trust_env=False)

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Return as soon as Airflow knows the Dag *dag_id*.

        :param timeout: seconds; at most 10 of them once a file of the Dag folder could not be imported.
        :raises WholeAirflowError: with the import errors of the Dag folder, if there are any.
        """
        path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        errors: list[str] = []

        def known() -> bool:
            return self._http.get(path).status_code == httpx.codes.OK

        def known_or_broken() -> bool:
            found = self._get("/api/v2/importErrors")["import_errors"]
            errors[:] = [f"{error['filename']}:\n{error['stack_trace']}" for error in found]
            return known() or bool(errors)

        # A broken file need not be the one with the Dag, which gets some time more.
        if not self._poll(known_or_broken, timeout) or not self._poll(known, min(timeout, BROKEN_PATIENCE)):
            raise WholeAirflowError("\n".join([f"Airflow does not know the Dag {dag_id}.", *errors]))

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a Dag, which is unpaused if need be, and return the run's id.

        :param conf: the run's conf, which overrides the Dag's params.
        :param run_id: ``None`` lets Airflow make one.
        """
        self.unpause(dag_id)
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        answer = self._send("POST", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns", body)
        return str(answer["dag_run_id"])

    def run_ids(self, dag_id: str) -> list[str]:
        """Return the ids of the latest hundred runs of a Dag, oldest first."""
        path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns"
        runs = self._get(path, limit=100, order_by="-id")["dag_runs"]
        return [run["dag_run_id"] for run in runs][::-1]

    def unpause(self, dag_id: str) -> None:
        """Let a Dag run by its schedule, as soon as Airflow knows it."""
        self.wait_for_dag(dag_id)
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id, safe='')}", {"is_paused": False}, update_mask="is_paused")

    def pause(self, dag_id: str) -> None:
        """Let a Dag start no more tasks; what runs goes on."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id, safe='')}", {"is_paused": True}, update_mask="is_paused")

    def delete_dag(self, dag_id: str) -> None:
        """Delete all that Airflow knows of a Dag, whose file should be gone before; 409 while a task of it runs."""
        self._delete(f"/api/v2/dags/{quote(dag_id, safe='')}")

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with its task instances; 409 while it is running."""
        self._delete(_run(dag_id, run_id))

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a Dag, as its file was read last."""
        return list(self._get(f"/api/v2/dags/{quote(dag_id, safe='')}/tasks")["tasks"])

    def set_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Make a connection in the database, or replace it.

        :param fields: as the REST API names them, for instance ``conn_type``, ``password``; ``extra`` as an object.
        """
        body = {**fields, "connection_id": conn_id}
        if "extra" in body:
            body["extra"] = json.dumps(body["extra"])
        path = f"/api/v2/connections/{quote(conn_id, safe='')}"
        if self._http.get(path).status_code == httpx.codes.NOT_FOUND:
            self._send("POST", "/api/v2/connections", body)
        else:
            self._send("PATCH", path, body)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run, such as ``running``, ``success`` or ``failed``."""
        return str(self._get(_run(dag_id, run_id))["state"])

    def wait(
        self, dag_id: str, run_id: str, timeout: float = 600.0, on_poll: Callable[[str], object] | None = None
    ) -> str:
        """Return the final state of a run.

        :param timeout: seconds.
        :param on_poll: called with the state at every look, for instance to show progress.
        :raises WholeAirflowError: if the run has not ended in time.
        """
        state = ""

        def ended() -> bool:
            nonlocal state
            state = self.run_state(dag_id, run_id)
            if on_poll is not None:
                on_poll(state)
            return state in TERMINAL

        if not self._poll(ended, timeout):
            states = self._states(dag_id, run_id)
            raise WholeAirflowError(f"{dag_id}, run {run_id}, is {state} after {timeout:g} s; tasks: {states}")
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run as the REST API describes them."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{_run(dag_id, run_id)}/taskInstances", limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom.

        :raises LookupError: if there is none.
        """
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        answer = self._http.get(path, params={"map_index": map_index})
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise LookupError(f"task {task_id} of run {run_id} has no XCom {key!r} (map_index {map_index})")
        return _plain(_checked(answer)["value"])

    def asset_events(self, uri: str) -> list[dict[str, Any]]:
        """Return what the events of the asset *uri* say, their ``extra``, oldest first; at most the first hundred."""
        assets = self._get("/api/v2/assets", uri_pattern=uri)["assets"]
        ids = [asset["id"] for asset in assets if asset["uri"] == uri]
        if not ids:
            return []
        found = self._get("/api/v2/assets/events", asset_id=ids[0], order_by="timestamp", limit=100)["asset_events"]
        return [event["extra"] for event in found]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task as lines of text."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        content = self._get(path, map_index=map_index, full_content=True)["content"]
        entries = content if isinstance(content, list) else [content]
        return "\n".join(line for entry in entries for line in _lines(entry))

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task as ``success``, ``failed`` or ``skipped``; a running one is ended."""
        self._send("PATCH", _task(dag_id, run_id, task_id), {"new_state": state}, map_index=map_index)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run, for instance ``failed``."""
        self._send("PATCH", _run(dag_id, run_id), {"state": state})

    def clear(self, dag_id: str, run_id: str, *task_ids: str, downstream: bool = False) -> None:
        """Let tasks of a run run again, all of them if none is named.

        :param downstream: also those that follow them.
        """
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "include_downstream": downstream,
        }
        if task_ids:
            body["task_ids"] = list(task_ids)
        self._send("POST", f"/api/v2/dags/{quote(dag_id, safe='')}/clearTaskInstances", body)

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return the failed tasks of a run, each with the end of its log."""
        texts = []
        for task in self.task_instances(dag_id, run_id):
            if task["state"] in {"failed", "up_for_retry"}:
                log = self.task_log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
                where = f"{task['task_id']} (map_index {task['map_index']}, try {task['try_number']})"
                texts.append("\n".join([f"{where}: {task['state']}", *log.splitlines()[-EXCERPT_LINES:]]))
        return "\n\n".join(texts) or f"no failed task; tasks: {self._states(dag_id, run_id)}"

    def _states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.task_instances(dag_id, run_id)}

    def _alive(self) -> None:
        """Raise if waiting has become pointless. A hook for who also owns the server."""

    def _poll(self, done: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._alive()
            try:
                if done():
                    return True
            except httpx.HTTPError:
                # A busy SQLite makes the server stumble now and then; the deadline bounds our patience.
                pass
            time.sleep(POLL)
        return False

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return _checked(self._http.get(path, params=params))

    def _delete(self, path: str) -> None:
        answer = self._http.delete(path)
        if answer.is_error:
            _checked(answer)

    def _send(self, verb: str, path: str, body: Mapping[str, Any], **params: Any) -> dict[str, Any]:
        return _checked(self._http.request(verb, path, json=body, params=params))


class _Token(httpx.Auth):
    """Signs in at the first request, at the simple auth manager's own address."""

    requires_response_body = True

    def __init__(self, url: str, login: Login) -> None:
        self._request = httpx.Request(
            "POST", f"{url}/auth/token", json={"username": login.user, "password": login.password}
        )
        self._token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._token is None:
            answer = yield self._request
            self._token = str(_checked(answer)["access_token"])
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _run(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}"


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        where = f"{answer.request.method} {answer.request.url.path}"
        message = f"{where}: {answer.status_code} {answer.text[:500]}"
        raise httpx.HTTPStatusError(message, request=answer.request, response=answer)
    return dict(answer.json())


def _plain(value: Any) -> Any:
    """Undo what XComs do to Python's own containers; the REST API gives values as they are stored."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    make = CONTAINERS.get(value.get("__classname__", ""))
    if make is not None:
        return make(_plain(value["__data__"]))
    return {key: _plain(item) for key, item in value.items()}


def _lines(entry: Any) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield str(entry)
        return
    more = [f"{key}={json.dumps(value, default=str)}" for key, value in entry.items() if key not in LOG_CONTEXT]
    head = [str(entry.get(key) or "") for key in ("timestamp", "level", "event")]
    yield " ".join([*filter(None, head), *more])
    for error in entry.get("error_detail") or ():
        for frame in error.get("frames") or ():
            yield f"  {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        yield f"  {error.get('exc_type')}: {error.get('exc_value')}"
