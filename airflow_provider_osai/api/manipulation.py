"""The typed operations of a manipulation, which changes the images of a dataset, and its request.

The three operations and the ranges of angle, contrast, brightness and a rotation's ``generate`` are documented
(docs.onestepai.com/datasets/data_augumentation). Their names on the wire, their ``type`` words, the lower limits not
named there, and everything marked so below are assumed.

An operation is a dict, so Airflow renders, maps, serializes and passes it like any other value. It is validated when it
is created, and again when the job is submitted.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import Id, JobRequest, Name, Request
from airflow_provider_osai.api.text import normalize_word

__all__ = [
    "BrightnessContrast",
    "BrightnessContrastStep",
    "ManipulationRequest",
    "Operation",
    "Resize",
    "ResizeStep",
    "Rotation",
    "RotationStep",
]

MAX_GENERATED: Final = 35
"""Maximum rotated images that OSAI generates from one image (documented)."""
PLACEHOLDER: Final = 1
"""A value that is valid for every field, in place of one that is rendered later."""


class RotationStep(Request):
    """Validates a :class:`Rotation`."""

    type: Literal["rotation"] = "rotation"
    angle: float = Field(gt=0, le=360)
    generate: int = Field(default=1, ge=1, le=MAX_GENERATED)
    crop_threshold: float | None = Field(default=None, ge=0, le=100)


class BrightnessContrastStep(Request):
    """Validates a :class:`BrightnessContrast`."""

    type: Literal["brightness_contrast"] = "brightness_contrast"
    contrast: float = Field(ge=0.1, le=3)
    brightness: float = Field(ge=0, le=255)
    generate: int = Field(default=1, ge=1)


class ResizeStep(Request):
    """Validates a :class:`Resize`."""

    type: Literal["resize"] = "resize"
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Operation(dict[str, Any]):
    """Base of the operations: a dict with a ``type``. Use the classes below.

    A value may be a template or an XComArg; it is validated after it is rendered.

    :raises OsaiArgumentError: if a known value is invalid.
    """

    rules: ClassVar[type[Request]]

    def __init__(self, **values: Any) -> None:
        self.rules(**{name: PLACEHOLDER if _is_rendered_later(value) else value for name, value in values.items()})
        given = {name: value for name, value in values.items() if value is not None}
        super().__init__(type=self.rules.model_fields["type"].default, **given)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.items() if name != "type")
        return f"{type(self).__name__}({shown})"


class Rotation(Operation):
    """Adds rotated images.

    :param angle: the maximum rotation in degrees, above 0 and at most 360. That it is a maximum, and applies in both
        directions, is assumed.
    :param generate: the maximum number of rotated images generated from each image, 1 to 35, default 1 (assumed). That
        the original image is kept, and does not count, is assumed.
    :param crop_threshold: the maximum share of the image that may be cropped to remove the empty corners, in per cent
        of its area, 0 to 100; a rotated image that would lose more is dropped. Unit, range and meaning are assumed. By
        default it is not sent, so OSAI's own default applies; the sandbox then crops nothing.
    """

    rules = RotationStep

    def __init__(
        self, *, angle: float | str, generate: int | str = 1, crop_threshold: float | str | None = None
    ) -> None:
        super().__init__(angle=angle, generate=generate, crop_threshold=crop_threshold)


class BrightnessContrast(Operation):
    """Adds images with changed brightness and contrast.

    :param contrast: the contrast factor, 0.1 to 3.0; 1 does not change the contrast. That each generated image has
        exactly this contrast is assumed.
    :param brightness: the maximum change of brightness in either direction, in levels (of 256), 0 to 255.
    :param generate: the maximum number of images generated from each image, at least 1, default 1 (assumed); whether
        there is an upper limit is not documented. That the original image is kept, and does not count, is assumed.
    """

    rules = BrightnessContrastStep

    def __init__(self, *, contrast: float | str, brightness: float | str, generate: int | str = 1) -> None:
        super().__init__(contrast=contrast, brightness=brightness, generate=generate)


class Resize(Operation):
    """Resizes each image. The fields are assumed; the vendor's documentation only names the operation.

    :param width: the width in pixels, at least 1.
    :param height: the height in pixels, at least 1. The aspect ratio is not kept (assumed).
    """

    rules = ResizeStep

    def __init__(self, *, width: int | str, height: int | str) -> None:
        super().__init__(width=width, height=height)


def _is_rendered_later(value: Any) -> bool:
    """Return whether Airflow renders or resolves the value when the task runs."""
    return ("{{" in value or "{%" in value) if isinstance(value, str) else hasattr(value, "resolve")


def _parse_json(value: Any) -> Any:
    """Parse a string as JSON, as a template renders a list or an object."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        msg = "a string must be JSON; in a template use {{ ... | tojson }}"
        raise ValueError(msg) from None


def _as_list(value: Any) -> Any:
    value = _parse_json(value)
    return [value] if isinstance(value, dict) else value


def _normalize_type(value: Any) -> Any:
    """Normalize the spelling of an operation's type."""
    value = _parse_json(value)
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        spellings = {normalize_word(word): word for word in ("rotation", "brightness_contrast", "resize")}
        return {**value, "type": spellings.get(normalize_word(value["type"]), value["type"])}
    return value


def _unique_types(steps: list[Any]) -> list[Any]:
    types = [step.type for step in steps]
    duplicates = sorted({name for name in types if types.count(name) > 1})
    if duplicates:
        msg = f"each type of operation is allowed once; duplicates: {', '.join(duplicates)}"
        raise ValueError(msg)
    return steps


Step = Annotated[
    Annotated[RotationStep | BrightnessContrastStep | ResizeStep, Field(discriminator="type")],
    BeforeValidator(_normalize_type),
]


class ManipulationRequest(JobRequest):
    """Create a new, larger dataset by applying operations in their order (/datasets/data_augumentation).

    ``operations`` accepts typed operations or dicts with a ``type``, a single one, or any of these as JSON text.
    """

    kind = JobKind.MANIPULATION
    dataset_id: Id
    name: Name
    operations: Annotated[list[Step], Field(min_length=1), BeforeValidator(_as_list), AfterValidator(_unique_types)]
