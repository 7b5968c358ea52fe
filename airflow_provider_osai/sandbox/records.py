"""What the sandbox remembers, and how it says no. Plain data; the rules are in the modules that hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from airflow_provider_osai.api.models import TERMINAL_STATES, JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest, JobRequest
from airflow_provider_osai.sandbox.scripts import Script

__all__ = [
    "CategoryRecord",
    "DatasetRecord",
    "ImageRecord",
    "JobProblem",
    "JobRecord",
    "JobStopped",
    "Label",
    "ModelRecord",
    "Outcome",
    "Refused",
    "timestamp",
]


class Refused(Exception):
    """A request breaks a rule.

    :param status: the HTTP status that says so.
    :param message: what the client is told.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class JobProblem(Exception):
    """A job cannot succeed; the text becomes the failed job's message."""


class JobStopped(Exception):
    """A running job has noticed that it was cancelled."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a model said about an image."""

    category_id: str
    name: str
    confidence: float


@dataclass(slots=True)
class ImageRecord:
    """One image: where it lies, what the user says it shows, the SHA-256 of its file, and what models said."""

    id: str
    file_name: str
    path: Path
    category_id: str | None = None
    annotations: Any = None
    digest: str = ""
    labels: list[Label] = field(default_factory=list)

    @property
    def is_annotated(self) -> bool:
        """Whether anybody, user or model, has said what the image shows."""
        return bool(self.category_id or self.annotations or self.labels)


@dataclass(frozen=True, slots=True)
class CategoryRecord:
    """A class of images of one dataset."""

    id: str
    name: str
    dataset_id: str


@dataclass(slots=True)
class DatasetRecord:
    """A dataset. ``upload`` is the open upload, which locks it; ``touched`` is when that was last heard of.

    ``updated`` is when its images or categories last changed, and ``brought`` whether the open upload did that.
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
        """Leave out the images when pickled: each is a record of its own, or every upload would write all of them."""
        return DatasetRecord, (
            *(self.id, self.name, self.folder, self.categories),
            *({}, self.uploads, self.upload, self.touched, self.updated, self.brought),
        )

    def category_of(self, image: ImageRecord) -> str | None:
        """Return the name of the image's category: the user's word first, else the last model's."""
        if image.category_id:
            return self.categories[image.category_id].name
        return image.labels[-1].name if image.labels else None

    def snapshot(self) -> list[tuple[ImageRecord, str | None]]:
        """Return every image with the name of its category, as they are now."""
        return [(image, self.category_of(image)) for image in self.images.values()]


@dataclass(slots=True)
class ModelRecord:
    """A trained model. ``classifier`` is ``None`` for a simulated one; ``files`` maps targets to converted files."""

    id: str
    name: str
    model_type: str
    metrics: dict[str, Any]
    categories: tuple[str, ...] = ()
    classifier: Any = None
    files: dict[str, Path] = field(default_factory=dict)
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. ``result`` is in the words of the wire; ``effect`` is called when the job ends, under the lock.

    All that a job changes is its effect, so that nobody sees half of it, and a job that starts over repeats nothing.
    """

    state: JobState = JobState.SUCCEEDED
    message: str | None = None
    result: dict[str, Any] | None = None
    effect: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class JobRecord:
    """One job, from its submission on. ``stopped`` says that it was cancelled, which a running job has to notice."""

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

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def is_lease(self) -> bool:
        """Whether a device is lent by the clock, rather than work done or an end scripted."""
        return self.kind is JobKind.DEVICE_RENTAL and self.script.timing == "work"

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker does the job."""
        return self.script.timing == "work" and not self.is_lease

    @property
    def lease_ends(self) -> float | None:
        """When a lease that has begun is over, in seconds since the epoch."""
        if not self.is_lease or self.started_at is None:
            return None
        return self.started_at + cast("DeviceRentalRequest", self.request).duration

    def start_over(self) -> None:
        """Wait in the queue again, as if nobody had worked on the job."""
        self.state, self.started_at, self.progress, self.history = JobState.QUEUED, None, 0.0, []

    def checkpoint(self) -> None:
        """Raise JobStopped if the job was cancelled."""
        if self.stopped:
            raise JobStopped

    def wire(self, word: str) -> dict[str, Any]:
        """Return the job under our names, with the status *word*."""
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
        }


def timestamp(seconds: float | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, for instance ``2026-01-31T12:00:00.000Z``."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
