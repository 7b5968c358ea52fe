"""Runs what Dockerfile and compose.yaml of the quick start say, without containers.

Each RUN line, entrypoint, command, health check and variable is read from the files. What differs: a folder stands for
``/opt/airflow``, also in the Dags; the ports and the address of PostgreSQL are others; and a virtual environment with
that Airflow stands for the base image. This does not test users, capabilities, volumes or networks.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from airflow_provider_osai.demo.process_group import ProcessGroup
from tests.chaos.postgres import postgres
from tests.conftest import ROOT
from tests.quickstart.files import compose, dockerfile, env_file, in_order, interpolate

PATIENCE = 240.0
LISTENING = {
    8080: "AIRFLOW__API__PORT",
    8793: "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT",
    8794: "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT",
    8974: "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT",
    8099: "",
}
"""The ports of the shared network, and what else than the files sets them."""


class Stack:
    """The quick start, from its files in *folder*, as a context manager.

    :param folder: a copy of ``quickstart/compose`` with ``.env``.
    :param root: stands for the root of all file systems of the containers.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.home = root / "opt/airflow"
        self.home.mkdir(parents=True)
        self.variables = env_file(folder / ".env")
        self.services = compose(self.variables, folder / "compose.yaml")
        self.venv = root / "venv"
        self.ports = {port: _free_port() for port in LISTENING}
        self.groups: dict[str, ProcessGroup] = {}
        self._root = root
        self._database = ""
        self._stack = ExitStack()

    def build(self) -> None:
        """Make the base image's virtual environment, and run the Dockerfile in it."""
        arguments: dict[str, str] = {}
        environment = self._environment({})
        for name, text in dockerfile(self.folder / "Dockerfile"):
            match name:
                case "FROM":
                    environment["AIRFLOW_VERSION"] = re.fullmatch(r"apache/airflow:([\d.]+)-python3\.11", text)[1]
                    self._base_image(environment["AIRFLOW_VERSION"])
                case "ARG":
                    key, _, default = text.partition("=")
                    arguments[key] = self._here(self.variables.get(key) or interpolate(default, arguments))
                case "COPY":
                    *_, source, target = text.split()
                    shutil.copytree(self.folder / source, self._here(target))
                case "RUN":
                    self._run(["bash", "-euo", "pipefail", "-c", self._here(text)], {**environment, **arguments})
                case _:
                    raise AssertionError(f"{name} is not run here")

    def _base_image(self, airflow: str) -> None:
        uv = Path(sys.executable).with_name("uv")
        self._run([str(uv), "venv", "--quiet", "--seed", "--python", sys.executable, str(self.venv)], os.environ)
        command = [str(uv), "pip", "install", "--quiet", "--python", str(self.venv / "bin/python"), "--constraint"]
        packages = [f"apache-airflow=={airflow}", "psycopg2-binary", "asyncpg"]
        self._run([*command, str(ROOT / "constraints.txt"), *packages], os.environ)

    def __enter__(self) -> Self:
        self._database = self._stack.enter_context(postgres(self._root / "postgres"))
        try:
            self._up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        left = [pid for group in reversed(list(self.groups.values())) for pid in group.stop()]
        self._stack.close()
        assert not left

    def _up(self) -> None:
        for name in in_order(self.services):
            service = self.services[name]
            for needed, how in service.get("depends_on", {}).items():
                self._wait(needed, how["condition"])
            if name == "postgres":
                continue  # it runs, and its data and password are of the wheel
            for volume in service.get("volumes", []):
                self._mount(*volume.split(":")[:2])
            entrypoint = service.get("entrypoint") or _of_the_image(service["command"])
            program, *arguments = map(self._here, [*entrypoint, *service.get("command", [])])
            environment = self.environment(name)
            path = shutil.which(program, path=environment["PATH"])
            assert path, program
            self.groups[name] = ProcessGroup([path, *arguments], self._root / f"{name}.log", environment).start()

    def _mount(self, source: str, target: str) -> None:
        place = Path(self._here(target))
        place.mkdir(exist_ok=True)
        if source.startswith("."):
            for file in (self.folder / source).glob("*.py"):
                (place / file.name).write_text(self._here(file.read_text()))

    def _wait(self, name: str, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if name == "postgres" or condition == "service_started":
                return
            if condition == "service_completed_successfully":
                if not self.groups[name].is_running:
                    log = self.log(name)
                    assert self.groups[name]._supervisor.returncode == 0, log[-3000:]
                    return
            else:
                assert self.groups[name].is_running, self.log(name)[-3000:]
                if self.check(name):
                    return
            time.sleep(0.5)
        raise AssertionError(f"{name} is not {condition}: {self.log(name)[-3000:]}")

    def check(self, name: str) -> bool:
        """Return whether the health check of a service succeeds."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(
            [*map(self._here, command)], env=self.environment(name), capture_output=True, text=True, check=False
        )
        return done.returncode == 0

    def wait_until_healthy(self) -> None:
        """Wait for all services that have a health check."""
        for name, service in self.services.items():
            if "healthcheck" in service:
                self._wait(name, "service_healthy")

    def execute(self, name: str, command: Sequence[str]) -> str:
        """Run a command as ``docker compose exec`` does; return its output."""
        return self._run([*map(self._here, command)], self.environment(name))

    def log(self, name: str) -> str:
        """Return the output of a service so far."""
        path = self._root / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service: those of the image, and those of the file."""
        return self._environment(self.services[name].get("environment", {}))

    def _environment(self, of_the_service: Mapping[str, Any]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not re.match(r"_?AIRFLOW|PYTHON|VIRTUAL_ENV", key)}
        others = {variable: str(self.ports[port]) for port, variable in LISTENING.items() if variable}
        image = {"AIRFLOW_HOME": str(self.home), "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        fixed = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "AIRFLOW__API__WORKERS": "1"}
        # The default looks up this machine's full name in DNS.
        fixed["AIRFLOW__CORE__HOSTNAME_CALLABLE"] = "socket.gethostname"
        service = {key: self._here(value) for key, value in of_the_service.items()}
        return {**kept, **image, **others, **fixed, **service}

    def _here(self, text: str) -> str:
        text = re.sub(r"postgresql\+psycopg2://airflow:[^@]+@postgres/airflow", lambda _: self._database, text)
        text = text.replace("/opt/airflow", str(self.home))
        return re.sub(r"\b(80\d\d|8974)\b", lambda port: str(self.ports.get(int(port[1]), port[1])), text)

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            command, env=environment, cwd=self._root, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def _of_the_image(command: Sequence[str]) -> list[str]:
    """Return what the entrypoint of the official image puts before a command."""
    return [] if command[0] in ("airflow", "bash", "python") else ["airflow"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
