"""A queue with worker threads, for jobs and for webhooks."""

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
    """A queue and a fixed number of daemon threads, started with the first item.

    :param count: number of threads; 0 leaves all items in the queue.
    :param handle: called with each item.
    :param name: prefix of the threads' names.
    """

    def __init__(self, count: int, handle: Callable[[T], None], name: str) -> None:
        self._count = count
        self._handle = handle
        self._name = name
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._start_lock = threading.Lock()

    def put(self, item: T) -> None:
        """Queue an item for the next free thread."""
        self._queue.put(item)
        with self._start_lock:
            while len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Finish the queued items and stop the threads, waiting at most *timeout* seconds for each."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._handle(item)
            except Exception:
                log.exception("Unexpected error in a thread of %s", self._name)
