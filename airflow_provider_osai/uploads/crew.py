"""Threads that carry images: each takes the next one when it is free, and leaves a note of what became of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from airflow_provider_osai.data.sources import Opener
from airflow_provider_osai.data.survey import Picture
from airflow_provider_osai.uploads.sending import Dealt, Fate, Shipment

__all__ = ["Crew"]

NEWS = frozenset({Fate.BAD, Fate.IN_DOUBT})
"""What cannot wait."""


class Crew:
    """At work from the start until there is nothing left, one of them fails, or it is dismissed.

    :param shipment: what they work for.
    :param images: taken one by one, by whoever is free; what is read ahead is what is on its way.
    :param size: how many images are on their way at the same time.
    """

    def __init__(self, shipment: Shipment, images: Iterator[tuple[Picture, Opener]], size: int) -> None:
        self._shipment, self._images = shipment, images
        self._taking = threading.Lock()
        self._notes: deque[Dealt] = deque()
        self._error: BaseException | None = None
        self._call = threading.Event()
        shipment.begin(self._call.set)
        self._threads = [threading.Thread(target=self._work, name="osai-upload", daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody needs something, at most so long; return whether anybody is at work."""
        self._call.wait(seconds)
        self._call.clear()
        return any(thread.is_alive() for thread in self._threads)

    def dealt(self) -> Iterator[Dealt]:
        """Yield the notes that nobody has seen yet."""
        while self._notes:
            yield self._notes.popleft()

    def must_be_well(self) -> None:
        """Raise what one of them failed at."""
        if self._error:
            raise self._error

    def dismiss(self, seconds: float) -> None:
        """Let nobody take another image, and wait for those on their way, at most so long."""
        self._shipment.close()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        try:
            while not self._shipment.is_closed:
                with self._taking:
                    image = next(self._images, None)
                if image is None:
                    break
                dealt = self._shipment.deal_with(*image)
                self._notes.append(dealt)
                if dealt.fate in NEWS:
                    self._call.set()
        except BaseException as error:  # noqa: BLE001 - it is raised where the upload is waited for
            self._error = self._error or error
            self._shipment.close()
        finally:
            self._call.set()
