"""Check the images of an upload before anything is sent: log the findings, and fail if they are too bad."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from airflow_provider_osai.api.errors import OsaiQualityCheckFailed, sanitize_server_text
from airflow_provider_osai.api.requests import OnInvalidFile, UploadRequest, Validation
from airflow_provider_osai.data.quality import QualityOptions, QualityReport, QualitySummary, Severity, check_source
from airflow_provider_osai.data.quality.text_report import finding_line
from airflow_provider_osai.data.scan import ScanResult
from airflow_provider_osai.data.sources import Source

__all__ = ["validate_images"]

MAX_LINE: Final = 1_500
"""Maximum characters of a finding in the log."""
SETTINGS: Final = {
    "categories": "the argument categories",
    "holdout": "validate_options['holdout']",
    "max_pixels": "max_pixels in validate_options",
    "min_box_side": "min_box_side in validate_options",
    "min_images": "min_images_per_category",
    "min_side": "min_side in validate_options",
    "near_duplicates": "validate_options={'near_duplicates': False}",
}
"""What the operator calls the settings that remedies name."""
LEVELS: Final = {Severity.ERROR: logging.ERROR, Severity.WARNING: logging.WARNING}


def validate_images(
    source: Source,
    scan: ScanResult,
    request: UploadRequest,
    options: QualityOptions,
    *,
    holdout: Source | None = None,
    categories: Mapping[str, str] | None = None,
    annotations: bool = True,
    log: Callable[[int, str], object],
    is_stopped: Callable[[], bool],
) -> QualitySummary:
    """Check the images of an upload, and return the summary. Nothing is sent to OSAI.

    :param scan: the images, which may include invalid files.
    :param request: its ``validation`` is what to do with findings.
    :param holdout: images that the model is evaluated with.
    :param categories: categories of the holdout by pattern.
    :param annotations: whether to read the annotations of the holdout.
    :param log: called with the level and the text of each log line: one for each finding, and the verdict, which is an
        error if the task fails, and a warning if it does not in spite of errors.
    :param is_stopped: whether to stop.
    :raises OsaiQualityCheckFailed: if there are errors and ``validation`` is ``fail``, or any findings and it is
        ``strict``.
    :raises OsaiArgumentError: if the holdout has no images.
    :raises CheckStopped: if *is_stopped* returned true.
    """
    report = check_source(
        source,
        options,
        scan=scan,
        holdout=holdout,
        categories=categories,
        annotations=annotations,
        settings=SETTINGS,
        skips_invalid_files=request.on_invalid_file is OnInvalidFile.SKIP,
        progress=lambda line: log(logging.INFO, line),
        is_stopped=is_stopped,
    )
    for finding in report.findings:
        log(LEVELS[finding.severity], sanitize_server_text(f"Data quality: {finding_line(finding)}", MAX_LINE))
    is_strict = request.validation is Validation.STRICT
    fails = request.validation is not Validation.WARN and not report.is_ok(strict=is_strict)
    level = logging.ERROR if fails else logging.WARNING if report.errors else logging.INFO
    log(level, f"Data quality: {report.verdict_line()}")
    if fails:
        raise OsaiQualityCheckFailed(_message(report, strict=is_strict), report.summary())
    return report.summary()


def _message(report: QualityReport, *, strict: bool) -> str:
    codes = ", ".join(
        f"{finding.code} ({finding.count:,})"
        for finding in report.findings
        if strict or finding.severity is Severity.ERROR
    )
    return (
        f"source = {report.source!r}: {report.kinds(warnings=strict)}: {codes}; the lines above name the files. "
        "Nothing was uploaded. Correct the images, list codes to accept in validate_options={'ignore': ...}, or set "
        "validate='warn'"
    )
