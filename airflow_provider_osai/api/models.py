"""Pydantic models of OSAI's responses.

Fields are camelCase on the wire and snake_case here. The models are tolerant: unknown fields are ignored, ids may be
numbers or text (kept as text), an unknown status word is kept beside ``JobState.UNKNOWN``, and an invalid optional
field (a date, a progress) becomes ``None``. An id with more than 1,000 characters or a control character could not be
used in a request, and is an OsaiContractError.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Required, Self, TypedDict, cast

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.text import MAX_TEXT, id_error, truncate

__all__ = [
    "LIVE_STATES",
    "MAX_LABELS",
    "MAX_SAMPLES",
    "TERMINAL_STATES",
    "Category",
    "ConfusionMatrix",
    "Conversion",
    "Dataset",
    "Epoch",
    "Image",
    "Job",
    "JobKind",
    "JobReferences",
    "JobResult",
    "JobState",
    "Model",
    "SamplePrediction",
    "Upload",
    "User",
    "WireModel",
]


class JobKind(StrEnum):
    """The six kinds of OSAI worker tasks (docs.onestepai.com/getting_started/three_main_actions, /api)."""

    TRAINING = "training"
    RETRAINING = "retraining"
    CONVERSION = "conversion"
    MANIPULATION = "manipulation"
    PREDICTION = "prediction"
    DEVICE_RENTAL = "device_rental"

    @classmethod
    def parse(cls, word: str) -> JobKind:
        """Return the kind named *word*, ignoring case; raise OsaiArgumentError if there is none."""
        try:
            return cls(str(word).strip().lower())
        except ValueError:
            raise OsaiArgumentError(f"kind = {word!r}: must be one of {', '.join(cls)}") from None


class JobState(StrEnum):
    """The state of a job, mapped from OSAI's status word; ``UNKNOWN`` if the contract does not map the word."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""Final states of a job."""
LIVE_STATES = frozenset(JobState) - TERMINAL_STATES
"""States in which a job may still cost money, including ``UNKNOWN``."""
MAX_LABELS: Final = 100
"""Maximum labels of a confusion matrix; one with more counts as missing."""
MAX_COUNT: Final = 2**53
"""Maximum count in a confusion matrix; JSON readers that have floats only do not keep larger integers exact."""
MAX_SAMPLES: Final = 50
"""Maximum sample predictions of a job; the first ones are kept."""


class WireModel(BaseModel):
    """Base of the response models: camelCase on the wire, tolerant of unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        coerce_numbers_to_str=True,
        defer_build=True,  # most importers use few of the models
    )


class _OnError:
    """Replaces an invalid value of a field by *default*, without a call of Python code for each value."""

    def __init__(self, default: object) -> None:
        self._default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_default_schema(handler(source), default=self._default, on_error="default")


none_if_invalid = _OnError(None)
"""Marks an optional field whose invalid values become ``None``."""


def _check_id(text: str) -> str:
    if reason := id_error(text):
        raise OsaiContractError(reason)  # no ValueError: an invalid optional id is an error, not a missing one
    return text


WireId = Annotated[str, Field(min_length=1), AfterValidator(_check_id)]
"""An id that is valid in requests."""


def _none_or_id_error(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValueError:
        return None


none_or_id_error = WrapValidator(_none_or_id_error)
"""Like ``none_if_invalid``, for fields that contain ids, whose errors that would hide."""
OptionalId = Annotated[Annotated[str, AfterValidator(_check_id)] | None, none_or_id_error]
ShortText = Annotated[str, Field(max_length=MAX_TEXT)]
LongText = Annotated[str, AfterValidator(truncate)]
Label = Annotated[ShortText | LongText, Field(union_mode="left_to_right")]
"""A text that is cut if it is too long. Only then is Python code called: a poll has four texts for each job."""
Text = Annotated[Label | None, none_if_invalid]
Number = Annotated[float | None, none_if_invalid]
Fraction = Annotated[float | None, Field(ge=0, le=1), none_if_invalid]


Flag = Annotated[bool, _OnError(default=False)]
"""An optional flag: ``null`` and invalid values are ``False``."""


class Epoch(WireModel):
    """One epoch of a training's history (assumed); all values are optional."""

    epoch: Annotated[int | None, Field(gt=-(2**63), lt=2**63), none_if_invalid] = None
    loss: Number = None
    accuracy: Fraction = None
    val_loss: Number = None
    val_accuracy: Fraction = None


def _require_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic expects it
    return value


Count = Annotated[int, Field(ge=0, le=MAX_COUNT), BeforeValidator(_require_number)]
"""A whole number of images; text and booleans are invalid."""


class ConfusionMatrix(WireModel):
    """How often a model took the images of each category for each category (assumed form).

    ``rows[i][j]`` is the number of images of the category ``labels[i]`` that were predicted as ``labels[j]``. There are
    1 to 100 labels, as many rows, and as many whole numbers from 0 in each row; anything else is invalid.
    """

    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_LABELS)]
    rows: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(max_length=MAX_LABELS)], ...], Field(max_length=MAX_LABELS)
    ]

    @model_validator(mode="after")
    def _check_square(self) -> Self:
        if {len(self.labels)} != {len(self.rows), *map(len, self.rows)}:
            raise ValueError("rows must be square, with a row and a column for each label")
        return self


