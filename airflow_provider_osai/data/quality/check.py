"""Check the images and annotations of a source: scan it, decode each image once, and apply the rules."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError
from airflow_provider_osai.data.images import looks_like_image
from airflow_provider_osai.data.quality import image_rules, label_rules
from airflow_provider_osai.data.quality.decoding import ImageFacts, decode_images, perceptual_hash_or_none
from airflow_provider_osai.data.quality.options import QualityOptions
from airflow_provider_osai.data.quality.report import FindingCollector, QualityReport, Severity
from airflow_provider_osai.data.quality.rules import SETTINGS, SKIPPED_FILE_CODES
from airflow_provider_osai.data.scan import ImageFile, NoImagesFound, ScanResult, scan_source
from airflow_provider_osai.data.sources import Source

__all__ = ["CheckStopped", "CheckedSource", "check_source", "holdout_error"]

LOG_INTERVAL: Final = 5.0
"""Seconds between two progress messages."""
EMPTY_SCAN: Final = ScanResult({}, {})
WITHOUT_PILLOW: Final = (
    "Images were not decoded, so unreadable images, sizes, colour modes and duplicates were not checked: Pillow is not "
    "installed. Install airflow-provider-osai[quality]"
)
WITHOUT_IMAGEHASH: Final = (
    "Near-duplicates were not looked for: ImageHash is not installed. Install airflow-provider-osai[quality], or use "
    "{near_duplicates}"
)


class CheckStopped(OsaiError):
    """The check was asked to stop before its end."""


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """The images of a source with what is known of them.

    :param source: the source.
    :param scan: its images, annotations and invalid files.
    :param facts: the decoded images and those that could not be decoded, by name.
    """

    source: Source
    scan: ScanResult
    facts: Mapping[str, ImageFacts]


def check_source(
    source: Source,
    options: QualityOptions | None = None,
    *,
    holdout: Source | None = None,
    scan: ScanResult | None = None,
    categories: Mapping[str, str] | None = None,
    annotations: bool = True,
    skips_invalid_files: bool = False,
    settings: Mapping[str, str] = SETTINGS,
    progress: Callable[[str], object] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> QualityReport:
    """Check a source, and return the report. The source is not changed; nothing is written.

    :param source: as :func:`.open_source` returns it.
    :param options: the thresholds; default: :class:`QualityOptions`.
    :param holdout: images that the model is evaluated with, compared with those of *source*.
    :param scan: the result of :func:`.scan_source`, if the source was scanned already.
    :param categories: categories by pattern, as for :func:`.scan_source`.
    :param annotations: whether to read annotation files.
    :param skips_invalid_files: whether the upload leaves out invalid files, which makes them warnings.
    :param settings: what messages call a setting, by its name in ``rules.SETTINGS``; default: as in Python.
    :param progress: called every 5 s with a message for a log.
    :param is_stopped: whether to stop; called for each image.
    :raises CheckStopped: if *is_stopped* returned true.
    :raises OsaiArgumentError: if the holdout cannot be read, or has no images.
    """
    options = options or QualityOptions()
    found = FindingCollector(options.max_items, options.ignore, settings)
    if skips_invalid_files:
        for code in SKIPPED_FILE_CODES:
            found.set_severity(code, Severity.WARNING)
    run = _Run(options, found, progress, is_stopped)
    if scan is None:
        scan = _scan(source, found, categories, annotations=annotations)
    full_scan, scan = scan, _labels_of(scan)
    checked = CheckedSource(source, scan, run.decode(source, scan))
    label_rules.check_invalid_files(scan, found)
    image_rules.check_images(checked.facts, scan, options, found)
    images = list(zip(_images_of(checked), _facts_of(checked), strict=True))
    image_rules.check_duplicates(images, options, found)
    label_rules.check_categories(scan, checked.facts, options, found)
    label_rules.check_annotations(full_scan, checked.facts, options, found)
    holdout_images = 0
    if holdout is not None:
        try:
            other = _labels_of(scan_source(holdout, categories, 0, annotations=annotations))
        except OsaiArgumentError as error:
            raise holdout_error(error, settings) from error
        holdout_images = len(other.images)
        others = CheckedSource(holdout, other, run.decode(holdout, other))
        image_rules.check_holdout(images, list(zip(_images_of(others), _facts_of(others), strict=True)), options, found)
        label_rules.check_holdout(scan, other, others.facts, found)
    image_files = scan.images.keys() | {name for name in scan.invalid_files if looks_like_image(name)}
    return QualityReport(
        source.label,
        len(scan.images),
        sum(image.size for image in scan.images.values()),
        scan.counts(),
        found.findings(),
        None if holdout is None else holdout.label,
        holdout_images,
        len(image_files),
        len(image_files & found.affected()),
        sorted(image_files & found.affected(Severity.ERROR)),
    )


def holdout_error(error: OsaiArgumentError, settings: Mapping[str, str] = SETTINGS) -> OsaiArgumentError:
    """Return the error of a source as one that names the holdout."""
    text, name = str(error), settings["holdout"]
    return OsaiArgumentError(text.replace("source", name, 1) if text.startswith("source = ") else f"{name}: {text}")


def _labels_of(scan: ScanResult) -> ScanResult:
    """Return the scan without the categories of folders, if it has annotations: then folders only sort the images."""
    read = scan.annotations
    is_annotated = any(read.boxes.values()) or read.incomplete or read.unclear
    return scan.without_folder_categories() if is_annotated else scan


def _scan(
    source: Source, found: FindingCollector, categories: Mapping[str, str] | None, *, annotations: bool
) -> ScanResult:
    try:
        return scan_source(source, categories, 0, annotations=annotations)
    except NoImagesFound:
        found.add("no-images", detail=source.label)
    except OsaiArgumentError as error:  # a corrupt or unsafe archive
        found.add("unreadable-source", detail=str(error))
    return EMPTY_SCAN


def _images_of(checked: CheckedSource) -> list[ImageFile]:
    return [checked.scan.images[name] for name, facts in checked.facts.items() if not facts.problem]


def _facts_of(checked: CheckedSource) -> list[ImageFacts]:
    return [facts for facts in checked.facts.values() if not facts.problem]


class _Run:
    """Decodes the sources of one check."""

    def __init__(
        self,
        options: QualityOptions,
        found: FindingCollector,
        progress: Callable[[str], object],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._options = options
        self._found = found
        self._progress = progress
        self._is_stopped = is_stopped
        self._has_pillow = importlib.util.find_spec("PIL") is not None
        self._hash = perceptual_hash_or_none() if options.near_duplicates and self._has_pillow else None
        if not self._has_pillow:
            found.set_severity("check-skipped", Severity.ERROR)
            found.add("check-skipped", detail=WITHOUT_PILLOW)
        elif options.near_duplicates and self._hash is None:
            found.add("check-skipped", detail=WITHOUT_IMAGEHASH.format_map(found.settings))

    def decode(self, source: Source, scan: ScanResult) -> dict[str, ImageFacts]:
        """Return the facts of the images of a source by name; none without Pillow.

        :raises CheckStopped: if the check was asked to stop.
        """
        facts: dict[str, ImageFacts] = {}
        if not self._has_pillow or not scan.images:
            return facts
        last_message = time.monotonic()
        decoded = decode_images(source, scan.images.keys(), self._options, self._hash, self._is_stopped)
        try:
            with warnings.catch_warnings():
                # Of odd metadata, and of images that are larger than max_pixels anyway.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.simplefilter("ignore", _bomb_warning())
                for each in decoded:
                    facts[each.name] = each
                    if time.monotonic() - last_message >= LOG_INTERVAL:
                        last_message = time.monotonic()
                        self._progress(f"Checked {len(facts):,} of {len(scan.images):,} images of {source.label!r}")
        except OsaiArgumentError as error:  # a corrupt archive
            self._found.add("unreadable-source", detail=str(error))
        if self._is_stopped():
            raise CheckStopped("The data quality check was stopped before its end")
        return facts


def _bomb_warning() -> Any:
    from PIL import Image

    return Image.DecompressionBombWarning
