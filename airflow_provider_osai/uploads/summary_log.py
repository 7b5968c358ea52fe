"""The log lines about a finished upload: its images by category, and why files were left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_provider_osai.api.errors import sanitize_server_text
from airflow_provider_osai.data.log_lines import plural
from airflow_provider_osai.data.scan import ScanResult
from airflow_provider_osai.jobs.log_group import group_lines, table_lines
from airflow_provider_osai.uploads.progress import UploadProgress

__all__ = ["MAX_CATEGORIES", "MAX_INVALID", "summary_lines"]

MAX_CATEGORIES: Final = 20
"""Maximum categories in the table."""
MAX_INVALID: Final = 10
"""Maximum invalid files with their reasons."""
MAX_REASON: Final = 300
"""Maximum characters of an invalid file's name and its reason."""


def summary_lines(dataset_id: str, scan: ScanResult, progress: UploadProgress) -> Iterator[str]:
    """Yield the lines of a group that the log viewer folds: categories, totals and invalid files.

    :param scan: the images of the source and their categories.
    :param progress: the counters at the end of the upload.
    """
    return group_lines(f"Summary of the upload into dataset {dataset_id}", _lines(scan, progress))


def _lines(scan: ScanResult, progress: UploadProgress) -> Iterator[str]:
    counts = scan.counts(progress.invalid_files)
    if counts:
        rows = [(name, f"{count:,}") for name, count in list(counts.items())[:MAX_CATEGORIES]]
        yield from table_lines([("category", "images"), *rows])
    if len(counts) > MAX_CATEGORIES:
        yield f"and {plural(len(counts) - MAX_CATEGORIES, 'more category', 'more categories')}"
    yield (
        f"Uploaded {progress.uploaded:,}, skipped {progress.skipped:,} as already in the dataset, "
        f"invalid {len(progress.invalid_files):,}"
    )
    for name, reason in list(progress.invalid_files.items())[:MAX_INVALID]:
        yield f"Invalid: {sanitize_server_text(f'{name}: {reason}', MAX_REASON)}"
    if len(progress.invalid_files) > MAX_INVALID:
        yield f"and {plural(len(progress.invalid_files) - MAX_INVALID, 'more invalid file')}"
