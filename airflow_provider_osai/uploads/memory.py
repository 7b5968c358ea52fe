"""What an upload remembers between the tries of its task."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Forgetful", "Past", "UploadMemory"]


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier tries left.

    :param keys: of the images that they sent.
    :param upload_id: of the upload that they opened and may not have finished.
    """

    keys: Collection[str] = ()
    upload_id: str | None = None


class UploadMemory(Protocol):
    """Where it is kept. It outlives the task's process, its retries and its clears."""

    def recall(self, dataset_id: str) -> Past:
        """Return what earlier tries left of an upload into this dataset."""

    def opened(self, upload_id: str | None) -> None:
        """Remember that an upload is open; ``None``: that none is."""

    def sent(self, keys: Iterable[str]) -> None:
        """Remember images that were sent."""

    def progress(self, figures: dict[str, Any]) -> None:
        """Show how far it is to whoever wants to see."""


class Forgetful:
    """For an Airflow that has nowhere to keep it: OSAI's own list of images must tell then."""

    def recall(self, dataset_id: str) -> Past:  # noqa: ARG002 - the protocol's
        """Return nothing."""
        return Past()

    def opened(self, upload_id: str | None) -> None:
        """Keep nothing."""

    def sent(self, keys: Iterable[str]) -> None:
        """Keep nothing."""

    def progress(self, figures: dict[str, Any]) -> None:
        """Show nothing."""
