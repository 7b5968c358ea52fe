"""Pydantic models of requests to OSAI, which reject invalid values before anything is sent.

An invalid value raises :class:`~airflow_provider_osai.api.errors.OsaiArgumentError`. Values may come from rendered
templates, so numbers may be strings; a missing value rendered by Jinja (``""``, ``"None"``) is rejected as an id.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.text import id_error

__all__ = [
    "EMPTY_TEMPLATE_VALUES",
    "CategoryRequest",
    "ConversionRequest",
    "DatasetRequest",
    "DeviceRentalRequest",
    "Framework",
    "JobRequest",
    "ModelType",
    "OnInvalidFile",
    "PredictionMode",
    "PredictionRequest",
    "Request",
    "RetrainingRequest",
    "TrainingRequest",
    "UploadRequest",
    "Validation",
    "require_id",
]


class _Word(StrEnum):
    """An enumeration that ignores case."""

    @classmethod
    def _missing_(cls, value: object) -> _Word | None:
        normalized = str(value).strip().casefold()
        return next((word for word in cls if word.value == normalized), None)


class ModelType(_Word):
    """The type of a model. The two types are documented; their words on the wire are assumed."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"


class Framework(_Word):
    """The training framework. The three frameworks are documented; their words on the wire are assumed."""

    DARKNET = "darknet"
    TENSORFLOW = "tensorflow"
    PYTORCH = "pytorch"


class PredictionMode(_Word):
    """Which images to label. The modes are documented (/predictor); their words on the wire are assumed."""

    ALL = "all"
    REPLACE = "replace"
    UNANNOTATED = "unannotated"


class OnInvalidFile(_Word):
    """How an upload handles an invalid file."""

    FAIL = "fail"
    SKIP = "skip"


class Validation(_Word):
    """What findings of the data quality check do to an upload."""

    WARN = "warn"
    """They are logged."""
    FAIL = "fail"
    """Errors fail the task."""
    STRICT = "strict"
    """Errors and warnings fail the task."""


EMPTY_TEMPLATE_VALUES: Final = frozenset({"", "None", "null"})
"""What a template renders to if the XCom that it refers to is missing."""


def require_id(value: str) -> str:
    """Return an id without surrounding whitespace.

    :raises OsaiArgumentError: if it is empty (a missing XCom renders as "None"), has more than 1,000 characters, or
        contains an invalid character.
    """
    value = value.strip()
    if value in EMPTY_TEMPLATE_VALUES:
        raise OsaiArgumentError("The id is empty. Does the upstream task return one?")
    if reason := id_error(value):
        raise OsaiArgumentError(reason)
    return value


def _check_model_name(value: str) -> str:
    if not (1 <= len(value) <= 50 and value.isascii() and value.replace("-", "").isalnum()):
        msg = "must have 1 to 50 characters: Latin letters, digits and hyphens"
        raise ValueError(msg)
    return value


def _strip_name(value: str) -> str:
    if not value.strip():
        msg = "must not be empty"
        raise ValueError(msg)
    return value.strip()


def _check_unicode(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeError:
        msg = "must not contain lone surrogates"
        raise ValueError(msg) from None
    return value


def _none_if_empty(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip() in EMPTY_TEMPLATE_VALUES else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, int)) else value


Id = Annotated[str, AfterValidator(require_id)]
Ids = Annotated[list[Id], BeforeValidator(_as_list), Field(min_length=1)]
Name = Annotated[str, AfterValidator(_strip_name)]
Parameters = Annotated[dict[str, Any], AfterValidator(_check_unicode)]
ModelName = Annotated[str, AfterValidator(_check_model_name)]


class Request(BaseModel):
    """Base of the requests: strict about names and values; raises OsaiArgumentError instead of pydantic's error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,  # most importers use few of the models
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OsaiArgumentError.from_validation(type(self).__name__, error) from None

    def wire(self) -> dict[str, Any]:
        """Return the fields under their names in the contract, without those that are ``None``.

        :raises OsaiArgumentError: if a value cannot be serialized as JSON, such as a lone surrogate.
        """
        try:
            return self.model_dump(mode="json", by_alias=True, exclude_none=True)
        except ValueError as error:  # a pydantic or Unicode error
            raise OsaiArgumentError(f"{type(self).__name__}: a value cannot be serialized as JSON: {error}") from None


class DatasetRequest(Request):
    """A new dataset (docs.onestepai.com/how_to_use_api/image_upload)."""

    name: Name


class CategoryRequest(Request):
    """A new category of a dataset (docs.onestepai.com/how_to_use_api/image_upload)."""

    dataset_id: Id
    name: Name


class UploadRequest(Request):
    """The options of an upload. Not sent to OSAI, which receives one image per request."""

    dataset_id: Id
    max_concurrency: int = Field(default=10, ge=1, le=64)
    on_invalid_file: OnInvalidFile = OnInvalidFile.FAIL
    validation: Annotated[Validation | None, BeforeValidator(_none_if_empty)] = Field(default=None, alias="validate")


class JobRequest(Request):
    """Base of the job requests. ``reference`` and ``webhookUrl`` are added on submission."""

    kind: ClassVar[JobKind]


class TrainingRequest(JobRequest):
    """Train a model. A template or a pretrained model sets all parameters (/pl/model-creation-and-training)."""

    kind = JobKind.TRAINING
    dataset_ids: Ids
    model_name: ModelName
    model_type: ModelType = ModelType.CLASSIFICATION
    framework: Framework | None = None
    pretrained_model: Name | None = None
    template: Name | None = None
    parameters: Parameters | None = None


class RetrainingRequest(JobRequest):
    """Retrain an existing model into a new model."""

    kind = JobKind.RETRAINING
    model_id: Id
    dataset_ids: Ids
    model_name: ModelName
    parameters: Parameters | None = None


class ConversionRequest(JobRequest):
    """Convert a model for a hardware target. OSAI's target names are not documented."""

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
