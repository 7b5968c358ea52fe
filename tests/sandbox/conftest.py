"""Fixtures of the sandbox's tests: a signed-in client, an injected clock, a trained model, a webhook receiver."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_osai.sandbox import Sandbox, SandboxState
from tests.conftest import CANARY
from tests.sandbox.client import Api, Receiver, shades


class Clock:
    """Seconds since the epoch; tests set ``now``."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> Iterator[SandboxState]:
    """Return a state without workers: queued jobs stay queued."""
    numbers = itertools.count(1)
    with SandboxState(access_token="right", workers=0, clock=clock, new_id=lambda: f"id{next(numbers)}") as made:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """Run one server for all tests of a module; use the fixture ``sandbox``, which resets it."""
    with Sandbox(access_token=CANARY) as server:
        yield server


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """Return a running, empty sandbox."""
    running.control.reset()
    return running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[Api]:
    with Api(sandbox) as client:
        yield client


@pytest.fixture(scope="module")
def trained() -> Iterator[Any]:
    """Return a client whose sandbox has a model of dark and light images, with ``model_id`` and ``dataset_id``."""
    with Sandbox() as running, Api(running) as client:
        client.dataset_id = client.dataset(shades())
        client.training = client.train(client.dataset_id)
        client.model_id = client.training["result"]["modelId"]
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
