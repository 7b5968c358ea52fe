"""Upload progress counters, progress log line, and the final summary."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NotRequired, TypedDict

from airflow_provider_osai.data.log_lines import size_text

__all__ = ["UploadProgress", "UploadSummary"]

MAX_INVALID_FILES: Final = 50
"""Maximum number of invalid files in the summary; the log has all of them."""
MAX_CATEGORIES: Final = 100
"""Maximum number of categories in the summary whose images are counted."""


class UploadSummary(TypedDict):
    """The result of an upload task.

    ``images``: images of the source that the dataset now has; ``bytes``: uploaded; ``invalid_files``: the first 50
    files that were left out, with the reason; ``images_by_category``: number of images of each of the first 100 of the
    ``categories``; ``data_digest``: SHA-256 of images, categories and annotations; ``quality``: the summary of the data
    quality check, if there was one.
    """

    dataset_id: str
    images: int
    uploaded: int
    skipped: int
    bytes: int
    invalid_files: dict[str, str]
    invalid_count: int
    categories: list[str]
    images_by_category: dict[str, int]
    data_digest: str
    quality: NotRequired[dict[str, Any]]


@dataclass(slots=True)
class UploadProgress:
    """Counts the images of an upload by result.

    :param images: number of images in the source.
    :param size: total size of these images in bytes.
    :param clock: monotonic time in seconds.
    :param uploaded: images uploaded by this try.
    :param skipped: images already in the dataset or uploaded by an earlier try.
    :param uploaded_bytes: size of the uploaded images.
    :param skipped_bytes: size of the skipped and invalid images.
    :param invalid_files: files that were not uploaded, with the reasons.
    :param keys: keys of the images that are now in the dataset.
    """

    images: int
    size: int
    clock: Callable[[], float] = time.monotonic
    uploaded: int = 0
    skipped: int = 0
    uploaded_bytes: int = 0
    skipped_bytes: int = 0
    invalid_files: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def as_dict(self) -> dict[str, Any]:
        """Return the progress as a JSON object; sizes in bytes, times in seconds."""
        seconds = max(self.clock() - self._started, 1e-3)
        rate = self.uploaded_bytes / seconds
        remaining = max(0, self.size - self.uploaded_bytes - self.skipped_bytes)
        return {
            "images": self.images,
            "uploaded": self.uploaded,
            "skipped": self.skipped,
            "invalid": len(self.invalid_files),
            "bytes": self.size,
            "bytes_sent": self.uploaded_bytes,
            "images_per_second": round(self.uploaded / seconds, 1),
            "seconds_left": round(remaining / rate) if rate else None,
        }

    def log_line(self) -> str:
        """Return the progress as a log line; without the remaining time if that is unknown or less than a second."""
        progress = self.as_dict()
        rate = self.uploaded_bytes / max(self.clock() - self._started, 1e-3)
        eta = f", about {progress['seconds_left']} s left" if progress["seconds_left"] else ""
        return (
            f"Uploaded {self.uploaded} of {self.images} images ({self.skipped} skipped as already in the dataset, "
            f"{len(self.invalid_files)} invalid), {size_text(self.uploaded_bytes)} of {size_text(self.size)}, "
            f"{progress['images_per_second']} images/s, {size_text(rate)}/s{eta}"
        )

    def summary(self, dataset_id: str, categories: Iterable[str], counts: Mapping[str, int]) -> UploadSummary:
        """Return the result of the upload task.

        :param counts: number of images by category.
        """
        return {
            "dataset_id": dataset_id,
            "images": self.uploaded + self.skipped,
            "uploaded": self.uploaded,
            "skipped": self.skipped,
            "bytes": self.uploaded_bytes,
            "invalid_files": dict(list(self.invalid_files.items())[:MAX_INVALID_FILES]),
            "invalid_count": len(self.invalid_files),
            "categories": sorted(categories),
            "images_by_category": dict(list(counts.items())[:MAX_CATEGORIES]),
            "data_digest": hashlib.sha256("".join(sorted(self.keys)).encode()).hexdigest(),
        }
