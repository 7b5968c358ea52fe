"""How far an upload is: counted, told every few seconds, and summed up at its end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Tally"]

MB: Final = 1_000_000
REPORTED: Final = 50
"""Bad files that the summary names; the log names all."""


@dataclass(slots=True)
class Tally:
    """What has become of the images so far.

    :param images: how many there are.
    :param size: all of them, in bytes.
    :param sent: those that were sent.
    :param known: those that the dataset already had, or that an earlier try sent.
    :param bad: those that were skipped, and why.
    :param keys: what tells each image of the dataset from others.
    """

    images: int
    size: int
    clock: Callable[[], float] = time.monotonic
    sent: int = 0
    known: int = 0
    sent_bytes: int = 0
    known_bytes: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def figures(self) -> dict[str, Any]:
        """Return the figures as plain JSON; sizes in bytes, times in seconds, rates by second."""
        seconds = max(self.clock() - self._since, 1e-3)
        rate = self.sent_bytes / seconds
        left = max(0, self.size - self.sent_bytes - self.known_bytes)
        return {
            "images": self.images,
            "sent": self.sent,
            "known": self.known,
            "bad": len(self.bad),
            "bytes": self.size,
            "bytes_sent": self.sent_bytes,
            "images_per_second": round(self.sent / seconds, 1),
            "seconds_left": round(left / rate) if rate else None,
        }

    def line(self) -> str:
        """Return the figures as a line for people."""
        now = self.figures()
        rate = self.sent_bytes / max(self.clock() - self._since, 1e-3) / MB
        left = "" if now["seconds_left"] is None else f", about {now['seconds_left']} s left"
        return (
            f"{self.sent + self.known} of {self.images} images are there ({self.known} of them were before, "
            f"{len(self.bad)} are bad), {self.sent_bytes / MB:.1f} MB sent of {self.size / MB:.1f} MB, "
            f"{now['images_per_second']} images/s, {rate:.1f} MB/s{left}"
        )

    def summary(self, dataset_id: str, categories: Iterable[str]) -> dict[str, Any]:
        """Return what a task hands on."""
        return {
            "dataset_id": dataset_id,
            "images": self.sent + self.known,
            "sent": self.sent,
            "known": self.known,
            "bytes": self.sent_bytes,
            "bad": dict(list(self.bad.items())[:REPORTED]),
            "bad_count": len(self.bad),
            "categories": sorted(categories),
            "digest": hashlib.sha256("".join(sorted(self.keys)).encode()).hexdigest(),
        }
