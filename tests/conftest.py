"""Shared by all tests: a token that must never be in a log, the path of an Airflow home, and a sandbox on demand."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

CANARY = "canary-5f0c1e77d2b94a6f-access-token"
ROOT = Path(__file__).parents[1]
HOME = Path(tempfile.gettempdir()) / f"osai-tests-{os.getpid()}"
"""The home of Airflow, which creates it when it is first imported."""
DAGS = HOME / "dags"
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
}

import pytest  # noqa: E402 - Airflow reads the environment when it is first imported
from hypothesis import settings  # noqa: E402

from airflow_provider_osai.api.settings import OsaiSettings  # noqa: E402

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

AIRFLOW = os.environ.get("OSAI_TEST_PYTHON", sys.executable)
"""The Python whose Airflow the end-to-end tests start; another one tests another version of Airflow."""
SECRET = re.compile(rf"{CANARY}|canary-of-the-new-token|eyJ[\w-]{{8,}}\.eyJ")
"""The access token, or a JWT."""


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(autouse=True)
def no_earlier_responses():
    """Forget what was watched of servers of earlier tests: a later one may have the same port."""
    from airflow_provider_osai.api import response_watch

    response_watch._watches.clear()


_database: list[str] = []


@pytest.fixture(autouse=True)
def same_database():
    """A test that leaves another metadata database behind fails, rather than a later one in the same process."""
    yield
    airflow = sys.modules.get("airflow.settings")
    if airflow is not None and airflow.engine is not None:
        _database[:] = _database or [airflow.SQL_ALCHEMY_CONN]
        left = [airflow.SQL_ALCHEMY_CONN, f"sqlite:///{airflow.engine.url.database}"]
        assert left == _database * 2


@pytest.fixture(autouse=True)
def logged(capfd):
    """Return what was logged so far, at DEBUG. When the test ends, no secret may be in it."""
    collector = _Collector()
    root = logging.getLogger()
    root.addHandler(collector)
    levels = {name: logging.getLogger(name).level for name in ("", "httpx", "airflow.task")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)

    def so_far() -> str:
        # Airflow's own loggers print rather than log.
        collector.lines.extend(capfd.readouterr())
        return "\n".join(collector.lines)

    yield so_far
    root.removeHandler(collector)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    leaked = sum(1 for line in so_far().splitlines() if SECRET.search(line))
    if leaked:  # not an assertion on the lines: it would print them
        pytest.fail(f"{leaked} log lines hold a secret")


@pytest.fixture
def sandbox():
    """A running sandbox whose access token is the canary."""
    from airflow_provider_osai.sandbox import Sandbox

    with Sandbox(access_token=CANARY) as running:
        yield running


def settings_for(base_url: str, **extra: object) -> OsaiSettings:
    """Return settings for an OSAI at *base_url*, as a connection would give them."""
    return OsaiSettings.from_connection(CANARY, {"base_url": base_url, **extra})


@pytest.fixture
def connection(sandbox, monkeypatch):
    """Airflow's connection ``osai_default`` to the sandbox; call it with extras to change them."""

    def make(**extra: object) -> str:
        document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": sandbox.base_url, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        return "osai_default"

    make()
    return make


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Handwritten digits as PNG files in folders 0, 1 and 2, twenty of each."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("images")
    digits = load_digits(n_class=3)
    for label in range(3):
        (folder / str(label)).mkdir()
        for n, image in enumerate(digits.images[digits.target == label][:20]):
            Image.fromarray((image * 255 / 16).astype("uint8")).save(folder / str(label) / f"{n}.png")
    return folder
