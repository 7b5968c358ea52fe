"""The log lines of an upload."""

from __future__ import annotations

import pytest

from airflow_provider_osai.data.log_lines import size_text
from airflow_provider_osai.uploads.progress import UploadProgress


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 kB"),
        (300, "0.3 kB"),
        (27_412, "27.4 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_234_567_890, "1,234.6 MB"),
    ],
)
def test_a_size_has_a_unit_that_fits(size, text):
    assert size_text(size) == text


def test_a_small_upload_is_not_logged_as_nothing():
    now = 0.0
    progress = UploadProgress(images=300, size=30_000, clock=lambda: now)
    now = 10.0
    progress.uploaded, progress.uploaded_bytes = 100, 10_000
    assert progress.log_line().endswith("10.0 kB of 30.0 kB, 10.0 images/s, 1.0 kB/s, about 20 s left")


@pytest.mark.parametrize(("uploaded", "skipped"), [(30_000, 0), (10_000, 20_000), (0, 30_000)])
def test_the_last_line_of_an_upload_has_no_remaining_time(uploaded, skipped):
    """Also if images were left out or uploaded earlier."""
    progress = UploadProgress(images=300, size=30_000)
    progress.uploaded_bytes, progress.skipped_bytes = uploaded, skipped
    assert "left" not in progress.log_line()
