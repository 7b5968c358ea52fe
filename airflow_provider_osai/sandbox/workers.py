"""Threads that take things from a queue, one at a time each: OSAI's workers, and whoever sends webhooks."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pool"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class Pool(Generic[T]):
    """A queue and a set number of daemon threads, started with the first thing that is put.

    :param count: how many threads; 0 leaves everything in the queue.
    :param handle: what is done with each thing.
    :param name: what the threads are called.
    """

    def __init__(self, count: int, handle: Callable[[T], None], name: str) -> None:
        self._count, self._handle, self._name = count, handle, name
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def put(self, thing: T) -> None:
        """Queue a thing for the first free thread."""
        self._queue.put(thing)
        with self._starting:
            while len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Let the threads finish what is queued, and wait for them up to *timeout* seconds each."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout)

    def _run(self) -> None:
        while (thing := self._queue.get()) is not None:
            try:
                self._handle(thing)
            except Exception:
                log.exception("%s could not handle its work", self._name)
