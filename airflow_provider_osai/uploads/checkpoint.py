"""Checkpoints of an upload, kept between the tries of its task."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["NullUploadStore", "UploadCheckpoint", "UploadCheckpointStore"]


@dataclass(frozen=True, slots=True)
class UploadCheckpoint:
    """The progress of earlier tries.

    :param keys: the keys of the uploaded images.
    :param upload_id: the id of the upload that may still be open, which locks the dataset.
    """

    keys: Collection[str] = ()
    upload_id: str | None = None


class UploadCheckpointStore(Protocol):
    """Persists checkpoints. It outlives the task's process, retries and clears."""

    def load(self, dataset_id: str) -> UploadCheckpoint:
        """Return the checkpoint of earlier tries for this dataset."""

    def save_upload_id(self, upload_id: str | None) -> None:
        """Save the id of the open upload; ``None`` if none is open."""

    def save_keys(self, keys: Iterable[str]) -> None:
        """Save the keys of uploaded images."""

    def progress(self, figures: dict[str, Any]) -> None:
        """Publish the current progress."""


class NullUploadStore:
    """Stores nothing, for an Airflow without a state store; only OSAI's image list then shows the uploaded images."""

    def load(self, dataset_id: str) -> UploadCheckpoint:  # required by the protocol
        """Return an empty checkpoint."""
        return UploadCheckpoint()

    def save_upload_id(self, upload_id: str | None) -> None:
        """Do nothing."""

    def save_keys(self, keys: Iterable[str]) -> None:
        """Do nothing."""

    def progress(self, figures: dict[str, Any]) -> None:
        """Do nothing."""
