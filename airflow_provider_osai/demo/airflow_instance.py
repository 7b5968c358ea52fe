"""Run a complete Airflow with a temporary home, for the demo and end-to-end tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from airflow_provider_osai.demo.airflow_api import AirflowClient, Login, WholeAirflowError
from airflow_provider_osai.demo.process_group import ProcessGroup

__all__ = ["WholeAirflow"]

LAUNCHER: Final = Path(__file__).with_name("airflow_processes.py")
PARTS: Final = ("api-server", "scheduler", "dag-processor", "triggerer")
LOG_TAIL: Final = 2000
"""Characters from the end of each log in an error message."""
SQLITE_TIMEOUT: Final = 30
"""Maximum seconds to wait for a locked SQLite database. With Python's default of 5 s, a busy machine fails requests."""
SETTINGS: Final[Mapping[str, object]] = {
    "core.executor": "LocalExecutor",
    "core.load_examples": False,
    "core.parallelism": 4,
    "core.test_connection": "Enabled",
    "core.min_serialized_dag_update_interval": 1,
    # The default looks up this machine's full name in DNS, which is slow without a name server.
    "core.hostname_callable": "socket.gethostname",
    # With our own password: the default writes one to the log, and all_admins would let everyone in.
    "core.simple_auth_manager_users": "admin:admin",
    "core.simple_auth_manager_all_admins": False,
    "api.host": "127.0.0.1",
    "api.workers": 1,
    # How soon a running task notices that it was killed, and the maximum delay until its end is noticed.
    "workers.min_heartbeat_interval": 1,
    # On a small, busy machine, the API server may need more than the default of 5 s to respond to a task.
    "workers.execution_api_timeout": 30,
    "scheduler.scheduler_heartbeat_sec": 1,
    "scheduler.scheduler_idle_sleep_time": 0.1,
    "scheduler.trigger_timeout_check_interval": 1,
    "scheduler.enable_health_check": False,
    "triggerer.job_heartbeat_sec": 1,
    "dag_processor.refresh_interval": 2,
    "dag_processor.bundle_refresh_check_interval": 1,
    "dag_processor.min_file_process_interval": 10,
    "logging.colored_console_log": False,
    "usage_data_collection.enabled": False,
}


