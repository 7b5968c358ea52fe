"""The upload page: images by category, what was sent, skipped, and left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.data.quality.report import VERDICTS

if TYPE_CHECKING:
    from airflow_provider_osai.plugins.pages.queries import TaskRecord

__all__ = ["is_upload", "upload_values"]

OPERATOR: Final = "OsaiUploadImagesOperator"
FAILED: Final = "failed"
KEYS: Final = frozenset({"dataset_id", "uploaded", "skipped", "data_digest"})
"""Keys of an upload's result by which it is recognized."""


def is_upload(task: TaskRecord) -> bool:
    """Return whether the task uploads images: by its result, or by its operator if it has no result yet."""
    return task.result.keys() >= KEYS or task.operator == OPERATOR


def upload_values(task: TaskRecord) -> dict[str, Any]:
    """Return what the template shows of an upload."""
    result = task.result
    categories = result.get("categories")
    counts = result.get("images_by_category")
    counts = counts if isinstance(counts, dict) else {}
    invalid = result.get("invalid_files")
    quality = task.quality or result.get("quality")
    quality = quality if isinstance(quality, Mapping) else {}
    found = quality.get("findings")
    return {
        "verdict": VERDICTS.get(str(quality.get("verdict"))),
        "findings": [(str(code), count) for code, count in found.items()] if isinstance(found, Mapping) else [],
        "has_failed": task.state == FAILED,
        "has_failed_check": task.state == FAILED and _fails(task.fields.get("validate"), quality.get("verdict")),
        "is_done": result.keys() >= KEYS,
        "dataset_id": result.get("dataset_id"),
        "counts": [(label, result.get(name)) for name, label in _LABELS.items()],
        "bytes": result.get("bytes"),
        "categories": [(str(name), counts.get(name)) for name in (categories if isinstance(categories, list) else ())],
        "largest": max((count for count in counts.values() if isinstance(count, int)), default=0),
        "invalid_files": list(invalid.items()) if isinstance(invalid, dict) else [],
        "invalid_count": result.get("invalid_count") or 0,
        "data_digest": result.get("data_digest"),
    }


def _fails(validate: Any, verdict: Any) -> bool:
    """Return whether a verdict has failed the task."""
    mode = str(validate).strip().lower()
    return (verdict == "errors" and mode in ("fail", "strict")) or (verdict == "warnings" and mode == "strict")


_LABELS: Final = {
    "images": "Images in the dataset",
    "uploaded": "Sent",
    "skipped": "Skipped, already there",
    "invalid_count": "Invalid, left out",
}
