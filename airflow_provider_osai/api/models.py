"""What travels between us and OSAI, as pydantic models.

On the wire the fields are camelCase; here they are snake_case. Models tolerate: unknown fields are ignored, ids may be
numbers or text (kept as text), a status word that is not known is kept beside ``JobState.UNKNOWN``, and a decoration
that does not parse (a date, a progress) is ``None`` rather than an error.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.alias_generators import to_camel

from airflow_provider_osai.api.errors import OsaiArgumentError

__all__ = [
    "LIVE_STATES",
    "TERMINAL_STATES",
    "Category",
    "Conversion",
    "Dataset",
    "Epoch",
    "Image",
    "Job",
    "JobKind",
    "JobResult",
    "JobState",
    "Model",
    "Upload",
    "User",
    "WireModel",
]


class JobKind(StrEnum):
    """The six kinds of work that OSAI's workers do (docs.onestepai.com/getting_started/three_main_actions, /api)."""

    TRAINING = "training"
    RETRAINING = "retraining"
    CONVERSION = "conversion"
    MANIPULATION = "manipulation"
    PREDICTION = "prediction"
    DEVICE_RENTAL = "device_rental"

    @classmethod
    def parse(cls, word: str) -> JobKind:
        """Return the kind called *word*, in any case; raise OsaiArgumentError if there is none."""
        try:
            return cls(str(word).strip().lower())
        except ValueError:
            raise OsaiArgumentError(f"kind = {word!r}: choose one of {', '.join(cls)}") from None


class JobState(StrEnum):
    """What we make of OSAI's status word. ``UNKNOWN`` is a word that the contract does not bind."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""States that a job never leaves."""
LIVE_STATES = frozenset(JobState) - TERMINAL_STATES
"""States in which a job may still cost money. ``UNKNOWN`` is among them."""


class WireModel(BaseModel):
    """Something OSAI sends us: camelCase on the wire, tolerant of what it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        coerce_numbers_to_str=True,
        defer_build=True,  # most who import this use few of them
    )


def _or_none(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValueError:
        return None


type_or_none = WrapValidator(_or_none)
"""Marks a field that only decorates: what does not parse becomes ``None``."""
Text = Annotated[str | None, type_or_none]
Number = Annotated[float | None, type_or_none]
Fraction = Annotated[float | None, Field(ge=0, le=1), type_or_none]


class Epoch(WireModel):
    """One line of a training's history (assumed): all figures may be missing."""

    epoch: Annotated[int | None, type_or_none] = None
    loss: Number = None
    accuracy: Fraction = None
    val_loss: Number = None
    val_accuracy: Fraction = None


class JobResult(WireModel):
    """What a job made (assumed): the ids that its kind has, when a lease ends, and its metrics by name."""

    model_id: Text = None
    dataset_id: Text = None
    conversion_id: Text = None
    device_id: Text = None
    expires_at: Text = None
    metrics: Annotated[dict[str, Any] | None, type_or_none] = None


class Job(WireModel):
    """One OSAI worker task (assumed form).

    ``kind`` and ``state`` are ours: the call that asked knows the kind, the contract maps ``status`` to the state.
    ``progress`` is 0 to 1. Times are the server's own text.
    """

    kind: JobKind
    id: str = Field(min_length=1)
    state: JobState
    status: str = ""
    reference: Text = None
    progress: Fraction = None
    created_at: Text = None
    started_at: Text = None
    finished_at: Text = None
    message: Text = None
    result: Annotated[JobResult | None, type_or_none] = None
    history: Annotated[tuple[Epoch, ...] | None, type_or_none] = None

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, well or badly."""
        return self.state in TERMINAL_STATES

    @property
    def is_ready(self) -> bool:
        """Whether a rented device can be used: the lease runs and names it."""
        return self.state is JobState.RUNNING and self.result is not None and self.result.device_id is not None

    def references(self) -> dict[str, Any]:
        """Return what a task hands on: ``kind``, ``job_id``, ``state``, what was made and until when, ``metrics``."""
        result = self.result or JobResult()
        ids = {name: value for name, value in result.model_dump(exclude={"metrics"}).items() if value is not None}
        return {
            "kind": self.kind.value,
            "job_id": self.id,
            "state": self.state.value,
            **ids,
            "metrics": result.metrics or {},
        }


class User(WireModel):
    """Who is signed in. The vendor documents the call but not its fields."""

    id: Text = None
    name: Text = None
    email: Text = None


class Dataset(WireModel):
    """A dataset; ``id`` is documented. While ``locked`` (assumed field), an upload is open.

    ``updated_at`` (assumed) is when its data last changed, in the server's own text.
    """

    id: str = Field(min_length=1)
    name: Text = None
    locked: Annotated[bool | None, type_or_none] = None
    image_count: Annotated[int | None, type_or_none] = None
    updated_at: Text = None


class Category(WireModel):
    """A class of images inside a dataset."""

    id: str = Field(min_length=1)
    name: Text = None
    dataset_id: Text = None


class Upload(WireModel):
    """An open upload; while it is open, its dataset is locked."""

    id: str = Field(min_length=1, validation_alias=AliasChoices("id", "datasetUploadId", "uploadId"))


class Image(WireModel):
    """An image of a dataset (assumed); ``digest`` is the SHA-256 of its file, as hexadecimal digits."""

    id: Text = None
    file_name: Text = None
    digest: Text = None
    category_id: Text = None
    annotations: Any = None


class Model(WireModel):
    """A trained model (assumed). ``created_at`` is the server's own text."""

    id: str = Field(min_length=1)
    name: Text = None
    model_type: Text = None
    metrics: Annotated[dict[str, Any] | None, type_or_none] = None
    created_at: Text = None


class Conversion(WireModel):
    """A model's file for one kind of hardware, made, being made or impossible (assumed).

    ``state`` is ours, as a job's. ``job_id`` is left out where a conversion and the job that makes it have one id.
    """

    id: str = Field(min_length=1)
    target: Text = None
    state: JobState
    status: str = ""
    message: Text = None
    job_id: Text = None
