"""What we ask OSAI to do, as pydantic models that refuse bad values before anything is sent.

A bad value raises :class:`~airflow_provider_osai.api.errors.OsaiArgumentError`. Values may come from rendered
templates, so numbers may be text; what Jinja leaves of a missing value (``""``, ``"None"``) is refused as an id.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind

__all__ = [
    "CategoryRequest",
    "ConversionRequest",
    "DatasetRequest",
    "DeviceRentalRequest",
    "Framework",
    "JobRequest",
    "ModelType",
    "OnBadFile",
    "PredictionMode",
    "PredictionRequest",
    "Request",
    "RetrainingRequest",
    "TrainingRequest",
    "UploadRequest",
    "present",
]


class _Word(StrEnum):
    """A word of a closed list, accepted in any case."""

    @classmethod
    def _missing_(cls, value: object) -> _Word | None:
        folded = str(value).strip().casefold()
        return next((word for word in cls if word.value == folded), None)


class ModelType(_Word):
    """What a model does. The two types are documented; their words on the wire are assumed."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


class Framework(_Word):
    """What trains a model. The three frameworks are documented; their words on the wire are assumed."""

    DARKNET = "darknet"
    TENSORFLOW = "tensorflow"
    PYTORCH = "pytorch"


class PredictionMode(_Word):
    """Which images a prediction labels. The three modes are documented (/predictor); their words are assumed."""

    ALL = "all"
    REPLACE = "replace"
    UNANNOTATED = "unannotated"


class OnBadFile(_Word):
    """What an upload does with a file that cannot be uploaded."""

    FAIL = "fail"
    SKIP = "skip"


def present(value: str) -> str:
    """Return an id without the white space around it; raise OsaiArgumentError if there is none.

    "None" is what a template leaves of a missing XCom.
    """
    value = value.strip()
    if value in ("", "None", "null"):
        raise OsaiArgumentError("an id is missing; does the task that it comes from return one?")
    return value


def _model_name(value: str) -> str:
    if not (1 <= len(value) <= 50 and value.isascii() and value.replace("-", "").isalnum()):
        msg = "a model name has 1 to 50 characters: Latin letters, digits and hyphens only"
        raise ValueError(msg)
    return value


def _name(value: str) -> str:
    if not value.strip():
        msg = "a name must not be empty"
        raise ValueError(msg)
    return value.strip()


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (str, int)) else value


Id = Annotated[str, AfterValidator(present)]
Ids = Annotated[list[Id], BeforeValidator(_listed), Field(min_length=1)]
Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]


class Request(BaseModel):
    """Something we send: strict about names and values. Raises OsaiArgumentError where pydantic would its own."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,  # most who import this use few of them
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OsaiArgumentError.from_validation(type(self).__name__, error) from None

    def wire(self) -> dict[str, Any]:
        """Return the fields under their names in our contract; what is ``None`` stays out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class DatasetRequest(Request):
    """A new dataset (docs.onestepai.com/how_to_use_api/image_upload)."""

    name: Name


class CategoryRequest(Request):
    """A new category of a dataset (same page)."""

    dataset_id: Id
    name: Name


class UploadRequest(Request):
    """How images are to be sent. It is ours: OSAI is sent one image at a time."""

    dataset_id: Id
    max_concurrency: int = Field(default=10, ge=1, le=64)
    on_bad_file: OnBadFile = OnBadFile.FAIL


class JobRequest(Request):
    """Work for OSAI's queue. ``reference`` and ``webhookUrl`` join it when it is submitted."""

    kind: ClassVar[JobKind]


class TrainingRequest(JobRequest):
    """Train a model. A template or a pretrained model fills in all parameters (/pl/model-creation-and-training)."""

    kind = JobKind.TRAINING
    dataset_ids: Ids
    model_name: ModelName
    model_type: ModelType = ModelType.CLASSIFICATION
    framework: Framework | None = None
    pretrained_model: Name | None = None
    template: Name | None = None
    parameters: dict[str, Any] | None = None


class RetrainingRequest(JobRequest):
    """Train an existing model further, into a new model."""

    kind = JobKind.RETRAINING
    model_id: Id
    dataset_ids: Ids
    model_name: ModelName
    parameters: dict[str, Any] | None = None


class ConversionRequest(JobRequest):
    """Convert a model for a kind of hardware. OSAI's target names are not described."""

    kind = JobKind.CONVERSION
    model_id: Id
    target: Name


class PredictionRequest(JobRequest):
    """Label the images of a dataset with a model (/predictor)."""

    kind = JobKind.PREDICTION
    model_id: Id
    dataset_id: Id
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    mode: PredictionMode = PredictionMode.ALL


class DeviceRentalRequest(JobRequest):
    """Rent a device; ``duration`` in seconds."""

    kind = JobKind.DEVICE_RENTAL
    device: Name
    duration: int = Field(gt=0)
