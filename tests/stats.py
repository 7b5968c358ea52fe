"""A backend for Airflow's ``Stats`` that records what it gets, and a StatsD server."""

from __future__ import annotations

import inspect
import socket
import threading
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any


class Recorder:
    """Records counts and times under ``name{tag=value,...}``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.tags: dict[str, set[tuple[str, ...]]] = {}

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, str] | None = None) -> None:
        self.counts[self._key(stat, tags)] += count

    def timing(self, stat: str, dt: timedelta, *, tags: dict[str, str] | None = None) -> None:
        self.times.setdefault(self._key(stat, tags), []).append(dt.total_seconds())

    def timer(self, *args: Any, **kwargs: Any) -> None:
        """Called to create the backend."""

    def _key(self, stat: str, tags: dict[str, str] | None) -> str:
        tags = tags or {}
        assert all(type(value) is str for value in tags.values())
        self.tags.setdefault(stat, set()).add(tuple(sorted(tags)))
        return f"{stat}{{{','.join(f'{name}={value}' for name, value in sorted(tags.items()))}}}"


class StatsdServer:
    """A UDP server on a free port of 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.received: list[str] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> StatsdServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.lines()
        self._socket.close()

    def lines(self) -> list[str]:
        """Return all lines that were sent before this call, then stop: the last datagram is one of our own."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        return self.received

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            self.received += data.decode().splitlines()


def initialize_stats(package: str) -> None:
    """Initialize a ``Stats`` from the configuration, as Airflow's processes do.

    :param package: ``airflow.sdk`` as a task's process, ``airflow`` as the triggerer. Airflow 3.1 has one for both.
    """
    from importlib import import_module

    try:
        module = import_module(f"{package}.observability.stats")
    except ImportError:  # Airflow 3.1
        from airflow import stats

        metaclass = type(stats.Stats)
        del metaclass.factory
        metaclass.__init__(stats.Stats)  # reads the configuration
        stats.Stats.instance = None
        return
    get_factory = import_module(f"{package}.observability.metrics.stats_utils").get_stats_factory
    options = {}
    if "export_legacy_names" in inspect.signature(module.Stats.initialize).parameters:
        options["export_legacy_names"] = True
    factory = get_factory(*([module.Stats] if inspect.signature(get_factory).parameters else []))  # 3.2 takes one
    module.Stats.initialize(factory=factory, **options)
