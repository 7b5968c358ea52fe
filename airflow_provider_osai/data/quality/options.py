"""The thresholds of the data quality check."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.data.log_lines import quoted
from airflow_provider_osai.data.quality.rules import RULES
from airflow_provider_osai.data.scan import MIN_TRAINING_IMAGES

__all__ = ["HASH_BITS", "MAX_PIXELS", "QualityOptions"]

HASH_BITS: Final = 256
"""Bits of a perceptual hash."""
MAX_PIXELS: Final = 89_478_485
"""Pillow's own limit, a quarter of a GiB of RGB pixels."""


def _as_tuple(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [code for code in codes if code not in RULES]:
        msg = f"unknown codes: {', '.join(unknown)}; known are {', '.join(sorted(RULES))}"
        raise ValueError(msg)
    return codes


class QualityOptions(BaseModel):
    """The thresholds of the data quality check. All are this package's choice; OSAI documents only ``min_images``.

    :param min_side: minimum width and height of an image in pixels, default 32.
    :param max_pixels: maximum pixels of an image, default 89,478,485; a larger one is not decoded.
    :param min_images: minimum images of a category, default 3 (documented: docs.onestepai.com/pl/model-creation-and-
        training). 0 accepts any number.
    :param max_imbalance: maximum ratio of the largest to the smallest category, default 10.
    :param near_duplicates: whether to look for near-duplicates, default true.
    :param max_hash_distance: maximum number of different bits, of 256, in the perceptual hashes of near-duplicates,
        0 to 32, default 12.
    :param min_box_side: minimum width and height of a box in pixels, default 4.
    :param ignore: codes of findings that are left out; a sequence, or text separated by commas.
    :param max_items: maximum number of files or groups that a finding names, 1 to 1,000, default 20.
    :param workers: number of threads that decode images, 1 to 32; default: the number of CPUs, at most 4.
    :raises OsaiArgumentError: if a value is invalid or an option is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_side: int = Field(default=32, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=2 * MAX_PIXELS)
    min_images: int = Field(default=MIN_TRAINING_IMAGES, ge=0)
    max_imbalance: float = Field(default=10.0, ge=1, allow_inf_nan=False)
    near_duplicates: bool = True
    max_hash_distance: int = Field(default=12, ge=0, le=32)
    min_box_side: float = Field(default=4.0, ge=0, allow_inf_nan=False)
    ignore: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_check_codes)] = ()
    max_items: int = Field(default=20, ge=1, le=1_000)
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 4), ge=1, le=32)

    def __init__(self, **values: Any) -> None:
        self._check_names(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OsaiArgumentError.from_validation("Data quality options", error) from None

    @classmethod
    def _check_names(cls, names: Collection[str], others: Collection[str] = ()) -> None:
        known = {*cls.model_fields, *others}
        if unknown := sorted(set(names) - known):
            raise OsaiArgumentError(
                f"Data quality options: unknown {', '.join(map(quoted, unknown))}; the options are "
                f"{', '.join(sorted(known))}"
            )

    @classmethod
    def of(cls, options: QualityOptions | Mapping[str, Any] | None, others: Collection[str] = ()) -> QualityOptions:
        """Return the options that a user gave as an object or a dict; ``None`` means the defaults.

        :param others: names that the caller has taken out of the dict, for the error that lists the known ones.
        :raises OsaiArgumentError: if they are neither, or a value is invalid.
        """
        if isinstance(options, QualityOptions):
            return options
        if options is not None and not isinstance(options, Mapping):
            raise OsaiArgumentError(f"Data quality options = {str(options)[:200]!r}: must be a dict")
        values = {str(name): value for name, value in (options or {}).items()}
        cls._check_names(values, others)
        return cls(**values)