class WholeAirflow(AirflowClient):
    """Scheduler, Dag processor, triggerer and API server, as a context manager.

    Only the API server listens, on loopback and a free port. All processes end with this one, even if it is killed.
    ``AIRFLOW_...`` variables of the environment are ignored. :meth:`part` adds components that can be frozen, killed
    and restarted independently.

    :param dags: the Dag folder.
    :param home: Airflow's home, kept afterwards; ``None``: a temporary folder that is deleted at the end.
    :param connections: connections by id, each with its fields: ``conn_type``, ``password``, ``extra`` ...
    :param variables: Airflow variables.
    :param environment: environment variables for all processes; they override all other settings.
    :param executable: the Python interpreter with the Airflow to start.
    :param parts: components to start and stop together; must include the API server and the scheduler.
    :param database: SQLAlchemy URL of the metadata database, empty or migrated; default: a SQLite file.
    :param base_path: base path of the API server, for example ``/team-a``.
    :param timeout: maximum seconds for the start.
    :param grace: seconds between SIGTERM and SIGKILL at the end. A running task uses all of them, since Airflow's tasks
        handle SIGTERM with ``on_kill`` but continue; without running tasks, stopping takes half a second.
    :raises WholeAirflowError: on entering, if Airflow does not become healthy; with the end of its logs.
    """

    def __init__(
        self,
        dags: Path,
        home: Path | None = None,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        variables: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        executable: str = sys.executable,
        parts: Sequence[str] = PARTS,
        database: str | None = None,
        base_path: str = "",
        timeout: float = 240.0,
        grace: float = 15.0,
    ) -> None:
        super().__init__(f"http://127.0.0.1:{_free_port()}{base_path}", Login("admin", secrets.token_urlsafe(12)))
        self.dags = dags.resolve()
        self.home = home.resolve() if home else Path(tempfile.gettempdir())
        self._temporary = home is None
        self._connections = dict(connections or {})
        self._variables = dict(variables or {})
        self._environment = dict(environment or {})
        self._executable = executable
        self._parts = tuple(parts)
        self._database = database
        self._timeout = timeout
        self._grace = grace
        self._keys = [secrets.token_urlsafe(64), secrets.token_urlsafe(32)]
        self._groups: list[ProcessGroup] = []

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_healthy()
        except BaseException:
            # Also on Ctrl-C: __exit__ is not called if __enter__ raises.
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> list[int]:
        """The ids of all running processes of this Airflow; empty once it is stopped."""
        return [pid for group in self._groups for pid in group.processes]

    @property
    def logs(self) -> Path:
        """The folder of all logs: task logs, and below ``parts`` the logs of the components."""
        return self.home / "logs"

    def all_logs(self) -> Iterator[Path]:
        """Yield every log file written so far."""
        yield from sorted(path for path in self.logs.rglob("*") if path.is_file())

    def part(
        self, name: str, *command: str, env: Mapping[str, str] | None = None, executable: str | None = None
    ) -> ProcessGroup:
        """Return an additional component, for example a second triggerer, which the caller starts and stops.

        :param name: name of its log, below ``parts``.
        :param command: arguments of the ``airflow`` command.
        :param env: additional environment variables for this component.
        :param executable: its Python interpreter, for another version of this package; default: that of the others.
        """
        arguments = [executable or self._executable, "-P", "-m", "airflow", *command]
        return self._process_group(arguments, name, {**self._env(), **(env or {})})

    def stop(self) -> None:
        """Stop all processes, and delete a temporary home. Idempotent.

        :raises WholeAirflowError: if a process survives SIGKILL.
        """
        groups = self._groups[::-1]
        self._groups = []
        if not groups:
            return
        self._http.close()
        remaining = [pid for group in groups for pid in group.stop()]
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)
        if remaining:
            raise WholeAirflowError(f"Processes {remaining} of Airflow survived SIGKILL")

    def _start(self) -> None:
        if self._temporary:
            self.home = Path(tempfile.mkdtemp(prefix="whole-airflow-"))
        logs = self.logs / "parts"
        logs.mkdir(parents=True, exist_ok=True)
        self._passwords.touch(0o600)
        self._passwords.write_text(json.dumps({self.login.user: self.login.password}) + "\n")
        command = [self._executable, "-P", str(LAUNCHER), str(logs), *self._parts]
        self._process_group(command, "launch", self._env()).start()

    def _process_group(self, command: Sequence[str], name: str, env: Mapping[str, str]) -> ProcessGroup:
        output = self.logs / "parts" / f"{name}.log"
        folder = self.home if self._temporary else None
        group = ProcessGroup(command, output, env, grace=self._grace, folder=folder)
        self._groups.append(group)
        return group

    @property
    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def _sqlite(self) -> str:
        return f"sqlite:///{self.home / 'airflow.db'}?timeout={SQLITE_TIMEOUT}"

    def _env(self) -> dict[str, str]:
        settings = {
            **SETTINGS,
            "core.dags_folder": self.dags,
            "core.execution_api_server_url": f"{self.url}/execution/",
            "core.simple_auth_manager_passwords_file": self._passwords,
            "database.sql_alchemy_conn": self._database or self._sqlite,
            "api.base_url": self.url,
            "api.port": httpx.URL(self.url).port,
            "api.secret_key": self._keys[1],
            "api_auth.jwt_secret": self._keys[0],
        }
        # AIRFLOW_... variables are dropped: one of them could be the URL of a production database.
        env = {key: value for key, value in os.environ.items() if not key.lstrip("_").startswith("AIRFLOW_")}
        env["AIRFLOW_HOME"] = str(self.home)
        env |= {f"AIRFLOW__{key.replace('.', '__').upper()}": str(value) for key, value in settings.items()}
        env |= {f"AIRFLOW_CONN_{key.upper()}": json.dumps(dict(conn)) for key, conn in self._connections.items()}
        env |= {f"AIRFLOW_VAR_{key.upper()}": value for key, value in self._variables.items()}
        env["PYTHONPATH"] = _join([env.get("PYTHONPATH"), *_source_folder()], os.pathsep)
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), _join([env.get("NO_PROXY"), "127.0.0.1", "localhost"], ","))
        return env | self._environment

    def _wait_until_healthy(self) -> None:
        if not self._poll(self._is_healthy, self._timeout):
            raise WholeAirflowError(f"Airflow is not healthy after {self._timeout:g} s.\n{self._log_tails()}")

    def _is_healthy(self) -> bool:
        # The first request to the execution API blocks the server for 3 to 4 s while it builds all API versions. Send
        # it while the other components are starting, so that the first task need not wait.
        self._http.get("/execution/health", auth=None).raise_for_status()
        health = self._http.get("/api/v2/monitor/health", auth=None).raise_for_status().json()
        parts = [part.replace("-", "_") for part in self._parts if part != "api-server"]
        return all((health.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", *parts))

    def _raise_if_stopped(self) -> None:
        if not self._groups or not self._groups[0].is_running:
            raise WholeAirflowError(f"Airflow is not running.\n{self._log_tails()}")

    def _log_tails(self) -> str:
        texts = []
        for path in sorted((self.logs / "parts").glob("*.log")):
            text = path.read_text(errors="replace")[-LOG_TAIL:]
            for secret in self._secrets():
                text = text.replace(secret, "***")
            texts.append(f"== {path.stem}\n{text.strip()}")
        return "\n".join(texts)

    def _secrets(self) -> Iterator[str]:
        yield from (self.login.password, *self._keys)
        for connection in self._connections.values():
            if password := str(connection.get("password") or ""):
                yield password


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _source_folder() -> list[str]:
    """Return the folder of this package for ``PYTHONPATH``, unless the package is installed."""
    root = Path(__file__).resolve().parents[2]
    return [] if root.name in {"site-packages", "dist-packages"} else [str(root)]


def _join(parts: Iterable[str | None], separator: str) -> str:
    return separator.join(part for part in parts if part)
