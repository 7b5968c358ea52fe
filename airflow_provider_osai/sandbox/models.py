"""The sandbox's records (datasets, images, models, jobs), job outcomes, and errors. Plain data without rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from airflow_provider_osai.api.models import TERMINAL_STATES, JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest, JobRequest
from airflow_provider_osai.sandbox.scenarios import Script

__all__ = [
    "ApiError",
    "CategoryRecord",
    "DatasetRecord",
    "ImageRecord",
    "InvalidData",
    "JobCancelled",
    "JobFailed",
    "JobOutcome",
    "JobRecord",
    "Label",
    "ModelRecord",
    "timestamp",
]


class ApiError(Exception):
    """A request that is answered with an error status.

    :param status: the HTTP status.
    :param message: the ``message`` of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class JobFailed(Exception):
    """A job cannot succeed. Its text becomes the failed job's message."""


class InvalidData(JobFailed):
    """A job cannot succeed because of its data or arguments."""


class JobCancelled(Exception):
    """Ends a running job that was cancelled."""


@dataclass(frozen=True, slots=True)
class Label:
    """A category that a model predicted for an image."""

    category_id: str
    name: str
    confidence: float


@dataclass(slots=True)
class ImageRecord:
    """One image: its file and the file's SHA-256, the user's category and annotations, and predicted labels."""

    id: str
    file_name: str
    path: Path
    category_id: str | None = None
    annotations: Any = None
    digest: str = ""
    labels: list[Label] = field(default_factory=list)

    @property
    def is_annotated(self) -> bool:
        """Whether the image has a category, annotations, or predicted labels."""
        return bool(self.category_id or self.annotations or self.labels)


@dataclass(frozen=True, slots=True)
class CategoryRecord:
    """A category of images in one dataset."""

    id: str
    name: str
    dataset_id: str


@dataclass(slots=True)
class DatasetRecord:
    """A dataset.

    ``upload`` is the id of the open upload, which locks the dataset, ``touched`` the time of that upload's last
    request, and ``brought`` whether it has added images. ``updated`` is when images or categories last changed.
    """

    id: str
    name: str
    folder: Path
    categories: dict[str, CategoryRecord] = field(default_factory=dict)
    images: dict[str, ImageRecord] = field(default_factory=dict)
    uploads: set[str] = field(default_factory=set)
    upload: str | None = None
    touched: float = 0.0
    updated: float = 0.0
    brought: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the images: they are separate records, so that an upload need not rewrite all of them."""
        return DatasetRecord, (
            *(self.id, self.name, self.folder, self.categories),
            *({}, self.uploads, self.upload, self.touched, self.updated, self.brought),
        )

    def category_of(self, image: ImageRecord) -> str | None:
        """Return the name of the image's category: the user's if set, else the last predicted one."""
        if image.category_id:
            return self.categories[image.category_id].name
        return image.labels[-1].name if image.labels else None

    def snapshot(self) -> list[tuple[ImageRecord, str | None]]:
        """Return a list of all images with the names of their categories."""
        return [(image, self.category_of(image)) for image in self.images.values()]


@dataclass(slots=True)
class ModelRecord:
    """A trained model. ``classifier`` is ``None`` if it is simulated; ``files`` maps targets to converted files."""

    id: str
    name: str
    model_type: str
    metrics: dict[str, Any]
    categories: tuple[str, ...] = ()
    classifier: Any = None
    files: dict[str, Path] = field(default_factory=dict)
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The outcome of a job. ``result`` has wire names; ``effect`` is called under the lock when the job ends.

    A job changes the state in its effect only, so that no partial change is visible and a restarted job repeats none.
    """

    state: JobState = JobState.SUCCEEDED
    message: str | None = None
    result: dict[str, Any] | None = None
    effect: Callable[[], None] | None = None
    invalid_data: bool = False


@dataclass(slots=True, eq=False)
class JobRecord:
    """One job. ``stopped`` is set when it is cancelled, and checked by a running job. ``finishing`` is set when a
    training is to end after its next epoch, with the model so far.

    ``simulated`` is set if its result, or a part of it, is not real; ``invalid_data`` if it failed because of its data.
    """

    id: str
    kind: JobKind
    request: JobRequest
    script: Script
    created_at: float
    reference: str | None = None
    webhook_url: str | None = None
    state: JobState = JobState.QUEUED
    progress: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    message: str | None = None
    result: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    reads: int = 0
    stopped: bool = False
    finishing: bool = False
    simulated: bool = False
    invalid_data: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def is_lease(self) -> bool:
        """Whether the job is a device rental without a scripted timing."""
        return self.kind is JobKind.DEVICE_RENTAL and self.script.timing == "work"

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker thread runs the job."""
        return self.script.timing == "work" and not self.is_lease

    @property
    def lease_ends(self) -> float | None:
        """When a running rental expires, in seconds since the epoch."""
        if not self.is_lease or self.started_at is None:
            return None
        return self.started_at + cast("DeviceRentalRequest", self.request).duration

    def start_over(self) -> None:
        """Reset the job to queued, without progress."""
        self.state = JobState.QUEUED
        self.started_at = None
        self.progress = 0.0
        self.history = []

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled if the job was cancelled."""
        if self.stopped:
            raise JobCancelled

    def wire(self, word: str) -> dict[str, Any]:
        """Return the job's fields under our names, with the status *word*."""
        return {
            "id": self.id,
            "reference": self.reference,
            "status": word,
            "progress": round(self.progress, 4),
            "createdAt": timestamp(self.created_at),
            "startedAt": timestamp(self.started_at),
            "finishedAt": timestamp(self.finished_at),
            "message": self.message,
            "result": self.result,
            "history": list(self.history) if self.history else None,
            "simulated": self.simulated,
            "invalidData": self.invalid_data,
        }


def timestamp(seconds: float | None) -> str | None:
    """Return seconds since the epoch as ISO 8601 in UTC, for example ``2026-01-31T12:00:00.000Z``."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
