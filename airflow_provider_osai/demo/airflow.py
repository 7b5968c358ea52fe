"""A whole Airflow on a temporary home, for demos and end-to-end tests."""

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

from airflow_provider_osai.demo.family import Family
from airflow_provider_osai.demo.rest import AirflowClient, Login, WholeAirflowError

__all__ = ["WholeAirflow"]

LAUNCH: Final = Path(__file__).with_name("launch.py")
PARTS: Final = ("api-server", "scheduler", "dag-processor", "triggerer")
TAIL: Final = 2000
"""Characters of each log that a failed start shows."""
SETTINGS: Final[Mapping[str, object]] = {
    "core.executor": "LocalExecutor",
    "core.load_examples": False,
    "core.parallelism": 4,
    "core.test_connection": "Enabled",
    "core.min_serialized_dag_update_interval": 1,
    # The default asks the name server for this machine's full name, and waits for it where there is none.
    "core.hostname_callable": "socket.gethostname",
    # A password of our own making: the default prints one into the log, and a login of everybody fits no demo.
    "core.simple_auth_manager_users": "admin:admin",
    "core.simple_auth_manager_all_admins": False,
    "api.host": "127.0.0.1",
    "api.workers": 1,
    # How soon a running task notices that it was killed, and at worst how late its end is noticed.
    "workers.min_heartbeat_interval": 1,
    # A busy small machine may need more than the default of 5 s for an answer to a task.
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
    """Scheduler, Dag processor, triggerer and API server, from ``with`` to the end of its block.

    What listens is the API server, on loopback and a free port. All processes end with this one, even if it is killed.
    Settings of the surrounding environment (``AIRFLOW_...``) do not reach it. :meth:`part` adds parts that can be
    frozen, killed and started again while the others go on.

    :param dags: the Dag folder.
    :param home: Airflow's home, kept afterwards; ``None``: a temporary folder that is removed.
    :param connections: by connection id, the fields of each: ``conn_type``, ``password``, ``extra`` ...
    :param variables: Airflow variables.
    :param environment: environment variables for all processes; these win over everything that is set here.
    :param executable: the Python that has the Airflow to start.
    :param parts: which parts are started and ended together; the API server and the scheduler must be among them.
    :param database: SQLAlchemy's address of the metadata database, empty or migrated; a SQLite file if left out.
    :param base_path: below which the API server serves everything, for instance ``/team-a``.
    :param timeout: seconds that the start may take.
    :param grace: seconds between SIGTERM and SIGKILL at the end. A running task uses them up, since Airflow's tasks
        answer SIGTERM with ``on_kill`` but go on; without running tasks the end takes half a second.
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
        timeout: float = 120.0,
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
        self._families: list[Family] = []

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_healthy()
        except BaseException:
            # An interrupt too: from here on nobody else would stop what was started.
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> list[int]:
        """The ids of all living processes of this Airflow; empty once it is stopped."""
        return [pid for family in self._families for pid in family.processes]

    @property
    def logs(self) -> Path:
        """The folder of all logs: those of tasks, and below ``parts`` those of the parts."""
        return self.home / "logs"

    def all_logs(self) -> Iterator[Path]:
        """Yield every log file written so far."""
        yield from sorted(path for path in self.logs.rglob("*") if path.is_file())

    def part(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> Family:
        """Return one more part, for instance a second triggerer, to be started and stopped at will.

        :param name: what its log is called, below ``parts``.
        :param command: what follows ``airflow`` on the command line.
        :param env: environment variables for this part alone.
        """
        words = [self._executable, "-P", "-m", "airflow", *command]
        return self._family(words, name, {**self._env(), **(env or {})})

    def stop(self) -> None:
        """End all processes, and remove a temporary home. Does nothing the second time.

        :raises WholeAirflowError: if a process survives even SIGKILL.
        """
        families, self._families = self._families[::-1], []
        if not families:
            return
        self._http.close()
        left = [pid for family in families for pid in family.stop()]
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)
        if left:
            raise WholeAirflowError(f"processes {left} of Airflow could not be ended")

    def _start(self) -> None:
        if self._temporary:
            self.home = Path(tempfile.mkdtemp(prefix="whole-airflow-"))
        logs = self.logs / "parts"
        logs.mkdir(parents=True, exist_ok=True)
        self._passwords.touch(0o600)
        self._passwords.write_text(json.dumps({self.login.user: self.login.password}) + "\n")
        launch = [self._executable, "-P", str(LAUNCH), str(logs), *self._parts]
        self._family(launch, "launch", self._env()).start()

    def _family(self, command: Sequence[str], name: str, env: Mapping[str, str]) -> Family:
        output = self.logs / "parts" / f"{name}.log"
        folder = self.home if self._temporary else None
        family = Family(command, output, env, grace=self._grace, folder=folder)
        self._families.append(family)
        return family

    @property
    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    def _env(self) -> dict[str, str]:
        settings = {
            **SETTINGS,
            "core.dags_folder": self.dags,
            "core.execution_api_server_url": f"{self.url}/execution/",
            "core.simple_auth_manager_passwords_file": self._passwords,
            "database.sql_alchemy_conn": self._database or f"sqlite:///{self.home / 'airflow.db'}",
            "api.base_url": self.url,
            "api.port": httpx.URL(self.url).port,
            "api.secret_key": self._keys[1],
            "api_auth.jwt_secret": self._keys[0],
        }
        # Never what the surroundings say of Airflow: it could be the address of somebody's real database.
        env = {key: value for key, value in os.environ.items() if not key.lstrip("_").startswith("AIRFLOW_")}
        env["AIRFLOW_HOME"] = str(self.home)
        env |= {f"AIRFLOW__{key.replace('.', '__').upper()}": str(value) for key, value in settings.items()}
        env |= {f"AIRFLOW_CONN_{key.upper()}": json.dumps(dict(conn)) for key, conn in self._connections.items()}
        env |= {f"AIRFLOW_VAR_{key.upper()}": value for key, value in self._variables.items()}
        env["PYTHONPATH"] = _joined([env.get("PYTHONPATH"), *_checkout()], os.pathsep)
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), _joined([env.get("NO_PROXY"), "127.0.0.1", "localhost"], ","))
        return env | self._environment

    def _wait_until_healthy(self) -> None:
        if not self._poll(self._healthy, self._timeout):
            raise WholeAirflowError(f"Airflow is not healthy after {self._timeout:g} s.\n{self._tails()}")

    def _healthy(self) -> bool:
        # The first request to the tasks' API blocks the server for 3 to 4 s, since it builds its many versions then.
        # Let this be it, while the other parts are still starting, and not the first task's.
        self._http.get("/execution/health", auth=None).raise_for_status()
        health = self._http.get("/api/v2/monitor/health", auth=None).raise_for_status().json()
        parts = [part.replace("-", "_") for part in self._parts if part != "api-server"]
        return all((health.get(part) or {}).get("status") == "healthy" for part in ("metadatabase", *parts))

    def _alive(self) -> None:
        if not self._families or not self._families[0].is_running:
            raise WholeAirflowError(f"Airflow is not running.\n{self._tails()}")

    def _tails(self) -> str:
        texts = []
        for path in sorted((self.logs / "parts").glob("*.log")):
            text = path.read_text(errors="replace")[-TAIL:]
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


def _checkout() -> list[str]:
    """Return the folder that holds this package, if the package is not installed: the parts need to import it too."""
    root = Path(__file__).resolve().parents[2]
    return [] if root.name in {"site-packages", "dist-packages"} else [str(root)]


def _joined(parts: Iterable[str | None], separator: str) -> str:
    return separator.join(part for part in parts if part)