class SamplePrediction(WireModel):
    """The prediction for one image (assumed form); all values are optional.

    ``predicted`` is the predicted category, ``confidence`` its probability from 0 to 1, and ``actual`` the true
    category, if it is known.
    """

    file_name: Text = None
    predicted: Text = None
    confidence: Fraction = None
    actual: Text = None


class JobResult(WireModel):
    """The result of a job (assumed): the ids of its kind, the end of a rental, metrics by name, and what they rest on.

    ``confusion_matrix`` is that of the images with which the metrics were measured, and ``samples`` has the predictions
    for at most 50 images. Both are for people to look at: XComs do not have them.
    """

    model_id: OptionalId = None
    dataset_id: OptionalId = None
    conversion_id: OptionalId = None
    device_id: OptionalId = None
    expires_at: Text = None
    metrics: Annotated[dict[str, Any] | None, none_if_invalid] = None
    confusion_matrix: Annotated[ConfusionMatrix | None, none_if_invalid] = None
    samples: Annotated[
        Annotated[tuple[SamplePrediction, ...], Field(max_length=MAX_SAMPLES)] | None, none_if_invalid
    ] = None


class JobReferences(TypedDict, total=False):
    """The result of a task that waited for a job: what the job is, the ids of its results, and its metrics.

    ``kind``, ``job_id``, ``state`` and ``metrics`` are always there, the others if OSAI reports them, and ``simulated``
    only for a job that the sandbox simulated.
    """

    kind: Required[str]
    job_id: Required[str]
    state: Required[str]
    metrics: Required[dict[str, Any]]
    model_id: str
    dataset_id: str
    conversion_id: str
    device_id: str
    expires_at: str
    simulated: bool


class Job(WireModel):
    """One OSAI worker task (assumed form).

    ``kind`` and ``state`` are ours: the request determines the kind, and the contract maps ``status`` to the state.
    ``progress`` is 0 to 1. Times are the server's unparsed text. ``simulated`` (assumed, sandbox only; default
    ``False``) means that the work was not really done and the result is made up. ``invalid_data`` (assumed; default
    ``False``) of a failed job means that its data or arguments are the reason, so that it would fail again.
    """

    kind: JobKind
    id: WireId
    state: JobState
    status: str = ""
    reference: Text = None
    progress: Fraction = None
    created_at: Text = None
    started_at: Text = None
    finished_at: Text = None
    message: Text = None
    result: Annotated[JobResult | None, none_or_id_error] = None
    history: Annotated[tuple[Epoch, ...] | None, none_if_invalid] = None
    simulated: Flag = False
    invalid_data: Flag = False

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def is_ready(self) -> bool:
        """Whether a rented device is usable: the rental is running and names the device."""
        return self.state is JobState.RUNNING and self.result is not None and self.result.device_id is not None

    def references(self) -> JobReferences:
        """Return a task's result: ``kind``, ``job_id``, ``state``, the ids of the result, ``expires_at``, ``metrics``.

        ``simulated`` is included, as ``True``, only for a simulated job; results of a real OSAI do not have the key.
        The confusion matrix and the samples are left out, since XComs should be small.
        """
        result = self.result or JobResult()
        references: dict[str, Any] = {"kind": self.kind.value, "job_id": self.id, "state": self.state.value}
        references |= result.model_dump(exclude={"metrics", "confusion_matrix", "samples"}, exclude_none=True)
        references["metrics"] = result.metrics or {}
        if self.simulated:
            references["simulated"] = True
        return cast("JobReferences", references)


class User(WireModel):
    """The signed-in user. The call is documented, its fields are not."""

    id: Text = None
    name: Text = None
    email: Text = None


class Dataset(WireModel):
    """A dataset; ``id`` is documented. ``locked`` (assumed) means that an upload is open.

    ``updated_at`` (assumed) is the time of the last change to its data, as the server's unparsed text.
    """

    id: WireId
    name: Text = None
    locked: Annotated[bool | None, none_if_invalid] = None
    image_count: Annotated[int | None, none_if_invalid] = None
    updated_at: Text = None


class Category(WireModel):
    """A category of images in a dataset."""

    id: WireId
    name: Text = None
    dataset_id: OptionalId = None


class Upload(WireModel):
    """An open upload; while it is open, its dataset is locked."""

    id: WireId = Field(validation_alias=AliasChoices("id", "datasetUploadId", "uploadId"))


class Image(WireModel):
    """An image of a dataset (assumed); ``digest`` is the hexadecimal SHA-256 of its file.

    ``category`` is the name of its category, for APIs that have it in place of ``category_id``.
    """

    id: OptionalId = None
    file_name: Text = None
    digest: Text = None
    category_id: OptionalId = None
    category: Text = None
    annotations: Any = None


class Model(WireModel):
    """A trained model (assumed). ``created_at`` is the server's unparsed text."""

    id: WireId
    name: Text = None
    model_type: Text = None
    metrics: Annotated[dict[str, Any] | None, none_if_invalid] = None
    created_at: Text = None


class Conversion(WireModel):
    """The conversion of a model for a hardware target: finished, in progress or unsupported (assumed).

    ``state`` is ours, as for a job. ``job_id`` is missing if the conversion and its job share one id. ``simulated`` is
    that of the job.
    """

    id: WireId
    target: Text = None
    state: JobState
    status: str = ""
    message: Text = None
    job_id: OptionalId = None
    simulated: Flag = False
