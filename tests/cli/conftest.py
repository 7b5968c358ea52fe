"""The command line as a person or a script uses it: a sandbox behind the connection, jobs, pipes and terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli import main
from airflow_provider_osai.jobs.idempotency import Deployment, TaskKey

SCRIPT = str(Path(sys.executable).parent / "osai-airflow")
QUIET = {"AIRFLOW__CORE__UNIT_TEST_MODE": "False", "AIRFLOW__CORE__FERNET_KEY": "A" * 43 + "="}
"""Otherwise Airflow logs that it runs in that mode, and that it has no key."""
TIMEOUT = 120
"""Seconds after which a process that hangs fails its test."""


@dataclass
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self):
        return [line.split() for line in self.out.splitlines()]

    @property
    def error(self):
        """The only line on the standard error."""
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def cli(capfd):
    """Run a command in this process, whose output is a pipe's."""

    def run(*words):
        capfd.readouterr()
        try:
            code = main(words)
        except SystemExit as ended:  # argparse's
            code = ended.code
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def client(osai_sandbox):
    """A client of the sandbox."""
    extra = {"base_url": osai_sandbox.base_url}
    with OsaiClient(OsaiSettings.from_connection(osai_sandbox.access_token, extra)) as client:
        yield client


@pytest.fixture
def submit(client, osai_sandbox):
    """Submit a training of a mapped task; return its id. It ends after so many reads as the script says."""
    dataset = client.create_dataset("defects").id
    count = iter(range(1000))

    def run(**script):
        osai_sandbox.control.script("training", **{"timing": "reads", "reads": 10**6, **script})
        request = TrainingRequest(dataset_ids=[dataset], model_name="defects")
        owner = TaskKey("retrain", "manual__1", "train", next(count), 0)
        return client.submit_job(request, owner.reference(request, deployment=Deployment("secret"))).id

    return run


def take_sigint():
    """Let a new process take Ctrl-C, also if the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words, columns=100, **env):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {**QUIET, "TERM": "xterm-256color", **env}
        self.process = subprocess.Popen(
            [SCRIPT, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=take_sigint,  # noqa: PLW1509 - one call, no lock
        )
        os.close(theirs)
        self._ours = ours
        self.shown = ""

    def until(self, text):
        """Read until *text* is shown."""
        while text not in self.shown:
            assert self._read(), self.shown
        return self

    def type(self, keys):
        os.write(self._ours, keys.encode())
        return self

    def interrupt(self):
        """Send what Ctrl-C sends."""
        self.process.send_signal(signal.SIGINT)
        return self

    def end(self):
        """Read until the command ends; return its exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(TIMEOUT)

    def _read(self):
        ready, _, _ = select.select([self._ours], [], [], TIMEOUT)
        assert ready, self.shown
        try:
            read = os.read(self._ours, 65536)
        except OSError:  # the command has closed the terminal
            return False
        self.shown += read.decode(errors="replace")
        return bool(read)


@pytest.fixture
def terminal():
    """Start commands in terminals; none is left running."""
    started = []

    def start(*words, **options):
        started.append(Terminal(*words, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
