"""What a manipulation does to the images of a dataset, as typed operations, and the request that holds them.

The three operations and the ranges of angle, contrast, brightness and a rotation's ``generate`` are documented
(docs.onestepai.com/datasets/data_augumentation); their names on the wire, their ``type`` words, the lower ends that are
not named there, and all that is marked so below are assumed.

An operation is a dict, so Airflow renders, maps, stores and hands it on as it does any other; it is checked when it is
made, and as a whole when the job is submitted.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.naming import folded
from airflow_provider_osai.api.requests import Id, JobRequest, Name, Request

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
"""Turned images that OSAI makes of one image at the most (documented)."""
STAND_IN: Final = 1
"""A value that every field takes, for one that is not known yet."""


class RotationStep(Request):
    """The rules of a :class:`Rotation`."""

    type: Literal["rotation"] = "rotation"
    angle: float = Field(gt=0, le=360)
    generate: int = Field(default=1, ge=1, le=MAX_GENERATED)
    crop_threshold: float | None = Field(default=None, ge=0, le=100)


class BrightnessContrastStep(Request):
    """The rules of a :class:`BrightnessContrast`."""

    type: Literal["brightness_contrast"] = "brightness_contrast"
    contrast: float = Field(ge=0.1, le=3)
    brightness: float = Field(ge=0, le=255)
    generate: int = Field(default=1, ge=1)


class ResizeStep(Request):
    """The rules of a :class:`Resize`."""

    type: Literal["resize"] = "resize"
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Operation(dict[str, Any]):
    """One operation, as a dict with its ``type``. Use the classes below.

    A value may be a template or an XComArg: it is checked once it is known.

    :raises OsaiArgumentError: if a value that is known breaks a rule.
    """

    rules: ClassVar[type[Request]]

    def __init__(self, **values: Any) -> None:
        self.rules(**{name: STAND_IN if _comes_later(value) else value for name, value in values.items()})
        said = {name: value for name, value in values.items() if value is not None}
        super().__init__(type=self.rules.model_fields["type"].default, **said)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.items() if name != "type")
        return f"{type(self).__name__}({shown})"


class Rotation(Operation):
    """Adds turned images.

    :param angle: degrees by which an image is turned at the most, above 0 and up to 360. That it is the most, and to
        both sides, is assumed.
    :param generate: turned images that are made of each image at the most, 1 to 35, default 1 (assumed). That the
        image itself stays beside them, and does not count, is assumed.
    :param crop_threshold: how much of the image may be cut off to be rid of the empty corners, in per cent of its
        area, 0 to 100; a turned image that would lose more is left out. Unit, range and meaning are assumed. Default:
        nothing is said, so OSAI's own default holds; the sandbox then cuts nothing off.
    """

    rules = RotationStep

    def __init__(
        self, *, angle: float | str, generate: int | str = 1, crop_threshold: float | str | None = None
    ) -> None:
        super().__init__(angle=angle, generate=generate, crop_threshold=crop_threshold)


class BrightnessContrast(Operation):
    """Adds images that are lighter or darker, with more or less contrast.

    :param contrast: factor, 0.1 to 3.0; 1 leaves the contrast as it is. That each image that is made has just this
        contrast is assumed.
    :param brightness: variation: levels (of 256) by which an image is made lighter or darker at the most, 0 to 255.
    :param generate: images that are made of each image at the most, from 1 on, default 1 (assumed); whether there is
        a highest number is not described. That the image itself stays beside them, and does not count, is assumed.
    """

    rules = BrightnessContrastStep

    def __init__(self, *, contrast: float | str, brightness: float | str, generate: int | str = 1) -> None:
        super().__init__(contrast=contrast, brightness=brightness, generate=generate)


class Resize(Operation):
    """Gives every image another size, in place of its own. Its fields are assumed; the vendor only names it.

    :param width: pixels, from 1 on.
    :param height: pixels, from 1 on. The images' proportions are not kept (assumed).
    """

    rules = ResizeStep

    def __init__(self, *, width: int | str, height: int | str) -> None:
        super().__init__(width=width, height=height)


def _comes_later(value: Any) -> bool:
    """Whether Airflow fills the value in when the task runs: a template, or something that resolves then."""
    return ("{{" in value or "{%" in value) if isinstance(value, str) else hasattr(value, "resolve")


def _parsed(value: Any) -> Any:
    """Read a text as JSON, which is what a template makes of a list or of an object."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        msg = "text must be JSON; in a template write {{ ... | tojson }}"
        raise ValueError(msg) from None


def _listed(value: Any) -> Any:
    value = _parsed(value)
    return [value] if isinstance(value, dict) else value


def _worded(value: Any) -> Any:
    """Give an operation's type its own spelling, whatever case and gaps it was written with."""
    value = _parsed(value)
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        own = {folded(word): word for word in ("rotation", "brightness_contrast", "resize")}
        return {**value, "type": own.get(folded(value["type"]), value["type"])}
    return value


def _once_each(steps: list[Any]) -> list[Any]:
    kinds = [step.type for step in steps]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        msg = f"each operation may be there once, but there are several of: {', '.join(twice)}"
        raise ValueError(msg)
    return steps


Step = Annotated[
    Annotated[RotationStep | BrightnessContrastStep | ResizeStep, Field(discriminator="type")],
    BeforeValidator(_worded),
]


class ManipulationRequest(JobRequest):
    """Make a new, larger dataset out of one, by operations in their order (/datasets/data_augumentation).

    ``operations`` takes typed ones, dicts with a ``type``, one alone, or all that as JSON text.
    """

    kind = JobKind.MANIPULATION
    dataset_id: Id
    name: Name
    operations: Annotated[list[Step], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_once_each)]
