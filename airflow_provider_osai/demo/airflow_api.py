"""A client of Airflow's REST API: trigger Dag runs, wait for them, and read their results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx

__all__ = ["AirflowClient", "Login", "WholeAirflowError"]

POLL_INTERVAL: Final = 0.25
BROKEN_DAGS_TIMEOUT: Final = 10.0
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
"""Fields of a task log's line that are shown first, or not at all, since they are the same in each line."""


class WholeAirflowError(RuntimeError):
    """Airflow did not start, a component of it exited, or a wait timed out."""


class Login(NamedTuple):
    """A user of the demo's Airflow, and the password generated for this run."""

    user: str
    password: str


class AirflowClient:
    """A client for the parts of Airflow's REST API that the demo and the end-to-end tests need.

    :param url: the API server's address, without a trailing slash.
    :param login: the user to sign in as.
    """

    def __init__(self, url: str, login: Login) -> None:
        self.url = url
        self.login = login
        # No proxy: the server is on this machine.
        self._http = httpx.Client(base_url=url, auth=_TokenAuth(url, login), timeout=90.0, trust_env=False)

    def wait_for_dag(self, dag_id: str, timeout: float = 240.0) -> None:
        """Wait until Airflow has parsed the Dag *dag_id*.

        :param timeout: seconds; at most 10 s after an import error of any file in the Dag folder.
        :raises WholeAirflowError: if the Dag does not appear in time, with the import errors of the Dag folder.
        """
        path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        errors: list[str] = []

        def is_parsed() -> bool:
            return self._http.get(path).status_code == httpx.codes.OK

        def is_parsed_or_broken() -> bool:
            import_errors = self._get("/api/v2/importErrors")["import_errors"]
            errors[:] = [f"{error['filename']}:\n{error['stack_trace']}" for error in import_errors]
            return is_parsed() or bool(errors)

        # The broken file may be another one, so wait a little longer for the Dag.
        if not self._poll(is_parsed_or_broken, timeout) or not self._poll(is_parsed, min(timeout, BROKEN_DAGS_TIMEOUT)):
            raise WholeAirflowError("\n".join([f"Airflow has not parsed the Dag {dag_id} in time.", *errors]))

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Unpause a Dag, trigger a run of it, and return the run's id.

        :param conf: the run's conf, which overrides the Dag's params.
        :param run_id: ``None`` lets Airflow generate one.
        """
        self.unpause(dag_id)
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        run = self._send("POST", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns", body)
        return str(run["dag_run_id"])

    def run_ids(self, dag_id: str) -> list[str]:
        """Return the ids of the latest hundred runs of a Dag, oldest first."""
        path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns"
        runs = self._get(path, limit=100, order_by="-id")["dag_runs"]
        return [run["dag_run_id"] for run in runs][::-1]

    def unpause(self, dag_id: str) -> None:
        """Unpause a Dag, after waiting until Airflow has parsed it."""
        self.wait_for_dag(dag_id)
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id, safe='')}", {"is_paused": False}, update_mask="is_paused")

    def pause(self, dag_id: str) -> None:
        """Pause a Dag, so that it starts no more tasks; running tasks continue."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id, safe='')}", {"is_paused": True}, update_mask="is_paused")

    def delete_dag(self, dag_id: str) -> None:
        """Delete a Dag from Airflow's database; delete its file first. Airflow returns 409 while a task of it runs."""
        self._delete(f"/api/v2/dags/{quote(dag_id, safe='')}")

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with its task instances. Airflow returns 409 while it is running."""
        self._delete(_run(dag_id, run_id))

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a Dag, as last parsed."""
        return list(self._get(f"/api/v2/dags/{quote(dag_id, safe='')}/tasks")["tasks"])

    def set_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Create or update a connection in the database.

        :param fields: named as in the REST API, for example ``conn_type``, ``password``; ``extra`` as an object.
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
        """Wait for a run to end, and return its final state.

        :param timeout: seconds.
        :param on_poll: called with the state after each poll, for example to show progress.
        :raises WholeAirflowError: if the run does not end in time.
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
            raise WholeAirflowError(f"Run {run_id} of {dag_id} is still {state} after {timeout:g} s; tasks: {states}")
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run as the REST API describes them."""
        instances: list[dict[str, Any]] = []
        while True:
            page = self._get(f"{_run(dag_id, run_id)}/taskInstances", limit=100, offset=len(instances))
            instances += page["task_instances"]
            if not page["task_instances"] or len(instances) >= page["total_entries"]:
                return instances

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom.

        :raises LookupError: if there is none.
        """
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        response = self._http.get(path, params={"map_index": map_index})
        if response.status_code == httpx.codes.NOT_FOUND:
            raise LookupError(f"Task {task_id} of run {run_id} has no XCom {key!r} (map_index {map_index})")
        return _deserialize(_json_or_raise(response)["value"])

    def asset_events(self, uri: str) -> list[dict[str, Any]]:
        """Return the ``extra`` of the first hundred events of the asset *uri*, oldest first."""
        assets = self._get("/api/v2/assets", uri_pattern=uri)["assets"]
        ids = [asset["id"] for asset in assets if asset["uri"] == uri]
        if not ids:
            return []
        events = self._get("/api/v2/assets/events", asset_id=ids[0], order_by="timestamp", limit=100)["asset_events"]
        return [event["extra"] for event in events]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task as lines of text."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        content = self._get(path, map_index=map_index, full_content=True)["content"]
        entries = content if isinstance(content, list) else [content]
        return "\n".join(line for entry in entries for line in _lines(entry))

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task as ``success``, ``failed`` or ``skipped``; a running task is terminated."""
        self._send("PATCH", _task(dag_id, run_id, task_id), {"new_state": state}, map_index=map_index)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run, for example as ``failed``."""
        self._send("PATCH", _run(dag_id, run_id), {"state": state})

    def clear(self, dag_id: str, run_id: str, *task_ids: str, downstream: bool = False) -> None:
        """Clear tasks of a run, so that they run again; default: all.

        :param downstream: also clear their downstream tasks.
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
        """Return a text with the failed tasks of a run and the end of each one's log."""
        texts = []
        for task in self.task_instances(dag_id, run_id):
            if task["state"] in {"failed", "up_for_retry"}:
                log = self.task_log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
                name = f"{task['task_id']} (map_index {task['map_index']}, try {task['try_number']})"
                texts.append("\n".join([f"{name}: {task['state']}", *log.splitlines()[-EXCERPT_LINES:]]))
        return "\n\n".join(texts) or f"No failed task; tasks: {self._states(dag_id, run_id)}"

    def _states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.task_instances(dag_id, run_id)}

    def _raise_if_stopped(self) -> None:
        """Raise if the server has exited. Hook for the subclass that runs it."""

    def _poll(self, is_done: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._raise_if_stopped()
            try:
                if is_done():
                    return True
            except httpx.HTTPError:
                # The server is starting, or its SQLite database was locked for too long; poll again until the deadline.
                pass
            time.sleep(POLL_INTERVAL)
        return False

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return _json_or_raise(self._http.get(path, params=params))

    def _delete(self, path: str) -> None:
        _raise_for_status(self._http.delete(path))

    def _send(self, method: str, path: str, body: Mapping[str, Any], **params: Any) -> dict[str, Any]:
        return _json_or_raise(self._http.request(method, path, json=body, params=params))


class _TokenAuth(httpx.Auth):
    """Gets a token from the simple auth manager with the first request."""

    requires_response_body = True

    def __init__(self, url: str, login: Login) -> None:
        self._request = httpx.Request(
            "POST", f"{url}/auth/token", json={"username": login.user, "password": login.password}
        )
        self._token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._token is None:
            response = yield self._request
            self._token = str(_json_or_raise(response)["access_token"])
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _run(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}"


def _raise_for_status(response: httpx.Response) -> None:
    if response.is_error:
        request = response.request
        message = f"{request.method} {request.url.path}: {response.status_code} {response.text[:500]}"
        raise httpx.HTTPStatusError(message, request=request, response=response)


def _json_or_raise(response: httpx.Response) -> dict[str, Any]:
    _raise_for_status(response)
    return dict(response.json())


def _deserialize(value: Any) -> Any:
    """Restore the Python containers of an XCom; the REST API returns values in their serialized form."""
    if isinstance(value, list):
        return [_deserialize(item) for item in value]
    if not isinstance(value, dict):
        return value
    container = CONTAINERS.get(value.get("__classname__", ""))
    if container is not None:
        return container(_deserialize(value["__data__"]))
    return {key: _deserialize(item) for key, item in value.items()}


def _lines(entry: Any) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield str(entry)
        return
    fields = [f"{key}={json.dumps(value, default=str)}" for key, value in entry.items() if key not in LOG_CONTEXT]
    head = [str(entry.get(key) or "") for key in ("timestamp", "level", "event")]
    yield " ".join([*filter(None, head), *fields])
    for error in entry.get("error_detail") or ():
        for frame in error.get("frames") or ():
            yield f"  {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        yield f"  {error.get('exc_type')}: {error.get('exc_value')}"
